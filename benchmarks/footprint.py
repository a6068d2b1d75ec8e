"""What the lean runtime costs: python benchmarks/footprint.py BUNDLE GALLERY IMAGE

Installs the repository with `[cpu]` into a fresh environment and measures there: what that adds to an empty one, how
long importing the runtime takes, how long from a process's start until it has localised IMAGE and ended, and the
memory of that process beyond one that runs the same engine by ONNX Runtime alone, none of our code around it.
"""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parents[1]
ROUNDS = 5

IMPORT = """
import time; start = time.perf_counter()
import geodtr.runtime
print(time.perf_counter() - start)
"""
IMPORT_ALL = IMPORT.replace("geodtr.runtime", "geodtr.runtime.localizer")
_PEAK = "int(open('/proc/self/status').read().split('VmHWM:')[1].split()[0]) * 1024"
LOCALISE = f"""
import sys
from geodtr.export.cli.main import run
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


def size(folder: Path, *, byte_code: bool) -> int:
    """Bytes of the files below `folder` that are byte code, or of those that are not."""
    return sum(
        path.stat().st_size
        for path in folder.rglob("*")
        if path.is_file() and not path.is_symlink() and (path.suffix == ".pyc") == byte_code
    )


def main() -> None:
    bundle, gallery, image = (Path(argument).resolve() for argument in sys.argv[1:])
    with tempfile.TemporaryDirectory() as folder:
        lean = Path(folder) / "lean"
        subprocess.run([sys.executable, "-m", "venv", lean], check=True)
        before = {byte_code: size(lean, byte_code=byte_code) for byte_code in (False, True)}
        pip = [f"{lean}/bin/python", "-m", "pip", "install", "--quiet", "--constraint", f"{ROOT}/constraints.txt"]
        subprocess.run([*pip, f"{ROOT}[cpu]"], check=True)
        files, byte_code = (size(lean, byte_code=which) - before[which] for which in (False, True))
        print(f"installed: {files / 1e6:.0f} MB of files, and {byte_code / 1e6:.0f} MB of byte code that pip makes")
        measure(lean / "bin" / "python", bundle, gallery, image)


def measure(python: Path, bundle: Path, gallery: Path, image: Path) -> None:
    manifest = json.loads((bundle / "manifest.json").read_text())["ground"]
    how = manifest["spec"]["preprocessing"]
    localise = ["localize", image, "--bundle", bundle, "--gallery", gallery, "--json"]
    by_hand = [bundle / manifest["file"], how["height"], how["width"]]
    seconds: dict[str, list[float]] = {"import the runtime": [], "import all that localises": [], "localise": []}
    beyond = []
    for number in range(ROUNDS + 1):
        imported = [float(call(python, code)[1]) for code in (IMPORT, IMPORT_ALL)]
        taken, _, ours = call(python, LOCALISE, *localise)
        _, _, theirs = call(python, BY_HAND, *by_hand)
        if number:  # the first round fills the disk's cache
            for times, one in zip(seconds.values(), (*imported, taken), strict=True):
                times.append(one)
            beyond.append(int(ours.split()[-1]) - int(theirs.split()[-1]))
    for what, times in seconds.items():
        print(f"{what}: {median(times):.2f} s ({min(times):.2f} to {max(times):.2f})")
    least, most = min(beyond) / 1e6, max(beyond) / 1e6
    print(f"memory beyond the engine's: {median(beyond) / 1e6:.0f} MB ({least:.0f} to {most:.0f})")


def call(python: Path, code: str, *arguments: object) -> tuple[float, str, str]:
    """Seconds from the start of a fresh process to its end, and what it printed on both streams."""
    start = time.perf_counter()
    line = [str(python), "-c", code, *map(str, arguments)]
    done = subprocess.run(line, capture_output=True, text=True, check=True, cwd="/")
    return time.perf_counter() - start, done.stdout, done.stderr


if __name__ == "__main__":
    main()
