"""Which kind of data set a folder holds, to say so where a SPEC names another kind.

Looks at names that one kind alone has. A folder of one's own may have the layout of several kinds, and is then none's.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

from geodtr.runtime.errors import DataError
from geodtr.runtime.files import readable
from geodtr.training.data.readers.cvact import FOLDERS as CVACT_FOLDERS
from geodtr.training.data.readers.cvact import INDEX as CVACT_INDEX
from geodtr.training.data.readers.cvusa import LISTS as CVUSA_LISTS
from geodtr.training.data.readers.overlap_lists import LISTS, TILES, VISLOC_MAP
from geodtr.training.data.readers.pairs_csv import FILE_NAME
from geodtr.training.data.readers.place_folders import POSITIONS, SUES_HEIGHTS, SUES_PARTS, SUES_TILES
from geodtr.training.data.readers.prepared import DOCUMENT, UNFINISHED
from geodtr.training.data.readers.vigor import CITIES


@readable(DataError)
def find_kinds(root: Path) -> list[str]:
    """The kinds of data sets that the folder `root` shows signs of. Raises DataError when it cannot be read."""
    return [kind for kind, is_one in _SIGNS.items() if is_one(root)]


def _holds(*names: str) -> Callable[[Path], bool]:
    return lambda root: any((root / name).exists() for name in names)


def _is_university(root: Path) -> bool:
    """Each tile has the name of its place; only this set has streets."""
    streets = (root / "train/street", root / "test/gallery_street")
    tiles = (place for name in _SATELLITE for place in _first_place(root / name))
    return any(street.is_dir() for street in streets) or any(each.stem == each.parent.name for each in tiles)


def _is_denseuav(root: Path) -> bool:
    """Drone images have the names of their heights."""
    images = (image for name in _DRONE for image in _first_place(root / name))
    return (root / POSITIONS).is_file() or any(image.stem in ("H80", "H90", "H100") for image in images)


_SATELLITE = ("train/satellite", "test/gallery_satellite")
_DRONE = ("train/drone", "test/query_drone", "test/gallery_drone")


def _first_place(folder: Path) -> Iterator[Path]:
    """The files of one place of a folder; of none where there is none."""
    places = folder.iterdir() if folder.is_dir() else iter(())
    place = next((each for each in places if each.is_dir() and not each.name.startswith(".")), None)
    yield from () if place is None else place.iterdir()


_OF_A_ZOOM, _OF_A_MAP = 1, 2
"""Digits of the number that begins the name of a tile, of GTA-UAV and of UAV-VisLoc."""


def _digits_of_a_tile(root: Path) -> int:
    """How many digits the name of a tile begins with; 0 where no list is there, or no tile of such a name."""
    if not any((root / name).is_file() for name in LISTS.values()) or not (root / TILES).is_dir():
        return 0
    first = next((path.name for path in (root / TILES).iterdir() if not path.name.startswith(".")), "")
    number = first.partition("_")[0]
    return len(number) if number.isdigit() else 0


_SIGNS: dict[str, Callable[[Path], bool]] = {
    "cvusa": _holds("bingmap", *CVUSA_LISTS.values()),
    "cvact": _holds(CVACT_INDEX, *CVACT_FOLDERS.values()),
    "vigor": _holds(*(f"{city}/satellite" for city in CITIES)),
    "university": _is_university,
    "sues": _holds(SUES_TILES, *(f"{part}/{height}" for part in SUES_PARTS for height in SUES_HEIGHTS)),
    "denseuav": _is_denseuav,
    "visloc": lambda root: _digits_of_a_tile(root) == _OF_A_MAP or (root / VISLOC_MAP).is_dir(),
    "gta": lambda root: _digits_of_a_tile(root) == _OF_A_ZOOM,
    "pairs": _holds(FILE_NAME),
    "prepared": _holds(DOCUMENT, UNFINISHED),
}
