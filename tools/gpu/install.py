"""Install a bundle on a machine that has PyTorch and no network, by that machine's own Python.

The environment takes nothing of the machine's packages but those that are named, by links: ONNX Runtime for CPUs among
them would break the one for GPUs. Needs pip and venv there; the repository is installed as it lies.
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
"""A carried package, and the one of the machine that it breaks."""


@dataclass(frozen=True)
class Installed:
    """`python`: the environment's interpreter. `notes`: what was not installed, and why."""

    python: Path
    notes: tuple[str, ...]


def install(bundle: Path, repository: Path, out: Path) -> Installed:
    """Make the environment `out` anew from what has arrived in `bundle`, and install the project into it.

    Raises BundleFault when the bundle is damaged, is for another Python, or lacks its base.
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
            raise BundleFault(f"{', '.join(missing)} is not in {bundle}: nothing works without it.")
        if missing:
            notes.append(f"{group.name} is not installed: {', '.join(missing)} did not arrive")
        else:
            wheels += join(group, bundle, work)
    _pip(python, "--no-deps", *map(str, wheels))
    carried = {_normal(wheel.name.split("-")[0]) for wheel in wheels}
    unwanted = carried | {other for own, other in _EITHER.items() if own in carried}
    (packages,) = (out / "lib").glob("python*/site-packages")
    notes += [f"{name} is not on this machine" for name in _link(contents.presumed, unwanted, packages)]
    source = work / "source"
    for name in _SOURCES:
        place = repository / name
        if place.is_dir():
            shutil.copytree(place, source / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            source.mkdir(exist_ok=True)
            shutil.copy(place, source / name)
    _pip(python, "--no-deps", "--no-build-isolation", str(source))
    shutil.rmtree(work)
    return Installed(python, tuple(notes))


def _pip(python: Path, *arguments: str) -> None:
    command = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-index"]
    subprocess.run([*command, "--disable-pip-version-check", "--no-compile", *arguments], check=True)


def _link(presumed: Iterable[str], unwanted: set[str], folder: Path) -> list[str]:
    """Link the packages `presumed`, and all that they need, into `folder`; returns those that are not there.

    Among the installed ones, for some look for others beside themselves: ONNX Runtime for CUDA's libraries.
    """
    waiting, seen, lacking = list(presumed), set(unwanted), list[str]()
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        try:
            found = distribution(name)
        except PackageNotFoundError:
            lacking += [name] if name in presumed else []
            continue
        waiting += _needs(found)
        for top in {path.parts[0] for path in found.files or ()} - {"..", "__pycache__"}:
            link = folder / top
            if not top.endswith(".pth") and not link.exists():
                link.symlink_to(Path(str(found.locate_file(top))).resolve())
    return sorted(lacking)


def _needs(found: Distribution) -> Iterator[str]:
    """Without what is only for an extra. A name that is for another platform does no harm: it is not there."""
    for line in found.requires or ():
        name = re.match(r"[A-Za-z0-9._-]+", line)
        if name and not re.search(r";.*\bextra\b", line):
            yield _normal(name[0])


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
