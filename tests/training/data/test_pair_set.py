"""A set of pairs has one fingerprint, of what recall is measured on."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tiny_bundle import write_pairs

from geodtr.runtime.errors import DataError
from geodtr.runtime.names import BRANCHES
from geodtr.training.data.pair_set import Pair, PairSet
from geodtr.training.data.readers.pairs_csv import read_pairs

Change = Callable[[PairSet], PairSet]


@pytest.fixture
def pairs(tmp_path: Path) -> PairSet:
    return _written(tmp_path / "one", "one")


def _written(folder: Path, name: str) -> PairSet:
    folder.mkdir()
    for kind in ("ground", "aerial", "beside"):
        for number in range(3):
            (folder / f"{kind}{number}").write_text(f"{kind} {number}")
    plain = [
        Pair(folder / f"ground{number}", folder / f"aerial{number}", semi_positives=(folder / f"beside{number}",))
        for number in range(3)
    ]
    one, two, three = plain
    return PairSet(name, (*plain, Pair(folder / "beside0", one.aerial), Pair(two.ground, three.aerial)))


def test_the_same_images_elsewhere_have_the_same_fingerprint(pairs: PairSet, tmp_path: Path) -> None:
    assert pairs.fingerprint() == _written(tmp_path / "two", "another name").fingerprint()


def _crossed(pairs: PairSet) -> PairSet:
    """The same images in the same order, the fourth pair having the second's tile in place of the first's."""
    fourth = replace(pairs.pairs[3], aerial=pairs.pairs[1].aerial)
    crossed = replace(pairs, pairs=(*pairs.pairs[:3], fourth, pairs.pairs[4]))
    assert [crossed.images(branch) for branch in BRANCHES] == [pairs.images(branch) for branch in BRANCHES]
    return crossed


def _moved(pairs: PairSet) -> PairSet:
    """The same images in the same order, one semi-positive being another pair's as well."""
    one, two, three, *others = pairs.pairs
    three = replace(three, semi_positives=(*two.semi_positives, *three.semi_positives))
    moved = replace(pairs, pairs=(one, two, three, *others))
    assert [moved.images(branch) for branch in BRANCHES] == [pairs.images(branch) for branch in BRANCHES]
    return moved


def _shared(pairs: PairSet) -> PairSet:
    """The same images in the same order, the last pair having the third's ground image in place of the second's."""
    shared = replace(pairs, pairs=(*pairs.pairs[:4], replace(pairs.pairs[4], ground=pairs.pairs[2].ground)))
    assert [shared.images(branch) for branch in BRANCHES] == [pairs.images(branch) for branch in BRANCHES]
    return shared


def _touched(pairs: PairSet) -> PairSet:
    pairs.pairs[1].aerial.write_text("another image")
    return pairs


@pytest.mark.parametrize("change", [_crossed, _moved, _shared, _touched, lambda pairs: pairs.first(2)])
def test_another_image_or_another_truth_has_another_fingerprint(pairs: PairSet, change: Change) -> None:
    before = pairs.fingerprint()
    assert change(pairs).fingerprint() != before


@settings(deadline=None)
@given(st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=3), min_size=1, max_size=8))
@example([[3, 5], [5, 7], [7, 3]])
def test_a_right_tile_is_never_a_negative(right: list[list[int]]) -> None:
    pairs = tuple(
        Pair(Path(f"g{row}"), Path(f"a{own}"), positives=tuple(Path(f"a{tile}") for tile in others))
        for row, (own, *others) in enumerate(right)
    )
    places = PairSet("made", pairs, (Path("a10"),)).places
    groups = [set(tiles) for tiles in right]
    for _ in groups:
        groups = [set().union(*(other for other in groups if other & group)) for group in groups]
    for one in range(len(right)):
        assert [bool(groups[one] & other) for other in groups] == (places == places[one]).tolist()


def test_a_file_that_is_gone_is_named(pairs: PairSet) -> None:
    pairs.pairs[1].aerial.unlink()
    with pytest.raises(DataError, match=r"aerial1 cannot be read \(No such file"):
        pairs.fingerprint()


def test_a_list_with_too_many_pairs_is_refused_by_their_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("geodtr.training.data.readers.pairs_csv.MAX_PAIRS", 3)
    pairs = write_pairs(tmp_path / "pairs", 3)
    assert len(read_pairs(pairs)) == 3
    with (pairs / "pairs.csv").open("a") as file:
        file.write("ground0.png,aerial1.png\n")
    with pytest.raises(DataError, match=r"pairs\.csv has more than 3 rows\. Split it"):
        read_pairs(pairs)
