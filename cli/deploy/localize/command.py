"""Commands that say where an image was taken: localize, and the calibration that lets it say how surely."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from geodtr.cli.console import messages, output, printing_results, track, warn
from geodtr.cli.dataclass_options import with_options
from geodtr.cli.deploy.image_options import PANEL, ImageOptions
from geodtr.cli.deploy.localize.answers import tell_all
from geodtr.cli.deploy.localize.autopilot import AutopilotOptions, link_of, opened
from geodtr.cli.deploy.localize.drive import drive_of, from_pipe, from_record
from geodtr.cli.deploy.localize.flight import FlightOptions, flight_of, flown, prior_of, with_given_flight
from geodtr.cli.deploy.localize.nadir import NadirArguments, View, altitudes_of, taking_of
from geodtr.cli.deploy.localize.recordings import RecordingOptions, playback_of
from geodtr.cli.deploy.localize.rig import RigOptions, opened_frames
from geodtr.cli.deploy.localize.rules import check_rules
from geodtr.cli.options import (
    IMAGES_HELP,
    Every,
    FirstImages,
    GivenBundle,
    GivenGallery,
    Headings,
    OnError,
    Seed,
    Threads,
    argument,
    flag,
    stop,
)
from geodtr.runtime.gallery.location import GalleryLocation
from geodtr.runtime.progress import untracked

if TYPE_CHECKING:
    from geodtr.cli.deploy.localize.drive import Drive
    from geodtr.runtime.embed.pipeline import OnBadFrame
    from geodtr.runtime.gallery.base import Gallery
    from geodtr.runtime.geodesy import Near
    from geodtr.runtime.images.frames import Frames
    from geodtr.runtime.localization.localizer import Localizer
    from geodtr.runtime.localization.result import Localisation
    from geodtr.runtime.localization.waypoint import Waypoint
    from geodtr.runtime.tracking.filter import TrackOptions
    from geodtr.runtime.tracking.run import Tracked


@with_options(
    {
        PANEL: (ImageOptions, RigOptions),
        "Frames that look down: --view nadir": (NadirArguments,),
        "What is recorded of the images: --flight FILE": (FlightOptions,),
        "Autopilot: --mavlink ADDRESS": (AutopilotOptions,),
        "Recordings: --bag FILE, --mcap FILE": (RecordingOptions,),
    }
)
def localize(
    bundle: GivenBundle,
    place: GivenGallery,
    places: Annotated[list[str] | None, argument("IMAGES...", IMAGES_HELP)] = None,
    view: Annotated[
        View, flag("--view", "What the images show: the surroundings, or the ground straight below.")
    ] = "ground",
    top: Annotated[int, flag("--top", "Number of tiles per image.", min=1)] = 5,
    headings: Headings = 1,
    near: Annotated[
        str | None,
        flag(
            "--near LAT,LON,RADIUS",
            "Search only tiles within RADIUS metres; flight,RADIUS: of each image's recorded position; an image "
            "without one is a bad image.",
            show_default="all",
        ),
    ] = None,
    odometry: Annotated[
        Path | None,
        flag(
            "--track ODOMETRY.csv",
            "Fuse frames with speed and yaw: of the images that this file lists, of a video by time, of a camera "
            "as they come; - reads rows from standard input, mavlink from the autopilot, flight from --flight.",
        ),
    ] = None,
    video_start: Annotated[
        float | None,
        flag("--video-start SECONDS", "Odometry time at the start of the video.", show_default="its first row's"),
    ] = None,
    every: Every = 1,
    limit: FirstImages = None,
    seed: Seed = 0,
    on_error: OnError = "stop",
    threads: Threads = None,
    out: Annotated[
        Path | None, flag("--out FILE", "Write .jsonl, .csv, .geojson, .gpx, .kml, or .html, a map.")
    ] = None,
    picture: Annotated[Path | None, flag("--picture FILE.png", "Draw the answers on the map of the tiles.")] = None,
    as_json: Annotated[bool, flag("--json", "Print a line of JSON for each frame.")] = False,
    *,
    given: Mapping[str, Any],
) -> None:
    """Find where street-level images or nadir frames were taken: the nearest tiles, best first, and one position out of
    them.

    A camera goes on until Ctrl-C, or --limit; what was found by then is written.
    """
    from geodtr.export.plots.files import check_pictures
    from geodtr.runtime.engines.base import EngineOptions
    from geodtr.runtime.localization.localizer import Localizer
    from geodtr.runtime.localization.output.writers import check_out, waypoint_file
    from geodtr.runtime.tracking.filter import TrackOptions

    own = {
        "IMAGES": bool(places),
        "--view nadir": view == "nadir",
        "--headings": headings > 1,
        "--near": near is not None,
        "--track": odometry is not None,
        "--track flight": from_record(odometry),
        "--video-start": video_start is not None,
        "--every": every > 1,
        "--limit": limit is not None,
        "--seed": seed != 0,
    }
    check_rules(given, own, near)
    (prior, radius), taking = prior_of(near), taking_of(view, given)
    played = playback_of(given, every=every, limit=limit, on_error=on_error)
    frames = played.frames or opened_frames(places or [], every, limit, bundle, given)
    flight = flight_of(frames, places or [], given, on_error)
    frames = with_given_flight(frames, flight, given, radius)
    if (altitudes := altitudes_of(given)) is not None:
        frames = replace(frames, frames=map(altitudes.of, frames.frames))
    frames, taking = played.drawn(frames), played.undistorted(taking)
    live = frames.kind == "camera" or from_pipe(odometry)
    link = link_of(given, track=odometry is not None, live=live)
    moved = flown(flight, given) if from_record(odometry) else None
    drive = drive_of(odometry, frames if places or played.frames else None, video_start, limit, link, moved)
    if drive is not None and altitudes is not None and not (places or played.frames):
        drive = drive.each_frame(altitudes.of)
    check_pictures(picture)
    if out is not None:
        check_out(out)
    with printing_results(out, picture, played.mcap, link), ExitStack() as closes:
        localizer = closes.enter_context(
            Localizer.open(bundle, place, EngineOptions(threads=threads), headings=headings, **taking)
        )
        _warn_of(localizer.gallery, place, None if drive is None else bundle)
        if picture is not None:
            localizer.require_positions("--picture")
        tracking = None if drive is None else TrackOptions(seed=seed)
        on_bad = stop if on_error == "stop" else lambda _, error: warn(f"Left out: {error}")
        answers = _answers(localizer, frames, drive, tracking, top, prior, live, on_bad)
        writers: list[Callable[[Waypoint], object]] = []
        if picture is not None:
            from geodtr.export.plots.track import track_picture

            drawn = track_picture(picture, localizer.gallery, track=drive is not None, live=live)
            writers.append(closes.enter_context(drawn))
        if out is not None:
            unix = live or frames.kind == "recording" if drive is None else drive.unix
            written = waypoint_file(out, track=drive is not None, unix=unix, live=live, gallery=localizer.gallery)
            writers.append(closes.enter_context(written))
        writers += [closes.enter_context(writer) for writer in played.writers(live=live)]
        if link is not None:
            writers.append(closes.enter_context(opened(link)).send)
        count = tell_all(answers, writers, as_json=as_json, tables=frames.kind == "images")
    for path in (out, picture, played.mcap):
        if path is not None:
            nothing = f"{path} is not written: there is no answer for it."
            messages.print(f"Wrote {path}: {count} answers" if count else nothing)


def _answers(
    localizer: "Localizer",
    frames: "Frames",
    drive: "Drive | None",
    options: "TrackOptions | None",
    top: int,
    near: "Near | None",
    live: bool,
    on_error: "OnBadFrame",
) -> "Iterator[Localisation | Tracked]":
    """The answers to all frames, or to all moments of a drive."""
    from geodtr.runtime.tracking.run import track_moments

    bar = untracked if output.is_terminal else track  # a bar between printed answers would tear them
    if drive is not None:
        moments = bar(drive.moments, "Tracking", drive.count)
        return track_moments(localizer, moments, options, top, near=near, on_error=on_error)
    if live:
        return localizer.locate_live(frames.frames, top, near=near, on_error=on_error, track=bar)
    return localizer.locate_frames(frames.frames, top, near=near, count=frames.count, on_error=on_error, track=bar)


def _warn_of(opened: "Gallery", path: GalleryLocation, tracked: Path | None) -> None:
    """What is wrong with a gallery and yet no error, for a track with the bundle `tracked` or for single images."""
    held = opened.info
    if not held.references:
        warn(f"{path} is empty: nothing can be found in it.")
    elif not held.finished:
        warn(f"{path} is not finished: only {held.references} tiles can be found.")
    if tracked is not None:
        _warn_of_spacing(opened, tracked)


def _warn_of_spacing(gallery: "Gallery", bundle: Path) -> None:
    """Where the tiles of a track are farther apart than the model can follow."""
    from geodtr.runtime.gallery.ground import spacing_of
    from geodtr.runtime.manifest import read_manifest
    from geodtr.runtime.sources.ground_size import Advice

    metres = read_manifest(bundle).aerial.spec.preprocessing.imagery.tile_metres
    spacing = None if metres is None else spacing_of(gallery)
    if metres is not None and spacing is not None and (fault := Advice(metres).fault_of_tracks(spacing)) is not None:
        warn(fault)
