"""Reader of CVUSA in the layout of its release: `splits/{train,val}-19zl.csv`, rows of aerial, panorama, annotation."""

import csv
from pathlib import Path

from geodtr.runtime.errors import DataError
from geodtr.training.data.pair_set import Pair, PairSet

SPLITS = ("train", "val")


def read_cvusa(root: Path, split: str) -> PairSet:
    """Read one split. Raises DataError when the split is unknown, its list is missing, or a row is malformed."""
    if split not in SPLITS:
        raise DataError(f"cvusa:{root}#{split}: no such split; allowed: {', '.join(SPLITS)}.")
    path = root / "splits" / f"{split}-19zl.csv"
    if not path.is_file():
        raise DataError(
            f"{path} does not exist. The root of CVUSA is the folder that holds bingmap, streetview and splits."
        )
    with path.open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.reader(file) if row]
    for line, row in enumerate(rows, 1):
        if len(row) < 2:
            raise DataError(f"{path}, line {line}: needs aerial,panorama[,annotation], has {','.join(row)!r}.")
    return PairSet(f"cvusa:{root}#{split}", tuple(Pair(ground=root / row[1], aerial=root / row[0]) for row in rows))
