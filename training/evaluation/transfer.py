"""Same-area and cross-area protocols: whether a model is tested in the area it was trained in.

Works on the names of data sets; reads none.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from geodtr.runtime.errors import DataError
from geodtr.training.data.spec import KINDS

Area = Literal["same", "cross", ""]
"""Empty if unknown."""

SINGLE_AREA_KINDS = ("cvusa", "cvact", "vigor")
"""Kinds whose copies all show the same area, independent of the folder."""


@dataclass(frozen=True, slots=True)
class DataName:
    """A parsed SPEC; `split` is empty if the SPEC has none and its kind has no default."""

    kind: str
    path: str
    split: str

    @classmethod
    def of(cls, spec: str) -> "DataName":
        """Parse `spec`; the benchmarks need no path. Raises DataError for an unknown kind."""
        kind, _, path = spec.partition(":")
        allowed = dict.fromkeys((*KINDS, *SINGLE_AREA_KINDS))
        if kind not in allowed:
            raise DataError(f"{spec!r} does not name a data set: its kind must be one of {', '.join(allowed)}.")
        if not path and kind not in SINGLE_AREA_KINDS:
            raise DataError(f"{spec!r} names no folder. Write {kind}:PATH.")
        split = ""
        # As in parse_spec: a folder name may contain a hash.
        if "#" in path and not Path(path).is_dir():
            path, _, split = path.rpartition("#")
        return cls(kind, path, split or (KINDS[kind].test if kind in KINDS else ""))

    @property
    def label(self) -> str:
        """Label for tables: CVUSA and CVACT_val as in papers, otherwise the kind and the folder's name."""
        return f"CVACT_{self.split}" if self.kind == "cvact" else self.data_set

    @property
    def data_set(self) -> str:
        """The label without the split."""
        return self.kind.upper() if self.kind in SINGLE_AREA_KINDS else f"{self.kind}:{Path(self.path).resolve().name}"


def area(trained_on: str | None, tested_on: str, *, stated: bool = False) -> Area:
    """Whether a model trained on one SPEC and tested on another saw the test area in training.

    The area of a user's own data set is unknown unless the folder is the same. With `stated`, the user vouches for
    `trained_on`: the same folder or one within it is the same area, any other folder is another area.
    """
    if trained_on is None:
        return ""
    trained, tested = DataName.of(trained_on), DataName.of(tested_on)
    if trained.kind in SINGLE_AREA_KINDS and tested.kind in SINGLE_AREA_KINDS:
        if trained.kind != tested.kind:
            return "cross"
        return _vigor_area(trained.split, tested.split) if trained.kind == "vigor" else "same"
    training_folder, test_folder = Path(trained.path).resolve(), Path(tested.path).resolve()
    if trained.kind == tested.kind and training_folder == test_folder:
        return "same"
    if not stated:
        return ""
    return "same" if trained.kind == tested.kind and training_folder in test_folder.parents else "cross"


def _vigor_area(trained: str, tested: str) -> Area:
    """VIGOR holds both protocols in one folder; the names of its splits distinguish them.

    The same-area protocol trains in all four cities. The cross-area protocol trains in two and tests in the other two,
    so its model knows half of a same-area test set: the result is "".
    """
    if trained.startswith("same") or trained == tested:
        return "same"
    return "cross" if tested.startswith("cross") else ""
