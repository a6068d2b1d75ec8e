"""Reader of CVUSA in the layout of its release: `splits/{train,val}-19zl.csv`, rows of aerial, panorama, annotation."""

from pathlib import Path

from geodtr.runtime.errors import DataError
from geodtr.training.data.csv_rows import read_csv
from geodtr.training.data.pair_set import Pair, PairSet, existing


def read_cvusa(root: Path, split: str) -> PairSet:
    """Read one split. Raises DataError when its list is missing or a row is malformed."""
    path = root / "splits" / f"{split}-19zl.csv"
    if not path.is_file():
        raise DataError(
            f"{path} does not exist. The root of CVUSA is the folder that holds bingmap, streetview and splits."
        )
    pairs = []
    for line, row in read_csv(path):
        if len(row) < 2:
            raise DataError(f"{path}, line {line}: needs aerial,panorama[,annotation], has {','.join(row)!r}.")
        pairs.append(Pair(ground=root / row[1], aerial=root / row[0]))
    return existing(f"cvusa:{root}#{split}", pairs)
