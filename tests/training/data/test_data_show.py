"""`data show` draws what training makes of pairs."""

from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Outcome, World
from PIL import Image


@pytest.mark.parametrize("preset", ["world-tiny", "geodtr-cvusa-square"])
def test_a_sheet_shows_each_pair_and_its_variants(
    world: World, tmp_path: Path, cli: Callable[..., Outcome], preset: str
) -> None:
    heights = []
    for pairs in (1, 2):
        out = tmp_path / f"{pairs}.png"
        result = cli("data", "show", world.train_set.name, "--preset", preset, "--pairs", pairs, "--out", out)
        assert result.code == 0, result.err
        with Image.open(out) as sheet:
            assert sheet.convert("RGB").getcolors(1000) is None, "more colours than that"
            heights.append(sheet.height)
    assert heights[1] > heights[0]


def test_one_seed_draws_one_sheet(world: World, tmp_path: Path, cli: Callable[..., Outcome]) -> None:
    sheets = []
    for name, options in (("a", ()), ("b", ()), ("c", ("--seed", 1)), ("d", ("--augment", "none"))):
        out = tmp_path / f"{name}.png"
        cli("data", "show", world.train_set.name, "--preset", "world-tiny", "--pairs", 2, *options, "--out", out)
        sheets.append(out.read_bytes())
    assert sheets[0] == sheets[1]
    assert len(set(sheets)) == 3


def test_data_that_cannot_be_shown_is_reported(world: World, tmp_path: Path, refused: Callable[..., str]) -> None:
    name = world.train_set.name
    assert "--preset" in refused("data", "show", name, "--out", tmp_path / "sheet.png")
    assert "does not end in .png" in refused("data", "show", name, "--out", tmp_path / "sheet.txt")
    (tmp_path / "taken.png").touch()
    assert "exists" in refused("data", "show", name, "--preset", "world-tiny", "--out", tmp_path / "taken.png")


def test_a_pair_that_cannot_be_read_is_left_out(pairs: Path, tmp_path: Path, cli: Callable[..., Outcome]) -> None:
    image = pairs / "ground" / "000000.png"
    image.write_bytes(image.read_bytes()[:300])
    command = ("data", "show", f"pairs:{pairs}", "--preset", "world-tiny", "--augment", "any-angle")
    result = cli(*command, "--pairs", 2, "--out", tmp_path / "sheet.png")
    assert result.code == 0
    assert "000000.png" in result.err
    assert "1 pair" in result.err
