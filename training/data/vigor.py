"""Reader of VIGOR in the layout of its release: a folder a city, and `splits/<City>/*.txt`.

A label row names a panorama, then four tiles, each followed by two offsets in pixels: the first tile is the positive,
the others are semi-positives. Several panoramas may share one tile. Same-area trains and tests in all four cities, over
the same tiles; cross-area trains in two and tests in the other two. Names give positions: `<id>,<lat>,<lon>,.jpg`.
Source: Zhu, Yang and Chen (CVPR 2021) and their release; for `splits__corrected` SliceMatch (CVPR 2023), which put
right the offsets, computed under a wrong ground resolution: README of its folder VIGOR_corrected_labels.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from geodtr.runtime.errors import DataError
from geodtr.runtime.text_rows import read_words
from geodtr.training.data.pair_set import Pair, PairSet, existing


@dataclass(frozen=True, slots=True)
class _Split:
    """Whose labels a split reads, and whether all tiles of the cities are searched, as in testing."""

    cities: tuple[str, ...]
    labels: str
    search_all: bool


_ALL = ("NewYork", "Seattle", "SanFrancisco", "Chicago")

SPLITS = {
    "same-train": _Split(_ALL, "same_area_balanced_train", search_all=False),
    "same-test": _Split(_ALL, "same_area_balanced_test", search_all=True),
    "cross-train": _Split(("NewYork", "Seattle"), "pano_label_balanced", search_all=False),
    "cross-test": _Split(("SanFrancisco", "Chicago"), "pano_label_balanced", search_all=True),
}

_LISTS = (("splits", ""), ("splits__corrected", "__corrected"))
"""Folders of lists and what their labels' names end in; the first that is there is read."""

_WORDS = 1 + 4 * 3
"""A panorama, then four times a tile and its two offsets."""


def read_vigor(root: Path, split: str) -> PairSet:
    """Read one split; `lat` and `lon` are those of the panorama. The tiles of `satellite_list.txt` that are nobody's
    positive are distractors of a test split; training has no use for them.

    Raises DataError when a list is missing or a row is malformed.
    """
    chosen = SPLITS[split]
    folder, ending = next(((root / name, ending) for name, ending in _LISTS if (root / name).is_dir()), (None, ""))
    if folder is None:
        raise DataError(f"{root} holds no folder splits. The root of VIGOR is the one that holds it and the cities.")
    pairs, tiles = list[Pair](), list[Path]()
    for city in chosen.cities:
        pairs += _read_labels(folder / city / f"{chosen.labels}{ending}.txt", root / city)
        if chosen.search_all:
            tiles += _read_tiles(folder / city / "satellite_list.txt", root / city)
    positives = {pair.aerial for pair in pairs}
    return existing(f"vigor:{root}#{split}", pairs, [tile for tile in tiles if tile not in positives])


def _read_labels(path: Path, city: Path) -> Iterator[Pair]:
    # Some copies have the folder renamed, as other data sets name the view.
    ground = city / ("panorama" if (city / "panorama").is_dir() else "ground")
    for line, words in _read(path):
        if len(words) != _WORDS or not all(map(_is_number, (word for n, word in enumerate(words) if n % 3 != 1 and n))):
            raise DataError(
                f"{path}, line {line}: needs a panorama and four times a tile and two offsets, {_WORDS} words, "
                f"has {len(words)}: {' '.join(words)[:200]!r}."
            )
        lat, lon = _position(words[0])
        aerial, *others = (city / "satellite" / name for name in words[1::3])
        # A tile left out of the ranking could not be found in it.
        semi_positives = tuple(tile for tile in others if tile != aerial)
        yield Pair(ground / words[0], aerial, lat, lon, semi_positives=semi_positives)


def _read_tiles(path: Path, city: Path) -> Iterator[Path]:
    for line, words in _read(path):
        if len(words) != 1:
            raise DataError(f"{path}, line {line}: needs the name of one tile, has {' '.join(words)[:200]!r}.")
        yield city / "satellite" / words[0]


def _read(path: Path) -> list[tuple[int, list[str]]]:
    if not path.is_file():
        raise DataError(f"{path} does not exist. Unpack the lists of VIGOR's release, or name another split.")
    return read_words(path)


def _position(name: str) -> tuple[float, float] | tuple[None, None]:
    """Latitude and longitude out of a panorama's name `<id>,<lat>,<lon>,.jpg`; of another name, none."""
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
