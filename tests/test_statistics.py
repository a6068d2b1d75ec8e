"""The interval of a paired drop: known values, and its coverage."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geodtr.export.statistics import paired_drop

Z = 1.959964


def _hits(both: int, lost: int, gained: int, neither: int) -> tuple[np.ndarray, np.ndarray]:
    before = np.repeat([True, True, False, False], [both, lost, gained, neither])
    after = np.repeat([True, False, True, False], [both, lost, gained, neither])
    return before, after


@given(hits=st.integers(0, 400), misses=st.integers(1, 400))
def test_without_any_change_the_interval_is_the_closed_form(hits: int, misses: int) -> None:
    drop = paired_drop(*_hits(hits, 0, 0, misses))
    half = Z**2 / (hits + misses + Z**2)
    assert drop.low == pytest.approx(-half, abs=1e-5)
    assert drop.high == pytest.approx(half, abs=1e-5)


@given(both=st.integers(0, 200), lost=st.integers(0, 60), gained=st.integers(0, 60), neither=st.integers(1, 200))
def test_the_interval_leaves_zero_out_just_where_mcnemars_test_rejects(
    both: int, lost: int, gained: int, neither: int
) -> None:
    drop = paired_drop(*_hits(both, lost, gained, neither))
    score = abs(lost - gained) / np.sqrt(max(lost + gained, 1))
    if abs(score - Z) > 1e-3:
        assert (drop.low > 0 or drop.high < 0) == (score > Z)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=300))
def test_the_interval_holds_the_drop_and_mirrors_when_sides_are_swapped(pairs: list[tuple[bool, bool]]) -> None:
    before, after = (np.array(column) for column in zip(*pairs, strict=True))
    there, back = paired_drop(before, after), paired_drop(after, before)
    assert -1 <= there.low <= there.share + 1e-6
    assert there.share - 1e-6 <= there.high <= 1
    assert there.low == pytest.approx(-back.high, abs=1e-5)
    assert there.high == pytest.approx(-back.low, abs=1e-5)


def test_the_interval_covers_the_true_drop_as_often_as_it_says() -> None:
    generator = np.random.default_rng(0)
    lost, gained, covered, tried = 0.03, 0.02, 0, 1000
    for _ in range(tried):
        fate = generator.choice(3, p=[lost, gained, 1 - lost - gained], size=400)
        drop = paired_drop(fate != 1, fate != 0)
        covered += drop.low <= lost - gained <= drop.high
    assert 0.93 <= covered / tried <= 0.97
