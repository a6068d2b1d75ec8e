"""Run the demo with many seeds, with one training run each, and check that all pass.

    python benchmarks/demo_seeds.py WORK [--first 0] [--count 20]
    python tools/avx2_only.py python benchmarks/demo_seeds.py WORK-avx2 --count 10

Prints a table in Markdown. WORK keeps each seed's report.json and exit code; finished seeds are not run again.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from geodtr.export.demo import REPORT

CODE = "exit_code"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--count", type=int, default=20)
    options = parser.parse_args()

    reports = dict[int, dict[str, Any]]()
    for seed in range(options.first, options.first + options.count):
        folder = options.work / f"seed-{seed}"
        if not (folder / CODE).is_file():
            run(seed, folder)
        reports[seed] = read(folder)
    print(f"Kernels: {kernels(reports)}\n")
    names = [each["name"] for each in next(iter(reports.values()))["parity"]["candidates"]]
    print("| seed | R@1 | " + " | ".join(f"{name}: lost, gained, verdict" for name in names) + " | minutes | exit |")
    print("| ---: | ---: |" + " --- |" * len(names) + " ---: | ---: |")
    for seed, report in reports.items():
        print("| " + " | ".join(row(seed, report)) + " |")
    return max(int(report[CODE]) for report in reports.values())


def run(seed: int, folder: Path) -> None:
    """Run the demo in a temporary folder; keep only its report and exit code in `folder`."""
    scratch = folder.with_name(f"{folder.name}.unfinished")
    shutil.rmtree(scratch, ignore_errors=True)
    program = str(Path(sys.executable).with_name("geodtr-export"))
    command = [program, "demo", "--seed", str(seed), "--out", str(scratch)]
    done = subprocess.run(command, stdout=subprocess.DEVNULL, check=False)
    if not (scratch / REPORT).is_file():
        sys.exit(f"The demo of seed {seed} ended with {done.returncode} and left no report; see {scratch}.")
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(scratch / REPORT, folder / REPORT)
    (folder / CODE).write_text(str(done.returncode))
    shutil.rmtree(scratch)


def read(folder: Path) -> dict[str, Any]:
    report: dict[str, Any] = json.loads((folder / REPORT).read_text())
    return {**report, CODE: int((folder / CODE).read_text())}


def kernels(reports: dict[int, dict[str, Any]]) -> str:
    if os.environ.get("GEODTR_AVX2_ONLY"):
        return "AVX2 only, by tools/avx2_only.py"
    return ", ".join(next(iter(reports.values()))["parity"]["machine"]["cpu_flags"])


def row(seed: int, report: dict[str, Any]) -> list[str]:
    cells = [str(seed), f"{100 * report['parity']['reference']['recall']['at_1']:.1f} %"]
    for candidate in report["parity"]["candidates"]:
        own = candidate["pairings"][0]["changes"][0]
        accepted = ", accepted undecided" if candidate["gate"]["accepted"] else ""
        cells.append(f"{own['lost']}, {own['gained']}, {candidate['gate']['verdict']}{accepted}")
    return [*cells, f"{sum(report['seconds'].values()) / 60:.1f}", str(report[CODE])]


if __name__ == "__main__":
    sys.exit(main())
