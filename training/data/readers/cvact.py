"""Reader of CVACT in the layout of its release: `ANU_data_small`, `ANU_data_test` and the index `ACT_data.mat`.

Images are `streetview/<id>_grdView.jpg` and `satview_polish/<id>_satView_polish.jpg`. Positions are UTM metres of the
panorama. The index does not state their zone; the set shows Canberra, which is in zone 55 south. CVACT_val is a subset
of CVACT_test, so selecting an epoch on one biases the result on the other.
Source: the releases of OriCNN (Liu and Li, CVPR 2019) and GeoDTR.
"""

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import msgspec

from geodtr.runtime.errors import DataError, MissingDependency
from geodtr.runtime.files.documents import decode_json
from geodtr.runtime.geodesy import utm_to_degrees
from geodtr.runtime.installation import install_hint
from geodtr.training.data.pair_set import Pair, PairSet
from geodtr.training.data.readers.existing import existing

INDEX = "ACT_data.mat"
FOLDERS = {"train": "ANU_data_small", "val": "ANU_data_test", "test": "ANU_data_test"}
"""The folder with each split's images."""

_ROWS = {"train": ("trainSet", "trainInd"), "val": ("valSet", "valInd"), "test": ("valSetAll", "valInd")}
"""The struct and its field with each split's row numbers, from 1."""


_ZONE = 55
_TERRITORY = (-36.0, -35.0, 148.7, 149.5)
"""South, north, west and east of the Australian Capital Territory, in degrees."""


def read_cvact(root: Path, split: str) -> PairSet:
    """Read one split. ACT_data.mat is at the root, as in most copies, or in one of the two folders.

    Raises DataError when the index is missing, corrupt, or names rows that do not exist.
    """
    candidates = [root / INDEX, *(root / folder / INDEX for folder in dict.fromkeys(FOLDERS.values()))]
    path = next((candidate for candidate in candidates if candidate.is_file()), None)
    if path is None:
        raise DataError(
            f"{root} holds no {INDEX}, nor do its folders {' and '.join(dict.fromkeys(FOLDERS.values()))}. "
            "Give the folder that contains these two."
        )
    index = _read_index(path, split)
    folder = root / FOLDERS[split]
    pairs = [
        Pair(
            ground=folder / "streetview" / f"{index.names[row - 1]}_grdView.jpg",
            aerial=folder / "satview_polish" / f"{index.names[row - 1]}_satView_polish.jpg",
            lat=lat,
            lon=lon,
            utm=index.utm[row - 1],
        )
        for row, (lat, lon) in ((int(row), _position(index.utm[int(row) - 1])) for row in index.rows)
    ]
    return existing(f"cvact:{root}#{split}", pairs)


def _position(utm: tuple[float, float]) -> tuple[float, float] | tuple[None, None]:
    """Latitude and longitude in degrees; None outside the Territory, where the zone is unknown."""
    lat, lon = utm_to_degrees(*utm, _ZONE, southern=True)
    south, north, west, east = _TERRITORY
    return (lat, lon) if south <= lat <= north and west <= lon <= east else (None, None)


class _Index(msgspec.Struct):
    """All panoramas, their easting and northing in metres, and the row numbers of one split, from 1."""

    names: list[Annotated[str, msgspec.Meta(pattern=r"\A[^/\x00]+\Z")]]
    utm: list[tuple[float, float]]
    rows: list[float]


def _read_index(path: Path, split: str) -> _Index:
    if find_spec("scipy") is None:
        raise MissingDependency(f"Reading {path} needs SciPy: {install_hint('train')}")
    command = [sys.executable, "-m", "geodtr.training.data.readers.mat_index", str(path), *_ROWS[split]]
    result = subprocess.run(command, capture_output=True, check=False)
    damaged = f"{path} is not the index of CVACT, or is damaged"
    if result.returncode:
        messages = result.stderr.decode(errors="replace").split("\n")
        reason = next((line for line in reversed(messages) if line.strip()), "its reader crashed")
        raise DataError(f"{damaged} ({reason}). Copy it again.")
    try:
        index = decode_json(result.stdout, _Index)
    except msgspec.DecodeError as error:
        raise DataError(f"{damaged} ({error}). Copy it again.") from None
    if len(index.names) != len(index.utm):
        raise DataError(f"{damaged}: {len(index.names)} panoIds and {len(index.utm)} rows of utm. Copy it again.")
    wrong = next((row for row in index.rows if not (row.is_integer() and 1 <= row <= len(index.names))), None)
    if wrong is not None:
        raise DataError(f"{damaged}: {split} lists row {wrong:g}; allowed are 1 to {len(index.names)}. Copy it again.")
    return index
