"""Measure size, start-up time and memory of the lean runtime: python benchmarks/footprint.py BUNDLE GALLERY IMAGE

Installs the repository with `[cpu]` into a new environment. Prints the added size with byte code, the import time of
the runtime, the wall time and CPU time of a process that localises IMAGE (CPU time depends less on other load), and its
memory beyond a process that runs the same engine with ONNX Runtime alone. `--json` prints every round;
tests/runtime/test_lean.py checks the limits.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
ROUNDS = 5

IMPORT = """
import time; start = time.perf_counter()
import geodtr.runtime
print(time.perf_counter() - start)
"""
IMPORT_ALL = IMPORT.replace("geodtr.runtime", "geodtr.runtime.localization.localizer")
_PEAK = "int(open('/proc/self/status').read().split('VmHWM:')[1].split()[0]) * 1024"
LOCALISE = f"""
import sys
from geodtr.cli.main import run
try: run(sys.argv[1:])
finally: print({_PEAK}, file=sys.stderr)
"""
BY_HAND = f"""
import sys
import numpy, onnxruntime
session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
session.run(None, {{"images": numpy.zeros((1, int(sys.argv[2]), int(sys.argv[3]), 3), numpy.uint8)}})
print({_PEAK}, file=sys.stderr)
"""


@dataclass(frozen=True, slots=True)
class Round:
    """Figures of one round, in seconds; `beyond_the_engine` in bytes."""

    import_runtime: float
    import_all_that_localises: float
    localise: float
    processor: float
    beyond_the_engine: int


@dataclass(frozen=True, slots=True)
class Footprint:
    """Bytes that the installation adds, and the rounds."""

    files: int
    byte_code: int
    rounds: list[Round]


def size(folder: Path, *, byte_code: bool) -> int:
    """Total bytes of the byte code below `folder`, or of all other files."""
    return sum(
        path.stat().st_size
        for path in folder.rglob("*")
        if path.is_file() and not path.is_symlink() and (path.suffix == ".pyc") == byte_code
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("bundle", "gallery", "image"):
        parser.add_argument(name, type=lambda text: Path(text).resolve())
    parser.add_argument("--environment", type=Path, help="New folder for the environment, which is then kept.")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        lean = (options.environment or Path(folder) / "lean").absolute()
        files, byte_code = install(lean)
        rounds = measure(lean / "bin" / "python", options.bundle, options.gallery, options.image)
    measured = Footprint(files, byte_code, rounds)
    print(json.dumps(asdict(measured)) if options.json else text_of(measured))


def install(lean: Path) -> tuple[int, int]:
    """Bytes of files and of byte code that `[cpu]` adds to an empty environment."""
    subprocess.run([sys.executable, "-m", "venv", lean], check=True)
    before = {byte_code: size(lean, byte_code=byte_code) for byte_code in (False, True)}
    pip = [f"{lean}/bin/python", "-m", "pip", "install", "--quiet", "--constraint", f"{ROOT}/constraints.txt"]
    subprocess.run([*pip, f"{ROOT}[cpu]"], check=True)
    return size(lean, byte_code=False) - before[False], size(lean, byte_code=True) - before[True]


def measure(python: Path, bundle: Path, gallery: Path, image: Path) -> list[Round]:
    manifest = json.loads((bundle / "manifest.json").read_text())["ground"]
    how = manifest["spec"]["preprocessing"]
    localise = ["localize", image, "--bundle", bundle, "--gallery", gallery, "--json"]
    by_hand = [bundle / manifest["file"], how["height"], how["width"]]
    rounds = list[Round]()
    for _ in range(ROUNDS + 1):
        runtime, everything = (float(call(python, code).out) for code in (IMPORT, IMPORT_ALL))
        ours, theirs = call(python, LOCALISE, *localise), call(python, BY_HAND, *by_hand)
        beyond = int(ours.err.split()[-1]) - int(theirs.err.split()[-1])
        rounds.append(Round(runtime, everything, ours.seconds, ours.processor, beyond))
    return rounds[1:]  # the first round fills the disk cache


def text_of(measured: Footprint) -> str:
    files, byte_code = measured.files / 1e6, measured.byte_code / 1e6
    lines = [f"installed: {files + byte_code:.0f} MB, {files:.0f} of files and {byte_code:.0f} of their byte code"]
    for name in ("import_runtime", "import_all_that_localises", "localise", "processor"):
        times = [getattr(one, name) for one in measured.rounds]
        lines.append(f"{name.replace('_', ' ')}: {median(times):.2f} s ({min(times):.2f} to {max(times):.2f})")
    beyond = [one.beyond_the_engine / 1e6 for one in measured.rounds]
    lines.append(f"memory beyond the engine's: {median(beyond):.0f} MB ({min(beyond):.0f} to {max(beyond):.0f})")
    return "\n".join(lines)


class Called(NamedTuple):
    """Wall time and CPU time of a process in seconds, and its output."""

    seconds: float
    processor: float
    out: str
    err: str


def call(python: Path, code: str, *arguments: object) -> Called:
    start, before = time.perf_counter(), os.times()
    line = [str(python), "-c", code, *map(str, arguments)]
    done = subprocess.run(line, capture_output=True, text=True, check=True, cwd="/")
    seconds, after = time.perf_counter() - start, os.times()
    processor = after.children_user + after.children_system - before.children_user - before.children_system
    return Called(seconds, processor, done.stdout, done.stderr)


if __name__ == "__main__":
    main()
