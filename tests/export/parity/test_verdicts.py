"""The rule of recall gates on engines of known quality: the simulation of docs/parity.md, seeded."""

import subprocess
import sys
from collections.abc import Mapping

import pytest
from checkout import ROOT

from geodtr.runtime.names import Verdict

BENCHMARKS = ROOT / "benchmarks"
RUNS = 20_000


def gates(
    monkeypatch: pytest.MonkeyPatch, changed: float, drop: float, tolerance: float, pairs: int
) -> dict[Verdict, float]:
    """Shares of runs by verdict, all three ways of searching together."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    from verdicts import Engine, simulate

    shares: Mapping[Verdict, float] = simulate(Engine(changed, drop, tolerance), pairs, RUNS).three
    assert sum(shares.values()) == pytest.approx(1)
    return {**shares}


@pytest.mark.parametrize("pairs", [500, 2000, 4000, 8884])
@pytest.mark.parametrize(("changed", "tolerance"), [(1.5, 0.5), (3.0, 0.5), (6.0, 0.5), (0.1, 0.1), (0.5, 0.1)])
def test_an_engine_as_good_as_the_model_fails_once_in_1000_runs_at_most(
    monkeypatch: pytest.MonkeyPatch, changed: float, tolerance: float, pairs: int
) -> None:
    assert gates(monkeypatch, changed, 0.0, tolerance, pairs)["failed"] <= 1 / 1000


@pytest.mark.parametrize("changed", [1.5, 3.0, 6.0])
def test_an_engine_that_loses_a_point_and_a_half_passes_once_in_100_runs_at_most(
    monkeypatch: pytest.MonkeyPatch, changed: float
) -> None:
    shares = gates(monkeypatch, changed, 1.5, 0.5, 4000)
    assert shares["passed"] <= 1 / 100
    assert shares["failed"] > 0.8


def test_enough_pairs_pass_a_good_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    assert gates(monkeypatch, 1.5, 0.0, 0.5, 8884)["passed"] > 0.9


def test_the_benchmark_prints_the_table_of_the_documentation() -> None:
    command = [sys.executable, str(BENCHMARKS / "verdicts.py"), "--runs", "20"]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    documented = (BENCHMARKS.parent / "docs" / "parity.md").read_text().splitlines()
    assert lines[0] in documented
    for line in lines[2:]:
        what = "|".join(line.split("|")[:4])
        assert any(each.startswith(what) for each in documented), what
