"""Selecting blocks by recall: the choice passes, is the fastest that does, and survives an interruption."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from geodtr.export.precision.journal import JournalError
from geodtr.export.precision.search import NoChoiceHolds, UndecidedSearch, search, trial_verdict
from geodtr.export.statistics import Drop, decide, paired_drop
from geodtr.runtime.names import Branch
from geodtr.runtime.progress import Track, untracked


class PlannedBench:
    """Blocks with known costs, in hits lost of a thousand, and known shares of the time saved: what a search must find
    is known, too.
    """

    def __init__(self, costs: Sequence[int], saved: Sequence[float], fails_after: int = 10**9) -> None:
        self.queries = 1000
        self._costs = {f"ground/{number}": cost for number, cost in enumerate(costs)}
        self._saved = {f"ground/{number}": share for number, share in enumerate(saved)}
        self.blocks = list(self._costs)
        self.measured = 0
        self._fails_after = fails_after

    def operators(self, branch: Branch, chosen: frozenset[str]) -> list[str]:
        return sorted(chosen) if branch == "ground" else []

    def cosine(self, chosen: frozenset[str]) -> NDArray[np.float32]:
        return np.full(4, 1 - 1e-4 * self._cost(chosen), np.float32)

    def drop(self, chosen: frozenset[str], hopeless: Callable[[Drop], bool] = lambda _drop: False) -> Drop:
        self.measured += 1
        if self.measured > self._fails_after:
            raise KeyboardInterrupt
        before = np.ones(self.queries, bool)
        drop = paired_drop(before, np.arange(self.queries) >= self._cost(chosen))
        first = paired_drop(before[:100], np.arange(100) >= self._cost(chosen) / 10)
        return first if hopeless(first) else drop

    def speeds(self, choices: Sequence[frozenset[str]], *, track: Track = untracked) -> list[float]:
        del track
        return [1 / (1 - sum(self._saved[block] for block in each)) for each in choices]

    def _cost(self, chosen: frozenset[str]) -> int:
        return sum(self._costs[block] for block in chosen)


TOLERANCE = 1.2
"""Points. Of 1,000 queries it lets ALLOWANCE be lost: with one more, the interval's upper end is beyond it."""
ALLOWANCE = 5


def test_the_allowance_follows_the_rule() -> None:
    passed = [lost for lost in range(20) if decide(lost, 0, 1000, TOLERANCE / 100) == "passed"]
    assert passed == list(range(ALLOWANCE + 1))


blocks = st.lists(st.tuples(st.integers(0, 12), st.floats(0.001, 0.08)), min_size=1, max_size=10)


@settings(max_examples=60, deadline=None)
@given(planned=blocks)
def test_the_choice_holds_and_is_near_the_best_there_is(
    planned: list[tuple[int, float]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    costs, saved = zip(*planned, strict=True)
    bench, journal = PlannedBench(costs, saved), tmp_path_factory.mktemp("search") / "journal.json"
    if min(costs) > ALLOWANCE:
        with pytest.raises((NoChoiceHolds, UndecidedSearch)):
            search(bench, TOLERANCE, "key", journal)
        return
    choice = search(bench, TOLERANCE, "key", journal)
    assert trial_verdict(choice.trial, TOLERANCE) == "passed"
    assert not choice.accepted
    cost = sum(costs[int(block.partition("/")[2])] for block in choice.chosen)
    assert cost <= ALLOWANCE
    got = sum(saved[int(block.partition("/")[2])] for block in choice.chosen)
    assert got >= 0.5 * _most_saved(costs, saved, ALLOWANCE)


def test_everything_is_chosen_where_everything_holds_and_is_fastest(tmp_path: Path) -> None:
    bench = PlannedBench([0, 1, 2], [0.1, 0.1, 0.1])
    assert len(search(bench, TOLERANCE, "key", tmp_path / "journal.json").chosen) == 3


def test_a_block_that_makes_the_engine_slower_is_left_out(tmp_path: Path) -> None:
    bench = PlannedBench([0, 0], [0.1, -0.2])
    assert search(bench, TOLERANCE, "key", tmp_path / "journal.json").chosen == ("ground/0",)


def test_a_stopped_search_resumes_from_its_journal(tmp_path: Path) -> None:
    costs, saved = [5, 1, 4, 0, 3, 2], [0.1, 0.02, 0.05, 0.01, 0.03, 0.08]
    whole = PlannedBench(costs, saved)
    expected = search(whole, TOLERANCE, "key", tmp_path / "whole.json")
    journal = tmp_path / "journal.json"
    total = 0
    for _ in range(20):
        bench = PlannedBench(costs, saved, fails_after=4)
        try:
            choice = search(bench, TOLERANCE, "key", journal)
        except KeyboardInterrupt:
            total += 4
            continue
        break
    assert total
    assert choice == expected
    assert total + bench.measured == whole.measured
    again = PlannedBench(costs, saved)
    search(again, TOLERANCE, "another key", journal)
    assert again.measured == whole.measured


def test_a_stop_in_the_third_block_costs_that_one_alone(tmp_path: Path) -> None:
    costs, saved = [5, 1, 4, 0, 3, 2], [0.1, 0.02, 0.05, 0.01, 0.03, 0.08]
    journal, whole = tmp_path / "journal.json", PlannedBench(costs, saved)
    expected = search(whole, TOLERANCE, "key", tmp_path / "whole.json")
    with pytest.raises(KeyboardInterrupt):
        search(PlannedBench(costs, saved, fails_after=2), TOLERANCE, "key", journal)
    rest = PlannedBench(costs, saved)
    assert search(rest, TOLERANCE, "key", journal) == expected
    assert rest.measured == whole.measured - 2


def test_a_tolerance_of_nothing_is_proven_by_no_number_of_pairs(tmp_path: Path) -> None:
    bench, journal = PlannedBench([1, 0], [0.1, 0.1]), tmp_path / "journal.json"
    with pytest.raises(UndecidedSearch, match="No number of pairs"):
        search(bench, 0, "key", journal)
    assert not bench.measured
    assert search(bench, 0, "key", journal, accept_undecided=True).chosen == ("ground/1",)


def test_too_few_pairs_to_decide_are_refused_before_any_work(tmp_path: Path) -> None:
    bench = PlannedBench([0], [0.1])
    with pytest.raises(UndecidedSearch, match=r"1000 pairs .* takes 3,900 pairs"):
        search(bench, 0.1, "key", tmp_path / "journal.json")
    assert not bench.measured
    assert not list(tmp_path.iterdir())


def test_an_undecided_choice_is_accepted_only_where_the_user_asks_for_it(tmp_path: Path) -> None:
    bench, journal = PlannedBench([8, 60], [0.1, 0.3]), tmp_path / "journal.json"
    with pytest.raises(UndecidedSearch, match=r"About [\d,]+ pairs would decide .*--accept-undecided") as raised:
        search(bench, TOLERANCE, "key", journal)
    assert raised.value.exit_code == 3
    measured = bench.measured
    choice = search(bench, TOLERANCE, "key", journal, accept_undecided=True)
    assert (choice.chosen, choice.accepted) == (("ground/0",), True)
    assert bench.measured == measured, "nothing is measured twice"


def test_what_is_shown_to_lose_too_much_is_never_accepted(tmp_path: Path) -> None:
    with pytest.raises(NoChoiceHolds):
        bench = PlannedBench([60, 70], [0.1, 0.3])
        search(bench, TOLERANCE, "key", tmp_path / "journal.json", accept_undecided=True)


@pytest.mark.parametrize("content", [b"{ not json", b"precious notes", b"\xff\xfe", b'{"key": 3}'])
def test_a_file_that_is_no_journal_is_left_alone(tmp_path: Path, content: bytes) -> None:
    journal = tmp_path / "journal.json"
    journal.write_bytes(content)
    with pytest.raises(JournalError, match="Name another --out"):
        search(PlannedBench([0], [0.1]), TOLERANCE, "key", journal)
    assert journal.read_bytes() == content


def test_a_journal_of_another_search_is_dropped_and_reported(tmp_path: Path) -> None:
    journal, notices = tmp_path / "journal.json", list[str]()
    search(PlannedBench([0, 1], [0.1, 0.1]), TOLERANCE, "key", journal)
    search(PlannedBench([0, 1], [0.1, 0.1]), TOLERANCE, "another", journal, notice=notices.append)
    assert len(notices) == 1
    assert "2 blocks" in notices[0]


def _most_saved(costs: Sequence[int], saved: Sequence[float], allowance: int) -> float:
    """The best that any choice within the allowance saves: a knapsack."""
    best = [0.0] * (allowance + 1)
    for cost, share in zip(costs, saved, strict=True):
        for left in range(allowance, cost - 1, -1):
            best[left] = max(best[left], best[left - cost] + share)
    return best[allowance]
