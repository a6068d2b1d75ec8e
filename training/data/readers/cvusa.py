"""Reader of CVUSA in the layout of its release: `splits/{train,val}-19zl.csv`, rows of aerial, panorama, annotation.

GeoDTR's authors removed duplicates from the lists. Their lists have the names of the released ones. To use both, unpack
theirs into a folder with the name of their archive.
Source: the release of Zhai et al. (CVPR 2017); the README and resources/CVUSA_cleaned.zip of GeoDTR's release.
"""

from pathlib import Path

from geodtr.runtime.errors import DataError
from geodtr.runtime.files.text_rows import read_csv
from geodtr.training.data.pair_set import Pair, PairSet
from geodtr.training.data.readers.existing import existing

LISTS = {
    "train": "splits/train-19zl.csv",
    "val": "splits/val-19zl.csv",
    "train-clean": "splits/CVUSA_cleaned/train-19zl.csv",
    "val-clean": "splits/CVUSA_cleaned/val-19zl.csv",
}
"""The list of each split, relative to the root."""

POSITIONS = ("split_locations/all.csv", "all.csv")
"""The positions in the full release; some copies have the file at the root."""


def read_cvusa(root: Path, split: str) -> PairSet:
    """Read one split; `lat` and `lon` are the panorama's, if the root holds positions.

    Raises DataError when the split's list is missing or a row is malformed.
    """
    path = root / LISTS[split]
    if not path.is_file():
        cleaned = " Unpack GeoDTR's CVUSA_cleaned.zip there." if split.endswith("-clean") else ""
        raise DataError(f"{path} does not exist.{cleaned} CVUSA's root contains bingmap, streetview and splits.")
    positions = _read_positions(root)
    pairs = []
    for line, row in read_csv(path):
        if len(row) not in (2, 3) or not (row[0] and row[1]):
            raise DataError(f"{path}, line {line}: needs aerial,panorama[,annotation], has {','.join(row)!r}.")
        lat, lon = positions.get(Path(row[1]).stem, (None, None))
        pairs.append(Pair(ground=root / row[1], aerial=root / row[0], lat=lat, lon=lon))
    return existing(f"cvusa:{root}#{split}", pairs)


def _read_positions(root: Path) -> dict[str, tuple[float, float]]:
    """The position of each panorama by its seven-digit number; empty if the root holds no list of positions.

    Row n (from 1, no header) belongs to image n: latitude and longitude of the tile, then of the panorama.
    """
    path = next((root / name for name in POSITIONS if (root / name).is_file()), None)
    if path is None:
        return {}
    positions = {}
    for number, (line, row) in enumerate(read_csv(path), start=1):
        try:
            lat, lon = float(row[2]), float(row[3])
        except (IndexError, ValueError):
            raise DataError(
                f"{path}, line {line}: needs sat_lat,sat_lon,grd_lat,grd_lon and no header, has {','.join(row)!r}. "
                "Correct the file, or remove it; the images then have no positions."
            ) from None
        if not (abs(lat) <= 90 and abs(lon) <= 180):
            raise DataError(f"{path}, line {line}: {row[2]},{row[3]} is not a position in degrees. Correct it.")
        positions[f"{number:07d}"] = (lat, lon)
    return positions
