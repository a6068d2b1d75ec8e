"""Readers of the drone data sets that have a folder a place: University-1652, SUES-200 and DenseUAV.

Every image in a place's folder shows that place, and every tile of a place is right for every drone image of it. A
split from drone to satellite (`d2s`) looks up the drone images of the query places among the tiles of all places; `s2d`
looks up the tiles of the query places among the drone images of all. The streets of University-1652 are not read.
Sources: layumi/University1652-Baseline (de38d35), Reza-Zhu/SUES-200-Benchmark (0f8616b), Dmmm1997/DenseUAV (b8de187).
"""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from geodtr.runtime.errors import DataError
from geodtr.runtime.files.text_rows import read_words
from geodtr.runtime.images.decode import SUFFIXES
from geodtr.training.data.pair_set import Pair, PairSet, Skipped
from geodtr.training.data.readers.existing import existing

UNIVERSITY_SPLITS = ("train", "d2s", "s2d")
DENSEUAV_SPLITS = UNIVERSITY_SPLITS
SUES_HEIGHTS = ("150", "200", "250", "300")
"""Metres above the ground."""
SUES_SPLITS = tuple(f"{task}-{height}" for task in UNIVERSITY_SPLITS for height in SUES_HEIGHTS)

SUES_TILES = "satellite-view"
"""The folder of tiles, as the set is released."""
SUES_PARTS = ("Training", "Testing")
"""The folders of its heights, as its script divides it."""

POSITIONS = "Dense_GPS_ALL.txt"

_SUES_PLACES = 200
# fmt: off
_SUES_TEST = (
    8, 12, 14, 17, 18, 19, 22, 23, 35, 38, 40, 41, 42, 46, 47, 48, 49, 50, 52, 53, 54, 59, 61, 62, 63, 65, 68, 71, 72,
    75, 78, 79, 83, 92, 93, 95, 98, 99, 107, 108, 109, 110, 111, 112, 114, 115, 117, 121, 122, 124, 128, 130, 131, 133,
    135, 136, 138, 140, 143, 144, 150, 153, 154, 161, 162, 164, 165, 170, 172, 173, 175, 176, 177, 178, 181, 188, 189,
    190, 194, 195,
)
# fmt: on
"""Places of the published test split; the others train (script/indexs.yaml of the release)."""


@dataclass(frozen=True, slots=True)
class _Views:
    """The images of each place by its id, from `folder`, and what is missing among them."""

    folder: Path
    images: Mapping[str, tuple[Path, ...]]
    missing: tuple[Skipped, ...] = ()

    def only(self, places: Collection[str]) -> "_Views":
        """The images of some places."""
        return _Views(
            self.folder,
            {place: images for place, images in self.images.items() if place in places},
            tuple(entry for entry in self.missing if entry.path.relative_to(self.folder).parts[0] in places),
        )

    def needing(self, places: Iterable[str]) -> "_Views":
        """The same images; of `places`, the ones without any are missing."""
        known = {entry.path.relative_to(self.folder).parts[0] for entry in self.missing}.union(self.images)
        absent = tuple(Skipped(self.folder / place, "missing") for place in sorted(set(places) - known))
        return _Views(self.folder, self.images, (*absent, *self.missing))


def read_university(root: Path, split: str) -> PairSet:
    """Read one split of University-1652. Raises DataError when a folder is missing."""
    return _read_divided(f"university:{root}#{split}", split, root / "train", root / "test")


def read_denseuav(root: Path, split: str) -> PairSet:
    """Read one split of DenseUAV. A place has drone images at three heights and six tiles; positions are from
    `Dense_GPS_ALL.txt`, if there. Raises DataError when a folder is missing or the positions are malformed.
    """
    pair_set = _read_divided(f"denseuav:{root}#{split}", split, root / "train", root / "test")
    positions = _read_positions(root / POSITIONS)
    pairs = (
        replace(pair, lat=lat, lon=lon)
        for pair in pair_set.pairs
        for lat, lon in (positions.get(pair.ground.parent.name, (None, None)),)
    )
    images = (*pair_set.paths("ground"), *pair_set.references)
    at = {path: positions[path.parent.name][::-1] for path in images if path.parent.name in positions}
    return replace(pair_set, pairs=tuple(pairs), positions=at)


def read_sues(root: Path, split: str) -> PairSet:
    """Read one split of SUES-200 at one height, as it is released (`satellite-view` and a folder of drone images) or as
    its script divides it (`Training` and `Testing`). Raises DataError when a folder is missing.
    """
    task, height = split.split("-")
    name = f"sues:{root}#{split}"
    if not (root / SUES_TILES).is_dir():
        return _read_divided(name, task, *(root / part / height for part in SUES_PARTS))
    drones = _drone_folders(root)
    if len(drones) != 1:
        raise DataError(f"{root} holds {len(drones)} folders of drone images beside {SUES_TILES}; one is needed.")
    test = {f"{number:04d}" for number in _SUES_TEST}
    every = {f"{number:04d}" for number in range(1, _SUES_PLACES + 1)}
    queries, gallery = (every - test, every - test) if task == "train" else (test, every)
    drone, satellite = _read_places(drones[0], height).needing(every), _read_places(root / SUES_TILES)
    satellite = satellite.needing(every).only(gallery)
    if task == "s2d":
        return _from_tiles(name, drone.only(gallery), satellite, satellite.only(queries))
    return _pairs(name, drone.only(queries), satellite)


def sues_splits(root: Path) -> list[str]:
    """The splits to train and to test on, of each height that a folder of SUES-200 has images at."""
    places = [place for folder in _drone_folders(root) for place in folder.iterdir()]
    parts = (*places, *(root / part for part in SUES_PARTS))
    heights = [height for height in SUES_HEIGHTS if any((part / height).is_dir() for part in parts)]
    return [f"{task}-{height}" for height in heights for task in ("train", "d2s")]


def _drone_folders(root: Path) -> list[Path]:
    """The folders of drone images beside the tiles of SUES-200 as it is released; none if it is divided."""
    if not (root / SUES_TILES).is_dir():
        return []
    return sorted(path for path in root.iterdir() if "drone" in path.name.lower() and path.is_dir())


def _read_divided(name: str, task: str, train: Path, test: Path) -> PairSet:
    """A split whose places have been divided into folders."""
    if task == "train":
        satellite = _read_places(train / "satellite")
        return _pairs(name, _read_places(train / "drone").needing(satellite.images), satellite)
    satellite, queries = _read_places(test / "gallery_satellite"), test / "query_satellite"
    if task == "s2d":
        drone = _read_places(test / "gallery_drone").needing(satellite.images)
        return _from_tiles(name, drone, satellite, _read_places(queries))
    drone, others = _read_places(test / "query_drone"), test / "gallery_drone"
    if others.is_dir():
        satellite = satellite.needing(each.name for each in others.iterdir() if each.is_dir() and each.name[0] != ".")
    return _pairs(name, drone.needing(_read_places(queries).images) if queries.is_dir() else drone, satellite)


def _from_tiles(name: str, drone: _Views, satellite: _Views, queries: _Views) -> PairSet:
    """The drone images of all places with their tiles; the tiles of `queries` are the queries."""
    tiles = _Views(satellite.folder, {**satellite.images, **queries.images}, satellite.missing)
    pair_set = _pairs(name, drone, tiles)
    ours = {path for pair in pair_set.pairs for path in pair.right}
    tile_queries = tuple(path for place in queries.images for path in queries.images[place] if path in ours)
    if not tile_queries:
        raise DataError(f"{name} holds no tile to look up: no query place has a drone image. Check the path.")
    listed = {entry.path: entry for entry in (*pair_set.skipped, *queries.missing)}
    return replace(pair_set, tile_queries=tile_queries, skipped=tuple(listed.values()))


def _pairs(name: str, drone: _Views, satellite: _Views) -> PairSet:
    """Each drone image with the tile of its own name (its height), or the first; the place's others are right, too."""
    pairs = list[Pair]()
    satellite = satellite.needing(drone.images)
    for place, images in drone.images.items():
        tiles = satellite.images.get(place, ())
        of_name = {tile.stem: tile for tile in reversed(tiles)}
        for image in images if tiles else ():
            own = of_name.get(image.stem, tiles[0])
            pairs.append(Pair(image, own, positives=tuple(tile for tile in tiles if tile != own)))
    if not pairs:
        raise DataError(f"{name}: no place has both drone images and a tile. Check the path.")
    used = {path for pair in pairs for path in pair.right}
    others = [path for tiles in satellite.images.values() for path in tiles if path not in used]
    pair_set = existing(name, pairs, others)
    return replace(pair_set, skipped=(*drone.missing, *satellite.missing, *pair_set.skipped))


def _read_places(folder: Path, below: str = "") -> _Views:
    """The images of each place in `folder`/PLACE/`below`, by name; hidden files and other files do not count.

    A name that most places have, with any ending, and another lacks, is missing there.
    """
    if not folder.is_dir():
        raise DataError(f"{folder} does not exist. Unpack it, or choose another split.")
    images, missing = dict[str, tuple[Path, ...]](), list[Skipped]()
    for place in sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")):
        inside = place / below
        if not inside.is_dir():
            missing.append(Skipped(inside, "missing"))
            continue
        paths = tuple(sorted(path for path in inside.iterdir() if _is_image(path)))
        if paths:
            images[place.name] = paths
        else:
            missing.append(Skipped(inside, "holds no images"))
    stems = {id_: {_stem(path, id_): path.suffix for path in paths} for id_, paths in images.items()}
    counts = Counter(stem for of_place in stems.values() for stem in of_place)
    endings = {stem: ending for of_place in stems.values() for stem, ending in of_place.items()}
    usual = [stem for stem, count in counts.items() if 2 * count > len(images)]
    for id_, paths in images.items():
        absent = [stem for stem in usual if stem not in stems[id_]]
        missing += [Skipped(paths[0].parent / f"{stem or id_}{endings[stem]}", "missing") for stem in absent]
    return _Views(folder, images, tuple(missing))


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file()


def _stem(path: Path, place: str) -> str:
    """The name of an image without its ending; empty where it is the place's id."""
    return "" if path.stem == place else path.stem


def _read_positions(path: Path) -> dict[str, tuple[float, float]]:
    """Latitude and longitude of each place; empty without the file. A row: path, E and longitude, N and latitude."""
    positions = dict[str, tuple[float, float]]()
    for line, words in read_words(path) if path.is_file() else ():
        try:
            place = Path(words[0]).parent.name
            (lon,) = (float(word[1:]) for word in words[1:] if word.startswith("E"))
            (lat,) = (float(word[1:]) for word in words[1:] if word.startswith("N"))
        except (IndexError, ValueError):
            raise DataError(
                f"{path}, line {line}: needs the path of an image, E and its longitude, N and its latitude, has "
                f"{' '.join(words)[:200]!r}. Copy it again, or remove it: the images then have no positions."
            ) from None
        if not (abs(lat) <= 90 and abs(lon) <= 180):
            raise DataError(f"{path}, line {line}: E{lon:g} N{lat:g} is not a position in degrees. Correct it.")
        positions[place] = (lat, lon)
    return positions
