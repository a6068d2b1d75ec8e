"""A vehicle whose GNSS fails goes on by this project's positions, in a closed loop on the generated world."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from checkout import ROOT
from conftest import Trained

BENCHMARK = ROOT / "benchmarks" / "gnss_failure.py"


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_ten_minutes_without_gnss_stay_within_ten_metres(trained: Trained, tmp_path: Path) -> None:
    work = tmp_path / "flight"
    line = [sys.executable, BENCHMARK, trained.bundles["fp32"].path, work, "--json"]
    flown = json.loads(subprocess.run([*map(str, line)], check=True, capture_output=True, text=True).stdout)
    assert flown["minutes"] >= 9.9
    assert flown["median_m"] < 10
    assert flown["last_minute_median_m"] < 10
    assert flown["dead_reckoning_m"] > 100
    assert (work / "gnss_failure.png").stat().st_size > 10_000
