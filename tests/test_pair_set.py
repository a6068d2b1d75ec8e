"""A set of pairs has one fingerprint, of what recall is measured on."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from geodtr.runtime.names import BRANCHES
from geodtr.training.data.pair_set import Pair, PairSet

Change = Callable[[PairSet], PairSet]


@pytest.fixture
def pairs(tmp_path: Path) -> PairSet:
    return _written(tmp_path / "one", "one")


def _written(folder: Path, name: str) -> PairSet:
    folder.mkdir()
    for kind in ("ground", "aerial", "beside"):
        for number in range(3):
            (folder / f"{kind}{number}").write_text(f"{kind} {number}")
    made = [
        Pair(folder / f"ground{number}", folder / f"aerial{number}", semi_positives=(folder / f"beside{number}",))
        for number in range(3)
    ]
    return PairSet(name, (*made, Pair(folder / "beside0", made[0].aerial)))


def test_the_same_images_elsewhere_have_the_same_fingerprint(pairs: PairSet, tmp_path: Path) -> None:
    assert pairs.fingerprint() == _written(tmp_path / "two", "another name").fingerprint()


def _crossed(pairs: PairSet) -> PairSet:
    """The same images in the same order, the last pair having the second's tile in place of the first's."""
    crossed = replace(pairs, pairs=(*pairs.pairs[:3], replace(pairs.pairs[3], aerial=pairs.pairs[1].aerial)))
    assert [crossed.images(branch) for branch in BRANCHES] == [pairs.images(branch) for branch in BRANCHES]
    return crossed


def _moved(pairs: PairSet) -> PairSet:
    """The same images in the same order, one semi-positive being another pair's as well."""
    one, two, three, last = pairs.pairs
    three = replace(three, semi_positives=(*two.semi_positives, *three.semi_positives))
    moved = replace(pairs, pairs=(one, two, three, last))
    assert [moved.images(branch) for branch in BRANCHES] == [pairs.images(branch) for branch in BRANCHES]
    return moved


def _touched(pairs: PairSet) -> PairSet:
    pairs.pairs[1].aerial.write_text("another image")
    return pairs


@pytest.mark.parametrize("change", [_crossed, _moved, _touched, lambda pairs: pairs.first(2)])
def test_another_image_or_another_truth_has_another_fingerprint(pairs: PairSet, change: Change) -> None:
    before = pairs.fingerprint()
    assert change(pairs).fingerprint() != before
