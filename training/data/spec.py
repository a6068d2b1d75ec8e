"""SPEC: how a user names a data set, `KIND:PATH` or `KIND:PATH#SPLIT`."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from geodtr.runtime.errors import DataError
from geodtr.training.data.cvusa import read_cvusa
from geodtr.training.data.pair_set import PairSet
from geodtr.training.data.pairs_csv import read_pairs


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of data set: its reader, the splits it comes in, and which of them training and testing mean."""

    read: Callable[[Path, str], PairSet]
    splits: tuple[str, ...] = ()
    train: str = ""
    test: str = ""


KINDS = {
    "cvusa": Kind(read_cvusa, ("train", "val"), train="train", test="val"),
    "pairs": Kind(lambda root, _split: read_pairs(root)),
}


def read_training_set(spec: str, limit: int | None = None) -> PairSet:
    """Read the data set that `spec` names; a kind with splits gives the one to train on when `spec` names none."""
    return _read(spec, lambda kind: kind.train, limit)


def read_test_set(spec: str, limit: int | None = None) -> PairSet:
    """Read the data set that `spec` names; a kind with splits gives the one to test on when `spec` names none.

    At most the first `limit` pairs. Raises DataError when the kind is unknown or the data set is not what its kind
    promises.
    """
    return _read(spec, lambda kind: kind.test, limit)


def _read(spec: str, default_split: Callable[[Kind], str], limit: int | None) -> PairSet:
    name, colon, rest = spec.partition(":")
    if not colon or name not in KINDS:
        raise DataError(
            f"{spec!r} is not a data set: write KIND:PATH with KIND one of {', '.join(KINDS)}, for example "
            f"pairs:{rest or spec}, or cvusa:PATH#val."
        )
    kind = KINDS[name]
    location, split = rest, ""
    # A folder's own name may hold a hash: what exists as it stands is not taken apart.
    if "#" in rest and not Path(rest).is_dir():
        location, _, split = rest.rpartition("#")
    root = Path(location)
    if not location or not root.is_dir():
        raise DataError(f"{location or '(nothing)'} of {spec!r} is not a folder. Check the path.")
    if split and not kind.splits:
        raise DataError(f"{spec!r}: a {name} data set has no splits. Keep each split in a folder of its own.")
    if split and split not in kind.splits:
        raise DataError(f"{spec!r}: no such split; allowed: {', '.join(kind.splits)}.")
    pair_set = kind.read(root, split or default_split(kind))
    return pair_set if limit is None else pair_set.first(limit)


def absolute(spec: str) -> str:
    """The same data set from any working directory; what is no SPEC stays as it is, to be refused when read."""
    kind, colon, rest = spec.partition(":")
    return f"{kind}:{Path(rest).absolute()}" if is_spec(spec) and colon and rest else spec


def is_spec(text: str) -> bool:
    """Whether `text` names a data set rather than a folder."""
    return text.partition(":")[0] in KINDS and ":" in text
