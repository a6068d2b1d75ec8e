"""SPEC: the name of a data set, `KIND:PATH` or `KIND:PATH#SPLIT`."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from geodtr.runtime.errors import DataError
from geodtr.runtime.names import Branch
from geodtr.training.data.pair_set import PairSet
from geodtr.training.data.readers.cvact import FOLDERS as CVACT_SPLITS
from geodtr.training.data.readers.cvact import read_cvact
from geodtr.training.data.readers.cvusa import LISTS as CVUSA_SPLITS
from geodtr.training.data.readers.cvusa import read_cvusa
from geodtr.training.data.readers.overlap_lists import AREAS, GTA_SPLITS, VISLOC_SPLITS, read_gta, read_visloc
from geodtr.training.data.readers.pairs_csv import read_pairs
from geodtr.training.data.readers.place_folders import (
    DENSEUAV_SPLITS,
    SUES_HEIGHTS,
    SUES_SPLITS,
    UNIVERSITY_SPLITS,
    read_denseuav,
    read_sues,
    read_university,
    sues_splits,
)
from geodtr.training.data.readers.prepared import read_prepared
from geodtr.training.data.readers.vigor import SPLITS as VIGOR_SPLITS
from geodtr.training.data.readers.vigor import read_vigor
from geodtr.training.data.recognise import find_kinds


@dataclass(frozen=True, slots=True)
class Counts:
    """Published numbers of images of a split, and of the tiles that are queries; None where they are not published."""

    ground: int | None = None
    aerial: int | None = None
    tile_queries: int | None = None

    @property
    def ranked(self) -> tuple[int | None, int | None]:
        """Queries and references: tiles among ground images where tiles are queries, else the reverse."""
        return (self.tile_queries, self.ground) if self.tile_queries else (self.ground, self.aerial)


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
    shared_grounds
        Splits whose ground images are in other splits, too, by design.
    held
        The training and test splits that a folder holds, where it may hold several of each; of the others, `train` and
        `test`.
    preset
        Name of the preset for this kind.
    published
        The published numbers of each split.
    average_precision
        How papers average precision on this kind; empty where they do not report it.
    positions_in
        The unit in which papers measure distance on this kind; empty where they do not.
    """

    read: Callable[[Path, str], PairSet]
    splits: tuple[str, ...] = ()
    train: str = ""
    test: str = ""
    sizes: Mapping[Branch, tuple[int, int]] = field(default_factory=dict)
    square: bool = True
    shared_tiles: frozenset[str] = frozenset()
    shared_grounds: frozenset[str] = frozenset()
    held: Callable[[Path], Sequence[str]] | None = None
    preset: str = ""
    published: Mapping[str, Counts] = field(default_factory=dict)
    average_precision: Literal["steps", "trapezoids", ""] = ""
    positions_in: Literal["degrees", "metres", ""] = ""


KINDS = {
    "cvusa": Kind(
        read_cvusa,
        tuple(CVUSA_SPLITS),
        train="train",
        test="val",
        sizes={"ground": (1232, 224), "aerial": (750, 750)},
        preset="geodtr-cvusa",
        published={
            "train": Counts(35532, 35532),
            "val": Counts(8884, 8884),
            "train-clean": Counts(34769, 34769),
            "val-clean": Counts(8841, 8841),
        },
    ),
    "cvact": Kind(
        read_cvact,
        tuple(CVACT_SPLITS),
        train="train",
        test="val",
        sizes={"ground": (1664, 832), "aerial": (1200, 1200)},
        preset="geodtr-cvact",
        published={
            "train": Counts(35532, 35532),
            "val": Counts(8884, 8884),
            "test": Counts(92802, 92802),
        },
    ),
    "vigor": Kind(
        read_vigor,
        tuple(VIGOR_SPLITS),
        train="same-train",
        test="same-test",
        sizes={"ground": (2048, 1024), "aerial": (640, 640)},
        shared_tiles=frozenset({"same-train", "same-test"}),
    ),
    "university": Kind(
        read_university,
        UNIVERSITY_SPLITS,
        train="train",
        test="d2s",
        preset="sample4geo-university",
        shared_tiles=frozenset({"d2s", "s2d"}),
        shared_grounds=frozenset({"s2d"}),
        published={
            "train": Counts(aerial=701),
            "d2s": Counts(37855, 951),
            "s2d": Counts(51355, 951, tile_queries=701),
        },
        average_precision="trapezoids",
    ),
    "sues": Kind(
        read_sues,
        SUES_SPLITS,
        train="train-150",
        test="d2s-150",
        held=sues_splits,
        shared_tiles=frozenset(SUES_SPLITS),
        shared_grounds=frozenset(split for split in SUES_SPLITS if split.startswith("s2d")),
        published={
            **{f"train-{height}": Counts(6000, 120) for height in SUES_HEIGHTS},
            **{f"d2s-{height}": Counts(4000, 200) for height in SUES_HEIGHTS},
            **{f"s2d-{height}": Counts(10000, 200, tile_queries=80) for height in SUES_HEIGHTS},
        },
        average_precision="trapezoids",
    ),
    "denseuav": Kind(
        read_denseuav,
        DENSEUAV_SPLITS,
        train="train",
        test="d2s",
        shared_tiles=frozenset(DENSEUAV_SPLITS),
        shared_grounds=frozenset({"s2d"}),
        published={
            "train": Counts(6768, 13536),
            "d2s": Counts(2331, 18198),
            "s2d": Counts(9099, 18198, tile_queries=4662),
        },
        average_precision="trapezoids",
        positions_in="degrees",
    ),
    "visloc": Kind(
        read_visloc,
        VISLOC_SPLITS,
        train="same-train",
        test="same-d2s",
        shared_tiles=frozenset(VISLOC_SPLITS),
        average_precision="steps",
    ),
    "gta": Kind(
        read_gta,
        GTA_SPLITS,
        train="same-train",
        test="same-d2s",
        shared_tiles=frozenset(GTA_SPLITS),
        shared_grounds=frozenset({"same-s2d", "cross-s2d"}),
        published={f"{area}-d2s": Counts(aerial=14640) for area in AREAS},
        average_precision="steps",
        positions_in="metres",
    ),
    "pairs": Kind(lambda root, _split: read_pairs(root)),
    "prepared": Kind(lambda root, _split: read_prepared(root), square=False),
}


@dataclass(frozen=True, slots=True)
class Source:
    """A parsed SPEC; `split` is empty if the SPEC has none."""

    name: str
    root: Path
    split: str

    @property
    def kind(self) -> Kind:
        return KINDS[self.name]

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits that the SPEC stands for: its own, or those to train and to test on."""
        if self.split:
            return (self.split,)
        held = self.kind.held(self.root) if self.kind.held else ()
        return tuple(dict.fromkeys(held or (self.kind.train, self.kind.test)))

    def read(self, split: str, limit: int | None = None) -> PairSet:
        """Read at most the first `limit` pairs of `split`. Raises DataError when the data set is invalid, or another
        kind's.
        """
        kinds = find_kinds(self.root)
        if kinds and self.name not in kinds:
            raise DataError(
                f"{self.root} is no {self.name} data set, but looks like another. Write {self._named(kinds)}"
            )
        try:
            pair_set = self.kind.read(self.root, split)
        except DataError as error:
            inside = () if kinds else (each for each in sorted(self.root.iterdir()) if each.is_dir())
            meant = next((each for each in inside if self.name in find_kinds(each)), None)
            raise error if meant is None else DataError(f"{error} {self.name}:{meant} looks like one.") from None
        return pair_set if limit is None else pair_set.first(limit)

    def _named(self, kinds: Sequence[str]) -> str:
        """SPECs of the folder as a data set of `kinds`, with this split where they have it."""
        ends = {kind: f"#{self.split}" if self.split in KINDS[kind].splits else "" for kind in kinds}
        return " or ".join(f"{kind}:{self.root}{ends[kind]}" for kind in kinds)


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
        path = rest or spec
        kind_of = find_kinds(Path(path))[:1] if _is_folder(path) else []
        raise DataError(
            f"{spec!r} is not a data set. Write KIND:PATH with KIND one of {', '.join(KINDS)}, for example "
            f"{(*kind_of, 'pairs')[0]}:{path}, or cvusa:PATH#val."
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
    return Source(name, root, split)


def absolute(spec: str) -> str:
    """`spec` with an absolute path; returned unchanged if it is not a SPEC, so that reading it fails."""
    kind, colon, rest = spec.partition(":")
    return f"{kind}:{Path(rest).absolute()}" if is_spec(spec) and colon and rest else spec


def is_spec(text: str) -> bool:
    """Whether `text` names a data set rather than a folder."""
    return text.partition(":")[0] in KINDS and ":" in text


def _is_folder(path: str) -> bool:
    return os.path.isdir(path)  # noqa: PTH112 (Path.is_dir raises at a name that is too long for the disk)
