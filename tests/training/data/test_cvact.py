"""CVACT is read as it is released: rows counted from 1, metres and degrees, a damaged index refused."""

import io
import math
import os
import subprocess
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import trees
from conftest import Outcome
from hypothesis import given
from hypothesis import strategies as st
from rasterio.crs import CRS
from rasterio.warp import transform
from scipy.io import savemat
from trees import IDS, UTM

from geodtr.runtime.errors import DataError
from geodtr.runtime.geodesy import utm_to_degrees
from geodtr.runtime.installation import install_hint
from geodtr.training.data.readers import mat_index
from geodtr.training.data.references import reference_tiles
from geodtr.training.data.spec import read_test_set, read_training_set


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Run the program that reads the index in this process: each start of it imports SciPy, which takes a second.

    For files that are well-formed; the others may crash SciPy.
    """

    def run(command: list[str], **_how: object) -> "subprocess.CompletedProcess[bytes]":
        assert command[:3] == [sys.executable, "-m", mat_index.__name__]
        printed, code, error = io.BytesIO(), 0, ""
        stream = io.TextIOWrapper(printed)  # which closes what it wraps when it goes
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "argv", command[2:])
            patch.setattr(sys, "stdout", stream)
            try:
                mat_index.main()
            except Exception:
                code, error = 1, traceback.format_exc()
        stream.flush()
        return subprocess.CompletedProcess(command, code, printed.getvalue(), error.encode())

    monkeypatch.setattr("geodtr.training.data.readers.cvact.subprocess.run", run)


@pytest.mark.usefixtures("in_process")
def test_cvact_counts_from_1_and_keeps_the_order(tmp_path: Path) -> None:
    root = trees.cvact(tmp_path, IDS, UTM, train=[4, 1], val=[2], test=[3, 2])
    train, val, test = (read_test_set(f"cvact:{root}#{split}") for split in ("train", "val", "test"))
    assert [pair.utm for pair in train.pairs] == [UTM[3], UTM[0]]
    assert train.pairs[1].ground == root / "ANU_data_small/streetview/-abcdefghijklmnopqrstu_grdView.jpg"
    assert val.pairs[0].aerial == root / "ANU_data_test/satview_polish/_bcdefghijklmnopqrstuv_satView_polish.jpg"
    assert [pair.utm for pair in test.pairs] == [UTM[2], UTM[1]]
    assert read_training_set(f"cvact:{root}").name.endswith("#train")
    assert read_test_set(f"cvact:{root}").name.endswith("#val")


@pytest.mark.usefixtures("in_process")
def test_cvact_is_in_canberra(tmp_path: Path) -> None:
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
    lat, lon = utm_to_degrees(east, north, zone, southern=southern)
    assert math.isnan(lat) == math.isnan(lon)
    assert math.isnan(lat) or (-90 <= lat <= 90 and math.isfinite(lon))


@pytest.mark.parametrize("folder", ["ANU_data_small", "ANU_data_test"])
def test_the_index_of_cvact_may_be_in_a_folder_of_images(tmp_path: Path, folder: str) -> None:
    root = trees.cvact(tmp_path, IDS, UTM, train=[1], val=[2])
    (root / "ACT_data.mat").replace(root / folder / "ACT_data.mat")
    assert len(read_test_set(f"cvact:{root}")) == 1


@pytest.mark.usefixtures("in_process")
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


def test_half_an_index_of_cvact_is_named(tmp_path: Path, refused: Callable[..., str]) -> None:
    root = trees.cvact(tmp_path, IDS, UTM, train=[1], val=[2])
    path = root / "ACT_data.mat"
    good = path.read_bytes()
    path.write_bytes(good[: len(good) // 2])
    assert "ACT_data.mat is not the index of CVACT" in refused("data", "check", f"cvact:{root}#val")


@pytest.mark.usefixtures("in_process")
def test_an_index_of_cvact_with_other_content_is_named(tmp_path: Path, refused: Callable[..., str]) -> None:
    root = trees.cvact(tmp_path, IDS, UTM, train=[1], val=[2])
    spec, path = f"cvact:{root}#val", root / "ACT_data.mat"
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
    monkeypatch.setattr("geodtr.training.data.readers.cvact.sys.executable", "/bin/false")
    assert "its reader crashed" in refused("data", "check", f"cvact:{root}#val")


def test_without_scipy_cvact_names_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused: Callable[..., str]
) -> None:
    root = trees.cvact(tmp_path, IDS, UTM, val=[1])
    monkeypatch.setattr("geodtr.training.data.readers.cvact.find_spec", lambda _name: None)
    assert install_hint("train") in refused("data", "check", f"cvact:{root}#val")
