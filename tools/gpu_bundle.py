"""Pack the packages that a GPU machine without a network needs: python tools/gpu_bundle.py OUT

Packs wheels for Linux x86-64 and Python 3.12, of the versions in constraints.txt, into parts. Each part fits into 64
MiB together with the repository. Packages on the machine (tools/gpu/there.txt, mainly PyTorch) are left out. `base` is
required; `tensorrt-rtx` and `onnxruntime-gpu` are for the checks of these backends. tools/on_gpu.py installs the parts.
"""

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from gpu.parts import BASE, Contents, Group, cut, write_contents

ROOT = Path(__file__).resolve().parents[1]
PYTHON = "3.12"
PLATFORM = "x86_64-manylinux_2_28"
WHEELS = [f"manylinux_2_{minor}_x86_64" for minor in (28, 27, 26, 24, 17, 12, 5)] + ["manylinux2014_x86_64"]
GROUPS = {BASE: ("train", "export", "cpu"), "tensorrt-rtx": ("tensorrt-rtx",), "onnxruntime-gpu": ("gpu",)}
"""The extras of each group; later groups leave out packages of earlier ones."""
CARRIED = 64 << 20
BESIDE = 8 << 20
"""Minimum size of what is carried with a part: the repository, the manifest, and the small base."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument(
        "--there", type=Path, default=ROOT / "tools" / "gpu" / "there.txt", help="List of the machine's packages."
    )
    options = parser.parse_args()
    # A machine with PyTorch has its dependencies, in any versions.
    there = names(options.there.read_text()) | names("\n".join(resolve("torch", "torchvision")))
    if options.out.exists():
        shutil.rmtree(options.out)
    options.out.mkdir(parents=True)
    most = CARRIED - max(BESIDE, repository_bytes())
    seen, presumed, groups = set[str](), set[str](), list[Group]()
    for name, extras in GROUPS.items():
        # The project is installed from the repository, which needs the build backend.
        lines = resolve("pyproject.toml", "setuptools>=77", extras=extras)
        pinned = {next(iter(names(line))): line for line in lines}
        presumed |= pinned.keys() & there
        wanted = [line for package, line in pinned.items() if package not in there | seen]
        seen |= pinned.keys()
        with tempfile.TemporaryDirectory() as folder:
            groups.append(cut(name, download(wanted, Path(folder)), options.out, most))
        report(groups[-1])
    write_contents(options.out, Contents(PYTHON, tuple(sorted(presumed)), tuple(groups)))


def names(text: str) -> set[str]:
    """Normalised package names of a list with one package per line, with or without versions."""
    matches = (re.match(r"[A-Za-z0-9._-]+", line) for line in text.splitlines())
    return {re.sub(r"[-_.]+", "-", match[0]).lower() for match in matches if match}


def resolve(*wanted: str, extras: Sequence[str] = ()) -> list[str]:
    """`package==version` of all dependencies of `wanted`: packages, or the project's file with `extras`."""
    files = [each for each in wanted if each.endswith(".toml")]
    command = [str(Path(sys.executable).with_name("uv")), "pip", "compile", "--quiet", "-", *files]
    command += ["--constraint", "constraints.txt", "--no-annotate", "--no-header"]
    command += ["--python-version", PYTHON, "--python-platform", PLATFORM]
    command += [argument for extra in extras for argument in ("--extra", extra)]
    packages = "\n".join(each for each in wanted if each not in files)
    return subprocess.run(command, cwd=ROOT, input=packages, check=True, capture_output=True, text=True).stdout.split()


def download(wanted: list[str], folder: Path) -> list[Path]:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
    command += ["--python-version", PYTHON, "--implementation", "cp", "--dest", str(folder)]
    command += [argument for platform in WHEELS for argument in ("--platform", platform)]
    subprocess.run([*command, *wanted], check=True)
    return sorted(folder.iterdir())


def repository_bytes() -> int:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    return sum((ROOT / name).stat().st_size for name in listed.split("\0") if (ROOT / name).is_file())


def report(group: Group) -> None:
    print(f"{group.name}: {', '.join(wheel.name for wheel in group.wheels)}")
    for part in group.parts:
        print(f"  {part.name}: {part.bytes / (1 << 20):.1f} MiB")


if __name__ == "__main__":
    main()
