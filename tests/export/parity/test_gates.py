"""Verdicts from counts: which way of searching decides, what is undecided, and what is accepted."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from geodtr.export.parity.gates import LEAST_COSINE, Gates, Limits
from geodtr.export.parity.judgement import Measured, judge
from geodtr.export.parity.measurements import BranchAudit, Pairing, PairingName
from geodtr.export.parity.measures.pairings import pairing
from geodtr.export.parity.result import Gate
from geodtr.runtime.errors import ConfigError
from geodtr.runtime.recall import Ranking

Changed = tuple[int, int]
"""How many hits were lost, and how many came."""
NONE: Changed = (0, 0)
INT8 = Limits(max_drop=0.005, least_cosine=0.98)


def pairing_of(name: PairingName, queries: int, changed: Changed) -> Pairing:
    """Half of the queries are found before, and of these the first are lost; of the others the last come."""

    def ranked(hit: np.ndarray) -> Ranking:
        rank = np.where(hit, 0, 1)
        zeros = np.zeros(queries, np.int64)
        return Ranking(rank, zeros, np.where(hit, 0.1, -0.1).astype(np.float32), zeros, zeros + 1, queries, 0.0)

    before = np.arange(queries) < queries // 2
    after = before.copy()
    lost, gained = changed
    after[:lost] = False
    after[queries - gained :] = True
    return pairing(name, ranked(before), ranked(after))


def gate(queries: int, changed: Mapping[PairingName, Changed], limits: Limits = INT8) -> Gate:
    names: tuple[PairingName, ...] = ("own", "queries", "gallery")
    if "full" in changed:
        names = (*names, "full")
    pairings = [pairing_of(name, queries, changed.get(name, NONE)) for name in names]
    return judge(Measured((), pairings, (), (), None, ()), limits)


def test_the_way_of_searching_that_failed_is_the_one_reported() -> None:
    judged = gate(1000, {"own": (90, 90), "queries": (30, 0)})
    assert (judged.verdict, judged.pairing, judged.drop) == ("failed", "queries", 0.03)
    assert judged.pairs_to_decide is None
    assert "1000 pairs decide recall: with 95 % confidence R@1 falls by at least 2." in judged.reasons[-1]


@pytest.mark.parametrize("name", ["own", "queries", "gallery"])
def test_each_way_of_searching_decides(name: PairingName) -> None:
    assert gate(2000, {}).verdict == "passed"
    assert gate(2000, {name: (4, 0)}).verdict == "undecided"
    assert gate(2000, {name: (100, 0)}).verdict == "failed"


def test_an_undecided_gate_gives_the_largest_number_of_pairs_that_a_way_of_searching_needs() -> None:
    alone = gate(2000, {"queries": (8, 0)}).pairs_to_decide
    assert alone is not None
    assert gate(2000, {"own": (40, 40), "queries": (8, 0)}).pairs_to_decide == alone > 10_000
    assert gate(2000, {}).pairs_to_decide is None
    assert f"About {alone:,} pairs would decide" in gate(2000, {"queries": (8, 0)}).reasons[-1]


def test_a_measured_drop_of_exactly_the_tolerance_is_decided_by_no_number_of_pairs() -> None:
    judged = gate(2000, {"own": (10, 0)})
    assert (judged.verdict, judged.pairs_to_decide) == ("undecided", None)
    assert "No number of pairs would decide" in judged.reasons[-1]


def test_a_few_lost_hits_do_not_fail_though_the_interval_is_beyond_the_tolerance() -> None:
    """Of an engine as good as the model, 1 in 130 runs with seven changed queries loses all seven."""
    judged = gate(500, {"own": (7, 0)})
    assert judged.low > judged.max_drop
    assert judged.verdict == "undecided"
    assert "too often to call it failed" in judged.reasons[-1]
    assert gate(500, {"own": (13, 0)}).verdict == "failed"


def test_undecided_recall_is_accepted_only_within_the_tolerance_and_recorded() -> None:
    accepting = Limits(0.005, 0.98, accept_undecided=True)
    judged = gate(500, {"own": (2, 0)}, accepting)
    assert (judged.verdict, judged.accepted, judged.certain) == ("passed", True, False)
    assert judged.pairs_to_decide == gate(500, {"own": (2, 0)}).pairs_to_decide
    assert "Accepted, because the measured drop of 0.40 points is within that" in judged.reasons[-1]
    assert [check.accepted for check in judged.checks if check.name == "recall"] == [True] * 3
    assert gate(500, {"own": (3, 0)}, accepting).verdict == "undecided"
    assert gate(500, {"own": (30, 0)}, accepting).verdict == "failed"
    decided = gate(4000, {"own": (3, 3)}, accepting)
    assert (decided.verdict, decided.accepted, decided.certain) == ("passed", False, True)


@pytest.mark.parametrize(("least_cosine", "verdict"), [(0.98, "undecided"), (LEAST_COSINE["fp32"], "passed")])
def test_where_no_drop_is_allowed_cosines_decide(least_cosine: float, verdict: str) -> None:
    judged = gate(5000, {}, Limits(0.0, least_cosine))
    assert (judged.verdict, judged.pairs_to_decide, judged.accepted) == (verdict, None, False)
    assert gate(5000, {"own": (40, 0)}, Limits(0.0, least_cosine)).verdict == "failed"


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"max_drop": {"auto": 1}}, "max_drop has auto: 1; allowed are fp32, fp16, int8, fp8, mixed"),
        ({"max_drop": {"int8": 101}}, "each with 0 to 100 points"),
        ({"least_cosine": {"int8": float("nan")}}, "least_cosine has int8: nan; allowed"),
    ],
)
def test_impossible_gates_are_refused(options: dict[str, Any], expected: str) -> None:
    with pytest.raises(ConfigError, match=expected):
        Gates(**options)


def test_an_unread_graph_is_undecided_only_where_certainty_is_required() -> None:
    unread = BranchAudit("ground", {}, {}, (), unread="onnx is not installed")
    names: tuple[PairingName, ...] = ("own", "queries", "gallery")
    pairings = [pairing_of(name, 2000, NONE) for name in names]
    measured = Measured((), pairings, (), (unread,), None, ())
    assert judge(measured, INT8).verdict == "passed"
    strict = judge(measured, Limits(0.005, 0.98, require_certain=True))
    assert strict.verdict == "undecided"
    assert not strict.recall_is_open


def test_accept_undecided_excludes_require_certain() -> None:
    with pytest.raises(ConfigError, match="require_certain and accept_undecided contradict"):
        Gates(require_certain=True, accept_undecided=True)


def test_a_projection_is_judged_by_its_own_allowed_drop_and_the_engine_by_its_precision() -> None:
    fp32 = Limits(max_drop=0.0, least_cosine=LEAST_COSINE["fp32"])
    kept = gate(8000, {"full": (20, 10)}, fp32)
    assert (kept.verdict, kept.certain, kept.pairing) == ("passed", None, "own")
    assert "the projection included, with 95 % confidence R@1 falls by at most" in kept.reasons[-1]
    lost = gate(8000, {"full": (200, 10)}, fp32)
    assert (lost.verdict, lost.pairing, lost.max_drop, lost.blamed) == ("failed", "full", 0.005, None)
    unsure = gate(1000, {"full": (10, 6)}, fp32)
    assert (unsure.verdict, unsure.pairing) == ("undecided", "full")
    assert unsure.pairs_to_decide is not None
    assert gate(1000, {"full": (10, 6)}, Limits(0.0, LEAST_COSINE["fp32"], compact_drop=0.03)).verdict == "passed"
    # What the engine itself loses comes first.
    assert gate(8000, {"own": (400, 0), "full": (800, 0)}).pairing == "own"


@pytest.mark.parametrize("points", [-1, 101, float("nan")])
def test_an_impossible_drop_of_a_projection_is_refused(points: float) -> None:
    with pytest.raises(ConfigError, match="max_compact_drop is"):
        Gates(max_compact_drop=points)
