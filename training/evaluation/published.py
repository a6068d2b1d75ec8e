"""Published recall, in percent, and distances, in metres, for comparison: the rows of `published.csv`."""

from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any

from geodtr.runtime.errors import DataError
from geodtr.runtime.files.text_rows import read_csv
from geodtr.training.data.spec import KINDS, Counts

TABLE = Path(__file__).with_name("published.csv")


@dataclass(frozen=True, slots=True)
class Published:
    """A row of a paper's tables; missing figures are None.

    `data` and `trained_on` are kinds of data sets. `polar`: whether tiles were polar-transformed; None where ground
    images are no panoramas. `layout_simulation`: training rotated and mirrored pairs (GeoDTR's rows: with photometric
    augmentation as well). `protocol`: what the paper counts, where that is stated or known from its code. `source` is
    the paper; `read_in`: where the figure was read.
    """

    model: str
    data: str
    split: str
    trained_on: str
    polar: bool | None
    layout_simulation: bool
    protocol: str
    at_1: float
    at_5: float | None
    at_10: float | None
    at_1_percent: float | None
    average_precision: float | None
    hit_rate: float | None
    sdm_at_1: float | None
    sdm_at_3: float | None
    metres_at_1: float | None
    source: str
    read_in: str

    @property
    def counts(self) -> Counts:
        """The published numbers of images of the test set."""
        return KINDS[self.data].published.get(self.split, Counts())


@cache
def rows() -> tuple[Published, ...]:
    """All rows, in the order of the file."""
    (_, header), *lines = read_csv(TABLE)
    return tuple(_row(dict(zip(header, line, strict=True))) for _, line in lines)


def published(
    trained_on: str | None, data: str, split: str = "", *, polar: bool | None = None
) -> tuple[Published, ...]:
    """Published results on these kinds of training and test data, with or without the polar transform.

    None stands for any, and no split for every split of the kind.
    """
    return tuple(
        row
        for row in rows()
        if row.data == data
        and (not split or row.split == split)
        and trained_on in (None, row.trained_on)
        and (polar is None or row.polar in (None, polar))
    )


def parse_data(text: str) -> tuple[str, str]:
    """The kind and the split of `KIND` or `KIND#SPLIT`; the split is empty for a kind alone.

    Raises DataError when no paper's row is of this kind or split.
    """
    kind, _, split = text.partition("#")
    kinds = dict.fromkeys(row.data for row in rows())
    if kind not in kinds:
        raise DataError(f"{text!r}: no figures of {kind or '(nothing)'}; there are {', '.join(kinds)}.")
    splits = dict.fromkeys(row.split for row in published(None, kind))
    if split and split not in splits:
        raise DataError(f"{text!r}: no figures of the split {split}; there are {', '.join(splits)}.")
    return kind, split


def _row(cells: dict[str, str]) -> Published:
    values: dict[str, Any] = dict(cells)
    for each in fields(Published):
        if each.type in (float, float | None):
            values[each.name] = float(cells[each.name]) if cells[each.name] else None
    values["polar"] = {"yes": True, "no": False, "": None}[cells["polar"]]
    values["layout_simulation"] = cells["layout_simulation"] == "yes"
    return Published(**values)
