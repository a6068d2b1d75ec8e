"""The `prepared:` data set: a folder of preprocessed images and a document that lists their pairs.

The document is written last: a folder without it is unfinished. Its paths are relative to the folder.
"""

from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Literal, TypeVar

import msgspec

from geodtr.runtime.errors import DataError
from geodtr.runtime.files.documents import decode_json, read_document
from geodtr.runtime.names import Branch
from geodtr.runtime.spec import Geometry
from geodtr.training.data.pair_set import Pair, PairSet, Skipped
from geodtr.training.data.readers.existing import without_missing
from geodtr.training.data.views import View

T = TypeVar("T")

DOCUMENT = "prepared.json"
UNFINISHED = "unfinished.json"
"""Records the origin of an unfinished folder; DOCUMENT replaces it."""
_MAX_BYTES = 256 << 20  # a million pairs


class Origin(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Source and preprocessing of the images in a prepared folder; `camera` that ground images were undistorted by,
    `views` that were cut of full panoramas, in words.
    """

    source: str
    ground: Geometry
    aerial: Geometry
    camera: str | None = None
    views: str | None = None


class PreparedPair(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """A Pair with relative paths."""

    ground: str
    aerial: str
    lat: float | None = None
    lon: float | None = None
    heading: float | None = None
    utm: tuple[float, float] | None = None
    semi_positives: tuple[str, ...] = ()
    positives: tuple[str, ...] = ()


class PreparedSkipped(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A file of the source that cannot be used, and the reason."""

    path: str
    reason: str


class PreparedSet(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """The whole document; `tile_queries` and `maps` as of a PairSet. Schema 2 has these, or `positives` of a pair."""

    schema: Literal[1, 2]
    origin: Origin
    pairs: tuple[PreparedPair, ...]
    distractors: tuple[str, ...] = ()
    skipped: tuple[PreparedSkipped, ...] = ()
    tile_queries: tuple[str, ...] = ()
    maps: tuple[tuple[str, ...], ...] = ()


def read_prepared(folder: Path) -> PairSet:
    """Read a finished folder; `skipped` includes the source's skipped files.

    Raises DataError when the folder is unfinished or its document is invalid.
    """
    path = folder / DOCUMENT
    if not path.is_file():
        raise DataError(
            f"{folder} holds no {DOCUMENT}: it is not a prepared data set, or is unfinished. "
            f"To resume: geodtr-export data prepare SPEC --out {folder}"
        )
    document = _decode(path, PreparedSet)
    resolve = partial(_resolve, folder)
    pairs = tuple(
        Pair(
            ground=resolve(pair.ground),
            aerial=resolve(pair.aerial),
            lat=pair.lat,
            lon=pair.lon,
            heading=pair.heading,
            utm=pair.utm,
            semi_positives=tuple(map(resolve, pair.semi_positives)),
            positives=tuple(map(resolve, pair.positives)),
        )
        for pair in document.pairs
    )
    pair_set = PairSet(
        f"prepared:{folder}",
        pairs,
        tuple(map(resolve, document.distractors)),
        tuple(Skipped(Path(entry.path), entry.reason) for entry in document.skipped),
        made_from=document.origin.source,
        tile_queries=tuple(map(resolve, document.tile_queries)),
        maps=tuple(frozenset(map(resolve, tiles)) for tiles in document.maps),
    )
    pair_set = without_missing(pair_set)
    times = Counter(tile for tiles in pair_set.maps for tile in tiles)
    stray = next((tile for tile in pair_set.references if pair_set.maps and times[tile] != 1), None)
    if stray is not None:
        raise DataError(
            f"{path} is invalid ({stray.name} is on {times[stray]} of its maps; each tile is on one). Prepare the data "
            "set again in a new folder."
        )
    return pair_set


def encode_document(origin: Origin, pair_set: PairSet, target: Callable[[Branch, Path, View | None], str]) -> bytes:
    """The document of `pair_set`; `target` gives the relative path of each prepared image, or of what is seen of it."""

    def tile(path: Path) -> str:
        return target("aerial", path, None)

    document = PreparedSet(
        schema=2 if pair_set.tile_queries or pair_set.maps or any(pair.positives for pair in pair_set.pairs) else 1,
        origin=origin,
        pairs=tuple(
            PreparedPair(
                ground=target("ground", pair.ground, pair.view),
                aerial=tile(pair.aerial),
                lat=pair.lat,
                lon=pair.lon,
                heading=pair.heading,
                utm=pair.utm,
                semi_positives=tuple(tile(path) for path in pair.semi_positives),
                positives=tuple(tile(path) for path in pair.positives),
            )
            for pair in pair_set.pairs
        ),
        distractors=tuple(tile(path) for path in pair_set.distractors),
        skipped=tuple(PreparedSkipped(path=str(entry.path), reason=entry.reason) for entry in pair_set.skipped),
        tile_queries=tuple(map(tile, pair_set.tile_queries)),
        maps=tuple(tuple(map(tile, sorted(tiles))) for tiles in pair_set.maps),
    )
    return msgspec.json.format(msgspec.json.encode(document), indent=1) + b"\n"


def read_origin(folder: Path) -> Origin | None:
    """The origin of `folder`, finished or not; None if it holds neither document.

    Raises DataError when a document is invalid.
    """
    path = folder / DOCUMENT
    if path.is_file():
        return _decode(path, PreparedSet).origin
    path = folder / UNFINISHED
    return _decode(path, Origin) if path.is_file() else None


def _decode(path: Path, kind: type[T]) -> T:
    try:
        return decode_json(read_document(path, _MAX_BYTES), kind)
    except (OSError, msgspec.DecodeError) as error:
        raise DataError(f"{path} is invalid ({error}). Prepare the data set again in a new folder.") from None


def _resolve(folder: Path, relative: str) -> Path:
    path = PurePosixPath(relative)
    if path.is_absolute() or ".." in path.parts or path == PurePosixPath():
        raise DataError(f"{folder / DOCUMENT} names {relative!r}, which is not a file inside its folder.")
    return folder / path
