"""Commands that say where an image was taken: localize, and the calibration that lets it say how surely."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from geodtr.cli.console import messages, output, show_line, track, warn
from geodtr.cli.dataclass_options import with_options
from geodtr.cli.deploy.autopilot import AutopilotOptions, link_of, opened
from geodtr.cli.deploy.drive import drive_of, from_pipe
from geodtr.cli.deploy.image_options import PANEL, ImageOptions
from geodtr.cli.deploy.nadir import NadirArguments, View, taking_of, with_given_altitudes
from geodtr.cli.options import (
    GALLERY_HELP,
    IMAGES_HELP,
    Every,
    FirstImages,
    Headings,
    OnError,
    Seed,
    Threads,
    parse_near,
    path_or_url,
)
from geodtr.cli.tables import table
from geodtr.runtime.gallery.location import GalleryLocation

if TYPE_CHECKING:
    from geodtr.runtime.errors import ImageError
    from geodtr.runtime.gallery.base import Gallery
    from geodtr.runtime.images.frames import Frame
    from geodtr.runtime.localization.result import Localisation, Refined, Waypoint
    from geodtr.runtime.tracking.run import Tracked

_CALIBRATE = "geodtr-export gallery calibrate BUNDLE GALLERY --data SPEC"


@with_options(
    {
        PANEL: (ImageOptions,),
        "Frames that look down: --view nadir": (NadirArguments,),
        "Autopilot: --mavlink ADDRESS": (AutopilotOptions,),
    }
)
def localize(
    bundle: Annotated[Path, typer.Option("--bundle", help="The bundle that embeds.", show_default=False)],
    place: Annotated[
        GalleryLocation,
        typer.Option(
            "--gallery",
            metavar="GALLERY",
            help=f"A gallery of the same model: {GALLERY_HELP}.",
            parser=path_or_url,
            show_default=False,
        ),
    ],
    places: Annotated[
        list[str] | None, typer.Argument(metavar="IMAGES...", help=IMAGES_HELP, show_default=False)
    ] = None,
    view: Annotated[
        View, typer.Option("--view", help="What the images show: the surroundings, or the ground straight below.")
    ] = "ground",
    top: Annotated[int, typer.Option("--top", min=1, help="Number of tiles per image.")] = 5,
    headings: Headings = 1,
    near: Annotated[
        str | None,
        typer.Option(
            "--near", metavar="LAT,LON,RADIUS", help="Search only tiles within RADIUS metres.", show_default="all"
        ),
    ] = None,
    odometry: Annotated[
        Path | None,
        typer.Option(
            "--track",
            metavar="ODOMETRY.csv",
            help="Fuse frames with speed and yaw: of the images that this file lists, of a video by time, of a camera "
            "as they come; - reads rows from standard input, mavlink from the autopilot.",
            show_default=False,
        ),
    ] = None,
    video_start: Annotated[
        float | None,
        typer.Option(
            "--video-start",
            metavar="SECONDS",
            help="Odometry time at the start of the video.",
            show_default="its first row's",
        ),
    ] = None,
    every: Every = 1,
    limit: FirstImages = None,
    seed: Seed = 0,
    on_error: OnError = "stop",
    threads: Threads = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            metavar="FILE",
            help="Write .jsonl, .csv, .geojson, .gpx, .kml, or .html, a map.",
            show_default=False,
        ),
    ] = None,
    picture: Annotated[
        Path | None,
        typer.Option(
            "--picture", metavar="FILE.png", help="Draw the answers on the map of the tiles.", show_default=False
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print a line of JSON for each frame.")] = False,
    *,
    given: Mapping[str, Any],
) -> None:
    """Find where street-level images or nadir frames were taken: the nearest tiles, best first, and one position out of
    them.

    A camera goes on until Ctrl-C, or --limit; what was found by then is written.
    """
    from geodtr.export.plots.files import check_pictures
    from geodtr.runtime.embed.pipeline import stop
    from geodtr.runtime.engines.base import EngineOptions
    from geodtr.runtime.errors import ConfigError
    from geodtr.runtime.images.frames import open_frames
    from geodtr.runtime.localization.localizer import Localizer
    from geodtr.runtime.localization.writers import check_out, waypoint_file
    from geodtr.runtime.progress import untracked
    from geodtr.runtime.tracking.filter import TrackOptions
    from geodtr.runtime.tracking.run import track_moments

    prior, taking = None if near is None else parse_near(near), taking_of(view, given)
    if not places and (every > 1 or limit is not None):
        raise ConfigError("--every and --limit are for IMAGES, and none are given.")
    frames = with_given_altitudes(open_frames(places or [], every=every, limit=limit), given)
    live = frames.kind == "camera" or from_pipe(odometry)
    link = link_of(given, track=odometry is not None, live=live)
    drive = drive_of(odometry, frames if places else None, video_start, limit, link)
    if out is not None:
        check_out(out)
    check_pictures(picture)
    with ExitStack() as closes:
        localizer = closes.enter_context(
            Localizer.open(bundle, place, EngineOptions(threads=threads), headings=headings, **taking)
        )
        _warn_of(localizer.gallery, place)
        if picture is not None:
            localizer.require_positions("--picture")
        on_bad = _skip if on_error == "skip" else stop
        bar = untracked if output.is_terminal else track  # a bar between printed answers would tear them
        answers: Iterator[Localisation | Tracked]
        if drive is not None:
            moments, options = bar(drive.moments, "Tracking", drive.count), TrackOptions(seed=seed)
            answers = track_moments(localizer, moments, options, top, near=prior, on_error=on_bad)
        elif live:
            answers = localizer.locate_live(frames.frames, top, near=prior, on_error=on_bad, track=bar)
        else:
            answers = localizer.locate_frames(
                frames.frames, top, near=prior, count=frames.count, on_error=on_bad, track=bar
            )
        writers: list[Callable[[Waypoint], object]] = []
        if picture is not None:
            from geodtr.export.plots.track import track_picture

            drawn = track_picture(picture, localizer.gallery, track=drive is not None, live=live)
            writers.append(closes.enter_context(drawn))
        if out is not None:
            unix = live if drive is None else drive.unix
            written = waypoint_file(out, track=drive is not None, unix=unix, live=live, gallery=localizer.gallery)
            writers.append(closes.enter_context(written))
        if link is not None:
            writers.append(closes.enter_context(opened(link)).send)
        count = _tell(answers, writers, as_json=as_json, tables=frames.kind == "images")
    for path in (out, picture):
        if path is not None:
            messages.print(f"Wrote {path}: {count} answers", soft_wrap=True)


def _warn_of(opened: "Gallery", path: GalleryLocation) -> None:
    """What is wrong with a gallery and yet no error."""
    held = opened.info
    if not held.references:
        warn(f"{path} is empty: nothing can be found in it.")
    elif not held.finished:
        warn(f"{path} is not finished: only {held.references} tiles can be found.")


def _skip(frame: "Frame", error: "ImageError") -> None:
    del frame  # the message names it
    warn(f"Left out: {error}")


def _tell(
    answers: "Iterator[Localisation | Tracked]",
    writers: "Sequence[Callable[[Waypoint], object]]",
    *,
    as_json: bool,
    tables: bool,
) -> int:
    """Print every answer as it comes, and give it to all `writers`; how many there were."""
    from geodtr.runtime.localization.result import Localisation

    count = 0
    uncalibrated, doubts = set[str](), 0
    for answer in answers:
        count += 1
        for write in writers:
            write(answer.waypoint)
        if as_json:
            show_line(answer)
        elif not isinstance(answer, Localisation):
            _show_point(answer)
        elif tables:
            _show_tiles(answer)
        else:
            output.print(f"{answer.image}  {_fix_of(answer)}", soft_wrap=True)
        located = answer if isinstance(answer, Localisation) else answer.located
        if located is not None and located.doubt is not None:
            doubts += 1
            if doubts == 1:
                warn(f"{located.image}: the model was not trained on such images: {located.doubt}.")
            continue
        reason = None
        if isinstance(answer, Localisation) and answer.fix is not None and answer.nadir is None:
            reason = answer.uncalibrated
        if reason is not None and reason not in uncalibrated:
            uncalibrated.add(reason)
            warn(f"Positions claim no radius: {reason}. To measure one: {_CALIBRATE}")
    if doubts > 1:
        warn(f"{doubts} of {count} images are none that the model was trained on; do not rely on their positions.")
    return count


def _show_tiles(located: "Localisation") -> None:
    """One image's tiles and its position."""
    rows = table(str(located.image), ("tile", "cosine", "lat, lon"), expendable=("lat, lon",))
    for candidate in located.candidates:
        place = candidate.place
        position = "" if place.lat is None else f"{place.lat:.6f}, {place.lon:.6f}"
        rows.add_row(place.id, f"{candidate.score:.4f}", position)
    output.print(rows)
    output.print(f" {_fix_of(located)}", soft_wrap=True)


def _fix_of(located: "Localisation") -> str:
    fix, nadir = located.fix, located.nadir
    heading = "" if located.heading is None else f", heading {located.heading:.0f}°"
    if nadir is not None:
        if nadir.ground_metres is not None:
            heading += f", {nadir.ground_metres:.0f} m wide"
        if nadir.altitude is not None:
            heading += f", altitude {nadir.altitude:.0f} m"
        if nadir.refined is not None:
            return _refined_of(nadir.refined)
        if nadir.unrefined is not None:
            return f"no position: {nadir.unrefined}"
    if fix is None:
        return f"no position{heading}: {located.uncalibrated}"
    claims = ", ".join(f"{100 * radius.share:g} % within {radius.metres:.0f} m" for radius in fix.within)
    position = f"position {fix.lat:.6f}, {fix.lon:.6f}{heading}: {claims or 'uncalibrated'}"
    return f"{position} (spread {fix.spread:.0f} m, margin {fix.margin:.4f})"


def _refined_of(refined: "Refined") -> str:
    """The second stage's position with its standard deviations."""
    whose = "camera above" if refined.camera else "the middle shows"
    east, _, north = refined.covariance_m2
    pose = f"heading {refined.heading:.1f}°, {refined.ground_metres:.1f} m wide"
    if refined.altitude is not None and refined.tilt is not None:
        pose += f", altitude {refined.altitude:.1f} m, tilt {refined.tilt:.1f}°"
    sure = f"sigma {east**0.5:.2f} m east, {north**0.5:.2f} m north"
    agreeing = f"{refined.inliers} of {refined.matches} features agree"
    return f"{whose} {refined.lat:.7f}, {refined.lon:.7f}, {pose} ({sure}; {agreeing})"


def _show_point(tracked: "Tracked") -> None:
    """One row of a track."""
    point = tracked.point
    where = "no position yet"
    if point.lat is not None and point.lon is not None:
        where = f"{point.lat:.6f}, {point.lon:.6f}, heading {point.heading:.0f}°, 95 % of belief within"
        where += f" {point.within_95:.0f} m"
    image = "-" if tracked.image is None else Path(tracked.image).name
    output.print(f"{tracked.time:.2f} s  {point.state:9}  {where}  {image}", soft_wrap=True)


def add_to(app: typer.Typer) -> None:
    app.command()(localize)
