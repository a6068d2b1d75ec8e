"""File names of a training run, and checks that the files exist.

Does not import PyTorch, which takes seconds, so that a wrong path fails at once.
"""

from pathlib import Path

from geodtr.runtime.errors import CheckpointError
from geodtr.runtime.files.own_kinds import STATE, own_kind

LAST, BEST = "last.safetensors", "best.safetensors"
"""Checkpoints in a run's folder: of the last epoch, and of the highest validated R@1 so far."""
NEIGHBOURS = "neighbours.npz"
"""The lists of similar pairs that batches are filled from."""
CONFIG = "config.toml"
"""The resolved configuration, in the format of a preset."""


def resolve_checkpoint(path: Path) -> Path:
    """The checkpoint file for `path`: itself, or the newest one in the folder of a training run."""
    return path / LAST if path.is_dir() else path


def find_checkpoint(path: Path) -> Path:
    """Like resolve_checkpoint, but raises CheckpointError when the file does not exist."""
    file = resolve_checkpoint(path)
    if not file.is_file():
        kind = own_kind(path)
        instead = f"{path} is a {kind}" if kind in ("bundle", "gallery") else "Check the path"
        raise CheckpointError(f"{file} is not a checkpoint file. {instead}; `geodtr-export train` writes one.")
    return file


def check_run(out: Path) -> None:
    """Raise CheckpointError when the folder `out` holds no resumable run."""
    files = [out / name for name in (STATE, CONFIG)]
    if any(file.is_file() for file in files) and not all(file.is_file() for file in files):
        raise CheckpointError(f"The run in {out} ended before its first step. Remove the folder and train again.")
    if not (out / STATE).is_file():
        raise CheckpointError(
            f"{out} holds no resumable run: there is no {STATE}. Give the folder that `train` had as --out."
        )
