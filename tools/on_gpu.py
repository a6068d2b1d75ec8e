"""What this project does on an NVIDIA GPU, checked and measured: python3 tools/on_gpu.py --bundle .gpu --out OUT

One command, for a bare Linux machine with PyTorch and no network: installs what `make gpu-bundle` packed, as far as its
parts are there, and runs the checks, the most valuable first. OUT/gpu.json holds every figure as soon as it is known;
tools/gpu_page.py makes docs/gpu.md of it. Without --bundle, the checks run in the environment at hand. Exit code 0: all
passed or had nothing to check; 1: one has not; 2: no GPU, or a bundle that cannot be used; 130: interrupted.
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
    parser.add_argument("--bundle", type=Path, help="where the parts and manifest.json lie")
    parser.add_argument("--only", nargs="+", choices=names, default=names, help="some of the checks")
    parser.add_argument("--seconds", type=float, default=540, help="for all together, the installation too")
    parser.add_argument("--dry-run", action="store_true", help="on the CPU, with sizes that measure nothing")
    options, start = parser.parse_args(), time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        try:
            python, notes = Path(sys.executable), tuple[str, ...]()
            if options.bundle is not None:
                made = install(options.bundle, ROOT, Path(folder) / "environment")
                python, notes = made.python, made.notes
            machine = find_machine(python)
        except (BundleFault, subprocess.SubprocessError) as error:
            print(f"Nothing can be run here: {error}", file=sys.stderr)
            return 2
        if "GPU" not in machine and not options.dry_run:
            print("PyTorch finds no CUDA GPU here. To see that the checks work at all: --dry-run", file=sys.stderr)
            return 2
        work = Path(folder) / "work"
        work.mkdir()
        options.out.mkdir(parents=True, exist_ok=True)
        checks = [check for check in CHECKS if check.name in options.only]
        seconds = options.seconds - (time.monotonic() - start)
        plan = Plan(python, options.out.resolve(), work, options.dry_run, seconds, notes)
        found = {outcome.status for outcome in run_checks(checks, plan, machine).outcomes}
    return 130 if "interrupted" in found else 0 if found <= {"passed", "skipped"} else 1


if __name__ == "__main__":
    sys.exit(main())
