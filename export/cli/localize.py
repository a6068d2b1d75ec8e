"""Commands that say where an image was taken: localize, and the calibration that lets it say how surely."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from geodtr.export.cli.console import messages, output, report_skipped, show_json, show_line, table, track, warn
from geodtr.export.cli.flight import expand
from geodtr.export.cli.gallery import gallery
from geodtr.export.cli.options import (
    GALLERY_HELP,
    AsJson,
    BundlePath,
    GalleryPlace,
    Limit,
    OnError,
    Seed,
    Spec,
    Threads,
)
from geodtr.runtime.gallery_place import Place, as_place

if TYPE_CHECKING:
    from geodtr.runtime.errors import ImageError
    from geodtr.runtime.geodesy import Near
    from geodtr.runtime.localizer import Localisation
    from geodtr.runtime.tracking import Tracked
    from geodtr.runtime.waypoints import Waypoint

_CALIBRATE = "geodtr-export gallery calibrate BUNDLE GALLERY --data SPEC"

Headings = Annotated[
    int, typer.Option("--headings", min=1, metavar="N", help="Turns of a panorama to search; 1 where it is north up.")
]


def localize(
    bundle: Annotated[
        Path, typer.Option("--bundle", help="The bundle whose ground branch embeds.", show_default=False)
    ],
    place: Annotated[
        Place,
        typer.Option(
            "--gallery",
            metavar="GALLERY",
            help=f"A gallery of the same model: {GALLERY_HELP}.",
            parser=as_place,
            show_default=False,
        ),
    ],
    images: Annotated[
        list[Path] | None,
        typer.Argument(metavar="IMAGES...", help="Image files, or folders of them.", show_default=False),
    ] = None,
    top: Annotated[int, typer.Option("--top", min=1, help="How many tiles an image.")] = 5,
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
            help="Fuse the images that this file lists with its speed and yaw.",
            show_default=False,
        ),
    ] = None,
    seed: Seed = 0,
    on_error: OnError = "stop",
    threads: Threads = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="FILE", help="Write .jsonl, .geojson, .gpx or .csv.", show_default=False),
    ] = None,
    picture: Annotated[
        Path | None,
        typer.Option("--picture", metavar="FILE.png", help="Draw the answers over the tiles.", show_default=False),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print a line of JSON for each frame.")] = False,
) -> None:
    """Find where street-level images were taken: the nearest tiles, best first, and one position out of them."""
    from geodtr.runtime.engines.opening import EngineOptions
    from geodtr.runtime.errors import ConfigError
    from geodtr.runtime.localizer import Localizer
    from geodtr.runtime.odometry import read_odometry
    from geodtr.runtime.pipeline import stop
    from geodtr.runtime.progress import untracked
    from geodtr.runtime.track import TrackOptions
    from geodtr.runtime.track_picture import check_picture, draw_track, save_picture
    from geodtr.runtime.tracking import track_odometry
    from geodtr.runtime.waypoints import check_out

    if bool(images) == (odometry is not None):
        raise ConfigError("Give either images to localise, or --track ODOMETRY.csv, whose column image lists them.")
    prior = None if near is None else _parse_near(near)
    driven = None if odometry is None else read_odometry(odometry)
    if out is not None:
        check_out(out)
    if picture is not None:
        check_picture(picture)
    with Localizer.open(bundle, place, EngineOptions(threads=threads), headings=headings) as localizer:
        held = localizer.gallery.info
        if not held.references:
            warn(f"{place} is empty: nothing can be found in it.")
        elif not held.finished:
            warn(f"{place} is not finished: only {held.references} tiles can be found.")
        on_bad = _skip if on_error == "skip" else stop
        bar = untracked if output.is_terminal else track  # a bar between printed answers would tear them
        answers: Iterator[Localisation | Tracked]
        if driven is None:
            answers = localizer.locate_files(expand(images or []), top, near=prior, on_error=on_bad, track=bar)
            waypoints = _tell(answers, as_json, out)
        else:
            options = TrackOptions(seed=seed)
            answers = track_odometry(localizer, driven, options, top, near=prior, on_error=on_bad, track=bar)
            waypoints = _tell(answers, as_json, out, track=True, unix=driven.unix)
        if picture is not None:
            save_picture(picture, draw_track(waypoints, *localizer.positions, track=driven is not None))
            messages.print(f"Wrote {picture}", soft_wrap=True)


def _parse_near(text: str) -> "Near":
    from geodtr.runtime.errors import ConfigError
    from geodtr.runtime.geodesy import Near

    try:
        lat, lon, radius = (float(part) for part in text.split(","))
    except ValueError:
        raise ConfigError(
            f"--near {text!r} is not LAT,LON,RADIUS: degrees, degrees and metres, for example -30.01,-15.02,500."
        ) from None
    return Near(lat, lon, radius)


def _skip(path: Path, error: "ImageError") -> None:
    del path  # the message names it
    warn(f"Left out: {error}")


def _tell(
    answers: "Iterator[Localisation | Tracked]",
    as_json: bool,
    out: Path | None,
    *,
    track: bool = False,
    unix: bool = False,
) -> "list[Waypoint]":
    """Print every answer as it comes, and write it to `out`."""
    from geodtr.runtime.localizer import Localisation
    from geodtr.runtime.waypoints import waypoint_file

    waypoints: list[Waypoint] = []
    uncalibrated = set[str]()
    with ExitStack() as files:
        write = None if out is None else files.enter_context(waypoint_file(out, track=track, unix=unix))
        for answer in answers:
            waypoints.append(answer.waypoint)
            if write is not None:
                write(waypoints[-1])
            if as_json:
                show_line(answer)
            elif isinstance(answer, Localisation):
                _show_tiles(answer)
            else:
                _show_point(answer)
            reason = answer.uncalibrated if isinstance(answer, Localisation) else None
            if reason is not None and reason not in uncalibrated:
                uncalibrated.add(reason)
                warn(f"Positions claim no radius: {reason}. To measure one: {_CALIBRATE}")
    if out is not None:
        messages.print(f"Wrote {out}: {len(waypoints)} answers", soft_wrap=True)
    return waypoints


def _show_tiles(located: "Localisation") -> None:
    """One image's tiles and its position."""
    rows = table(str(located.image), ("tile", "cosine", "lat", "lon"))
    for candidate in located.candidates:
        place = candidate.place
        coordinates = ("" if value is None else f"{value:.6f}" for value in (place.lat, place.lon))
        rows.add_row(place.file, f"{candidate.score:.4f}", *coordinates)
    output.print(rows)
    fix = located.fix
    if fix is None:
        output.print(" no position: no tile found has one", soft_wrap=True)
        return
    claims = ", ".join(f"{100 * radius.share:g} % within {radius.metres:.0f} m" for radius in fix.within)
    heading = "" if located.heading is None else f", heading {located.heading:.0f}°"
    said = f" position {fix.lat:.6f}, {fix.lon:.6f}{heading}: {claims or 'uncalibrated'}"
    output.print(f"{said} (spread {fix.spread:.0f} m, margin {fix.margin:.4f})", soft_wrap=True)


def _show_point(tracked: "Tracked") -> None:
    """One row of a track."""
    point = tracked.point
    where = "no position yet"
    if point.lat is not None and point.lon is not None:
        where = f"{point.lat:.6f}, {point.lon:.6f}, heading {point.heading:.0f}°, 95 % of belief within"
        where += f" {point.within_95:.0f} m"
    image = "-" if tracked.image is None else tracked.image.name
    output.print(f"{tracked.time:.2f} s  {point.state:9}  {where}  {image}", soft_wrap=True)


@gallery.command("calibrate")
def gallery_calibrate(
    bundle: BundlePath,
    place: GalleryPlace,
    data: Spec,
    headings: Headings = 1,
    limit: Limit = None,
    as_json: AsJson = False,
) -> None:
    """Measure how far positions are off on images whose place is known, so that `localize` can claim a radius.

    Use images that neither the model nor its settings have seen, taken as they will be in flight.
    """
    import numpy as np

    from geodtr.runtime.fix_calibration import calibrate, off_the_map, write_calibration
    from geodtr.runtime.localizer import Localizer
    from geodtr.training.data.spec import read_test_set

    pair_set = read_test_set(data)
    report_skipped(pair_set.name, pair_set.skipped)
    pairs = [pair for pair in (pair_set if limit is None else pair_set.first(limit)).pairs if pair.lat is not None]
    with Localizer.open(bundle, place, headings=headings) as localizer:
        localizer.require_positions("a calibration")
        located = localizer.locate_files([pair.ground for pair in pairs], track=track)
        measured = [(pair, answer.fix) for pair, answer in zip(pairs, located, strict=True) if answer.fix is not None]
        fixes = [fix for _, fix in measured]
        lat, lon = (np.array([getattr(pair, name) for pair, _ in measured], np.float64) for name in ("lat", "lon"))
        outside = np.count_nonzero(off_the_map(lat, lon, *localizer.positions))
        if outside:
            warn(f"{outside} of {len(fixes)} images were taken off the gallery's map, where no tile can be right.")
        calibration = calibrate(fixes, lat, lon, localizer.conditions, data=data)
        written = write_calibration(localizer.gallery, calibration)
    if as_json:
        show_json(calibration)
        return
    shares = [f"{100 * share:g} % within (m)" for share in calibration.shares]
    rows = table(f"{len(fixes)} positions of {data}", ("margin from", "spread from (m)", "measured", *shares))
    for cell in calibration.cells:
        radii = ("-" if radius is None else f"{radius:.1f}" for radius in cell.radii_m)
        rows.add_row(f"{cell.margin:.4f}", f"{cell.spread_m:.0f}", str(cell.queries), *radii)
    output.print(rows)
    messages.print(f"Wrote {written}", soft_wrap=True)


def add_to(app: typer.Typer) -> None:
    app.command()(localize)
