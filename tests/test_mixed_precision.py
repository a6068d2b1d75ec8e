"""Choosing blocks by recall: the choice holds, is the fastest of those that do, and survives a stop."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from geodtr.export.mixed_precision import JournalError, NoChoiceHolds, allowed, search
from geodtr.export.statistics import Drop, paired_drop
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
        self.asked = 0
        self._fails_after = fails_after

    def operators(self, branch: Branch, chosen: frozenset[str]) -> list[str]:
        return sorted(chosen) if branch == "ground" else []

    def cosine(self, chosen: frozenset[str]) -> NDArray[np.float32]:
        return np.full(4, 1 - 1e-4 * self._cost(chosen), np.float32)

    def drop(self, chosen: frozenset[str], hopeless: Callable[[Drop], bool] = lambda _drop: False) -> Drop:
        self.asked += 1
        if self.asked > self._fails_after:
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


blocks = st.lists(st.tuples(st.integers(0, 12), st.floats(0.001, 0.08)), min_size=1, max_size=10)


@settings(max_examples=60, deadline=None)
@given(planned=blocks)
def test_the_choice_holds_and_is_near_the_best_there_is(
    planned: list[tuple[int, float]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    costs, saved = zip(*planned, strict=True)
    bench, journal = PlannedBench(costs, saved), tmp_path_factory.mktemp("search") / "journal.json"
    if min(costs) > 5:
        with pytest.raises(NoChoiceHolds):
            search(bench, 0.5, "key", journal)
        return
    found = search(bench, 0.5, "key", journal)
    assert allowed(found.trial, 0.5)
    cost = sum(costs[int(block.partition("/")[2])] for block in found.chosen)
    assert cost <= 5
    got = sum(saved[int(block.partition("/")[2])] for block in found.chosen)
    assert got >= 0.5 * _most_saved(costs, saved, 5)


def test_everything_is_chosen_where_everything_holds_and_is_fastest(tmp_path: Path) -> None:
    bench = PlannedBench([0, 1, 2], [0.1, 0.1, 0.1])
    assert len(search(bench, 0.5, "key", tmp_path / "journal.json").chosen) == 3


def test_a_block_that_makes_the_engine_slower_is_left_out(tmp_path: Path) -> None:
    bench = PlannedBench([0, 0], [0.1, -0.2])
    assert search(bench, 0.5, "key", tmp_path / "journal.json").chosen == ("ground/0",)


def test_a_search_that_was_stopped_goes_on_from_its_journal(tmp_path: Path) -> None:
    costs, saved = [5, 1, 4, 0, 3, 2], [0.1, 0.02, 0.05, 0.01, 0.03, 0.08]
    whole = PlannedBench(costs, saved)
    expected = search(whole, 0.5, "key", tmp_path / "whole.json")
    journal = tmp_path / "journal.json"
    total = 0
    for _ in range(20):
        bench = PlannedBench(costs, saved, fails_after=4)
        try:
            found = search(bench, 0.5, "key", journal)
        except KeyboardInterrupt:
            total += 4
            continue
        break
    assert total
    assert found == expected
    assert total + bench.asked == whole.asked
    again = PlannedBench(costs, saved)
    search(again, 0.5, "another key", journal)
    assert again.asked == whole.asked


def test_a_stop_in_the_third_block_costs_that_one_alone(tmp_path: Path) -> None:
    costs, saved = [5, 1, 4, 0, 3, 2], [0.1, 0.02, 0.05, 0.01, 0.03, 0.08]
    journal, whole = tmp_path / "journal.json", PlannedBench(costs, saved)
    expected = search(whole, 0.5, "key", tmp_path / "whole.json")
    with pytest.raises(KeyboardInterrupt):
        search(PlannedBench(costs, saved, fails_after=2), 0.5, "key", journal)
    rest = PlannedBench(costs, saved)
    assert search(rest, 0.5, "key", journal) == expected
    assert rest.asked == whole.asked - 2


def test_a_tolerance_of_nothing_allows_nothing(tmp_path: Path) -> None:
    with pytest.raises(NoChoiceHolds):
        search(PlannedBench([1, 1], [0.1, 0.1]), 0, "key", tmp_path / "journal.json")


@pytest.mark.parametrize("content", [b"{ not json", b"precious notes", b"\xff\xfe", b'{"key": 3}'])
def test_a_file_that_is_no_journal_is_left_alone(tmp_path: Path, content: bytes) -> None:
    journal = tmp_path / "journal.json"
    journal.write_bytes(content)
    with pytest.raises(JournalError, match="Name another --out"):
        search(PlannedBench([0], [0.1]), 0.5, "key", journal)
    assert journal.read_bytes() == content


def test_a_journal_of_another_search_is_dropped_and_the_user_told(tmp_path: Path) -> None:
    journal, told = tmp_path / "journal.json", list[str]()
    search(PlannedBench([0, 1], [0.1, 0.1]), 0.5, "key", journal)
    search(PlannedBench([0, 1], [0.1, 0.1]), 0.5, "another", journal, notice=told.append)
    assert len(told) == 1
    assert "2 blocks" in told[0]


def _most_saved(costs: Sequence[int], saved: Sequence[float], allowance: int) -> float:
    """The best that any choice within the allowance saves: a knapsack."""
    best = [0.0] * (allowance + 1)
    for cost, share in zip(costs, saved, strict=True):
        for left in range(allowance, cost - 1, -1):
            best[left] = max(best[left], best[left - cost] + share)
    return best[allowance]
