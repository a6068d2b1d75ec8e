"""Data sets are read as they are released: complete, in order, what is missing named, what is garbage refused."""

import math
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import trees
from conftest import Outcome
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.crs import CRS
from rasterio.warp import transform
from scipy.io import savemat

from geodtr.runtime.errors import DataError
from geodtr.training.data.pair_set import Pair, PairSet
from geodtr.training.data.references import reference_tiles
from geodtr.training.data.spec import KINDS, read_test_set, read_training_set
from geodtr.training.data.utm import to_degrees

TILES = tuple(f"satellite_41.{n}_-87.{n}.png" for n in range(8))


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


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize("start", ["", "\ufeff"])
def test_lists_written_on_other_systems_are_read(tmp_path: Path, newline: str, start: str) -> None:
    root = trees.cvusa(tmp_path / "räume 東京", {"val-19zl.csv": [1, 2]}, newline, start)
    assert len(read_test_set(f"cvusa:{root}")) == 2
    cvact = trees.vigor(tmp_path / "v", [("Chicago", "ä,1,2,.jpg", TILES[:4])])
    for path in cvact.rglob("*.txt"):
        path.write_bytes((start + path.read_text().replace("\n", newline)).encode())
    assert len(read_test_set(f"vigor:{cvact}")) == 1


IDS = ["-abcdefghijklmnopqrstu", "_bcdefghijklmnopqrstuv", "cdefghijklmnopqrstuvwx", "defghijklmnopqrstuvwxy"]
UTM = [(690000.0, 6090000.0), (690003.0, 6090004.0), (690003.0, 6090004.5), (700000.0, 6100000.0)]


def test_cvact_counts_from_1_and_keeps_the_order(tmp_path: Path) -> None:
    root = trees.cvact(tmp_path, IDS, UTM, train=[4, 1], val=[2], test=[3, 2])
    train, val, test = (read_test_set(f"cvact:{root}#{split}") for split in ("train", "val", "test"))
    assert [pair.utm for pair in train.pairs] == [UTM[3], UTM[0]]
    assert train.pairs[1].ground == root / "ANU_data_small/streetview/-abcdefghijklmnopqrstu_grdView.jpg"
    assert val.pairs[0].aerial == root / "ANU_data_test/satview_polish/_bcdefghijklmnopqrstuv_satView_polish.jpg"
    assert [pair.utm for pair in test.pairs] == [UTM[2], UTM[1]]
    assert read_training_set(f"cvact:{root}").name.endswith("#train")
    assert read_test_set(f"cvact:{root}").name.endswith("#val")


def test_cvact_lies_in_canberra(tmp_path: Path) -> None:
    """By PROJ's UTM zone 55 south. What lies elsewhere has metres alone."""
    root = trees.cvact(tmp_path, IDS, [*UTM[:3], (690000.0, 5090000.0)], test=[1, 4])
    pairs = read_test_set(f"cvact:{root}#test")
    first, second = pairs.pairs
    lon, lat = transform(CRS.from_epsg(32755), CRS.from_epsg(4326), [UTM[0][0]], [UTM[0][1]])
    assert (first.lat, first.lon) == pytest.approx((lat[0], lon[0]), abs=1e-9)
    assert (second.lat, second.lon, second.utm) == (None, None, (690000.0, 5090000.0))
    tiles = reference_tiles(pairs).tiles
    assert (tiles[0].lat, tiles[0].lon) == (first.lat, first.lon)


@given(east=st.floats(-1e9, 1e9), north=st.floats(-1e9, 1e9), zone=st.integers(1, 60), southern=st.booleans())
def test_any_metres_have_degrees_or_none(east: float, north: float, zone: int, southern: bool) -> None:
    lat, lon = to_degrees(east, north, zone, southern=southern)
    assert math.isnan(lat) == math.isnan(lon)
    assert math.isnan(lat) or (-90 <= lat <= 90 and math.isfinite(lon))


@pytest.mark.parametrize("folder", ["ANU_data_small", "ANU_data_test"])
def test_the_index_of_cvact_may_lie_in_a_folder_of_images(tmp_path: Path, folder: str) -> None:
    root = trees.cvact(tmp_path, IDS, UTM, train=[1], val=[2])
    (root / "ACT_data.mat").replace(root / folder / "ACT_data.mat")
    assert len(read_test_set(f"cvact:{root}")) == 1


def test_the_training_pair_that_cvact_lacks_is_reported_and_skipped(
    tmp_path: Path, cli: Callable[..., Outcome]
) -> None:
    root = trees.cvact(tmp_path, IDS, UTM, train=[1, 2, 3])
    (root / "ANU_data_small/satview_polish/_bcdefghijklmnopqrstuv_satView_polish.jpg").unlink()
    train = read_training_set(f"cvact:{root}")
    assert [pair.utm for pair in train.pairs] == [UTM[0], UTM[2]]
    assert [(entry.path.name, entry.reason) for entry in train.skipped] == [
        ("_bcdefghijklmnopqrstuv_satView_polish.jpg", "missing")
    ]
    result = cli("data", "check", f"cvact:{root}#train")
    assert result.code == 1
    assert "2 pairs, 1 file missing" in result.out
    assert "_bcdefghijklmnopqrstuv_satView_polish.jpg" in result.out


def test_a_corrupt_index_of_cvact_is_named(tmp_path: Path, refused: Callable[..., str]) -> None:
    root = trees.cvact(tmp_path, IDS, UTM, train=[1], val=[2])
    spec, path = f"cvact:{root}#val", root / "ACT_data.mat"
    good = path.read_bytes()
    path.write_bytes(good[: len(good) // 2])
    assert "ACT_data.mat is not the index of CVACT" in refused("data", "check", spec)
    ids, utm = np.array(IDS), np.array(UTM)
    for content, named in (
        ({"panoIds": ids, "utm": utm}, "valSet"),
        ({"panoIds": ids, "utm": utm[:2], "valSet": {"valInd": [1]}}, "4 panoIds and 2 rows"),
        ({"panoIds": ids, "utm": utm[:, :1], "valSet": {"valInd": [1]}}, "utm"),
        ({"panoIds": ids, "utm": utm * np.nan, "valSet": {"valInd": [1]}}, "utm"),
        ({"panoIds": utm, "utm": utm, "valSet": {"valInd": [1]}}, "names"),
        ({"panoIds": np.array(["../../x"] * 4), "utm": utm, "valSet": {"valInd": [1]}}, "names"),
        ({"panoIds": ids, "utm": utm, "valSet": {"valInd": [1, 5]}}, "val lists row 5; allowed are 1 to 4"),
        ({"panoIds": ids, "utm": utm, "valSet": {"valInd": [1.5]}}, "row 1.5"),
        ({"panoIds": ids, "utm": utm, "valSet": {"other": [1]}}, "valInd"),
    ):
        savemat(path, content)
        message = refused("data", "check", spec)
        assert "ACT_data.mat is not the index of CVACT" in message
        assert named in message
    path.unlink()
    assert "holds no ACT_data.mat" in refused("data", "check", spec)


def test_references_within_metres_are_those_that_a_plain_count_finds(tmp_path: Path) -> None:
    root = trees.cvact(tmp_path, IDS, UTM, test=[1, 2, 3, 4])
    near = read_test_set(f"cvact:{root}#test").within(5.0)
    # 3-4-5: exactly 5 m count; the third lies 5.4 m from the first.
    found = list(zip(near.query.tolist(), near.reference.tolist(), strict=True))
    assert found == [(0, 0), (0, 1), (1, 0), (1, 1), (1, 2), (2, 1), (2, 2), (3, 3)]


@given(
    places=st.lists(st.tuples(st.integers(0, 20), st.integers(0, 20)), min_size=1, max_size=30),
    tiles=st.integers(1, 40),
    metres=st.integers(0, 30),
)
@settings(deadline=None)
def test_within_agrees_with_every_distance(places: list[tuple[int, int]], tiles: int, metres: int) -> None:
    pairs = tuple(
        Pair(Path(f"g{n}"), Path(f"a{n % tiles}"), utm=(float(x), float(y))) for n, (x, y) in enumerate(places)
    )
    pair_set = PairSet("set", pairs)
    near = pair_set.within(metres)
    found = set(zip(near.query.tolist(), near.reference.tolist(), strict=True))
    expected = {
        (query, int(tile))
        for query, (x, y) in enumerate(places)
        for (u, v), tile in zip(places, pair_set.tiles, strict=True)
        if (x - u) ** 2 + (y - v) ** 2 <= metres**2
    }
    assert found == expected
    assert len(found) == len(near.query)
    assert (np.diff(near.query) >= 0).all()
    assert set(zip(*map(np.ndarray.tolist, pair_set.truth.between(0, len(places))), strict=True)) <= found


def test_within_needs_positions_in_metres(tmp_path: Path) -> None:
    root = trees.cvusa(tmp_path, {"val-19zl.csv": [1]})
    with pytest.raises(DataError, match="no positions in metres for 1 pairs"):
        read_test_set(f"cvusa:{root}").within(5)


def test_vigor_shares_tiles_and_tells_semi_positives_and_distractors(tmp_path: Path) -> None:
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


@pytest.mark.parametrize("kind", [kind for kind in KINDS if KINDS[kind].splits])
def test_an_unknown_split_lists_those_that_are_there(tmp_path: Path, refused: Callable[..., str], kind: str) -> None:
    assert ", ".join(KINDS[kind].splits) in refused("data", "check", f"{kind}:{tmp_path}#dev")


@pytest.mark.parametrize("path", ["x" * 5000, "x" * 300 + "#y"])
def test_a_path_that_cannot_be_is_no_folder(refused: Callable[..., str], path: str) -> None:
    assert "is not a folder" in refused("data", "check", f"pairs:{path}")


def test_a_set_without_an_image_left_says_which_is_missing(tmp_path: Path, refused: Callable[..., str]) -> None:
    root = trees.cvusa(tmp_path, {"val-19zl.csv": [1]})
    (root / "bingmap/19/0000001.jpg").unlink()
    message = refused("data", "check", f"cvusa:{root}#val")
    assert "holds no pairs" in message
    assert "0000001.jpg (missing)" in message


GARBAGE = st.one_of(
    st.binary(max_size=400),
    st.text(max_size=200).map(lambda text: text.encode("utf-8", "surrogatepass")),
    st.lists(st.sampled_from(["a", ",", " ", "\n", "\r", '"', "\0", "1", ".", "\ufeff", "x" * 300, "/", ".."])).map(
        lambda parts: "".join(parts).encode()
    ),
)
FILES = {
    "cvusa": ("splits/val-19zl.csv", "#val"),
    "vigor": ("splits/NewYork/same_area_balanced_test.txt", "#same-test"),
    "pairs": ("pairs.csv", ""),
    "prepared": ("prepared.json", ""),
}


@pytest.mark.parametrize("kind", FILES)
@given(garbage=GARBAGE)
@settings(max_examples=150, deadline=None)
def test_garbage_for_a_list_is_an_error_that_names_it(
    tmp_path_factory: pytest.TempPathFactory, kind: str, garbage: bytes
) -> None:
    assert set(FILES) == set(KINDS) - {"cvact"}
    file, split = FILES[kind]
    root = tmp_path_factory.getbasetemp() / f"garbage-{kind}"
    if kind == "vigor":
        trees.vigor(root, [])
    path = root / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(garbage)
    with pytest.raises(DataError):
        read_test_set(f"{kind}:{root}{split}")


def test_a_damaged_index_of_cvact_is_read_or_refused(tmp_path: Path) -> None:
    """Some of these crash SciPy's reader; each costs a process, so they are few."""
    trees.cvact(tmp_path, IDS, UTM, val=[1, 2])
    good = (tmp_path / "ACT_data.mat").read_bytes()
    chance = np.random.default_rng(0)
    for _ in range(8):
        content = np.frombuffer(good, np.uint8).copy()
        content[chance.integers(128, len(content), 6)] = chance.integers(0, 256, 6)
        (tmp_path / "ACT_data.mat").write_bytes(content.tobytes())
        try:
            assert len(read_test_set(f"cvact:{tmp_path}")) <= len(IDS)
        except DataError as error:
            assert os.fspath(tmp_path) in str(error)


def test_a_crash_of_the_reader_of_indices_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused: Callable[..., str]
) -> None:
    root = trees.cvact(tmp_path, IDS, UTM, val=[1])
    monkeypatch.setattr("geodtr.training.data.cvact.sys.executable", "/bin/false")
    assert "it crashed its reader" in refused("data", "check", f"cvact:{root}#val")


def test_without_scipy_cvact_names_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused: Callable[..., str]
) -> None:
    root = trees.cvact(tmp_path, IDS, UTM, val=[1])
    monkeypatch.setattr("geodtr.training.data.cvact.find_spec", lambda _name: None)
    assert "geodtr-export[train]" in refused("data", "check", f"cvact:{root}#val")
