"""Options of `localize` that contradict each other are refused by name, before any file is opened."""

from collections.abc import Callable
from pathlib import Path

import pytest

from geodtr.cli.deploy.image_options import ImageOptions
from geodtr.cli.deploy.localize.nadir import NadirArguments
from geodtr.cli.deploy.localize.rules import RULES, Excludes, Needs
from geodtr.export.options import flag_of, options_of

NADIR = ("--view", "nadir")
KNOWN = (*NADIR, "--altitude", 80, "--fov", 70)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--altitude", 80), "--altitude is for frames that look straight down: give --view nadir."),
        (("--refine",), "--refine is for frames that look straight down: give --view nadir."),
        (NADIR, "must know how much ground a frame shows: give --altitude 80 --fov 70"),
        ((*NADIR, "--fov", 70), "must know how much ground a frame shows"),
        ((*NADIR, "--altitude", 80), "--altitude gives the frame's size on the ground together with --fov"),
        ((*KNOWN, "--frame-metres", "60,140"), "--frame-metres and --altitude do not go together"),
        ((*NADIR, "--altitude", "a.csv", "--fov", 70, "--frame-metres", "9,10"), "--frame-metres and --altitude"),
        ((*NADIR, "--frame-metres", "60,140", "--size-error", 0.1), "--size-error is of a size that"),
        ((*KNOWN, "--heading", 90, "--rotations", 8), "--heading and --rotations do not go together"),
        ((*KNOWN, "--heading", 90, "--rotations", 16), "--heading and --rotations do not go together"),
        ((*KNOWN, "--min-inliers", 20), "--min-inliers is for the second stage: give --refine as well."),
        ((*KNOWN, "--headings", 8), "--view nadir and --headings do not go together"),
        ((*KNOWN, "--mismatch", "warn"), "--view nadir and --mismatch do not go together"),
        ((*KNOWN, "--undistort", "c.yaml"), "--undistort and --fov do not go together"),
        ((*KNOWN, "--from", "as-taken"), "--view nadir and --from do not go together"),
        ((*KNOWN, "--rig", "r.yaml"), "--view nadir and --rig do not go together"),
        (("--headings", 8, "--fov", 90), "--headings and --fov below 360 do not go together"),
        (("--headings", 8, "--undistort", "c.yaml"), "--headings and --undistort do not go together"),
        (("--undistort", "c.yaml", "--fov", 90), "--undistort and --fov do not go together"),
        (("--flight", "exif", "--flight-start", 2), "--flight exif and --flight-start do not go together"),
        (("--near", " Flight,500"), "--near flight searches about recorded positions: give --flight as well."),
        (("--seed", 3), "--seed is for a track: give --track as well."),
        (("--mavlink", "udpout:127.0.0.1:9", "--send-lost"), "--send-lost is for a track: give --track as well."),
        (("--topic", "/x"), "--topic is for a recording: give --bag FILE as well."),
        (("--bag", "x.mcap"), "--bag and IMAGES do not go together"),
    ],
)
def test_what_contradicts_is_refused_by_name(
    options: tuple[object, ...], message: str, refused: Callable[..., str], tmp_path: Path
) -> None:
    nowhere = tmp_path / "nowhere"
    assert message in refused("localize", nowhere, "--bundle", nowhere, "--gallery", nowhere, *options)


@pytest.mark.parametrize(
    "options",
    [
        (*KNOWN, "--rotations", 8, "--ground-sizes", 5, "--size-error", 0.1, "--refine", "--refine-places", 4),
        (*KNOWN, "--heading", 90, "--tile-metres", 60),
        (*NADIR, "--altitude", 80, "--undistort", "c.yaml"),
        (*NADIR, "--frame-metres", "60,140", "--fov", 70, "--ground-sizes", 5),
        (*NADIR, "--flight", "exif", "--near", "flight,500", "--size-error", 0.1),
        ("--headings", 8, "--fov", 360, "--mismatch", "warn"),
        ("--undistort", "c.yaml", "--flight", "exif"),
    ],
)
def test_what_goes_together_is_not_refused(
    options: tuple[object, ...], refused: Callable[..., str], tmp_path: Path
) -> None:
    """These fail later, at a file that is not there."""
    nowhere = tmp_path / "nowhere"
    message = refused("localize", nowhere, "--bundle", nowhere, "--gallery", nowhere, *options)
    assert "do not go together" not in message
    assert "does not exist" in message or "cannot be read" in message or "is not a" in message, message


def test_every_option_of_a_nadir_frame_has_a_rule() -> None:
    """And each name in the table is an option's: a flag that is renamed must not leave its rule behind."""
    known = {flag_of(each) for of in (NadirArguments, ImageOptions) for each, _ in options_of(of)}
    named = {
        flag
        for rule in RULES
        for flag in (rule.options if isinstance(rule, Needs) else (rule.option, *rule.others))
        if isinstance(rule, Needs | Excludes)
    }
    assert known <= named
    assert {flag for flag in named if flag.removeprefix("--") in ("size-error", "tile-metres", "refine")} <= known
