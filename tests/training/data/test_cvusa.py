"""CVUSA is read as it is released: its lists in their order, its positions, its faults named."""

from collections.abc import Callable
from pathlib import Path

import pytest
import trees

from geodtr.training.data.spec import read_test_set, read_training_set


def test_cvusa_is_read_in_the_order_of_its_list(tmp_path: Path) -> None:
    root = trees.cvusa(tmp_path, {"train-19zl.csv": [3, 1, 2], "val-19zl.csv": [5, 4]})
    train = read_training_set(f"cvusa:{root}")
    assert [pair.ground.name for pair in train.pairs] == ["0000003.jpg", "0000001.jpg", "0000002.jpg"]
    assert train.pairs[0].aerial == root / "bingmap/19/0000003.jpg"
    assert read_test_set(f"cvusa:{root}").name == f"cvusa:{root}#val"
    assert [pair.ground.stem for pair in read_test_set(f"cvusa:{root}#train", 2).pairs] == ["0000003", "0000001"]


def test_cvusa_has_the_authors_cleaned_lists(tmp_path: Path) -> None:
    lists = {"train-19zl.csv": [1, 2, 3], "CVUSA_cleaned/train-19zl.csv": [1, 3], "CVUSA_cleaned/val-19zl.csv": [4]}
    root = trees.cvusa(tmp_path, lists)
    assert len(read_training_set(f"cvusa:{root}#train-clean")) == 2
    assert read_test_set(f"cvusa:{root}#val-clean").pairs[0].ground.stem == "0000004"


@pytest.mark.parametrize("split", ["train", "val-clean"])
def test_a_missing_list_of_cvusa_is_named(tmp_path: Path, refused: Callable[..., str], split: str) -> None:
    message = refused("data", "check", f"cvusa:{tmp_path}#{split}")
    assert f"{split.removesuffix('-clean')}-19zl.csv does not exist" in message
    assert ("CVUSA_cleaned.zip" in message) == (split == "val-clean")


@pytest.mark.parametrize("place", ["split_locations/all.csv", "all.csv"])
def test_positions_of_cvusa_are_the_panoramas(tmp_path: Path, place: str) -> None:
    root = trees.cvusa(tmp_path, {"val-19zl.csv": [2, 1, 9]})
    (root / place).parent.mkdir(exist_ok=True)
    (root / place).write_text("1,2,40.1,-80.1,x\n3,4,40.2,-80.2,y\n")
    places = [(pair.lat, pair.lon) for pair in read_test_set(f"cvusa:{root}").pairs]
    assert places == [(40.2, -80.2), (40.1, -80.1), (None, None)]


@pytest.mark.parametrize("rows", ["sat_lat,sat_lon,grd_lat,grd_lon\n", "1,2,3\n", "1,2,91,4\n", "1,2,nan,4\n"])
def test_positions_that_are_none_are_refused(tmp_path: Path, refused: Callable[..., str], rows: str) -> None:
    root = trees.cvusa(tmp_path, {"val-19zl.csv": [1]})
    (root / "all.csv").write_text(rows)
    assert "all.csv, line 1" in refused("data", "check", f"cvusa:{root}#val")


@pytest.mark.parametrize("row", ["bingmap/19/0000001.jpg", ",streetview/panos/0000001.jpg", "a,b,c,d"])
def test_a_malformed_row_of_cvusa_is_named(tmp_path: Path, refused: Callable[..., str], row: str) -> None:
    root = trees.cvusa(tmp_path, {"val-19zl.csv": [1]})
    (root / "splits/val-19zl.csv").write_text(f"bingmap/19/0000001.jpg,streetview/panos/0000001.jpg\n\n{row}\n")
    assert "line 3: needs aerial,panorama" in refused("data", "check", f"cvusa:{root}#val")
