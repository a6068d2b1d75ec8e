"""A cache on disk for what is slow to build and the same in all tests, keyed by a hash of its inputs."""

import fcntl
import hashlib
import importlib.metadata
import os
import platform
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from checkout import ROOT

from geodtr.runtime.machine import this_cpu

CACHE = Path(os.environ.get("GEODTR_TEST_CACHE", ROOT / ".cache" / "tests")).absolute()
_ROOMS = ("runtime", "calibration", "training", "export")
_KEPT = 4
"""Number of source states that are kept, the most recently used ones; one takes about 60 MB."""


def build_once(name: str, make: Callable[[Path], None]) -> Path:
    """Return the folder that `make` fills, given its path. Tests must not write to it: other processes read it.

    Workers share it. Runs share it until one of its inputs changes: the four rooms below the command line, the file of
    `make`, all installed packages, the processor, or the number of threads. One process builds it while the others
    wait. A folder without the file that marks completion is built again. It is built at its final path and not renamed,
    because models record the absolute path of their training set.
    """
    state = CACHE / _state(Path(make.__code__.co_filename))
    folder, finished = state / name, state / f"{name}.finished"
    state.mkdir(parents=True, exist_ok=True)
    os.utime(state)
    with _alone(state / f"{name}.lock"):
        if not finished.exists():
            _remove_old()
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            make(folder)
            finished.touch()
    return folder


@cache
def _state(recipe: Path) -> str:
    sources = [path for room in _ROOMS for path in (ROOT / room).rglob("*") if path.suffix in (".py", ".toml", ".txt")]
    packages = {(each.name, each.version) for each in importlib.metadata.distributions()}
    about = (str(CACHE), platform.python_version(), this_cpu(), _threads(), sorted(packages))
    digest = hashlib.sha256(repr(about).encode())
    for path in [*sorted(sources), recipe]:
        digest.update(f"{path.relative_to(ROOT)}\0{path.stat().st_size}\0".encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def _threads() -> int:
    """PyTorch's threads, by which its sums are divided; 1 in the lean installation."""
    if find_spec("torch") is None:
        return 1
    import torch

    return torch.get_num_threads()


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Hold a file lock, which the system releases when the process ends."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _remove_old() -> None:
    states = sorted(CACHE.iterdir(), key=lambda path: path.stat().st_mtime, reverse=True)
    for state in states[_KEPT:]:
        shutil.rmtree(state, ignore_errors=True)
