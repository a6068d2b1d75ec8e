"""The ROS 2 node: its core with messages of rosbags, a bag in and a bag out, its thin file with a stand-in for rclpy.

It has not run under a live ROS.
"""

import math
import runpy
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import yaml
from bags import BEGAN, CAMERA, GNSS, TYPES, compressed, drive_of, image, nav_sat_fix, write_bag
from checkout import ROOT
from fake_ros import rclpy_of
from rosbags.rosbag2 import Reader, Writer
from tiny_world import SPACING, TinyWorld, claim_radii, make_world

from geodtr import Localizer, UserError
from geodtr.runtime.errors import ConfigError
from geodtr.runtime.geodesy import distance
from geodtr.runtime.recordings.bag import Recording
from geodtr.runtime.ros.core import Core
from geodtr.runtime.ros.messages import ERROR, OK, WARN, as_ros
from geodtr.runtime.ros.parameters import Parameters, defaults

PACKAGE = ROOT / "examples" / "ros2" / "geodtr_localizer"
ROWS = (18, 19, 20, 21)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> TinyWorld:
    tiny = make_world(tmp_path_factory.mktemp("tiny"))
    claim_radii(tiny, 15.1, 30.0)
    return tiny


def core_of(world: TinyWorld, **more: Any) -> Core:
    return Core(Parameters(bundle=str(world.bundle), gallery=str(world.gallery), **more))


def values_of(published: Any) -> Mapping[str, str]:
    (status,) = published.diagnostics.status
    return {each.key: each.value for each in status.values}


def test_a_position_claims_what_the_gallerys_calibration_claims(tiny: TinyWorld) -> None:
    core = core_of(tiny, origin=(float(tiny.lat[18]), float(tiny.lon[18])))
    answer = core.image(image(tiny.panorama(18, seed=1), BEGAN + 0.25))
    core.close()
    fix, pose = answer.fix, answer.pose
    assert fix is not None and pose is not None
    assert distance(fix.latitude, fix.longitude, tiny.lat[18], tiny.lon[18]) < SPACING / 5
    assert (fix.header.stamp.sec, fix.header.stamp.nanosec, fix.header.frame_id) == (BEGAN, 250_000_000, "base_link")
    assert fix.position_covariance.reshape(3, 3)[:2, :2] == pytest.approx(np.diag([100, 100]), rel=2e-3)
    assert (fix.status.status, fix.position_covariance_type, math.isnan(fix.altitude)) == (0, 1, True)
    place = pose.pose.pose.position
    assert math.hypot(place.x, place.y) == pytest.approx(
        float(distance(fix.latitude, fix.longitude, tiny.lat[18], tiny.lon[18])), abs=0.01
    )
    assert pose.pose.covariance.reshape(6, 6)[0, 0] == pytest.approx(100, rel=2e-3)
    assert pose.pose.covariance.reshape(6, 6)[5, 5] == 1e6  # no heading was searched
    (status,) = answer.diagnostics.status
    assert (status.level, status.message) == (OK, "fix")
    assert values_of(answer)["tile"] == "018.png"
    assert float(values_of(answer)["sigma_m"]) == pytest.approx(10, rel=2e-3)


def test_a_heading_becomes_a_rotation_from_east(tmp_path: Path) -> None:
    tiny = make_world(tmp_path)
    core = core_of(tiny, headings=8, uncalibrated_sigma=20.0)
    answer = core.image(image(tiny.panorama(9, heading=180), BEGAN))
    core.close()
    assert answer.pose is not None
    turn = answer.pose.pose.pose.orientation
    assert math.degrees(2 * math.atan2(turn.z, turn.w)) == pytest.approx(-90)
    assert answer.pose.pose.covariance[0] == 400
    assert answer.pose.pose.covariance[35] == pytest.approx(math.radians(45) ** 2 / 12)


def test_what_is_not_sure_or_no_image_is_reported_and_not_published(tiny: TinyWorld, tmp_path: Path) -> None:
    plain = make_world(tmp_path)
    core = core_of(plain)
    answer = core.image(image(plain.panorama(9), BEGAN))
    assert (answer.fix, answer.pose, answer.diagnostics.status[0].level) == (None, None, WARN)
    assert "no calibration" in answer.diagnostics.status[0].message
    bad = core.image(image(plain.panorama(9), BEGAN, "bayer_rggb8"))
    assert (bad.fix, bad.diagnostics.status[0].level) == (None, ERROR)
    assert "bayer_rggb8" in bad.diagnostics.status[0].message
    core.close()
    wide = core_of(tiny, max_sigma=5.0)
    assert "radius too wide" in wide.image(image(tiny.panorama(9), BEGAN)).diagnostics.status[0].message
    wide.close()


def test_a_prior_bounds_the_search(tiny: TinyWorld) -> None:
    core = core_of(tiny, prior_radius=60.0, uncalibrated_sigma=20.0)
    far = (float(tiny.lat[0]), float(tiny.lon[0]))
    core.prior(nav_sat_fix(*far, BEGAN))
    core.prior(nav_sat_fix(50, 50, BEGAN, status=-1))
    core.prior(nav_sat_fix(math.nan, 50, BEGAN))
    core.prior(nav_sat_fix(100, 50, BEGAN))
    answer = core.image(image(tiny.panorama(63), BEGAN))
    core.close()
    assert answer.fix is not None
    assert distance(answer.fix.latitude, answer.fix.longitude, *far) < 100


def test_a_prior_that_is_old_or_missing_publishes_no_position(tiny: TinyWorld) -> None:
    """GNSS fails, and the vehicle goes on: around the last position only wrong tiles are left."""
    core = core_of(tiny, prior_radius=60.0, prior_age=3.0, uncalibrated_sigma=20.0)
    before = core.image(image(tiny.panorama(0), BEGAN))
    core.prior(nav_sat_fix(float(tiny.lat[0]), float(tiny.lon[0]), BEGAN))
    near, far = (core.image(image(tiny.panorama(row), BEGAN + later)) for row, later in ((1, 2.5), (63, 60)))
    core.close()
    assert [answer.fix is not None for answer in (before, near, far)] == [False, True, False]
    assert "no position has come on the topic prior" in before.diagnostics.status[0].message
    assert "the last prior is 60.0 s from the image, prior_age is 3 s" in far.diagnostics.status[0].message
    assert far.diagnostics.status[0].level == WARN


def test_a_bag_in_and_a_bag_out(tiny: TinyWorld, tmp_path: Path) -> None:
    source, copy = write_bag(tmp_path / "in", drive_of(tiny, ROWS)), tmp_path / "out"
    types = {name.rpartition("/")[2]: TYPES.types[name] for name in TYPES.types if "/msg/" in name}
    core = core_of(tiny)
    with Reader(source) as reader, Writer(copy, version=9) as writer:
        kinds = ("sensor_msgs/msg/NavSatFix", "geometry_msgs/msg/PoseWithCovarianceStamped")
        topics = {
            kind.rpartition("/")[2]: writer.add_connection(f"/{number}", kind, typestore=TYPES)
            for number, kind in enumerate((*kinds, "diagnostic_msgs/msg/DiagnosticArray"))
        }
        images = [each for each in reader.connections if each.topic == CAMERA]
        for connection, when, data in reader.messages(images):
            answer = core.image(TYPES.deserialize_cdr(data, connection.msgtype))
            for content in (answer.fix, answer.pose, answer.diagnostics):
                assert content is not None
                message = as_ros(content, types)
                to = topics[type(content).__name__]
                writer.write(to, when, TYPES.serialize_cdr(message, message.__msgtype__))
    core.close()
    with Reader(copy) as reader:
        fixes: list[Any] = [
            TYPES.deserialize_cdr(data, each.msgtype) for each, _, data in reader.messages() if each.topic == "/0"
        ]
        poses: list[Any] = [
            TYPES.deserialize_cdr(data, each.msgtype) for each, _, data in reader.messages() if each.topic == "/1"
        ]
        assert sum(1 for each, *_ in reader.messages() if each.topic == "/2") == len(ROWS)
    with Localizer.open(tiny.bundle, tiny.gallery) as localizer:
        expected = [each.fix for each in localizer.locate_frames(Recording(source).frames(CAMERA).frames)]
    for fix, same in zip(fixes, expected, strict=True):
        assert same is not None
        assert (fix.latitude, fix.longitude) == pytest.approx((same.lat, same.lon), abs=1e-9)
    assert [fix.header.stamp.sec for fix in fixes] == [BEGAN + second for second in range(len(ROWS))]
    eastward = [pose.pose.pose.position.x for pose in poses]
    assert eastward == pytest.approx([SPACING * number for number in range(len(ROWS))], abs=SPACING / 5)
    # The positions can be read from the bag as a receiver's can.
    track = Recording(copy).track("/0", pytest.fail)
    assert track.at(BEGAN + 1.0) == (fixes[1].latitude, fixes[1].longitude)


@pytest.mark.parametrize("zipped", [False, True])
def test_the_node_publishes_what_the_core_answers(tiny: TinyWorld, zipped: bool) -> None:
    def spin(node: Any) -> None:
        kind, take = node.taking["image"]
        assert kind.__name__ == ("CompressedImage" if zipped else "Image")
        assert {topic: each.kind.__name__ for topic, each in node.published.items()} == {
            "fix": "NavSatFix",
            "pose": "PoseWithCovarianceStamped",
            "/diagnostics": "DiagnosticArray",
        }
        pixels = tiny.panorama(18)
        take(compressed(pixels, BEGAN) if zipped else image(pixels, BEGAN))
        take(image(pixels, BEGAN + 1, "16UC1") if not zipped else compressed(pixels, BEGAN + 1, "gif"))
        node.taking["prior"][1](nav_sat_fix(0, 0, BEGAN))
        (fix,), (pose,) = node.published["fix"].messages, node.published["pose"].messages
        assert distance(fix.latitude, fix.longitude, tiny.lat[18], tiny.lon[18]) < SPACING / 5
        assert pose.pose.pose.position.x == 0.0
        levels = [each.status[0].level for each in node.published["/diagnostics"].messages]
        assert levels == [bytes([OK]), bytes([ERROR])]
        raise KeyboardInterrupt

    given = {"bundle": str(tiny.bundle), "gallery": str(tiny.gallery), "compressed": zipped}
    with rclpy_of(given, spin) as calls:
        runpy.run_path(str(PACKAGE / "geodtr_localizer" / "node.py"), run_name="node")["main"]()
    assert calls == {"init": 1, "shutdown": 1}


def test_a_node_that_cannot_begin_ends_in_words(tiny: TinyWorld) -> None:
    with (
        rclpy_of({"bundle": str(tiny.bundle)}, spin=lambda _: None) as calls,
        pytest.raises(SystemExit, match="gallery"),
    ):
        runpy.run_path(str(PACKAGE / "geodtr_localizer" / "node.py"), run_name="node")["main"]()
    assert calls == {"init": 1, "shutdown": 1}


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"gallery": ""}, "gallery is not set"),
        ({"view": "side"}, "allowed: ground, nadir"),
        ({"mismatch": "ignore"}, "allowed: refuse, warn"),
        ({"origin": [1.0]}, r"allowed: \[LAT, LON\]"),
        ({"origin": [95.0, 0.0]}, r"allowed: \[LAT, LON\]"),
        ({"headings": 0}, "headings"),
        ({"max_sigma": -1.0}, "max_sigma"),
        ({"prior_age": 0.0}, "prior_age"),
        ({"view": "nadir", "fov": 70.0}, "altitude"),
        ({"gallery": "nowhere"}, "nowhere"),
    ],
)
def test_a_parameter_out_of_range_is_named(tiny: TinyWorld, values: dict[str, Any], words: str) -> None:
    given = {**defaults(), "bundle": str(tiny.bundle), "gallery": str(tiny.gallery), **values}
    with pytest.raises(UserError, match=words):
        Core(Parameters.of(given)).close()


def test_a_gallery_without_positions_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="knows no positions"):
        core_of(make_world(tmp_path, across=2, positioned=False))


def test_the_package_names_what_is_in_it() -> None:
    root = ElementTree.parse(PACKAGE / "package.xml").getroot()
    assert (root.findtext("name"), root.findtext("license")) == (PACKAGE.name, "Apache-2.0")
    needed = {each.text for each in root.iter("exec_depend")}
    source = (PACKAGE / "geodtr_localizer" / "node.py").read_text()
    imported = {
        line.split()[1].partition(".")[0] for line in source.splitlines() if line.startswith("from ") and ".msg" in line
    }
    assert imported | {"rclpy", "launch_ros"} == needed
    setup = (PACKAGE / "setup.py").read_text()
    for file in ("package.xml", "launch/localizer.launch.py", "config/localizer.yaml", f"resource/{PACKAGE.name}"):
        assert (PACKAGE / file).is_file()
        assert file.replace(PACKAGE.name, "{NAME}") in setup
    config = yaml.safe_load((PACKAGE / "config" / "localizer.yaml").read_text())
    stated = config["geodtr_localizer"]["ros__parameters"]
    for name, default in defaults().items():
        assert repr(stated[name]) == repr(default), name
    assert GNSS in (PACKAGE / "launch" / "localizer.launch.py").read_text()
    with pytest.raises(ConfigError, match="bundle is not set"):
        Parameters.of(stated)
