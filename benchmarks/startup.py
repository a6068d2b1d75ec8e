"""How long `geodtr-export COMMAND --help` takes to answer: python benchmarks/startup.py

Runs every command's help in turn, several rounds, after one untimed round; prints median and range in seconds.
"""

import subprocess
import sys
import time
from statistics import median

COMMANDS = (
    "demo",
    "world",
    "train",
    "evaluate",
    "import-checkpoint",
    "export",
    "build-engine",
    "parity",
    "inspect",
    "embed",
    "gallery build",
    "gallery info",
    "localize",
)
ROUNDS = 5


def main() -> None:
    times: dict[str, list[float]] = {command: [] for command in COMMANDS}
    for number in range(ROUNDS + 1):
        for command, taken in times.items():
            start = time.perf_counter()
            line = [sys.executable, "-m", "geodtr.export.cli.main", *command.split(), "--help"]
            subprocess.run(line, check=True, capture_output=True)
            if number:
                taken.append(time.perf_counter() - start)
    for command, taken in times.items():
        print(f"{command:18} {median(taken):.2f} s ({min(taken):.2f} to {max(taken):.2f})")


if __name__ == "__main__":
    main()
