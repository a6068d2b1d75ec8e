"""The `prepared:` data set: a folder of images that are preprocessed already, and a document that names their pairs.

The document is written last: a folder without it is not finished. Paths in it are relative to the folder.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Literal, TypeVar

import msgspec

from geodtr.runtime.errors import DataError
from geodtr.runtime.names import Branch
from geodtr.runtime.spec import Geometry
from geodtr.training.data.pair_set import Pair, PairSet, Skipped, existing

T = TypeVar("T")

DOCUMENT = "prepared.json"
UNFINISHED = "unfinished.json"
"""Says what a folder is being made from, until DOCUMENT does."""


class Origin(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the images of a prepared folder were made from, and how."""

    source: str
    ground: Geometry
    aerial: Geometry


class PreparedPair(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """A Pair with relative paths."""

    ground: str
    aerial: str
    lat: float | None = None
    lon: float | None = None
    heading: float | None = None
    utm: tuple[float, float] | None = None
    semi_positives: tuple[str, ...] = ()


class PreparedSkipped(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A file of the source that could not be used, and why."""

    path: str
    reason: str


class PreparedSet(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The whole document."""

    schema: Literal[1] = 1
    origin: Origin
    pairs: tuple[PreparedPair, ...]
    distractors: tuple[str, ...] = ()
    skipped: tuple[PreparedSkipped, ...] = ()


def read_prepared(folder: Path) -> PairSet:
    """Read a finished folder; what the source lacked is in `skipped` again.

    Raises DataError when it is not finished, or its document is not one.
    """
    path = folder / DOCUMENT
    if not path.is_file():
        raise DataError(
            f"{folder} holds no {DOCUMENT}: it is no prepared data set, or not a finished one. "
            f"To go on: geodtr-export data prepare SPEC --out {folder}"
        )
    document = _decode(path, PreparedSet)
    place = partial(_place, folder)
    pairs = [
        Pair(
            ground=place(pair.ground),
            aerial=place(pair.aerial),
            lat=pair.lat,
            lon=pair.lon,
            heading=pair.heading,
            utm=pair.utm,
            semi_positives=tuple(map(place, pair.semi_positives)),
        )
        for pair in document.pairs
    ]
    found = existing(f"prepared:{folder}", pairs, map(place, document.distractors))
    left_out = tuple(Skipped(Path(entry.path), entry.reason) for entry in document.skipped)
    return replace(found, skipped=left_out + found.skipped, made_from=document.origin.source)


def encode_document(origin: Origin, pair_set: PairSet, place: Callable[[Branch, Path], str]) -> bytes:
    """The document of `pair_set`, whose images lie at `place` below the folder."""
    document = PreparedSet(
        origin=origin,
        pairs=tuple(
            PreparedPair(
                ground=place("ground", pair.ground),
                aerial=place("aerial", pair.aerial),
                lat=pair.lat,
                lon=pair.lon,
                heading=pair.heading,
                utm=pair.utm,
                semi_positives=tuple(place("aerial", path) for path in pair.semi_positives),
            )
            for pair in pair_set.pairs
        ),
        distractors=tuple(place("aerial", path) for path in pair_set.distractors),
        skipped=tuple(PreparedSkipped(path=str(entry.path), reason=entry.reason) for entry in pair_set.skipped),
    )
    return msgspec.json.format(msgspec.json.encode(document), indent=1) + b"\n"


def read_origin(folder: Path) -> Origin | None:
    """What `folder` was or is being made from; None where it holds neither document.

    Raises DataError when a document cannot be understood.
    """
    path = folder / DOCUMENT
    if path.is_file():
        return _decode(path, PreparedSet).origin
    path = folder / UNFINISHED
    return _decode(path, Origin) if path.is_file() else None


def _decode(path: Path, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
        raise DataError(
            f"{path} cannot be understood ({error}). Prepare the data set again, in a new folder."
        ) from None


def _place(folder: Path, relative: str) -> Path:
    path = PurePosixPath(relative)
    if path.is_absolute() or ".." in path.parts or path == PurePosixPath():
        raise DataError(f"{folder / DOCUMENT} names {relative!r}, which is no file below its folder.")
    return folder / path
