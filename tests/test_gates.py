"""What a gate makes of counts: which way of searching decides, and whether so many pairs are enough to be sure."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from geodtr.export.parity.gates import LEAST_COSINE, Gates, Measured, judge
from geodtr.export.parity.pairings import pairing
from geodtr.export.parity.result import Gate, Pairing, PairingName
from geodtr.runtime.errors import ConfigError
from geodtr.runtime.recall import Ranking

Changed = tuple[int, int]
"""How many hits were lost, and how many came."""
NONE: Changed = (0, 0)


def pairing_of(name: PairingName, queries: int, changed: Changed) -> Pairing:
    """Half of the queries are found before, and of these the first are lost; of the others the last come."""

    def ranked(hit: np.ndarray) -> Ranking:
        rank = np.where(hit, 0, 1)
        zeros = np.zeros(queries, np.int64)
        return Ranking(rank, zeros, np.where(hit, 0.1, -0.1).astype(np.float32), zeros, queries, 0.0)

    before = np.arange(queries) < queries // 2
    after = before.copy()
    lost, gained = changed
    after[:lost] = False
    after[queries - gained :] = True
    return pairing(name, ranked(before), ranked(after), np.arange(queries))


def gate(
    queries: int,
    changed: Mapping[PairingName, Changed],
    max_drop: float = 0.005,
    least_cosine: float = 0.98,
    *,
    require_certain: bool = False,
) -> Gate:
    names: tuple[PairingName, ...] = ("own", "queries", "gallery")
    pairings = [pairing_of(name, queries, changed.get(name, NONE)) for name in names]
    measured = Measured((), pairings, (), (), None, ())
    return judge(measured, max_drop, least_cosine, None, require_certain=require_certain)


def test_the_way_of_searching_that_failed_is_the_one_that_is_told() -> None:
    found = gate(1000, {"own": (30, 30), "queries": (6, 0)})
    assert (found.verdict, found.pairing, found.drop) == ("failed", "queries", 0.006)
    assert found.pairs_to_be_sure is None


def test_so_many_pairs_are_enough_as_the_most_demanding_way_needs() -> None:
    alone = gate(2000, {"queries": (8, 0)}).pairs_to_be_sure
    assert alone is not None
    assert gate(2000, {"own": (40, 40), "queries": (8, 0)}).pairs_to_be_sure == alone > 10_000


def test_a_failure_beyond_doubt_is_said_to_be_sure() -> None:
    found = gate(2000, {"own": (100, 0)})
    assert found.verdict == "failed" and found.beyond
    assert "2000 pairs are enough to be sure that it is too much" in found.reasons[-1]
    assert not gate(2000, {"own": (11, 0)}).beyond


@pytest.mark.parametrize(("least_cosine", "verdict"), [(0.98, "undecided"), (LEAST_COSINE["fp32"], "passed")])
def test_where_nothing_may_be_lost_only_cosines_make_it_certain(least_cosine: float, verdict: str) -> None:
    found = gate(5000, {}, 0.0, least_cosine, require_certain=True)
    assert found.verdict == verdict
    assert gate(5000, {}, 0.0, least_cosine).verdict == "passed"


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"max_drop": {"auto": 1}}, "max_drop has auto: 1; allowed are fp32, fp16, int8, fp8, mixed"),
        ({"max_drop": {"int8": 101}}, "each with 0 to 100 points"),
        ({"least_cosine": {"int8": float("nan")}}, "least_cosine has int8: nan; allowed"),
    ],
)
def test_gates_that_cannot_be_are_refused(asked: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        Gates(**asked)
