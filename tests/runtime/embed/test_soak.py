"""A process that repeats everything the runtime does keeps its memory, its open files and its threads constant."""

import json
import subprocess
import sys

import pytest
from checkout import ROOT

BENCHMARK = ROOT / "benchmarks" / "soak.py"


@pytest.mark.slow
def test_memory_stays_flat() -> None:
    line = [sys.executable, str(BENCHMARK), "--rounds", "120", "--json"]
    soaked = json.loads(subprocess.run(line, check=True, capture_output=True, text=True).stdout)
    assert soaked["images"] >= 120 * 37
    assert soaked["slope"] < 20_000, "bytes a round"
    assert max(soaked["memory"][-30:]) < max(soaked["memory"][30:60]) + 5e6
    assert max(soaked["files"][30:]) == min(soaked["files"][30:])
    assert soaked["threads"][1] <= soaked["threads"][0] + 2
