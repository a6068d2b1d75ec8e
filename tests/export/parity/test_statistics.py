"""The interval of a paired drop and the rule that turns counts into verdicts: known values, properties, coverage."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom, binomtest

from geodtr.export.statistics import decide, interval, mcnemar, paired_drop, pairs_to_decide

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


def test_the_interval_covers_the_true_drop_at_its_stated_rate() -> None:
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


Counts = tuple[int, int, int]
ORDER = {"passed": 0, "undecided": 1, "failed": 2}
tolerances = st.sampled_from([0.0, 0.001, 0.005, 0.02, 0.1])


@st.composite
def counted(draw: st.DrawFn) -> Counts:
    """Lost, gained, queries."""
    queries = draw(st.integers(2, 9000))
    lost = draw(st.integers(0, min(queries, 300)))
    return lost, draw(st.integers(0, min(queries - lost, 300))), queries


@settings(max_examples=500, deadline=None)
@given(counted(), tolerances)
def test_the_rule_is_the_interval(counts: Counts, tolerance: float) -> None:
    low, high = interval(*counts)
    verdict = decide(*counts, tolerance)
    if abs(high - tolerance) > 2e-6:
        assert (verdict == "passed") == (high <= tolerance)
    if verdict == "failed":
        assert low > tolerance - 2e-6
    lost, gained, _ = counts
    if low > tolerance + 2e-6:
        assert (verdict == "failed") == (lost - gained > 3.5 * np.sqrt(lost + gained))


@settings(max_examples=500, deadline=None)
@given(counted(), tolerances)
def test_more_lost_is_never_a_better_verdict_and_more_gained_never_a_worse_one(
    counts: Counts, tolerance: float
) -> None:
    lost, gained, queries = counts
    verdict = ORDER[decide(lost, gained, queries, tolerance)]
    if lost + gained < queries:
        assert ORDER[decide(lost + 1, gained, queries, tolerance)] >= verdict
        assert ORDER[decide(lost, gained + 1, queries, tolerance)] <= verdict
    assert ORDER[decide(lost, gained, queries, tolerance + 0.001)] <= verdict


@settings(max_examples=200, deadline=None)
@given(counted(), tolerances)
def test_what_fails_one_way_round_passes_the_other(counts: Counts, tolerance: float) -> None:
    lost, gained, queries = counts
    if decide(lost, gained, queries, tolerance) == "failed":
        assert decide(gained, lost, queries, tolerance) == "passed"
    if lost == gained:
        assert decide(lost, gained, queries, tolerance) != "failed"


def test_an_engine_as_good_as_the_model_fails_at_most_once_in_1000_runs_for_any_sample() -> None:
    """Exact, for any number of queries: even a tolerance of 0 needs this many more lost than gained of `changed`."""
    for changed in range(1, 5000):
        fewest_lost = int(np.floor((changed + 3.5 * np.sqrt(changed)) / 2)) + 1
        chance = binom.sf(fewest_lost - 1, changed, 0.5)
        assert 3 * chance < 1 / 1000, changed
        if fewest_lost <= changed:
            assert decide(fewest_lost, changed - fewest_lost, 10**6, 0.0) == "failed"
        if fewest_lost - 1 <= changed:
            assert decide(fewest_lost - 1, changed - fewest_lost + 1, 10**6, 0.0) != "failed"


@settings(deadline=None)
@given(
    lost=st.integers(0, 60),
    gained=st.integers(0, 60),
    queries=st.integers(130, 2000),
    tolerance=st.sampled_from([0.001, 0.005, 0.05]),
)
def test_so_many_pairs_decide_and_nine_tenths_of_them_do_not(
    lost: int, gained: int, queries: int, tolerance: float
) -> None:
    enough = pairs_to_decide(lost, gained, queries, tolerance)
    # A gain counts as chance.
    went = max(lost, (lost + gained) / 2)
    came = lost + gained - went

    def verdict(pairs: float) -> str:
        return decide(went * pairs / queries, came * pairs / queries, pairs, tolerance)

    if enough is None:
        decided = decide(lost, gained, queries, tolerance) != "undecided"
        assert decided or (went - came) / queries == pytest.approx(tolerance)
        return
    assert verdict(enough) == ("passed" if (went - came) / queries < tolerance else "failed")
    assert enough > queries
    if 0.89 * enough > queries:
        assert verdict(0.89 * enough) == "undecided"


def test_without_any_change_the_number_of_pairs_is_known_in_advance() -> None:
    # z^2 / (N + z^2) = tolerance
    assert pairs_to_decide(0, 0, 500, 0.005) == 770
    assert pairs_to_decide(0, 0, 500, 0.001) == 3900
    assert pairs_to_decide(3, 1, 100, 0.0) is not None, "enough pairs prove that something is lost"
    assert pairs_to_decide(1, 1, 100, 0.0) is None
    assert pairs_to_decide(0, 0, 800, 0.005) is None, "decided already"
