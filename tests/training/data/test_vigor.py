"""VIGOR is read as it is released: shared tiles, semi-positives, distractors, both protocols, wrong lists named."""

from collections.abc import Callable
from pathlib import Path

import pytest
import trees
from trees import TILES

from geodtr.training.data.spec import read_test_set, read_training_set


def test_vigor_shares_tiles_and_marks_semi_positives_and_distractors(tmp_path: Path) -> None:
    shared = (TILES[0], TILES[1], TILES[2], TILES[3])
    panoramas = [
        ("Chicago", "a,41.5,-87.5,.jpg", shared),
        ("Chicago", "b,41.6,-87.6,.jpg", (TILES[0], TILES[4], TILES[0], TILES[5])),
        ("NewYork", "c,40.1,-73.1,.jpg", shared),
        ("Seattle", "unnamed.jpg", shared),
        ("SanFrancisco", "d,91,0,.jpg", shared),
    ]
    root = trees.vigor(tmp_path, panoramas, extra=[TILES[6]])
    test = read_test_set(f"vigor:{root}")
    assert test.name == f"vigor:{root}#same-test"
    assert [pair.ground.parent.parent.name for pair in test.pairs] == [
        "NewYork",
        "Seattle",
        "SanFrancisco",
        "Chicago",
        "Chicago",
    ]
    assert [(pair.lat, pair.lon) for pair in test.pairs] == [
        (40.1, -73.1),
        (None, None),
        (None, None),
        (41.5, -87.5),
        (41.6, -87.6),
    ]
    satellite = root / "Chicago" / "satellite"
    assert test.pairs[3].aerial == test.pairs[4].aerial == satellite / TILES[0]
    # One reference for the tile that two panoramas share, and no tile left out of its own query's ranking.
    assert test.references.count(satellite / TILES[0]) == 1
    assert test.pairs[4].semi_positives == (satellite / TILES[4], satellite / TILES[5])
    assert satellite / TILES[6] in test.distractors
    assert not set(test.distractors) & {pair.aerial for pair in test.pairs}
    assert len(test.references) == 3 * 4 + 7
    assert test.ignored is not None
    assert len(test.ignored.query) == 3 * 4 + 2


def test_training_on_vigor_needs_no_distractors(tmp_path: Path) -> None:
    root = trees.vigor(
        tmp_path, [("Chicago", "a,1,2,.jpg", TILES[:4])], labels="same_area_balanced_train", extra=[TILES[6]]
    )
    assert read_training_set(f"vigor:{root}").distractors == ()


def test_vigor_across_areas_tests_where_it_did_not_train(tmp_path: Path) -> None:
    panoramas = [(city, f"{city},1,2,.jpg", TILES[:4]) for city in trees.CITIES]
    root = trees.vigor(tmp_path, panoramas, labels="pano_label_balanced")
    train, test = read_training_set(f"vigor:{root}#cross-train"), read_test_set(f"vigor:{root}#cross-test")
    assert [pair.ground.parent.parent.name for pair in train.pairs] == ["NewYork", "Seattle"]
    assert [pair.ground.parent.parent.name for pair in test.pairs] == ["SanFrancisco", "Chicago"]
    assert not set(train.references) & set(test.references)


def test_vigor_is_read_with_corrected_lists_and_a_renamed_folder(tmp_path: Path) -> None:
    root = trees.vigor(
        tmp_path,
        [("Chicago", "a,1,2,.jpg", TILES[:4])],
        labels="same_area_balanced_test__corrected",
        folder="splits__corrected",
        ground="ground",
    )
    assert read_test_set(f"vigor:{root}").pairs[0].ground == root / "Chicago/ground/a,1,2,.jpg"


@pytest.mark.parametrize(
    ("file", "content", "named"),
    [
        ("same_area_balanced_test.txt", "a.jpg s.png 1 2\n", "has 4"),
        ("same_area_balanced_test.txt", "\na.jpg " + "s.png 1 x " * 4, "line 2"),
        ("same_area_balanced_test.txt", None, "does not exist"),
        ("satellite_list.txt", "one.png two.png\n", "the name of one tile"),
        ("satellite_list.txt", None, "does not exist"),
        ("satellite_list.txt", "\xff", "UTF-8"),
    ],
)
def test_a_wrong_list_of_vigor_is_named(
    tmp_path: Path, refused: Callable[..., str], file: str, content: str | None, named: str
) -> None:
    root = trees.vigor(tmp_path, [("Chicago", "a,1,2,.jpg", TILES[:4])])
    path = root / "splits/Chicago" / file
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content.encode("latin-1"))
    message = refused("data", "check", f"vigor:{root}#same-test")
    assert file in message
    assert named in message


def test_a_root_without_lists_is_no_vigor(tmp_path: Path, refused: Callable[..., str]) -> None:
    assert "holds no folder splits" in refused("data", "check", f"vigor:{tmp_path}#same-test")
