"""A small share of what `make fuzz` runs: of every kind the valid input is read, and a few others are answered."""

from pathlib import Path

import pytest
from campaign import KINDS, run_kind


@pytest.mark.parametrize("name", KINDS)
def test_an_input_is_read_or_refused_in_words(name: str, tmp_path: Path) -> None:
    count = run_kind(name, 3, chance=0, keep=tmp_path)
    assert count.fed
    assert not count.failures
