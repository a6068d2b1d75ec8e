"""SPEC: the name of a data set, `KIND:PATH` or `KIND:PATH#SPLIT`."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from geodtr.runtime.errors import DataError
from geodtr.runtime.names import Branch
from geodtr.training.data.cvact import FOLDERS as CVACT_SPLITS
from geodtr.training.data.cvact import read_cvact
from geodtr.training.data.cvusa import LISTS as CVUSA_SPLITS
from geodtr.training.data.cvusa import read_cvusa
from geodtr.training.data.pair_set import PairSet
from geodtr.training.data.pairs_csv import read_pairs
from geodtr.training.data.prepared import read_prepared
from geodtr.training.data.vigor import SPLITS as VIGOR_SPLITS
from geodtr.training.data.vigor import read_vigor


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of data set.

    Attributes
    ----------
    splits, train, test
        All splits, and the default splits for training and testing.
    sizes
        Width and height of the released images. Without them, the most common size of a branch is expected.
    square
        Whether tiles are square; false if they may be polar-transformed.
    shared_tiles
        Splits that share their tiles by design.
    preset
        Name of the preset for this kind.
    """

    read: Callable[[Path, str], PairSet]
    splits: tuple[str, ...] = ()
    train: str = ""
    test: str = ""
    sizes: Mapping[Branch, tuple[int, int]] = field(default_factory=dict)
    square: bool = True
    shared_tiles: frozenset[str] = frozenset()
    preset: str = ""


KINDS = {
    "cvusa": Kind(
        read_cvusa,
        tuple(CVUSA_SPLITS),
        train="train",
        test="val",
        sizes={"ground": (1232, 224), "aerial": (750, 750)},
        preset="geodtr-cvusa",
    ),
    "cvact": Kind(
        read_cvact,
        tuple(CVACT_SPLITS),
        train="train",
        test="val",
        sizes={"ground": (1664, 832), "aerial": (1200, 1200)},
        preset="geodtr-cvact",
    ),
    "vigor": Kind(
        read_vigor,
        tuple(VIGOR_SPLITS),
        train="same-train",
        test="same-test",
        sizes={"ground": (2048, 1024), "aerial": (640, 640)},
        shared_tiles=frozenset({"same-train", "same-test"}),
    ),
    "pairs": Kind(lambda root, _split: read_pairs(root)),
    "prepared": Kind(lambda root, _split: read_prepared(root), square=False),
}


@dataclass(frozen=True, slots=True)
class Source:
    """A parsed SPEC; `split` is empty if the SPEC has none."""

    kind: Kind
    root: Path
    split: str

    def read(self, split: str, limit: int | None = None) -> PairSet:
        """Read at most the first `limit` pairs of `split`. Raises DataError when the data set is invalid."""
        pair_set = self.kind.read(self.root, split)
        return pair_set if limit is None else pair_set.first(limit)


def read_training_set(spec: str, limit: int | None = None) -> PairSet:
    """Read the data set `spec`, by default its training split; otherwise as read_test_set."""
    source = parse_spec(spec)
    return source.read(source.split or source.kind.train, limit)


def read_test_set(spec: str, limit: int | None = None) -> PairSet:
    """Read at most the first `limit` pairs of the data set `spec`, by default of its test split.

    Raises DataError when the kind is unknown or the data set is invalid.
    """
    source = parse_spec(spec)
    return source.read(source.split or source.kind.test, limit)


def find_preset(spec: str) -> str:
    """The name of the preset for the data set's kind. Raises DataError when there is none."""
    preset = parse_spec(spec).kind.preset
    if not preset:
        raise DataError(f"There is no preset for {spec.partition(':')[0]} data sets. Choose one with --preset.")
    return preset


def parse_spec(spec: str) -> Source:
    """Parse a SPEC. Raises DataError when the kind or split is unknown, or the path is not a folder."""
    name, colon, rest = spec.partition(":")
    if not colon or name not in KINDS:
        raise DataError(
            f"{spec!r} is not a data set. Write KIND:PATH with KIND one of {', '.join(KINDS)}, for example "
            f"pairs:{rest or spec}, or cvusa:PATH#val."
        )
    kind = KINDS[name]
    location, split = rest, ""
    # A folder name may contain a hash, so an existing folder is not split.
    if "#" in rest and not _is_folder(rest):
        location, _, split = rest.rpartition("#")
    root = Path(location)
    if not location or not _is_folder(location):
        raise DataError(f"{location or '(nothing)'} of {spec!r} is not a folder. Check the path.")
    if split and not kind.splits:
        raise DataError(f"{spec!r}: a {name} data set has no splits. Put each split into its own folder.")
    if split and split not in kind.splits:
        raise DataError(f"{spec!r}: unknown split; allowed: {', '.join(kind.splits)}.")
    return Source(kind, root, split)


def absolute(spec: str) -> str:
    """`spec` with an absolute path; returned unchanged if it is not a SPEC, so that reading it fails."""
    kind, colon, rest = spec.partition(":")
    return f"{kind}:{Path(rest).absolute()}" if is_spec(spec) and colon and rest else spec


def is_spec(text: str) -> bool:
    """Whether `text` names a data set rather than a folder."""
    return text.partition(":")[0] in KINDS and ":" in text


def _is_folder(path: str) -> bool:
    return os.path.isdir(path)  # noqa: PTH112 (Path.is_dir raises at a name that is too long for the disk)
