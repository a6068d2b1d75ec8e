"""Frames that look straight down are found at any heading and scale, and fixed in metres by a second stage."""

import csv
import importlib.util
import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import msgspec
import numpy as np
import pytest
from checkout import ROOT
from conftest import Outcome
from correlating_matcher import correlating_matcher
from nadir_ground import CAMERA, FOV, SIDE, TILE, Ground, make_ground
from numpy.typing import NDArray
from PIL import Image
from tiny_world import CENTRE, TinyWorld, make_world

from geodtr import Localizer, open_bundle
from geodtr.runtime.errors import ConfigError, ImageError
from geodtr.runtime.gallery.build import build_gallery
from geodtr.runtime.gallery.manifest import made_by
from geodtr.runtime.geodesy import Near, distance, moved
from geodtr.runtime.images.camera_model import read_camera_model
from geodtr.runtime.images.frames import Frame
from geodtr.runtime.images.recorded import Recorded, Stated
from geodtr.runtime.localization.nadir.hypotheses import NadirOptions
from geodtr.runtime.localization.nadir.overhead import nadir_branch
from geodtr.runtime.localization.nadir.refine import RefineOptions
from geodtr.runtime.names import Branch
from geodtr.runtime.sources.registry import open_source
from geodtr.runtime.spec import Projection


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> TinyWorld:
    return make_world(tmp_path_factory.mktemp("tiny"), 2)


@pytest.fixture(scope="module")
def ground(tiny: TinyWorld, tmp_path_factory: pytest.TempPathFactory) -> Ground:
    return make_ground(tiny.bundle, tmp_path_factory.mktemp("ground"))


OPTIONS = NadirOptions(fov=FOV, altitude=70.0, ground_sizes=3, rotations=16)


@pytest.mark.parametrize(("heading", "altitude"), [(0.0, 70.0), (100.0, 78.0), (222.0, 62.0), (337.0, 70.0)])
def test_heading_and_altitude_are_found(ground: Ground, heading: float, altitude: float) -> None:
    frame = ground.photograph((TILE, -TILE), replace(CAMERA, heading=heading, altitude=altitude))
    with Localizer.open(ground.bundle, ground.gallery, nadir=OPTIONS) as localizer:
        answer = localizer.locate(frame)
    best = answer.candidates[0]
    assert best.place.id == "33.png"
    assert answer.heading is not None
    assert abs((answer.heading - heading + 180) % 360 - 180) < 8
    assert answer.nadir is not None
    assert answer.nadir.altitude == pytest.approx(altitude, rel=0.09)
    assert answer.nadir.ground_metres == pytest.approx(2 * altitude * math.tan(math.radians(35)), rel=0.09)
    assert answer.waypoint.altitude_m == answer.nadir.altitude
    assert answer.uncalibrated == "a calibration is of street-level images, and this is a nadir frame"


def test_what_is_not_searched_stays_unknown(ground: Ground) -> None:
    frame = ground.photograph((0, 0), replace(CAMERA, heading=40.0))
    with Localizer.open(
        ground.bundle, ground.gallery, nadir=replace(OPTIONS, heading=40.0, ground_sizes=1)
    ) as localizer:
        answer = localizer.locate(frame)
    assert answer.candidates[0].place.id == "22.png"
    assert answer.heading is None
    assert answer.nadir is not None
    assert (answer.nadir.ground_metres, answer.nadir.altitude) == (None, None)
    ranged = NadirOptions(frame_metres=(70, 140), ground_sizes=5)
    with Localizer.open(ground.bundle, ground.gallery, nadir=ranged) as localizer:
        answer = localizer.locate(frame)
    assert answer.nadir is not None
    assert answer.nadir.ground_metres == pytest.approx(98, rel=0.1)
    assert answer.nadir.altitude is None  # of an unknown lens


def test_a_frame_s_own_altitude_counts(ground: Ground) -> None:
    frame = ground.photograph((0, 0), replace(CAMERA, altitude=50.0))
    with Localizer.open(ground.bundle, ground.gallery, nadir=NadirOptions(fov=FOV)) as localizer:
        answer = localizer.locate(Frame("a.png", frame, altitude=50.0))
        assert answer.nadir is not None
        assert answer.nadir.altitude == pytest.approx(50, rel=0.1)
        with pytest.raises(ImageError, match=r"b\.png: how much ground it shows is not known.*--altitude"):
            localizer.locate(Frame("b.png", frame))
        with pytest.raises(ImageError, match="shows 7 m x 5 m of ground, and tiles are 64 m wide"):
            localizer.locate(Frame("c.png", frame, altitude=6.0))


def test_the_size_of_tiles_must_be_known(tiny: TinyWorld) -> None:
    with pytest.raises(ConfigError, match="--tile-metres"):
        Localizer.open(tiny.bundle, tiny.gallery, nadir=OPTIONS)
    Localizer.open(tiny.bundle, tiny.gallery, nadir=replace(OPTIONS, tile_metres=50.0)).close()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"altitude": -3.0}, "altitude is -3"),
        ({"altitude": float("nan")}, "altitude is nan"),
        ({"fov": 180.0}, "fov is 180; allowed are 1 to 170"),
        ({"rotations": 0}, "rotations is 0"),
        ({"ground_sizes": 100}, "more than 1024"),
        ({"frame_metres": (90.0, 60.0)}, "90 to 60 m"),
    ],
)
def test_options_out_of_range_are_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        NadirOptions(**change)  # type: ignore[arg-type]


POSES = [(8.0, 45.0, (3.0, -5.0)), (0.0, 200.0, (-66.0, 60.0)), (5.0, 301.0, (64.0, 6.0))]


@pytest.mark.parametrize(("tilt", "heading", "middle"), POSES)
def test_a_second_stage_fixes_the_camera_in_metres(
    ground: Ground, tilt: float, heading: float, middle: tuple[float, float]
) -> None:
    camera = replace(CAMERA, tilt=tilt, heading=heading, towards=120.0, altitude=72.0)
    aside, angle = 72 * math.tan(math.radians(tilt)), math.radians(heading + 120)
    place = (middle[0] - aside * math.sin(angle), middle[1] - aside * math.cos(angle))
    frame = ground.photograph(place, camera)
    lat, lon = moved(*CENTRE, *place)
    with Localizer.open(ground.bundle, ground.gallery, nadir=OPTIONS, refine=RefineOptions()) as localizer:
        answer = localizer.locate(frame)
    assert answer.nadir is not None
    refined = answer.nadir.refined
    assert refined is not None, answer.nadir.unrefined
    assert refined.camera
    assert distance(refined.lat, refined.lon, lat, lon) < 1
    assert refined.heading == pytest.approx(heading, abs=1)
    assert refined.altitude == pytest.approx(72, rel=0.02)
    assert refined.tilt == pytest.approx(tilt, abs=1)
    ee, en, nn = refined.covariance_m2
    assert 0 < ee < 1
    assert 0 < nn < 1
    assert en**2 < ee * nn
    assert refined.inliers >= 20
    assert (answer.waypoint.lat, answer.waypoint.lon) == (refined.lat, refined.lon)


def test_without_a_field_of_view_the_middle_is_fixed(ground: Ground) -> None:
    camera = replace(CAMERA, tilt=6.0, towards=90.0)
    frame = ground.photograph((0, 0), camera)
    lat, lon = moved(*CENTRE, 70 * math.tan(math.radians(6)), 0)
    options = NadirOptions(frame_metres=(80, 120))
    with Localizer.open(ground.bundle, ground.gallery, nadir=options, refine=RefineOptions()) as localizer:
        answer = localizer.locate(frame)
    assert answer.nadir is not None
    refined = answer.nadir.refined
    assert refined is not None, answer.nadir.unrefined
    assert (refined.camera, refined.altitude, refined.tilt) == (False, None, None)
    assert distance(refined.lat, refined.lon, lat, lon) < 1


def test_a_field_of_view_that_is_recorded_of_a_frame_gives_the_camera_s_position(ground: Ground) -> None:
    """By its tags or a flight record; no option states it."""
    frame = ground.photograph((0, 0), replace(CAMERA, tilt=6.0, towards=90.0))
    recorded = Recorded("a.png", field_of_view=Stated(FOV, "EXIF FocalLengthIn35mmFilm"))
    options = NadirOptions(rotations=4, ground_sizes=1)
    with Localizer.open(ground.bundle, ground.gallery, nadir=options, refine=RefineOptions()) as localizer:
        answer = localizer.locate(Frame("a.png", frame, altitude=70.0, recorded=recorded))
    assert answer.nadir is not None
    refined = answer.nadir.refined
    assert refined is not None, answer.nadir.unrefined
    assert refined.camera
    assert distance(refined.lat, refined.lon, *CENTRE) < 1
    assert refined.tilt == pytest.approx(6, abs=1)


@pytest.fixture(scope="module")
def calibration(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A lens with barrel distortion, whose axis is 12 pixels, 4 m on the ground, beside the middle of the image."""
    file = tmp_path_factory.mktemp("camera") / "down.yaml"
    file.write_text(
        "image_width: 320\nimage_height: 240\ndistortion_model: plumb_bob\ncamera_matrix: {data: [230, 0, 172, 0, 232, "
        "110, 0, 0, 1]}\ndistortion_coefficients: {data: [-0.28, 0.09, 0.001, -0.001, 0]}\n"
    )
    return file


def test_a_calibrated_lens_gives_the_camera_s_position(ground: Ground, calibration: Path) -> None:
    wide = replace(CAMERA, fov=90.0, width=960, height=720, heading=30.0)
    ideal = ground.photograph((4.0, -6.0), wide)
    camera = read_camera_model(calibration)
    fx, fy, cx, cy = camera.matrix
    row, column = np.mgrid[:240, :320].astype(np.float64)
    matrix = np.array([(fx, 0, cx), (0, fy, cy), (0, 0, 1)])
    seen = cv2.undistortPoints(np.stack([column, row], -1).reshape(-1, 1, 2), matrix, np.array(camera.distortion))
    x, y = (
        (np.asarray(seen, np.float32).reshape(240, 320, 2) * 480 + (479.5, 359.5)).astype(np.float32).transpose(2, 0, 1)
    )
    frame = np.asarray(cv2.remap(ideal, x, y, cv2.INTER_LINEAR), np.uint8)
    options = NadirOptions(altitude=70.0, camera=camera, rotations=16)
    with Localizer.open(ground.bundle, ground.gallery, nadir=options, refine=RefineOptions()) as localizer:
        answer = localizer.locate(frame)
        with pytest.raises(ImageError, match=r"it has 400x300 pixels, and .*down\.yaml is for 320x240"):
            localizer.locate(np.zeros((300, 400, 3), np.uint8))
    assert answer.nadir is not None
    refined = answer.nadir.refined
    assert refined is not None, answer.nadir.unrefined
    assert distance(refined.lat, refined.lon, *moved(*CENTRE, 4.0, -6.0)) < 1
    assert refined.altitude == pytest.approx(70, rel=0.02)
    assert refined.tilt is not None
    assert refined.tilt < 1
    with pytest.raises(ConfigError, match="fov is stated by camera too"):
        replace(options, fov=70.0)


def test_the_command_takes_a_calibration_of_nadir_frames(
    ground: Ground, calibration: Path, tmp_path: Path, cli: Callable[..., Outcome]
) -> None:
    Image.fromarray(ground.photograph((0, 0), CAMERA)).save(tmp_path / "a.png")
    Image.new("RGB", (64, 48)).save(tmp_path / "b.png")
    command = ("--bundle", ground.bundle, "--gallery", ground.gallery, "--view", "nadir", "--altitude", 70)
    printed = cli("localize", tmp_path / "a.png", *command, "--undistort", calibration)
    assert printed.code == 0, printed.err
    assert "altitude" in printed.out
    small = cli("localize", tmp_path / "b.png", *command, "--undistort", calibration)
    assert (small.code, f"{tmp_path / 'b.png'}: it has 64x48 pixels" in small.err) == (2, True)
    zero = tmp_path / "zero.yaml"
    zero.write_text(calibration.read_text().replace("[230,", "[0,"))
    outcome = cli("localize", tmp_path / "a.png", *command, "--undistort", zero)
    assert (outcome.code, "focal lengths of 0 and 232 pixels" in outcome.err) == (2, True)


def test_another_matcher_may_be_an_onnx_file(ground: Ground, tmp_path: Path) -> None:
    spec = importlib.util.spec_from_file_location("onnx_matcher", ROOT / "examples" / "onnx_matcher.py")
    assert spec is not None
    assert spec.loader is not None
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    refine = RefineOptions(matcher=example.OnnxMatcher(correlating_matcher(tmp_path / "matcher.onnx")))
    with Localizer.open(ground.bundle, ground.gallery, nadir=OPTIONS, refine=refine) as localizer:
        answer = localizer.locate(ground.photograph((3.0, -5.0), replace(CAMERA, heading=45.0)))
    assert answer.nadir is not None
    refined = answer.nadir.refined
    assert refined is not None, answer.nadir.unrefined
    assert refined.matches == refined.inliers  # one shift for all of them
    assert distance(refined.lat, refined.lon, *moved(*CENTRE, 3.0, -5.0)) < 3


def test_a_frame_of_another_place_is_refused(ground: Ground) -> None:
    noise = np.random.default_rng(5).integers(0, 256, (30, 40, 3), np.uint8)
    elsewhere = np.asarray(Image.fromarray(noise).resize((320, 240), Image.Resampling.BICUBIC))
    with Localizer.open(ground.bundle, ground.gallery, nadir=OPTIONS, refine=RefineOptions()) as localizer:
        answer = localizer.locate(elsewhere)
    assert answer.nadir is not None
    assert answer.nadir.refined is None
    assert answer.nadir.unrefined is not None
    assert "does not look like the map" in answer.nadir.unrefined
    assert answer.waypoint.state == "no fix"


def test_a_frame_is_sought_everywhere_in_a_prior(ground: Ground) -> None:
    """The first stage is given a wrong heading: what it finds is of no use."""
    frame = ground.photograph((-40.0, 50.0), replace(CAMERA, heading=200.0))
    lat, lon = moved(*CENTRE, -40.0, 50.0)
    near = Near(*CENTRE, 100)
    options = replace(OPTIONS, rotations=1, ground_sizes=1)
    with Localizer.open(ground.bundle, ground.gallery, nadir=options, refine=RefineOptions()) as localizer:
        answer = localizer.locate(frame, near=near)
    assert answer.nadir is not None
    assert answer.nadir.refined is not None, answer.nadir.unrefined
    assert distance(answer.nadir.refined.lat, answer.nadir.refined.lon, lat, lon) < 1


def test_of_two_places_that_look_the_same_neither_is_believed(ground: Ground, tmp_path: Path) -> None:
    rows: list[tuple[str, ...]] = [("file", "lat", "lon", "metres_per_pixel")]
    for number, east in enumerate((-300.0, 300.0)):
        part = ground.picture[:256, :256]
        Image.fromarray(part).save(tmp_path / f"{number}.png")
        at = moved(*CENTRE, east, 0)
        rows.append((f"{number}.png", *(f"{float(part):.9f}" for part in at), str(TILE / SIDE)))
    with (tmp_path / "tiles.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    bundle = open_bundle(ground.bundle)
    gallery = tmp_path / "gallery"
    build_gallery(gallery, open_source(tmp_path), bundle.embedder("aerial"), made_by(bundle.manifest))
    frame = ground.photograph((-96.0, 96.0), CAMERA)  # the middle of the first four tiles
    with Localizer.open(ground.bundle, gallery, nadir=OPTIONS, refine=RefineOptions()) as localizer:
        answer = localizer.locate(frame)
    assert answer.nadir is not None
    assert answer.nadir.unrefined is not None
    assert "two places fit, 600 m apart" in answer.nadir.unrefined


@pytest.mark.parametrize(("projection", "branch"), [("nadir", "ground"), ("panorama", "aerial"), ("any", "aerial")])
def test_the_branch_that_was_trained_on_nadir_frames_embeds_them(
    ground: Ground, projection: Projection, branch: Branch
) -> None:
    bundle = open_bundle(ground.bundle)
    spec = bundle.manifest.ground.spec
    imagery = msgspec.structs.replace(spec.preprocessing.imagery, projection=projection)
    how = msgspec.structs.replace(spec.preprocessing, imagery=imagery)
    given = msgspec.structs.replace(bundle.manifest.ground, spec=msgspec.structs.replace(spec, preprocessing=how))
    assert nadir_branch(msgspec.structs.replace(bundle.manifest, ground=given)) == branch


def test_the_second_stage_needs_tiles_that_can_be_read(ground: Ground, tmp_path: Path) -> None:
    moved_away = ground.gallery.parent / "tiles"
    hidden = moved_away.rename(tmp_path / "hidden")
    try:
        with (
            Localizer.open(
                ground.bundle, ground.gallery, nadir=replace(OPTIONS, tile_metres=TILE), refine=RefineOptions()
            ) as localizer,
            pytest.raises(ImageError, match="does not exist"),
        ):
            localizer.locate(ground.photograph((0, 0), CAMERA))
    finally:
        hidden.rename(moved_away)


def test_a_street_level_localizer_has_no_second_stage(ground: Ground) -> None:
    with pytest.raises(ConfigError, match="nadir options"):
        Localizer.open(ground.bundle, ground.gallery, refine=RefineOptions())
    with pytest.raises(ConfigError, match="rotations"):
        Localizer.open(ground.bundle, ground.gallery, nadir=OPTIONS, headings=4)
    with pytest.raises(ConfigError, match="min_inliers is 2; allowed are 8"):
        RefineOptions(min_inliers=2)


def test_the_command_takes_altitudes_and_prints_the_fix(
    ground: Ground, tmp_path: Path, cli: Callable[..., Outcome]
) -> None:
    places: list[NDArray[np.float64]] = [np.array([0.0, 5.0]), np.array([62.0, -64.0])]
    rows = ["file,altitude"]
    for number, place in enumerate(places):
        camera = replace(CAMERA, heading=60.0, altitude=65.0 + 10 * number)
        Image.fromarray(ground.photograph((place[0], place[1]), camera)).save(tmp_path / f"{number}.png")
        rows.append(f"{number}.png,{camera.altitude}")
    (tmp_path / "frames.csv").write_text("\n".join(rows))
    command = ("localize", tmp_path, "--bundle", ground.bundle, "--gallery", ground.gallery, "--view", "nadir")
    known = (*command, "--altitude", tmp_path / "frames.csv", "--fov", 70)
    printed = cli(*known)
    assert printed.code == 0, printed.err
    assert "altitude 6" in printed.out
    assert "m wide" in printed.out
    refined = cli(*known, "--refine", "--out", tmp_path / "fixes.jsonl")
    assert refined.code == 0, refined.err
    assert "matches agree" in refined.out
    first = json.loads((tmp_path / "fixes.jsonl").read_text().splitlines()[0])
    lat, lon = moved(*CENTRE, 0, 5)
    assert distance(first["lat"], first["lon"], lat, lon) < 1
    assert first["altitude_m"] == pytest.approx(65, rel=0.03)


def test_an_altitude_is_read_or_its_file_named(ground: Ground, tmp_path: Path, refused: Callable[..., str]) -> None:
    command = ("localize", tmp_path / "a.png", "--bundle", ground.bundle, "--gallery", ground.gallery)
    assert "two numbers" in refused(*command, "--view", "nadir", "--frame-metres", "60")
    assert "cannot be read" in refused(*command, "--view", "nadir", "--fov", 70, "--altitude", tmp_path / "no.csv")
    Image.new("RGB", (320, 240)).save(tmp_path / "a.png")
    table = tmp_path / "frames.csv"
    table.write_text("file,altitude\nb.png,70\n")
    message = refused(*command, "--view", "nadir", "--fov", 70, "--altitude", table)
    assert f"{table} has no row for {tmp_path / 'a.png'}. Add it, or leave it out: --on-error skip" in message
