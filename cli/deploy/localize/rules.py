"""Which options of `localize` go together: one table, checked before any work.

Knows flags, and nothing of their values, but for a few that change what they mean (`values_of`).
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from geodtr.cli.deploy.image_options import ImageOptions
from geodtr.cli.deploy.localize.autopilot import AutopilotOptions
from geodtr.cli.deploy.localize.flight import TAGS, FlightOptions, is_recorded
from geodtr.cli.deploy.localize.nadir import NadirArguments
from geodtr.cli.deploy.localize.recordings import RecordingOptions
from geodtr.cli.deploy.localize.rig import RigOptions
from geodtr.export.options import flag_of, options_of
from geodtr.runtime.errors import ConfigError

_GROUPS = (ImageOptions, RigOptions, NadirArguments, FlightOptions, AutopilotOptions, RecordingOptions)
_FLAGS = {each.name: flag_of(each) for of in _GROUPS for each, _ in options_of(of)}


def _flags(of: type, *without: str) -> tuple[str, ...]:
    return tuple(flag_of(each) for each, _ in options_of(of) if flag_of(each) not in without)


@dataclass(frozen=True, slots=True)
class Needs:
    """Each of `options` needs one of `one_of`, because of `why`; `remedy` is how that is given."""

    options: tuple[str, ...]
    one_of: tuple[str, ...]
    why: str
    remedy: str

    def faults(self, asked: frozenset[str]) -> Iterator[str]:
        if asked.isdisjoint(self.one_of):
            yield from (f"{each} {self.why}: give {self.remedy}." for each in self.options if each in asked)


@dataclass(frozen=True, slots=True)
class Excludes:
    """`option` goes with none of `others`, because of `why`."""

    option: str
    others: tuple[str, ...]
    why: str

    def faults(self, asked: frozenset[str]) -> Iterator[str]:
        if self.option in asked:
            yield from (
                f"{self.option} and {each} do not go together: {self.why}. Leave one out."
                for each in self.others
                if each in asked
            )


_NADIR, _FLIGHT_NEAR, _NARROW, _TAGS = "--view nadir", "--near flight", "--fov below 360", f"--flight {TAGS}"
_FLOWN = "--track flight"
_SIZES = "--altitude 80 --fov 70 (metres above the ground, degrees), or a range of its width in metres, "
_SIZES += "--frame-metres 60,140"

RULES: tuple[Needs | Excludes, ...] = (
    Needs(_flags(NadirArguments, "--fov"), (_NADIR,), "is for frames that look straight down", _NADIR),
    Needs(("--refine-places", "--min-inliers"), ("--refine",), "is for the second stage", "--refine as well"),
    Needs((_NADIR,), ("--altitude", "--frame-metres", "--flight"), "must know how much ground a frame shows", _SIZES),
    Needs(
        ("--altitude",),
        ("--fov", "--undistort", "--camera-topic", "--flight"),
        "gives the frame's size on the ground together with --fov",
        "--fov 70, or --undistort FILE",
    ),
    Needs(
        ("--size-error",), ("--altitude", "--flight"), "is of a size that the altitude gives", "--altitude 80 --fov 70"
    ),
    Excludes(_NADIR, ("--headings",), "a nadir frame's heading is searched by --rotations"),
    Excludes(_NADIR, ("--from", "--mismatch", "--rig"), "it is for street-level images"),
    Excludes("--heading", ("--rotations",), "a frame of known heading is searched at no other"),
    Excludes("--frame-metres", ("--altitude", "--size-error"), "both state how much ground a frame shows"),
    Excludes(
        "--headings", (_NARROW, "--undistort", "--camera-topic"), "an image that is no full turn has no rotations"
    ),
    Excludes("--rig", ("--fov", "--from", "--undistort"), "a rig makes panoramas of its own"),
    Excludes("--undistort", ("--fov", "--camera-topic"), "both state what the camera sees"),
    Excludes("--camera-topic", ("--fov",), "both state what the camera sees"),
    Needs(("--flight-start",), ("--flight",), "is a time of a flight record", "--flight as well"),
    Needs((_FLOWN,), ("--flight",), "takes the motion of a flight record", "--flight as well"),
    Excludes(_FLOWN, ("--video-start",), "a record and its video are aligned by --flight-start"),
    Excludes(_FLOWN, (_TAGS,), "photographs record no motion"),
    Needs((_FLIGHT_NEAR,), ("--flight",), "searches about recorded positions", "--flight as well"),
    Excludes(_TAGS, ("--flight-start",), "a photograph has its own tags"),
    Needs(_flags(RecordingOptions, "--bag", "--mcap"), ("--bag",), "is for a recording", "--bag FILE as well"),
    Needs(
        ("--prior-radius", "--prior-age"), ("--prior-topic",), "is of the positions of a topic", "--prior-topic as well"
    ),
    Excludes("--bag", ("IMAGES", "--rig"), "a recording is the only source of frames"),
    Excludes("--prior-topic", ("--near",), "both state a prior"),
    Needs(
        _flags(AutopilotOptions, "--mavlink"),
        ("--mavlink",),
        "is for positions that are sent",
        "--mavlink ADDRESS as well",
    ),
    Needs(("--mavlink-rate", "--send-lost", "--seed"), ("--track",), "is for a track", "--track as well"),
    Needs(("--video-start",), ("--track",), "aligns a video with odometry", "--track as well"),
    Needs(("--every", "--limit"), ("IMAGES", "--bag"), "is for IMAGES, and none are given", "some"),
)


def check_rules(given: Mapping[str, Any], own: Mapping[str, bool], near: str | None) -> None:
    """Raise ConfigError for the first rule that the options break: `given` in groups, by field, and the command's
    `own`, each flag with whether it was given.
    """
    named = [flag for flag, is_given in own.items() if is_given]
    options = frozenset((*(_FLAGS[name] for name in given), *named, *_values(given, near)))
    for rule in RULES:
        for fault in rule.faults(options):
            raise ConfigError(fault)


def _values(given: Mapping[str, Any], near: str | None) -> Iterable[str]:
    """The flags with a value that changes what they mean."""
    if is_recorded(near):
        yield _FLIGHT_NEAR
    if given.get("flight") == TAGS:
        yield _TAGS
    if (given.get("fov") or 360) < 360:
        yield _NARROW
