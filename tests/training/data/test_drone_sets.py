"""Drone data sets are read as they are released and counted as their papers count them, both ways round."""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import trees
from conftest import Outcome, Trained

from geodtr.runtime.errors import DataError
from geodtr.training.data.check import check
from geodtr.training.data.counting import ANY_RIGHT_IMAGE, ANY_RIGHT_TILE, countings
from geodtr.training.data.pair_set import PairSet, Skipped
from geodtr.training.data.prepare import prepare
from geodtr.training.data.readers.prepared import read_prepared
from geodtr.training.data.spec import KINDS, read_test_set, read_training_set
from geodtr.training.models.checkpoint import load_checkpoint

Cli = Callable[..., Outcome]


def names(paths: Sequence[Path]) -> list[str]:
    return [f"{path.parent.name}/{path.name}" for path in paths]


def _skipped(path: Path) -> Skipped:
    return Skipped(path, "gone")


def missing(pair_set: PairSet) -> list[str]:
    return [f"{entry.path.parent.name}/{entry.path.name} {entry.reason}" for entry in pair_set.skipped]


def test_university_is_read_from_drone_to_satellite_and_back(tmp_path: Path) -> None:
    root = trees.university(tmp_path)
    train, there, back = (read_test_set(f"university:{root}#{split}") for split in ("train", "d2s", "s2d"))
    assert train == read_training_set(f"university:{root}")
    assert names(train.images("ground"))[:2] == ["0001/image-01.jpeg", "0001/image-02.jpeg"]
    assert train.places.tolist() == [0, 0, 0, 1, 1, 1]
    assert len(there) == 6
    assert {pair.ground.parent.parent.name for pair in there.pairs} == {"query_drone"}
    # The place without a query is in the gallery.
    assert names(there.references) == ["0003/0003.jpg", "0004/0004.jpg", "0005/0005.jpg"]
    assert names(there.distractors) == ["0005/0005.jpg"]
    assert {pair.ground.parent.parent.name for pair in back.pairs} == {"gallery_drone"}
    assert names(back.tile_queries) == ["0003/0003.jpg", "0004/0004.jpg"]
    assert back.tile_queries[0].parent.parent.name == "query_satellite"
    (way,) = countings(back)
    assert (way.name, way.queries) == (ANY_RIGHT_IMAGE, "aerial")
    assert way.truth.query.tolist() == [0, 0, 0, 1, 1, 1]
    assert names([back.pairs[row].ground for row in way.truth.reference]) == names(back.images("ground"))[:6]
    assert not any(each.skipped for each in (train, there, back))


def test_files_that_are_no_images_of_a_place_do_not_count(tmp_path: Path) -> None:
    root = trees.university(tmp_path, test=("0003", "0004", "0005", "0006"))
    before = read_test_set(f"university:{root}")
    place = root / "test/query_drone/0003"
    for name in ("._image-01.jpeg", ".DS_Store", "Thumbs.db", "notes.txt"):
        (place / name).write_bytes(b"hidden")
    (root / "test/query_drone/.ipynb_checkpoints").mkdir()
    (root / "test/gallery_satellite/readme.txt").touch()
    assert read_test_set(f"university:{root}") == before
    (place / "image-03.jpeg").rename(place / "image-03.JPG")
    after = read_test_set(f"university:{root}")
    assert len(after) == len(before)
    assert not after.skipped, "an image may have any ending"


def test_what_a_place_lacks_is_named(tmp_path: Path, cli: Cli) -> None:
    root = trees.university(tmp_path, test=("0003", "0004", "0005", "0006", "0007"))
    test = root / "test"
    (test / "query_drone/0004/image-02.jpeg").unlink()
    (test / "gallery_satellite/0003/0003.jpg").unlink()
    for image in (test / "query_drone/0005").iterdir():
        image.unlink()
    (test / "query_drone/0005").rmdir()
    there = read_test_set(f"university:{root}")
    assert missing(there) == [
        "query_drone/0005 missing",
        "0004/image-02.jpeg missing",
        "gallery_satellite/0003 holds no images",
    ]
    assert {pair.ground.parent.name for pair in there.pairs} == {"0004", "0006"}
    result = cli("data", "check", f"university:{root}#d2s")
    assert result.code == 1
    assert "5 pairs, 3 files missing" in result.out
    for named in ("query_drone/0005", "image-02.jpeg", "gallery_satellite/0003 holds no images"):
        assert named in result.out


def test_a_place_that_only_the_other_task_has_is_missing_too(tmp_path: Path) -> None:
    root = trees.university(tmp_path, test=("0003", "0004", "0005"))
    (root / "test/gallery_satellite/0005/0005.jpg").unlink()
    (root / "test/gallery_satellite/0005").rmdir()
    assert missing(read_test_set(f"university:{root}")) == ["gallery_satellite/0005 missing"]


@pytest.mark.parametrize(
    ("spec", "lost", "named"),
    [
        ("university:{}#d2s", "test/query_drone", "test/query_drone does not exist"),
        ("university:{}#s2d", "test/query_satellite", "test/query_satellite does not exist"),
        ("university:{}#train", "train/satellite", "train/satellite does not exist"),
    ],
)
def test_a_missing_folder_is_named(
    tmp_path: Path, refused: Callable[..., str], spec: str, lost: str, named: str
) -> None:
    trees.university(tmp_path)
    (tmp_path / lost).rename(tmp_path / "elsewhere")
    assert named in refused("data", "check", spec.format(tmp_path))


def test_other_counts_than_published_are_reported_and_are_no_fault(tmp_path: Path, cli: Cli) -> None:
    root = trees.university(tmp_path)
    result = cli("data", "check", f"university:{root}#s2d")
    assert result.code == 0, result.out
    for line in (
        "ground images: 9; the published set has 51,355",
        "aerial images: 3; the published set has 951",
        "aerial queries: 2; the published set has 701",
    ):
        assert line in result.out
    # Every drone image of a search from tiles is in another split, too.
    checked = check([f"university:{root}#d2s", f"university:{root}#s2d"])
    assert not checked.problems
    assert [count.what for count in checked.sets[0].counts] == ["ground images", "aerial images"]
    assert not check([f"university:{root}"], limit=3).sets[1].counts


def test_a_set_of_the_published_size_has_nothing_to_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(
        KINDS,
        "university",
        replace(
            KINDS["university"], published={"d2s": replace(KINDS["university"].published["d2s"], ground=6, aerial=3)}
        ),
    )
    assert check([f"university:{trees.university(tmp_path)}#d2s"]).sets[0].counts == ()


def test_every_tile_of_a_place_is_right_in_denseuav(tmp_path: Path) -> None:
    root = trees.denseuav(tmp_path)
    train, there, back = (read_test_set(f"denseuav:{root}#{split}") for split in ("train", "d2s", "s2d"))
    assert len(train) == 3
    assert names(train.paths("aerial")) == [f"000001/H{height}.tif" for height in (100, 80, 90)]
    # Pairs of one place are not negatives of each other, though their tiles differ.
    assert len(set(train.tiles.tolist())) == 3
    assert len(set(train.places.tolist())) == 1
    assert (train.pairs[0].lat, train.pairs[0].lon) == (30.000001, 120.000001)
    assert len(there) == 6
    assert len(there.references) == 18
    (way,) = countings(there)
    assert way.name == ANY_RIGHT_TILE
    assert np.bincount(way.truth.query).tolist() == [6] * 6
    assert sorted(names(there.distractors)) == sorted(names(train.references))
    (back_way,) = countings(back)
    assert len(back.tile_queries) == 12
    assert np.bincount(back_way.truth.query).tolist() == [3] * 12
    assert {names([back.references[row]])[0] for row in back_way.rows} == set(names(back.tile_queries))


@pytest.mark.parametrize(
    "row", ["a/000001/H80.JPG 120.1 30.1 90", "a/000001/H80.JPG E120.1", "a/000001/H80.JPG Ex N30", "/b/c E400 N30"]
)
def test_wrong_positions_of_denseuav_are_named(tmp_path: Path, refused: Callable[..., str], row: str) -> None:
    root = trees.denseuav(tmp_path)
    (root / "Dense_GPS_ALL.txt").write_text(f"/x/000001/H80.JPG E120.1 N30.1 90\n\n{row}\n")
    assert "Dense_GPS_ALL.txt, line 3" in refused("data", "check", f"denseuav:{root}#train")
    (root / "Dense_GPS_ALL.txt").unlink()
    assert read_training_set(f"denseuav:{root}").pairs[0].lat is None


def test_sues_is_read_as_released_and_as_divided(tmp_path: Path) -> None:
    """Place 8 is the first of the published test split."""
    released, divided = tmp_path / "released", tmp_path / "divided"
    every, test = [f"{n:04d}" for n in range(1, 201)], ["0008", "0012"]
    for place in every:
        trees.write_image(released / "satellite-view" / place / "0.png", 4, 4)
        for height in ("150", "300") if place in ("0001", "0002", *test) else ():
            trees.write_image(released / "drone_view_512" / place / height / "0.jpg", 4, 4)
    trees.sues(divided, ["150"], train=("0001", "0002"), test=test)
    for split, pairs in (("train-150", ["0001", "0002"]), ("d2s-150", test), ("s2d-150", test)):
        ours, theirs = read_test_set(f"sues:{released}#{split}"), read_test_set(f"sues:{divided}#{split}")
        wanted = [path.parent.name for path in ours.tile_queries]
        assert [pair.aerial.parent.name for pair in theirs.pairs] == pairs
        assert wanted == [path.parent.name for path in theirs.tile_queries] == (test if split[0] == "s" else [])
        if split != "s2d-150":
            assert [pair.aerial.parent.name for pair in ours.pairs] == pairs
    assert len(read_test_set(f"sues:{released}").references) == 200
    # Of the released places, the ids are known: those that lack drone images are named.
    assert sum("drone_view_512/" in str(entry.path) for entry in read_test_set(f"sues:{released}").skipped) == 78
    assert read_test_set(f"sues:{released}#d2s-300").pairs[0].ground.parent.name == "300"
    (released / "drone_more").mkdir()
    with pytest.raises(DataError, match="holds 2 folders of drone images"):
        read_test_set(f"sues:{released}")


def test_sues_is_checked_at_every_height_that_is_there(tmp_path: Path) -> None:
    divided = trees.sues(tmp_path / "divided", ["150", "300"])
    checked = check([f"sues:{divided}"])
    assert [each.name.partition("#")[2] for each in checked.sets] == ["train-150", "d2s-150", "train-300", "d2s-300"]
    assert not checked.shared
    with pytest.raises(DataError, match="Testing/200/gallery_satellite does not exist"):
        read_test_set(f"sues:{divided}#d2s-200")
    assert [each.name.partition("#")[2] for each in check([f"sues:{divided}#d2s-300"]).sets] == ["d2s-300"]
    for place in ("0001", "0008"):
        trees.write_image(tmp_path / f"released/satellite-view/{place}/0.png", 4, 4)
        trees.write_image(tmp_path / f"released/drone_view/{place}/200/0.jpg", 4, 4)
    names = [each.name.partition("#")[2] for each in check([f"sues:{tmp_path / 'released'}"]).sets]
    assert names == ["train-200", "d2s-200"]


LISTS = {
    "same-area-drone2sate-train.json": {"200_1.png": {"4_0_1_1.png": 0.5, "5_0_2_2.png": 0.7}},
    "same-area-drone2sate-test.json": {
        "200_2.png": {"4_0_1_1.png": 0.45, "5_0_2_2.png": 0.6},
        "200_3.png": {},
        "200_4.png": {"4_0_1_1.png": 0.4},
    },
}
TILES = ("4_0_1_1.png", "5_0_2_2.png", "5_0_9_9.png")


def test_gta_takes_the_largest_overlap_first_and_leaves_semi_positives_wrong(tmp_path: Path) -> None:
    root = trees.overlaps(tmp_path, LISTS, TILES)
    (root / "satellite/._4_0_1_1.png").touch()
    train, there, back = (read_test_set(f"gta:{root}#same-{task}") for task in ("train", "d2s", "s2d"))
    assert [pair.aerial.name for pair in train.pairs] == ["5_0_2_2.png"]
    assert [pair.ground.name for pair in there.pairs] == ["200_2.png", "200_4.png"], "one has no right tile"
    assert [path.name for path in there.pairs[0].right] == ["5_0_2_2.png", "4_0_1_1.png"]
    assert there.ignored is None
    assert [path.name for path in there.distractors] == ["5_0_9_9.png"]
    (way,) = countings(there)
    assert list(zip(way.truth.query, way.truth.reference, strict=True)) == [(0, 0), (0, 1), (1, 1)]
    assert [path.name for path in back.tile_queries] == ["4_0_1_1.png", "5_0_2_2.png"]
    (way,) = countings(back)
    assert list(zip(way.truth.query, way.truth.reference, strict=True)) == [(0, 0), (0, 1), (1, 0)]


def test_the_centres_of_tiles_are_those_that_the_release_of_gta_states(tmp_path: Path) -> None:
    """Of the entry that its README shows."""
    stated = {"4_0_6_13.png": (4492.8, 9331.2), "5_0_12_27.png": (4320.0, 9504.0), "5_0_13_27.png": (4665.6, 9504.0)}
    right = dict.fromkeys(stated, 0.5)
    root = trees.overlaps(tmp_path, {"cross-area-drone2sate-test.json": {"500_1.png": right}}, tuple(stated))
    there = read_test_set(f"gta:{root}#cross-d2s")
    for path in there.references:
        assert there.positions[path] == pytest.approx(stated[path.name])
    assert there.positions[there.pairs[0].ground] == (100.0, 200.0)


def test_visloc_searches_the_map_of_the_image(tmp_path: Path, refused: Callable[..., str]) -> None:
    test = {"03_0001.JPG": {"03_5_001_001.png": 0.5}, "04_0001.JPG": {"04_5_001_001.png": 0.5}}
    tiles = ("03_5_001_001.png", "03_5_002_001.png", "04_5_001_001.png", "04_5_009_001.png")
    root = trees.overlaps(tmp_path, {"same-area-drone2sate-test.json": test}, tiles)
    there = read_test_set(f"visloc:{root}")
    (way,) = countings(there)
    assert way.ignored is not None
    left_out = [
        (query, there.references[row].name[:2])
        for query, row in zip(way.ignored.query, way.ignored.reference, strict=True)
    ]
    assert left_out == [(0, "04"), (0, "04"), (1, "03"), (1, "03")]
    assert countings(there.first(1))[0].ignored is None, "the other map is gone with its pairs"
    trees.overlaps(root, {"same-area-drone2sate-test.json": {"03_0001.JPG": {"04_5_001_001.png": 0.5}}}, tiles)
    assert "a tile of another map for 03_0001.JPG" in refused("data", "check", f"visloc:{root}#same-d2s")
    raw = tmp_path / "raw"
    (raw / "01/drone").mkdir(parents=True)
    assert "scripts/prepare_dataset/visloc.py" in refused("data", "check", f"visloc:{raw}#same-d2s")


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"pair_pos_sate_weight_list": [0.5]}, "another number of weights"),
        ({"drone_img_dir": "/etc"}, "'/etc', which is not inside"),
        ({"sate_img_dir": "a/../.."}, "which is not inside"),
        ({"drone_img_name": "../x.png"}, "not a list of GTA-UAV's form"),
        ({"pair_pos_sate_img_list": "5_0_2_2.png"}, "not a list of GTA-UAV's form"),
    ],
)
def test_a_wrong_list_of_gta_is_named(
    tmp_path: Path, refused: Callable[..., str], change: dict[str, object], named: str
) -> None:
    root = trees.overlaps(tmp_path, LISTS, TILES)
    path = root / "same-area-drone2sate-test.json"
    entries = json.loads(path.read_text())
    path.write_text(json.dumps([entries[0] | change, *entries[1:]]))
    message = refused("data", "check", f"gta:{root}#same-d2s")
    assert path.name in message
    assert named in message
    path.unlink()
    assert "does not exist" in refused("data", "check", f"gta:{root}#same-d2s")


def test_a_smaller_set_keeps_the_queries_that_it_can_find(tmp_path: Path) -> None:
    back = read_test_set(f"university:{trees.university(tmp_path)}#s2d")
    assert names(back.first(3).tile_queries) == ["0003/0003.jpg"]
    gone = back.without(_skipped(pair.ground) for pair in back.pairs[:3])
    assert names(gone.tile_queries) == ["0004/0004.jpg"]
    assert len(countings(gone)[0].truth.query) == 3
    assert back.fingerprint() != replace(back, tile_queries=back.tile_queries[:1]).fingerprint()


def test_a_set_that_loses_all_its_queries_is_not_counted_the_other_way_round(
    tmp_path: Path, refused: Callable[..., str], trained: Trained
) -> None:
    """The first places of the gallery are none of the query places."""
    root = trees.university(tmp_path / "u")
    for tile in (root / "test/query_satellite/0003").iterdir():
        tile.unlink()
    spec = f"university:{root}#s2d"
    assert names(read_test_set(spec).tile_queries) == ["0004/0004.jpg"]
    message = refused("evaluate", trained.checkpoint, "--data", spec, "--limit", 2)
    assert f"{spec}: none of its tiles to look up is left. Raise --limit" in message
    back = read_test_set(spec, 6)
    with pytest.raises(DataError, match="none of its tiles to look up is left"):
        back.without(_skipped(tile) for tile in back.tile_queries)
    out = tmp_path / "ready"
    specs = load_checkpoint(trained.checkpoint).model.specs
    prepare(out, back, {branch: spec.preprocessing for branch, spec in specs.items()}, jobs=1)
    for tile in read_prepared(out).tile_queries:
        tile.unlink()
    with pytest.raises(DataError, match="none of its tiles to look up is left"):
        read_prepared(out)
