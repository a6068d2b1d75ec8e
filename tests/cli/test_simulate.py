"""`simulate`: a vehicle whose GNSS fails goes on by this project's positions, in a closed loop."""

import csv
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Outcome, Trained
from PIL import Image

from geodtr.export.simulation.run import MARKER, TILES, _claim
from geodtr.runtime.errors import OutputExists

SHORT = ("--minutes", "0.2", "--spacing", "20", "--every", "10")


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_ten_minutes_without_gnss_stay_within_ten_metres(
    trained: Trained, tmp_path: Path, cli: Callable[..., Outcome]
) -> None:
    done = cli("simulate", trained.bundles["fp32"].path, "--out", tmp_path / "flight", "--json")
    flown = json.loads(done.out)
    assert flown["median_m"] < 10
    assert flown["last_minute_median_m"] < 10
    assert flown["dead_reckoning_m"] > 100


def test_a_flight_leaves_a_table_and_a_picture_and_its_map_is_used_again(
    trained: Trained, tmp_path: Path, cli: Callable[..., Outcome]
) -> None:
    bundle, out = trained.bundles["fp32"].path, tmp_path / "flight"
    done = cli("simulate", bundle, "--out", out, *SHORT, "--json")
    assert done.code == 0
    flown = json.loads(done.out)
    assert flown["worst_m"] >= flown["median_m"] > 0
    with (out / "flight.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == (60 + 12) * 5
    assert [row["gnss"] for row in rows] == ["1"] * 300 + ["0"] * 60
    assert all(-30.3 < float(row["autopilot_lat"]) < -29.7 for row in rows)
    with Image.open(out / "flight.png") as picture:
        assert picture.width > picture.height > 500
    tiles = {path: path.stat().st_mtime_ns for path in (out / "tiles").iterdir()}
    again = cli("simulate", bundle, "--out", out, *SHORT, "--json")
    assert json.loads(again.out) == flown
    assert {path: path.stat().st_mtime_ns for path in (out / "tiles").iterdir()} == tiles
    other = cli("simulate", bundle, "--out", out, "--minutes", "0.3")
    assert other.code == 2
    assert "holds the map of another flight or bundle" in other.err


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("--minutes", "0"), "--minutes is 0; allowed are 0.1 to 60."),
        (("--spacing", "1"), "--spacing is 1; allowed are 3 to 60."),
        (("--prior", "-5"), "--prior is -5; allowed are 30 to 100000, or 0: everywhere."),
        (("--region", "moon"), "There is no region 'moon'"),
    ],
)
def test_what_cannot_be_flown_is_refused_by_its_option(
    given: tuple[str, str], message: str, tmp_path: Path, refused: Callable[..., str]
) -> None:
    assert message in refused("simulate", tmp_path, "--out", tmp_path / "flight", *given)


def test_a_folder_without_a_map_yet_is_no_other_flights(tmp_path: Path) -> None:
    out = tmp_path / "flight"
    _claim(out, b"{}")
    _claim(out, b'{"minutes": 1}')
    assert (out / MARKER).read_bytes() == b'{"minutes": 1}'
    (out / TILES).mkdir()
    with pytest.raises(OutputExists, match="holds the map of another flight"):
        _claim(out, b"{}")
