"""`localize --mavlink`: what reaches an autopilot's socket, from images, from a drive, and from a camera in flight."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import pytest
from checkout import SUPPORT
from conftest import Outcome
from mavlink_peer import Peer
from pymavlink import mavutil
from tiny_world import SPACING, TinyWorld, claim_radii, make_world

from geodtr.cli.deploy.localize.autopilot import AutopilotOptions
from geodtr.export.options import options_of
from geodtr.runtime.autopilot.messages import RATES
from geodtr.runtime.autopilot.options import Gates, LinkOptions
from geodtr.runtime.geodesy import distance

SEEN = 35
"""The tile that the camera looks at."""


@pytest.fixture(scope="module")
def calibrated(tmp_path_factory: pytest.TempPathFactory) -> TinyWorld:
    """A world whose every fix claims 15.1 m at 68 % and 30 m at 95 %."""
    tiny = make_world(tmp_path_factory.mktemp("calibrated"))
    claim_radii(tiny, 15.1, 30.0)
    return tiny


@pytest.fixture(scope="module")
def video(tiny: TinyWorld, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A vehicle that stands and looks north."""
    path = tmp_path_factory.mktemp("video") / "stands.mkv"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"FFV1"), 10.0, (64, 16))
    for frame in range(20):
        writer.write(cv2.cvtColor(tiny.panorama(SEEN, seed=frame), cv2.COLOR_RGB2BGR))
    writer.release()
    return path


def test_help_names_the_defaults_that_the_link_has() -> None:
    options, link = AutopilotOptions(), LinkOptions("udpout:127.0.0.1:14550")
    assert (options.message, options.mavlink_rate, options.tlog) == (link.kind, link.rate, link.tlog)
    assert Gates(options.uncalibrated_sigma, options.max_sigma, options.send_lost) == link.gates
    shown = next(how.shown for each, how in options_of(options) if each.name == "mavlink_rate")
    own = RATES[link.kind]
    assert shown == ", ".join([f"{own:g}", *(f"{kind} {rate:g}" for kind, rate in RATES.items() if rate != own)])


def asked(world: TinyWorld) -> tuple[object, ...]:
    return ("--bundle", world.bundle, "--gallery", world.gallery, "--json")


def off(world: TinyWorld, message: Any, tile: int) -> float:
    return float(distance(message.lat / 1e7, message.lon / 1e7, world.lat[tile], world.lon[tile]))


def test_calibrated_fixes_of_images_reach_the_autopilot(
    calibrated: TinyWorld, cli: Callable[..., Outcome], tmp_path: Path
) -> None:
    images = [calibrated.photograph(tmp_path / f"{tile}.png", tile) for tile in (10, 20)]
    with Peer() as peer:
        printed = cli("localize", *images, *asked(calibrated), "--mavlink", peer.address)
        heard = peer.wait_for("GLOBAL_POSITION_SENSOR", 2)
    assert printed.code == 0, printed.err
    assert [off(calibrated, message, tile) < SPACING for message, tile in zip(heard, (10, 20), strict=True)] == [
        True
    ] * 2
    assert [message.eph for message in heard] == pytest.approx([10.0, 10.0], abs=0.01)
    assert f"Sent 2 positions to {peer.address}" in printed.err
    assert len(printed.out.splitlines()) == 2


def test_uncalibrated_fixes_are_held_back_unless_asked_for(
    tiny: TinyWorld, cli: Callable[..., Outcome], tmp_path: Path
) -> None:
    image = tiny.photograph(tmp_path / "street.png", 10)
    with Peer() as peer:
        printed = cli("localize", image, *asked(tiny), "--mavlink", peer.address)
        assert "Sent 0 positions" in printed.err
        assert "held back: 1 uncalibrated" in printed.err
        assert peer.heard("GLOBAL_POSITION_SENSOR") == []
        cli("localize", image, *asked(tiny), "--mavlink", peer.address, "--uncalibrated-sigma", 30)
        assert peer.wait_for("GLOBAL_POSITION_SENSOR")[0].eph == 30.0


def test_a_recorded_drive_is_played_to_the_autopilot(
    tiny: TinyWorld, cli: Callable[..., Outcome], tmp_path: Path
) -> None:
    rows = ["time_s,speed_m_s,yaw_rate_deg_s,image"]
    for step in range(8):
        tiny.photograph(tmp_path / f"{step}.png", 8 * 4 + step, heading=90)
        rows.append(f"{step * 0.5},{SPACING / 0.5},0,{step}.png")
    odometry, log = tmp_path / "drive.csv", tmp_path / "drive.tlog"
    odometry.write_text("\n".join(rows))
    with Peer() as peer:
        to = ("--mavlink", peer.address, "--message", "odometry", "--uncalibrated-sigma", 8, "--tlog", log)
        printed = cli("localize", *asked(tiny), "--headings", 16, "--track", odometry, *to)
        assert printed.code == 0, printed.err
        heard = peer.wait_for("ODOMETRY", 5)
    # From when it is tracking, it sends predictions between the rows of odometry, which are half a second apart.
    assert len(heard) > (heard[-1].time_usec - heard[0].time_usec) / 0.5e6 + 1
    assert heard[-1].y > heard[0].y + 10
    reader: Any = mavutil.mavlogfile(str(log), robust_parsing=True)
    assert reader.recv_match(type="ODOMETRY") is not None


def test_a_camera_and_the_autopilots_own_odometry_make_a_track_in_flight(
    tiny: TinyWorld, video: Path, tmp_path: Path
) -> None:
    log = tmp_path / "flight.tlog"
    with Peer(speed=0.0) as peer:
        to = ("--mavlink", peer.address, "--track", "mavlink", "--uncalibrated-sigma", "8", "--tlog", str(log))
        line = [sys.executable, SUPPORT / "fake_camera.py", video, 10**6, "localize", "camera:0", *asked(tiny), *to]
        pipe = subprocess.PIPE
        with subprocess.Popen([*map(str, line)], stdout=pipe, stderr=pipe, text=True) as process:
            try:
                heard = peer.wait_for("GLOBAL_POSITION_SENSOR", 5, seconds=60)
                peer.reports = False  # for longer than another odometry may be silent
                time.sleep(1.5)
                peer.reports = True
                peer.wait_for("GLOBAL_POSITION_SENSOR", len(heard) + 10, seconds=60)
                process.send_signal(signal.SIGINT)
                printed, messages = process.communicate(timeout=30)
            finally:
                process.kill()
    assert process.returncode == 130, messages
    assert "Traceback" not in messages
    assert "Sent " in messages
    assert json.loads(printed.splitlines()[-1])["state"] == "tracking"
    assert off(tiny, peer.heard("GLOBAL_POSITION_SENSOR")[-1], SEEN) < SPACING / 2
    reader: Any = mavutil.mavlogfile(str(log), robust_parsing=True)
    assert reader.recv_match(type="GLOBAL_POSITION_SENSOR") is not None


def test_what_does_not_go_together_is_refused_before_anything_is_sent(
    tiny: TinyWorld, refused: Callable[..., str], tmp_path: Path
) -> None:
    image = tiny.photograph(tmp_path / "street.png", 3)
    odometry, log = tmp_path / "drive.csv", tmp_path / "flight.tlog"
    odometry.write_text("time_s,speed_m_s,yaw_rate_deg_s\n0,1,0\n1,1,0\n")
    to = ("--mavlink", "udpout:127.0.0.1:9")
    assert "give --mavlink" in refused("localize", image, *asked(tiny), "--tlog", log)
    assert "allowed are udpout" in refused("localize", image, *asked(tiny), "--mavlink", "nowhere")
    assert "--track" in refused("localize", image, *asked(tiny), *to, "--message", "gps-input")
    assert "--uncalibrated-sigma" in refused("localize", *asked(tiny), *to, "--track", odometry)
    sigma = ("--uncalibrated-sigma", 10)
    assert "give a camera" in refused("localize", *asked(tiny), *to, *sigma, "--track", "mavlink")
    assert "give a camera" in refused("localize", "camera:0", *asked(tiny), "--track", "mavlink")
    log.write_bytes(b"")
    assert "exists" in refused("localize", image, *asked(tiny), *to, "--tlog", log)


def test_a_run_that_cannot_start_leaves_no_record(tiny: TinyWorld, refused: Callable[..., str], tmp_path: Path) -> None:
    image, log = tiny.photograph(tmp_path / "street.png", 3), tmp_path / "flight.tlog"
    to = ("--mavlink", "udpout:127.0.0.1:9", "--tlog", log)
    refused("localize", image, "--bundle", tmp_path / "nowhere", "--gallery", tiny.gallery, *to)
    assert not log.exists()
    assert "cannot be opened" in refused("localize", image, *asked(tiny), "--mavlink", "tcp:127.0.0.1:1", "--tlog", log)
    assert not log.exists()
