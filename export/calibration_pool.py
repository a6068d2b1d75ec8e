"""What a user names to calibrate on, a data set or a folder of images, as a pool to choose from."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from geodtr.calibration.select import Pool
from geodtr.runtime.errors import DataError
from geodtr.runtime.names import BRANCHES, Branch
from geodtr.runtime.spec import BranchSpec, Images
from geodtr.training.data.pair_set import PairSet, describe_skipped
from geodtr.training.data.spec import read_training_set
from geodtr.training.data.views import View, load_query

_CELLS = 8
_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".tif", ".tiff", ".webp", ".bmp"})


def open_pool(data: str | Pool, warn: Callable[[str], None]) -> Pool:
    """What calibration is to choose from; a SPEC or folder is read. `warn` is called with files that cannot be used."""
    if isinstance(data, Pool):
        return data
    pool, pair_set = read_pool(data)
    if pair_set is not None and pair_set.skipped:
        warn(describe_skipped(pair_set.name, pair_set.skipped))
    return pool


def read_pool(named: str) -> tuple[Pool, PairSet | None]:
    """The pool of a data set SPEC, with the set itself, or of a folder that holds `ground/` and `aerial/`.

    Raises DataError when a folder lacks one of them, or one of them images; and what reading a set raises.
    """
    folder = Path(named)
    if not folder.is_dir():
        pair_set = read_training_set(named)
        return pool_of(pair_set), pair_set
    images: dict[Branch, tuple[Path, ...]] = {}
    for branch in BRANCHES:
        paths = sorted(path for path in (folder / branch).rglob("*") if path.suffix.lower() in _SUFFIXES)
        if not paths:
            raise DataError(
                f"{folder / branch} holds no images. A folder to calibrate on holds images in ground/ and in aerial/; "
                f"a data set is named by its kind, for example pairs:{folder}"
            )
        images[branch] = tuple(paths)
    return Pool(named, images, {branch: _folders(images[branch]) for branch in BRANCHES}), None


def pool_of(pair_set: PairSet) -> Pool:
    """All images of a set, each once; of a panorama, what is seen of it for its first pair."""
    images = {branch: tuple(pair_set.images(branch)) for branch in BRANCHES}
    places: dict[Path, tuple[float, float]] = {}
    for pair in pair_set.pairs:
        if pair.lat is not None and pair.lon is not None:
            places.setdefault(pair.ground, (pair.lat, pair.lon))
            places.setdefault(pair.aerial, (pair.lat, pair.lon))
    strata: dict[Branch, tuple[str, ...]] = {}
    for branch in BRANCHES:
        strata[branch] = folders = _folders(images[branch])
        if len(set(folders)) == 1 and places:
            strata[branch] = _cells(images[branch], places)
    if pair_set.views.as_they_are:
        return Pool(pair_set.name, images, strata)
    views = {pair.ground: pair.view for pair in reversed(pair_set.pairs)}
    return Pool(pair_set.name, images, strata, partial(_load_seen, views), f"{pair_set.views}, {pair_set.views.seed}")


def _load_seen(views: Mapping[Path, View | None], spec: BranchSpec, path: Path) -> Images:
    view = views.get(path) if spec.branch == "ground" else None
    return load_query(path, view, spec.preprocessing, spec.scorer)


def _folders(images: tuple[Path, ...]) -> tuple[str, ...]:
    return tuple(str(path.parent) for path in images)


def _cells(images: tuple[Path, ...], places: dict[Path, tuple[float, float]]) -> tuple[str, ...]:
    """The cell of each image in a grid over all places; one more for those that have none."""
    lats, lons = zip(*places.values(), strict=True)
    south, west = min(lats), min(lons)
    high, wide = max(lats) - south or 1.0, max(lons) - west or 1.0

    def cell(path: Path) -> str:
        if path not in places:
            return "nowhere"
        lat, lon = places[path]
        row, column = int((lat - south) / high * _CELLS), int((lon - west) / wide * _CELLS)
        return f"{min(row, _CELLS - 1)}/{min(column, _CELLS - 1)}"

    return tuple(map(cell, images))
