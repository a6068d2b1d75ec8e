"""Reader of VIGOR in the layout of its release: one folder per city, and `splits/<City>/*.txt`.

A label row names a panorama, then four tiles, each followed by two offsets in pixels. The first tile is the positive,
the others are semi-positives. Several panoramas may share one tile. Same-area trains and tests in all four cities, on
the same tiles; cross-area trains in two and tests in the other two. File names give positions: `<id>,<lat>,<lon>,.jpg`.
Source: Zhu, Yang and Chen (CVPR 2021) and their release. `splits__corrected` is from SliceMatch (CVPR 2023), which
corrects the offsets for a wrong ground resolution: README of its folder VIGOR_corrected_labels.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from geodtr.runtime.errors import DataError
from geodtr.runtime.files.text_rows import read_words
from geodtr.training.data.pair_set import Pair, PairSet
from geodtr.training.data.readers.existing import existing


@dataclass(frozen=True, slots=True)
class _Split:
    """The cities and the labels of a split, and whether all tiles of the cities are in the gallery, as in testing."""

    cities: tuple[str, ...]
    labels: str
    search_all: bool


CITIES = ("NewYork", "Seattle", "SanFrancisco", "Chicago")

SPLITS = {
    "same-train": _Split(CITIES, "same_area_balanced_train", search_all=False),
    "same-test": _Split(CITIES, "same_area_balanced_test", search_all=True),
    "cross-train": _Split(("NewYork", "Seattle"), "pano_label_balanced", search_all=False),
    "cross-test": _Split(("SanFrancisco", "Chicago"), "pano_label_balanced", search_all=True),
}

_LISTS = (("splits", ""), ("splits__corrected", "__corrected"))
"""Folders of lists and the suffix of their label files; the first existing folder is read."""

_WORDS = 1 + 4 * 3
"""A panorama, then four tiles with two offsets each."""


def read_vigor(root: Path, split: str) -> PairSet:
    """Read one split; `lat` and `lon` are the panorama's.

    In a test split, the tiles of `satellite_list.txt` that are not a positive are distractors. Raises DataError when a
    list is missing or a row is malformed.
    """
    protocol = SPLITS[split]
    folder, ending = next(((root / name, ending) for name, ending in _LISTS if (root / name).is_dir()), (None, ""))
    if folder is None:
        raise DataError(f"{root} holds no folder splits. Give the folder that contains it and the cities.")
    pairs, tiles = list[Pair](), list[Path]()
    for city in protocol.cities:
        pairs += _read_labels(folder / city / f"{protocol.labels}{ending}.txt", root / city)
        if protocol.search_all:
            tiles += _read_tiles(folder / city / "satellite_list.txt", root / city)
    positives = {pair.aerial for pair in pairs}
    return existing(f"vigor:{root}#{split}", pairs, [tile for tile in tiles if tile not in positives])


def _read_labels(path: Path, city: Path) -> Iterator[Pair]:
    # In some copies the folder is renamed to the name that other data sets use.
    ground = city / ("panorama" if (city / "panorama").is_dir() else "ground")
    for line, words in _read(path):
        if len(words) != _WORDS or not all(map(_is_number, (word for n, word in enumerate(words) if n % 3 != 1 and n))):
            raise DataError(
                f"{path}, line {line}: needs a panorama and four tiles with two offsets each, {_WORDS} words, "
                f"has {len(words)}: {' '.join(words)[:200]!r}."
            )
        lat, lon = _position(words[0])
        aerial, *others = (city / "satellite" / name for name in words[1::3])
        # The positive itself must stay in the ranking.
        semi_positives = tuple(tile for tile in others if tile != aerial)
        yield Pair(ground / words[0], aerial, lat, lon, semi_positives=semi_positives)


def _read_tiles(path: Path, city: Path) -> Iterator[Path]:
    for line, words in _read(path):
        if len(words) != 1:
            raise DataError(f"{path}, line {line}: needs the name of one tile, has {' '.join(words)[:200]!r}.")
        yield city / "satellite" / words[0]


def _read(path: Path) -> list[tuple[int, list[str]]]:
    if not path.is_file():
        raise DataError(f"{path} does not exist. Unpack the lists of VIGOR's release, or choose another split.")
    return read_words(path)


def _position(name: str) -> tuple[float, float] | tuple[None, None]:
    """Latitude and longitude from a panorama's name `<id>,<lat>,<lon>,.jpg`; None for other names."""
    parts = name.split(",")
    if len(parts) < 4 or not (_is_number(parts[-3]) and _is_number(parts[-2])):
        return None, None
    lat, lon = float(parts[-3]), float(parts[-2])
    return (lat, lon) if abs(lat) <= 90 and abs(lon) <= 180 else (None, None)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
