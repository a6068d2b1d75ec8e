"""Same area or cross area: was a model tested where it was trained?

Knows how data sets are named; reads none of them.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from geodtr.runtime.errors import DataError
from geodtr.training.data.spec import KINDS

Area = Literal["same", "cross", ""]
"""Empty: not known."""

OF_ONE_AREA = ("cvusa", "cvact", "vigor")
"""The kinds whose every copy shows one and the same area, whatever folder it lies in."""


@dataclass(frozen=True, slots=True)
class DataName:
    """A SPEC taken apart; `split` is empty where the SPEC names none and its kind has no default."""

    kind: str
    path: str
    split: str

    @classmethod
    def of(cls, spec: str) -> "DataName":
        """Take `spec` apart; one of the benchmarks needs no path. Raises DataError for a kind that is not known."""
        kind, _, path = spec.partition(":")
        allowed = dict.fromkeys((*KINDS, *OF_ONE_AREA))
        if kind not in allowed:
            raise DataError(f"{spec!r} does not name a data set: its kind must be one of {', '.join(allowed)}.")
        if not path and kind not in OF_ONE_AREA:
            raise DataError(f"{spec!r} names no folder: write {kind}:PATH.")
        split = ""
        # As readers do it: a folder's own name may hold a hash.
        if "#" in path and not Path(path).is_dir():
            path, _, split = path.rpartition("#")
        return cls(kind, path, split or (KINDS[kind].test if kind in KINDS else ""))

    @property
    def label(self) -> str:
        """For tables: CVUSA and CVACT_val as papers write them, otherwise the kind and the folder's own name."""
        return f"CVACT_{self.split}" if self.kind == "cvact" else self.place

    @property
    def place(self) -> str:
        """The label without the split."""
        return self.kind.upper() if self.kind in OF_ONE_AREA else f"{self.kind}:{Path(self.path).resolve().name}"


def area(trained_on: str | None, tested_on: str, *, stated: bool = False) -> Area:
    """Whether a model trained on one SPEC was tested on another in the area it knows.

    Data sets of one's own tell no area, unless the very folder is the same. Where the user has `stated` what the model
    was trained on, that is taken at its word: the same folder, or one within it, is the same area, all else another.
    """
    if trained_on is None:
        return ""
    trained, tested = DataName.of(trained_on), DataName.of(tested_on)
    if trained.kind in OF_ONE_AREA and tested.kind in OF_ONE_AREA:
        if trained.kind != tested.kind:
            return "cross"
        return _vigor_area(trained.split, tested.split) if trained.kind == "vigor" else "same"
    known, asked = Path(trained.path).resolve(), Path(tested.path).resolve()
    if trained.kind == tested.kind and known == asked:
        return "same"
    if not stated:
        return ""
    return "same" if trained.kind == tested.kind and known in asked.parents else "cross"


def _vigor_area(trained: str, tested: str) -> Area:
    """VIGOR keeps both protocols in one folder and names its splits by them.

    The same-area protocol trains in all four cities, the cross-area one in two and tests in the other two; what that
    one knows of a same-area test set is half of it.
    """
    if trained.startswith("same") or trained == tested:
        return "same"
    return "cross" if tested.startswith("cross") else ""
