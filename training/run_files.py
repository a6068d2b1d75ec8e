"""The files of a training run by name, and whether they are there.

Needs no PyTorch, whose import takes seconds: a wrong path is answered at once.
"""

from pathlib import Path

from geodtr.runtime.errors import CheckpointError

LAST, BEST = "last.safetensors", "best.safetensors"
"""What training writes into a run's folder: after every epoch, and where validation found the highest R@1 so far."""
STATE = "state.safetensors"
"""What a run goes on from."""
CONFIG = "config.toml"
"""The resolved configuration in a run's folder: a preset like any other."""


def resolve_checkpoint(path: Path) -> Path:
    """The checkpoint file that `path` means: itself, or the newest one of a training run's folder."""
    return path / LAST if path.is_dir() else path


def find_checkpoint(path: Path) -> Path:
    """The same, which must be there. Raises CheckpointError."""
    path = resolve_checkpoint(path)
    if not path.is_file():
        raise CheckpointError(f"{path} is not a checkpoint file. Check the path; `geodtr-export train` writes one.")
    return path


def check_run(out: Path) -> None:
    """Raises CheckpointError when the folder `out` holds no run that can go on."""
    files = [out / name for name in (STATE, CONFIG)]
    if any(file.is_file() for file in files) and not all(file.is_file() for file in files):
        raise CheckpointError(f"The run in {out} ended before its first step. Remove the folder and train again.")
    if not (out / STATE).is_file():
        raise CheckpointError(
            f"{out} holds no run that can go on: there is no {STATE}. Name the folder that `train` had as --out."
        )
