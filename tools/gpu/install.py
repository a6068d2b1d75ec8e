"""Install a bundle on a machine with PyTorch and no network, with the machine's Python.

The environment links only the listed packages of the machine, because the CPU build of ONNX Runtime would break the GPU
build. Needs pip and venv; installs the repository from its folder.
"""

import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from gpu.parts import BASE, BundleFault, join, read_contents

_SOURCES = ("pyproject.toml", "README.md", "LICENSE", "geodtr", "runtime", "calibration", "training", "export", "cli")
_EITHER = {"onnxruntime-gpu": "onnxruntime"}
"""A package of the bundle -> the package of the machine that conflicts with it."""


@dataclass(frozen=True)
class Installed:
    """`python`: the environment's interpreter. `notes`: packages that are not installed, with the reason."""

    python: Path
    notes: tuple[str, ...]


def install(bundle: Path, repository: Path, out: Path) -> Installed:
    """Create the environment `out` from the parts in `bundle`, and install the project into it.

    Raises BundleFault when the bundle is damaged, is for another Python version, or lacks its base.
    """
    contents = read_contents(bundle)
    here = f"{sys.version_info.major}.{sys.version_info.minor}"
    if here != contents.python:
        raise BundleFault(f"The bundle is for Python {contents.python}, this is {here}.")
    if out.exists():
        shutil.rmtree(out)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(out)], check=True)
    python, work = out / "bin" / "python", out / "bundle"
    work.mkdir()
    notes, wheels = list[str](), list[Path]()
    for group in contents.groups:
        missing = group.missing(bundle)
        if missing and group.name == BASE:
            raise BundleFault(f"{bundle} lacks {', '.join(missing)}, which is required. Copy the bundle again.")
        if missing:
            notes.append(f"{group.name} is not installed: {', '.join(missing)} is missing")
        else:
            wheels += join(group, bundle, work)
    _pip(python, "--no-deps", *map(str, wheels))
    carried = {_normal(wheel.name.split("-")[0]) for wheel in wheels}
    unwanted = carried | {other for own, other in _EITHER.items() if own in carried}
    (packages,) = (out / "lib").glob("python*/site-packages")
    notes += [f"{name} is not on this machine" for name in _link(contents.presumed, unwanted, packages)]
    source = work / "source"
    for name in _SOURCES:
        path = repository / name
        if path.is_dir():
            shutil.copytree(path, source / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            source.mkdir(exist_ok=True)
            shutil.copy(path, source / name)
    _pip(python, "--no-deps", "--no-build-isolation", str(source))
    shutil.rmtree(work)
    return Installed(python, tuple(notes))


def _pip(python: Path, *arguments: str) -> None:
    command = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-index"]
    subprocess.run([*command, "--disable-pip-version-check", "--no-compile", *arguments], check=True)


def _link(presumed: Iterable[str], unwanted: set[str], folder: Path) -> list[str]:
    """Link the packages `presumed` and their dependencies into `folder`; return the missing ones.

    All are in one folder, because some packages look for others beside themselves: ONNX Runtime for CUDA's libraries.
    """
    waiting, seen, lacking = list(presumed), set(unwanted), list[str]()
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        try:
            package = distribution(name)
        except PackageNotFoundError:
            lacking += [name] if name in presumed else []
            continue
        waiting += _requirements(package)
        for top in {path.parts[0] for path in package.files or ()} - {"..", "__pycache__"}:
            link = folder / top
            if not top.endswith(".pth") and not link.exists():
                link.symlink_to(Path(str(package.locate_file(top))).resolve())
    return sorted(lacking)


def _requirements(package: Distribution) -> Iterator[str]:
    """Dependencies without extras. Packages for other platforms are harmless, because they are not installed."""
    for line in package.requires or ():
        name = re.match(r"[A-Za-z0-9._-]+", line)
        if name and not re.search(r";.*\bextra\b", line):
            yield _normal(name[0])


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
