"""Readers of GTA-UAV and UAV-VisLoc: JSON lists name the tiles that overlap each drone image, and by how much.

`pair_pos_*` of a list are right: their intersection over union with the ground of the image exceeds 0.39. Others, down
to 0.14, count as wrong in tests, and are not read. Every image in the folder of tiles is searched; in UAV-VisLoc, all
of the image's own map, which begins the names of both. An image without a right tile is no query. Training takes each
image with its tile of the largest overlap; the release trains with semi-positives and weights, too.

UAV-VisLoc is released as maps without tiles: its lists and tiles are made by scripts/prepare_dataset/visloc.py of
GTA-UAV's release, whose same-area lists are drawn without a seed.
Source: Yux1angJi/GTA-UAV (8237bb1); IntelliSensing/UAV-VisLoc (92dab48).
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Annotated

import msgspec

from geodtr.runtime.errors import DataError
from geodtr.runtime.files.documents import decode_json, read_document
from geodtr.runtime.images.decode import SUFFIXES
from geodtr.training.data.pair_set import Pair, PairSet
from geodtr.training.data.readers.existing import existing

AREAS = ("same", "cross")
TILES = "satellite"
LISTS = {
    f"{area}-{task}": f"{area}-area-drone2sate-{'train' if task == 'train' else 'test'}.json"
    for area in AREAS
    for task in ("train", "d2s", "s2d")
}
"""The file that each split is read from."""
GTA_SPLITS = tuple(LISTS)
VISLOC_SPLITS = tuple(split for split in LISTS if not split.endswith("s2d"))
VISLOC_MAP = "01/drone"
"""A folder of UAV-VisLoc as it is released: its first map's images."""

_MAX_BYTES = 256 << 20  # the longest list of GTA-UAV has 43 MB

_MAP_METRES = 24576 * 0.45
"""Of GTA-UAV's map: its pixels, and the size of one."""
_TILE_PIXELS, _MAX_ZOOM = 256, 30

_Name = Annotated[str, msgspec.Meta(pattern=r"\A[^/\x00]+\Z")]


class _Entry(msgspec.Struct):
    """One drone image and the tiles that are right for it, with their overlap; the other keys are not read."""

    drone_img_dir: str
    drone_img_name: _Name
    sate_img_dir: str
    pair_pos_sate_img_list: list[_Name]
    pair_pos_sate_weight_list: list[float]
    drone_loc_lat_lon: tuple[float, float] | None = None
    drone_loc_x_y: tuple[float, float] | None = None


def read_gta(root: Path, split: str) -> PairSet:
    """Read one split of GTA-UAV. Raises DataError when its list or the tiles are missing, or the list is malformed."""
    pair_set, images = _read(f"gta:{root}#{split}", root, split)
    tiles = {path: centre for path in pair_set.references if (centre := _centre(path)) is not None}
    return replace(pair_set, positions={**images, **tiles})


def _centre(tile: Path) -> tuple[float, float] | None:
    """Metres from the map's corner of a tile ZOOM_OFFSET_X_Y: at zoom 0 the whole map is one; None for another name."""
    words = tile.stem.split("_")
    if len(words) != 4 or not all(word.isascii() and word.isdigit() for word in words):
        return None
    zoom, offset, x, y = map(int, words)
    side = _MAP_METRES / 2 ** min(zoom, _MAX_ZOOM)
    return (x + 0.5 + offset / _TILE_PIXELS) * side, (y + 0.5 + offset / _TILE_PIXELS) * side


def read_visloc(root: Path, split: str) -> PairSet:
    """Read one split of UAV-VisLoc, prepared as GTA-UAV. Raises DataError as `read_gta`."""
    if not (root / TILES).is_dir() and (root / VISLOC_MAP).is_dir():
        raise DataError(
            f"{root} holds the maps of UAV-VisLoc's release, and no tiles. Cut them by GTA-UAV's release "
            "(scripts/prepare_dataset/visloc.py), or search a map itself: geodtr-export gallery build BUNDLE MAP --out "
            "GALLERY"
        )
    pair_set, _ = _read(f"visloc:{root}#{split}", root, split)
    if split.endswith("train"):
        return pair_set
    maps = dict[str, set[Path]]()
    for path in pair_set.references:
        maps.setdefault(_map(path), set()).add(path)
    stray = next((pair for pair in pair_set.pairs if any(_map(tile) != _map(pair.ground) for tile in pair.right)), None)
    if stray is not None:
        raise DataError(f"{pair_set.name} names a tile of another map for {stray.ground.name}: {stray.aerial.name}.")
    return replace(pair_set, maps=tuple(frozenset(tiles) for tiles in maps.values()))


def _map(path: Path) -> str:
    return path.name.partition("_")[0]


def _read(name: str, root: Path, split: str) -> tuple[PairSet, dict[Path, tuple[float, float]]]:
    """The set, and the positions in metres that its list states."""
    task, path = split.split("-")[1], root / LISTS[split]
    if not path.is_file():
        raise DataError(f"{path} does not exist. Give the folder that contains it and the folder {TILES}.")
    entries = _entries(path)
    pairs = [pair for entry in entries if (pair := _pair(root, entry, path)) is not None]
    at = {
        root / entry.drone_img_dir / entry.drone_img_name: entry.drone_loc_x_y
        for entry in entries
        if entry.drone_loc_x_y is not None
    }
    if task == "train":
        return existing(name, pairs), at
    pair_set = existing(name, pairs, _tiles(root / TILES, {tile for pair in pairs for tile in pair.right}))
    if task == "d2s":
        return pair_set, at
    queries = dict.fromkeys(tile for pair in pair_set.pairs for tile in pair.right)
    return replace(pair_set, tile_queries=tuple(sorted(queries)), distractors=()), at


def _entries(path: Path) -> list[_Entry]:
    try:
        return decode_json(read_document(path, _MAX_BYTES), list[_Entry])
    except (OSError, msgspec.DecodeError) as error:
        raise DataError(f"{path} is not a list of GTA-UAV's form ({error}). Copy it again.") from None


def _pair(root: Path, entry: _Entry, path: Path) -> Pair | None:
    """The drone image with its tiles, the largest overlap first; None if it has no tile."""
    if len(entry.pair_pos_sate_img_list) != len(entry.pair_pos_sate_weight_list):
        raise DataError(f"{path}: {entry.drone_img_name} has another number of weights than of tiles. Copy it again.")
    for folder in (entry.drone_img_dir, entry.sate_img_dir):
        if PurePosixPath(folder).is_absolute() or ".." in PurePosixPath(folder).parts:
            raise DataError(f"{path} names the folder {folder!r}, which is not inside {root}.")
    overlaps = dict(zip(entry.pair_pos_sate_img_list, entry.pair_pos_sate_weight_list, strict=True))
    tiles = [root / entry.sate_img_dir / name for name in sorted(overlaps, key=overlaps.__getitem__, reverse=True)]
    if not tiles:
        return None
    lat, lon = entry.drone_loc_lat_lon or (None, None)
    ground = root / entry.drone_img_dir / entry.drone_img_name
    return Pair(ground, tiles[0], lat, lon, positives=tuple(tiles[1:]))


def _tiles(folder: Path, listed: set[Path]) -> Iterator[Path]:
    """All images in `folder` and below, by path, but for the `listed` ones; hidden files do not count."""
    if not folder.is_dir():
        raise DataError(f"{folder} does not exist. Unpack the tiles there.")
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path not in listed:
            yield path
