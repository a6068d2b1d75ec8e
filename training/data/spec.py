"""SPEC: how a user names a data set, `KIND:PATH` or `KIND:PATH#SPLIT`."""

from pathlib import Path

from geodtr.runtime.errors import DataError
from geodtr.training.data.cvusa import SPLITS, read_cvusa
from geodtr.training.data.pair_set import PairSet
from geodtr.training.data.pairs_csv import read_pairs

KINDS = ("cvusa", "pairs")


def read_spec(spec: str, default_split: str) -> PairSet:
    """Read the data set that `spec` names; `default_split` serves kinds with splits when the spec names none.

    Raises DataError when the kind is unknown or the data set is not what its kind promises.
    """
    kind, colon, rest = spec.partition(":")
    if not colon or kind not in KINDS:
        raise DataError(
            f"{spec!r} is not a data set: write KIND:PATH with KIND one of {', '.join(KINDS)}, for example "
            f"pairs:{rest or spec}, or cvusa:PATH#{SPLITS[-1]}."
        )
    location, split = rest, ""
    # A folder's own name may hold a hash: what exists as it stands is not taken apart.
    if "#" in rest and not Path(rest).is_dir():
        location, _, split = rest.rpartition("#")
    root = Path(location)
    if not location or not root.is_dir():
        raise DataError(f"{location or '(nothing)'} of {spec!r} is not a folder. Check the path.")
    if kind == "cvusa":
        return read_cvusa(root, split or default_split)
    if split:
        raise DataError(f"{spec!r}: a pairs data set has no splits. Keep each split in a folder of its own.")
    return read_pairs(root)


def is_spec(text: str) -> bool:
    """Whether `text` names a data set rather than a folder."""
    return text.partition(":")[0] in KINDS and ":" in text
