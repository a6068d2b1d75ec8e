"""Check and measure this project on an NVIDIA GPU: python3 tools/on_gpu.py --bundle .gpu --out OUT

Runs on a Linux machine with PyTorch and no network. Installs the available parts of `make gpu-bundle` and runs the
checks, the most valuable first. Every figure is written to OUT/gpu.json at once; tools/gpu_page.py writes docs/gpu.md
from it. Without --bundle, the checks run in the current environment. Exit codes: 0, all checks passed or were skipped;
1, a check did not pass; 2, no GPU or an unusable bundle; 130, interrupted.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from gpu.checks import CHECKS
from gpu.install import install
from gpu.parts import BundleFault
from gpu.runner import Plan, find_machine, run_checks

ROOT = Path(__file__).resolve().parents[1]


def main() -> int:
    names = [check.name for check in CHECKS]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--bundle", type=Path, help="Folder with the parts and manifest.json.")
    parser.add_argument("--only", nargs="+", choices=names, default=names, help="Checks to run.")
    parser.add_argument("--seconds", type=float, default=540, help="Time limit in total, including the installation.")
    parser.add_argument("--dry-run", action="store_true", help="Run on the CPU with small sizes; figures mean nothing.")
    options, start = parser.parse_args(), time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        try:
            python, notes = Path(sys.executable), tuple[str, ...]()
            if options.bundle is not None:
                installed = install(options.bundle, ROOT, Path(folder) / "environment")
                python, notes = installed.python, installed.notes
            machine = find_machine(python)
        except (BundleFault, subprocess.SubprocessError) as error:
            print(f"The checks cannot run: {error}", file=sys.stderr)
            return 2
        if "GPU" not in machine and not options.dry_run:
            print("PyTorch finds no CUDA GPU. To test the checks without one: --dry-run", file=sys.stderr)
            return 2
        work = Path(folder) / "work"
        work.mkdir()
        options.out.mkdir(parents=True, exist_ok=True)
        checks = [check for check in CHECKS if check.name in options.only]
        seconds = options.seconds - (time.monotonic() - start)
        plan = Plan(python, options.out.resolve(), work, options.dry_run, seconds, notes)
        statuses = {outcome.status for outcome in run_checks(checks, plan, machine).outcomes}
    return 130 if "interrupted" in statuses else 0 if statuses <= {"passed", "skipped"} else 1


if __name__ == "__main__":
    sys.exit(main())
