"""The interval of a paired drop: known values, and its coverage."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from geodtr.export.statistics import interval, mcnemar, paired_drop, pairs_to_be_sure

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


@given(lost=st.integers(0, 40), gained=st.integers(0, 40))
def test_the_exact_test_is_the_binomials_tail_twice(lost: int, gained: int) -> None:
    expected = binomtest(lost, lost + gained, 0.5).pvalue if lost + gained else 1.0
    assert mcnemar(lost, gained) == pytest.approx(expected, rel=1e-9)


def test_the_exact_test_takes_as_many_changes_as_a_data_set_has() -> None:
    assert mcnemar(5000, 5000) == 1
    assert mcnemar(9000, 1000) == pytest.approx(0, abs=1e-300)


@settings(deadline=None)
@given(
    lost=st.integers(0, 60),
    gained=st.integers(0, 60),
    queries=st.integers(130, 2000),
    tolerance=st.sampled_from([0.001, 0.005, 0.05]),
)
def test_so_many_pairs_make_sure_and_nine_tenths_of_them_do_not(
    lost: int, gained: int, queries: int, tolerance: float
) -> None:
    enough = pairs_to_be_sure(lost, gained, queries, tolerance)
    went = max(lost, (lost + gained) / 2)
    came = lost + gained - went
    if enough is None:
        assert (went - came) / queries >= tolerance
        return

    def high(pairs: float) -> float:
        return interval(went * pairs / queries, came * pairs / queries, pairs)[1]

    assert high(enough) <= tolerance + 1e-5
    assert high(0.89 * enough) > tolerance


def test_without_any_change_the_number_of_pairs_is_known_in_advance() -> None:
    # z^2 / (N + z^2) = tolerance
    assert pairs_to_be_sure(0, 0, 500, 0.005) == 770
    assert pairs_to_be_sure(0, 0, 500, 0.001) == 3900
    assert pairs_to_be_sure(3, 1, 100, 0.0) is None
