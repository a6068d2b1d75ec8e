"""Same-area and cross-area protocols: whether a model is tested in the area it was trained in.

Works on the names of data sets; reads none.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from geodtr.runtime.errors import DataError
from geodtr.training.data.spec import KINDS

Area = Literal["same", "cross", ""]
"""Empty if unknown."""

NAMES = {
    "cvusa": "CVUSA",
    "cvact": "CVACT",
    "vigor": "VIGOR",
    "university": "University-1652",
    "sues": "SUES-200",
    "denseuav": "DenseUAV",
    "visloc": "UAV-VisLoc",
    "gta": "GTA-UAV",
}
"""Papers' names of the kinds whose copies all show the same area, independent of the folder."""

_TWO_PROTOCOLS = ("vigor", "visloc", "gta")
"""Kinds that hold a same-area and a cross-area protocol in one folder."""
_APART = ("university", "denseuav")
"""Kinds that test at other universities than they train at."""


@dataclass(frozen=True, slots=True)
class DataName:
    """A parsed SPEC; `split` is empty if the SPEC has none and its kind has no default."""

    kind: str
    path: str
    split: str

    @classmethod
    def of(cls, spec: str) -> "DataName":
        """Parse the SPEC of a test set; the benchmarks need no path. Raises DataError for an unknown kind."""
        name = cls._parsed(spec)
        return replace(name, split=name.split or KINDS[name.kind].test)

    @classmethod
    def of_training(cls, spec: str) -> "DataName":
        """The same of a training set: without a split, the kind's split for training."""
        name = cls._parsed(spec)
        return replace(name, split=name.split or KINDS[name.kind].train)

    @classmethod
    def _parsed(cls, spec: str) -> "DataName":
        kind, _, path = spec.partition(":")
        if kind not in KINDS:
            raise DataError(f"{spec!r} does not name a data set: its kind must be one of {', '.join(KINDS)}.")
        if not path and kind not in NAMES:
            raise DataError(f"{spec!r} names no folder. Write {kind}:PATH.")
        split = ""
        # As in parse_spec: a folder name may contain a hash.
        if "#" in path and not Path(path).is_dir():
            path, _, split = path.rpartition("#")
        return cls(kind, path, split)

    @property
    def label(self) -> str:
        """Label for tables: CVUSA and CVACT_val as in papers, otherwise the kind and the folder's name."""
        if self.kind in ("cvusa", "vigor") or self.kind not in NAMES:
            return self.data_set
        return f"{self.data_set}{'_' if self.kind == 'cvact' else ' '}{self.split}"

    @property
    def data_set(self) -> str:
        """The label without the split."""
        return NAMES.get(self.kind) or f"{self.kind}:{Path(self.path).resolve().name}"


def area(trained_on: str | None, tested_on: str, *, stated: bool = False) -> Area:
    """Whether a model trained on one SPEC and tested on another saw the test area in training.

    The area of a user's own data set is unknown unless the folder is the same. With `stated`, the user vouches for
    `trained_on`: the same folder or one within it is the same area, any other folder is another area.
    """
    if trained_on is None:
        return ""
    trained, tested = DataName.of_training(trained_on), DataName.of(tested_on)
    if trained.kind in NAMES and tested.kind in NAMES:
        return _area_of_benchmarks(trained, tested)
    training_folder, test_folder = Path(trained.path).resolve(), Path(tested.path).resolve()
    if trained.kind == tested.kind and training_folder == test_folder:
        return "same"
    if not stated:
        return ""
    return "same" if trained.kind == tested.kind and training_folder in test_folder.parents else "cross"


def _area_of_benchmarks(trained: DataName, tested: DataName) -> Area:
    if trained.kind != tested.kind:
        return "cross"
    if trained.kind in _APART:
        return "same" if trained.split == tested.split else "cross"
    return _area_of_splits(trained.split, tested.split) if trained.kind in _TWO_PROTOCOLS else "same"


def _area_of_splits(trained: str, tested: str) -> Area:
    """Where one folder holds both protocols, the names of the splits distinguish them.

    The same-area protocol trains in the whole area (VIGOR: in all four cities). The cross-area protocol trains in one
    part and tests in the other, so its model knows a part of a same-area test set: the result is "".
    """
    if trained.startswith("same") or trained == tested:
        return "same"
    return "cross" if tested.startswith("cross") else ""
