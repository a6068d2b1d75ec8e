"""What the second stage finds reaches every output, by the same names: lines of JSON, tables, maps, recordings, an
autopilot, and a track.
"""

import csv
import json
import math
import re
import xml.etree.ElementTree as ET
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import dataclass, fields, replace
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Outcome
from foxglove_messages import read
from mavlink_peer import Peer
from nadir_ground import CAMERA, Ground, make_ground
from PIL import Image
from tiny_world import CENTRE, make_world

from geodtr import Localizer
from geodtr.cli.main import run
from geodtr.runtime.autopilot.messages import Position
from geodtr.runtime.autopilot.options import Gates, HeldBack
from geodtr.runtime.files.documents import encode_json
from geodtr.runtime.geodesy import distance, moved
from geodtr.runtime.localization.fix import SIGMAS_68, SIGMAS_95, largest_sigma
from geodtr.runtime.localization.nadir.hypotheses import NadirOptions
from geodtr.runtime.localization.nadir.refine import RefineOptions
from geodtr.runtime.localization.output.writers import waypoint_file
from geodtr.runtime.localization.waypoint import Waypoint, record, scalars
from geodtr.runtime.recordings.foxglove import ANSWER

KML = "{http://www.opengis.net/kml/2.2}"
METRES = 20.0
"""From one frame to the next, eastwards."""


@dataclass(frozen=True, slots=True)
class Flown:
    """Frames along a line, `places` in metres east and north of the middle, and all files of one run."""

    ground: Ground
    folder: Path
    places: list[tuple[float, float]]
    printed: list[dict[str, Any]]

    def off(self, answer: dict[str, Any], number: int, prefix: str = "") -> float:
        return float(distance(answer[f"{prefix}lat"], answer[f"{prefix}lon"], *moved(*CENTRE, *self.places[number])))


def asked(ground: Ground, folder: Path) -> tuple[object, ...]:
    return (
        *("localize", "--bundle", ground.bundle, "--gallery", ground.gallery, "--view", "nadir", "--fov", 70),
        *(
            "--altitude",
            folder / "altitudes.csv",
            "--rotations",
            4,
            "--ground-sizes",
            1,
            "--refine",
            "--refine-places",
            2,
        ),
    )


@pytest.fixture(scope="module")
def flown(tmp_path_factory: pytest.TempPathFactory) -> Flown:
    """Three frames, and a last one of another place."""
    folder = tmp_path_factory.mktemp("flown")
    (folder / "tiny").mkdir()
    ground = make_ground(make_world(folder / "tiny", 2).bundle, folder)
    (folder / "frames").mkdir()
    places = [(-50.0 + METRES * number, 5.0) for number in range(3)]
    for number, place in enumerate(places):
        camera = replace(CAMERA, heading=90.0, altitude=60.0)
        Image.fromarray(ground.photograph(place, camera, number)).save(folder / "frames" / f"{number}.png")
    noise = np.random.default_rng(5).integers(0, 256, (30, 40, 3), np.uint8)
    Image.fromarray(noise).resize((320, 240), Image.Resampling.BICUBIC).save(folder / "frames" / "3.png")
    rows = "".join(f"frames/{number}.png,60\n" for number in range(4))
    (folder / "altitudes.csv").write_text(f"file,altitude\n{rows}")
    command = (*asked(ground, folder), folder / "frames", "--json")
    lines = ran(*command, "--out", folder / "fixes.jsonl", "--picture", folder / "f.png", "--mcap", folder / "f.mcap")
    return Flown(ground, folder, places, [json.loads(line) for line in lines])


def ran(*arguments: object) -> list[str]:
    """The lines that the command prints."""
    with redirect_stdout(StringIO()) as out, pytest.raises(SystemExit) as exit_:
        run([str(argument) for argument in arguments])
    assert not exit_.value.code
    return out.getvalue().splitlines()


def test_json_and_json_lines_are_one_schema(flown: Flown) -> None:
    written = [json.loads(line) for line in (flown.folder / "fixes.jsonl").read_text().splitlines()]
    assert flown.printed == written
    assert list(written[0]) == [field.name for field in fields(Waypoint)]
    for number, answer in enumerate(written[:3]):
        assert (answer["state"], answer["position_of"]) == ("fix", "camera")
        assert flown.off(answer, number) < 1
        assert answer["heading"] == pytest.approx(90, abs=1)
        assert answer["altitude_m"] == pytest.approx(60, rel=0.02)
        assert answer["tilt"] < 2
        assert answer["ground_metres"] == pytest.approx(2 * 60 * math.tan(math.radians(35)), rel=0.02)
        assert 20 <= answer["inliers"] <= answer["matches"]
        assert answer["refined_tile"].endswith(".png")
        sigma = largest_sigma(answer["covariance_m2"])
        assert 0 < sigma < 1
        assert answer["within_68_m"] == pytest.approx(SIGMAS_68 * sigma)
        assert answer["within_95_m"] == pytest.approx(SIGMAS_95 * sigma)
        assert "nadir frame" in answer["uncalibrated"]
    last = written[3]
    assert (last["state"], last["lat"], last["covariance_m2"]) == ("no fix", None, None)
    assert "more places were tried" in last["unrefined"]


def test_tables_and_maps_have_what_the_lines_have(flown: Flown, tmp_path: Path) -> None:
    nadir = NadirOptions(altitude=60, fov=70, rotations=4, ground_sizes=1)
    with Localizer.open(flown.ground.bundle, flown.ground.gallery, nadir=nadir, refine=RefineOptions()) as localizer:
        waypoint = localizer.locate(flown.folder / "frames" / "2.png").waypoint
        for suffix in ("csv", "geojson", "kml", "html"):
            with waypoint_file(tmp_path / f"fix.{suffix}", track=False, gallery=localizer.gallery) as write:
                write(waypoint)
    wanted = json.loads(encode_json(record(waypoint)))
    with (tmp_path / "fix.csv").open(newline="") as file:
        (cells,) = csv.DictReader(file)
    features = json.loads((tmp_path / "fix.geojson").read_text())["features"]
    mark = ET.parse(tmp_path / "fix.kml").find(f"{KML}Document/{KML}Placemark")
    assert mark is not None
    data = {each.attrib["name"]: each.findtext(f"{KML}value") for each in mark.iter(f"{KML}Data")}
    page = (tmp_path / "fix.html").read_text()
    (shown,) = json.loads(re.findall(r'id="data">(.*?)</script>', page, re.DOTALL)[0])["answers"]
    names = ("altitude_m", "tilt", "ground_metres", "inliers", "matches", "within_95_m")
    for name in names:
        assert float(cells[name]) == float(data[name] or "") == wanted[name] == shown[name]
        assert features[0]["properties"][name] == wanted[name]
    assert features[0]["geometry"]["coordinates"] == [wanted["lon"], wanted["lat"]]
    assert features[0]["properties"]["covariance_m2"] == wanted["covariance_m2"] == shown["covariance_m2"]
    in_three = [f"covariance_{part}_m2" for part in ("ee", "en", "nn")]
    assert [float(cells[name]) for name in in_three] == wanted["covariance_m2"]
    assert [float(data[name] or "") for name in in_three] == wanted["covariance_m2"]
    assert (data["position_of"], data["refined_tile"]) == ("camera", wanted["refined_tile"])
    with Image.open(flown.folder / "f.png") as picture:
        assert min(picture.size) > 1000


def test_a_recording_has_the_covariance(flown: Flown) -> None:
    messages = read(flown.folder / "f.mcap")
    assert messages["/geodtr/answer"] == flown.printed
    fixes = messages["/geodtr/fix"]
    assert len(fixes) == 3
    for fix, answer in zip(fixes, flown.printed, strict=False):
        ee, en, nn = answer["covariance_m2"]
        assert list(fix.position_covariance) == [ee, en, 0, en, nn, 0, 0, 0, 0]
        assert fix.altitude == answer["altitude_m"]
    assert set(ANSWER["properties"]) == {*record(Waypoint("no fix"))}
    texts = {name for answer in flown.printed for name, value in answer.items() if isinstance(value, str)}
    assert texts <= {name for name, kind in ANSWER["properties"].items() if kind["type"] == "string"}


def test_an_autopilot_gets_the_refined_position_and_its_sigma(flown: Flown, cli: Callable[..., Outcome]) -> None:
    """Gated as every position without a calibration: the map may be off by more than the covariance knows."""
    command = (*asked(flown.ground, flown.folder), flown.folder / "frames" / "0.png")
    with Peer() as peer:
        assert "1 uncalibrated" in cli(*command, "--mavlink", peer.address).err
        assert "Sent 1 positions" in cli(*command, "--mavlink", peer.address, "--uncalibrated-sigma", 0.05).err
        (message,) = peer.wait_for("GLOBAL_POSITION_SENSOR", 1)
    assert flown.off({"lat": message.lat / 1e7, "lon": message.lon / 1e7}, 0) < 1
    sigma = largest_sigma(flown.printed[0]["covariance_m2"])
    assert message.eph == pytest.approx(max(0.1, sigma), abs=1e-3)
    fix = Waypoint("fix", None, None, 1.0, 2.0, None, SIGMAS_68 * 0.5, SIGMAS_95 * 2.5, covariance_m2=(0.2, 0.0, 0.25))
    admitted = Gates(uncalibrated_sigma=3.0).admit(fix, track=False)
    assert isinstance(admitted, Position)
    assert admitted.sigma == 3.0, "at least what was stated"
    assert Gates(uncalibrated_sigma=0.1, max_sigma=2.0).admit(fix, track=False) == HeldBack("radius too wide")


def test_a_track_goes_by_the_refined_position(flown: Flown, cli: Callable[..., Outcome], tmp_path: Path) -> None:
    """The odometry is 5 % short, and a frame is refused: the filter stays within two metres all the same."""
    rows = [f"{second},{0.95 * METRES},0,frames/{second}.png" for second in range(4)]
    drive = flown.folder / "drive.csv"
    drive.write_text("\n".join(["time_s,speed_m_s,yaw_rate_deg_s,image", *rows]))
    printed = cli(*asked(flown.ground, flown.folder), "--track", drive, "--json", "--out", tmp_path / "track.csv")
    assert printed.code == 0, printed.err
    answers = [json.loads(line) for line in printed.out.splitlines()]
    for number, answer in enumerate(answers[:3]):
        assert flown.off(answer, number) < 2
        assert flown.off(answer, number, "own_") < 1
        assert answer["heading"] == pytest.approx(90, abs=8)
        assert answer["covariance_m2"] is not None
    assert answers[2]["within_68_m"] < 4
    assert answers[3]["own_lat"] is None
    assert answers[3]["unrefined"] is not None
    end = moved(*CENTRE, flown.places[2][0] + METRES, 5.0)
    assert distance(answers[3]["lat"], answers[3]["lon"], *end) < 4


def test_scalars_leave_nothing_out_but_what_is_a_list() -> None:
    held = scalars(Waypoint("fix", covariance_m2=(1.0, 0.5, 2.0)))
    assert {field.name for field in fields(Waypoint)} - set(held) == {"candidates", "recorded", "covariance_m2"}
    assert [held[f"covariance_{part}_m2"] for part in ("ee", "en", "nn")] == [1.0, 0.5, 2.0]
