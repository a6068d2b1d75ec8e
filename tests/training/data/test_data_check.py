"""`data check` finds data that would harm training, names it, and reports it by its exit code."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import trees
from conftest import Outcome
from PIL import Image

from geodtr.training.data.check import check
from geodtr.training.world.dataset import WorldSet, write_world

Cli = Callable[..., Outcome]


@pytest.fixture
def world(tmp_path: Path) -> Path:
    write_world(tmp_path / "world", WorldSet(pairs=6, height=16, width=32), workers=1)
    return tmp_path / "world"


def test_a_good_data_set_passes(world: Path, cli: Cli) -> None:
    result = cli("data", "check", f"pairs:{world}")
    assert result.code == 0, result.err
    assert "6 pairs, 0 files missing" in result.out
    assert "ground sizes: 6 of 32x16" in result.out
    assert "passed" in result.out
    figures = json.loads(cli("data", "check", f"pairs:{world}", "--json").out)
    assert figures["passed"] is True
    assert figures["problems"] == {}
    assert figures["sets"][0]["branches"]["aerial"]["images"] == 6


def test_every_kind_of_problem_is_found_and_named(world: Path, cli: Cli) -> None:
    (world / "ground/000000.png").unlink()
    truncated = world / "aerial/000001.png"
    truncated.write_bytes(truncated.read_bytes()[:200])
    Image.new("RGB", (32, 17)).save(world / "ground/000002.png")
    Image.new("RGB", (32, 30)).save(world / "aerial/000003.png")
    # Another file with the same pixels: saved again, losslessly.
    Image.open(world / "ground/000004.png").save(world / "ground/000005.png", compress_level=0)
    result = cli("data", "check", f"pairs:{world}")
    assert result.code == 1
    for line in (
        "5 pairs, 1 file missing",
        "000000.png",
        "000001.png cannot be decoded",
        "000002.png (32x17, most are 32x16)",
        "000003.png (32x30, most are 32x32)",
        "000004.png, ",
        "FAILED (1 missing, 1 unreadable, 2 of a wrong size, 1 double)",
    ):
        assert line in result.out
    figures = json.loads(cli("data", "check", f"pairs:{world}", "--json").out)
    assert figures["problems"] == {"missing": 1, "unreadable": 1, "of a wrong size": 2, "double": 1}
    ground = figures["sets"][0]["branches"]["ground"]
    assert [[Path(path).name for path in group] for group in ground["duplicates"]] == [["000004.png", "000005.png"]]
    assert ground["sizes"] == {"32x16": 4, "32x17": 1}


def test_tiles_that_are_all_oblong_are_wrong(tmp_path: Path, cli: Cli) -> None:
    for n in range(2):
        trees.write_image(tmp_path / f"g{n}.png", 16, 4)
        trees.write_image(tmp_path / f"a{n}.png", 12, 10)
    (tmp_path / "pairs.csv").write_text("ground,aerial\ng0.png,a0.png\ng1.png,a1.png\n")
    result = cli("data", "check", f"pairs:{tmp_path}")
    assert result.code == 1
    assert "a0.png (12x10, not square)" in result.out


def test_only_the_first_offenders_are_shown_and_all_are_in_json(world: Path, cli: Cli) -> None:
    for n in range(5):
        (world / f"aerial/{n:06d}.png").unlink()
    result = cli("data", "check", f"pairs:{world}")
    assert "and 2 more; --json lists all" in result.out
    figures = json.loads(cli("data", "check", f"pairs:{world}", "--json").out)
    assert len(figures["sets"][0]["missing"]) == 5


def test_test_images_in_the_training_split_are_found_by_their_pixels(tmp_path: Path, cli: Cli) -> None:
    root = trees.cvusa(tmp_path, {"train-19zl.csv": [1, 2], "val-19zl.csv": [3, 4]})
    assert not check([f"cvusa:{root}"]).problems
    shutil.copy(root / "streetview/panos/0000001.jpg", root / "streetview/panos/0000004.jpg")
    result = cli("data", "check", f"cvusa:{root}")
    assert result.code == 1
    assert f"1 ground image of cvusa:{root}#val in cvusa:{root}#train too" in result.out
    assert "0000001.jpg and " in result.out
    # A split alone has nothing to share, nor has a set that is named twice.
    assert cli("data", "check", f"cvusa:{root}#val", f"cvusa:{root}#val").code == 0
    assert cli("data", "check", f"cvusa:{root}#val").code == 0


def test_several_data_sets_are_compared_with_each_other(world: Path, tmp_path: Path, cli: Cli) -> None:
    shutil.copytree(world, tmp_path / "copy")
    result = cli("data", "check", f"pairs:{world}", f"pairs:{tmp_path / 'copy'}", "--json")
    assert result.code == 1
    shared = json.loads(result.out)["shared"]
    assert [(entry["branch"], len(entry["images"])) for entry in shared] == [("ground", 6), ("aerial", 6)]


def test_vigor_same_area_shares_its_tiles_by_design(tmp_path: Path) -> None:
    tiles = ("s0.png", "s1.png", "s2.png", "s3.png")
    root = trees.vigor(tmp_path, [("Chicago", "b.jpg", tiles)], labels="same_area_balanced_train")
    trees.vigor(tmp_path, [("Chicago", "a.jpg", tiles)])
    assert not check([f"vigor:{root}"]).problems
    shutil.copy(root / "Chicago/panorama/a.jpg", root / "Chicago/panorama/b.jpg")
    checked = check([f"vigor:{root}"])
    assert [(shared.branch, len(shared.images)) for shared in checked.shared] == [("ground", 1)]


def test_images_of_another_size_than_released_are_wrong(tmp_path: Path) -> None:
    root = trees.cvusa(tmp_path, {"val-19zl.csv": [1]})
    trees.write_image(root / "bingmap/19/0000001.jpg", 512, 512)
    checked = check([f"cvusa:{root}#val"])
    assert checked.problems == {"of a wrong size": 1}
    assert checked.sets[0].branches["aerial"].wrong_size[0].reason == "512x512, not 750x750"


def test_an_image_used_in_many_pairs_is_one_image(tmp_path: Path) -> None:
    for name, side in (("g0.png", 4), ("g1.png", 4), ("a.png", 10)):
        trees.write_image(tmp_path / name, 10, side)
    (tmp_path / "pairs.csv").write_text("ground,aerial\ng0.png,a.png\ng1.png,a.png\n")
    checked = check([f"pairs:{tmp_path}"])
    assert not checked.problems
    assert checked.sets[0].branches["aerial"].images == 1


def test_real_images_have_the_released_sizes(cvusa_sample: Path, cli: Cli) -> None:
    result = cli("data", "check", f"cvusa:{cvusa_sample}#val")
    assert result.code == 0, result.out
    assert "5 of 750x750" in result.out


@pytest.mark.parametrize("arguments", [(), ("pairs:nowhere",), ("nothing",), ("pairs:.", "--jobs", "0")])
def test_wrong_usage_exits_with_2(refused: Callable[..., str], arguments: tuple[str, ...]) -> None:
    assert refused("data", "check", *arguments)
