"""Measure the duration of `geodtr-export COMMAND --help`: python benchmarks/startup.py

Runs the help of every command in several interleaved rounds after a warm-up; prints median and range in seconds.
"""

import subprocess
import sys
import time
from statistics import median

from typer.models import CommandInfo

from geodtr.cli.main import app

ROUNDS = 5


def commands() -> list[str]:
    """Every command, as the user types it."""
    groups = {group.name: group.typer_instance for group in app.registered_groups}
    inner = [f"{name} {_name(entry)}" for name, group in groups.items() if group for entry in group.registered_commands]
    return [*(_name(entry) for entry in app.registered_commands), *inner]


def _name(entry: CommandInfo) -> str:
    return entry.name or (entry.callback.__name__ if entry.callback else "")


def main() -> None:
    times: dict[str, list[float]] = {command: [] for command in commands()}
    for number in range(ROUNDS + 1):
        for command, taken in times.items():
            start = time.perf_counter()
            line = [sys.executable, "-m", "geodtr.cli.main", *command.split(), "--help"]
            subprocess.run(line, check=True, capture_output=True)
            if number:
                taken.append(time.perf_counter() - start)
    for command, taken in times.items():
        print(f"{command:18} {median(taken):.2f} s ({min(taken):.2f} to {max(taken):.2f})")


if __name__ == "__main__":
    main()
