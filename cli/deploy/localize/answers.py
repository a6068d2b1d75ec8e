"""How `localize` prints its answers, and what it warns of."""

from collections.abc import Callable, Iterator, Sequence
from math import hypot
from pathlib import Path
from typing import TYPE_CHECKING

from geodtr.cli.console import output, show_line, warn
from geodtr.cli.deploy.localize.flight import say_how_far_off
from geodtr.cli.tables import table

if TYPE_CHECKING:
    from geodtr.runtime.localization.result import Localisation, Refined
    from geodtr.runtime.localization.waypoint import Waypoint
    from geodtr.runtime.tracking.run import Tracked

_CALIBRATE = "geodtr-export gallery calibrate BUNDLE GALLERY --data SPEC"
_WHERE = "geodtr-export gallery export GALLERY --out tiles.csv"


def tell_all(
    answers: "Iterator[Localisation | Tracked]",
    writers: "Sequence[Callable[[Waypoint], object]]",
    *,
    as_json: bool,
    tables: bool,
) -> int:
    """Print every answer as it comes, and give it to all `writers`; how many there were."""
    from geodtr.runtime.localization.result import Localisation
    from geodtr.runtime.localization.waypoint import record

    count = 0
    uncalibrated, doubts = set[str](), 0
    recorded, outside, off = 0, False, list[float]()
    for answer in answers:
        count += 1
        waypoint = answer.waypoint
        for write in writers:
            write(waypoint)
        recorded += waypoint.gnss_lat is not None
        if waypoint.reliable and waypoint.gnss_off_m is not None:
            off.append(waypoint.gnss_off_m)
        if as_json:
            show_line(record(waypoint))
        else:
            _show(answer, tables=tables)
        located = answer if isinstance(answer, Localisation) else answer.located
        if located is not None and not located.candidates and not outside:
            outside = True
            what = "no tile lies within the prior; --near is LAT,LON,RADIUS"
            warn(f"{located.image}: {what}. To see where tiles are: {_WHERE}")
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
    say_how_far_off(off, recorded, count)
    return count


def _show(answer: "Localisation | Tracked", *, tables: bool) -> None:
    from geodtr.runtime.localization.result import Localisation

    if not isinstance(answer, Localisation):
        _show_point(answer)
    elif tables and answer.candidates:
        _show_tiles(answer)
    else:
        output.print(f"{answer.image}  {_fix_of(answer)}", soft_wrap=True)


def _show_tiles(located: "Localisation") -> None:
    """One image's tiles and its position."""
    sides = [each.tile_metres for each in located.candidates]
    known = any(side is not None for side in sides)
    columns = ("tile", "cosine", "lat, lon", *(("side",) if known else ()))
    rows = table(str(located.image), columns, expendable=("lat, lon",))
    for candidate in located.candidates:
        place = candidate.place
        position = "" if place.lat is None else f"{place.lat:.6f}, {place.lon:.6f}"
        side = "" if candidate.tile_metres is None else f"{candidate.tile_metres:.1f} m"
        rows.add_row(place.id, f"{candidate.score:.4f}", position, *((side,) if known else ()))
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
    moved = "" if fix.corrected_m is None else f", moved {hypot(*fix.corrected_m):.1f} m against the map's bias"
    return f"{position} (spread {fix.spread:.0f} m, margin {fix.margin:.4f}{moved})"


def _refined_of(refined: "Refined") -> str:
    """The second stage's position with its standard deviations."""
    whose = "camera above" if refined.camera else "the middle shows"
    east, _, north = refined.covariance_m2
    pose = f"heading {refined.heading:.1f}°, {refined.ground_metres:.1f} m wide"
    if refined.altitude is not None and refined.tilt is not None:
        pose += f", altitude {refined.altitude:.1f} m, tilt {refined.tilt:.1f}°"
    sure = f"sigma {east**0.5:.2f} m east, {north**0.5:.2f} m north"
    agreeing = f"{refined.inliers} of {refined.matches} matches agree"
    return f"{whose} {refined.lat:.7f}, {refined.lon:.7f}, {pose} ({sure}; {agreeing})"


def _show_point(tracked: "Tracked") -> None:
    """One row of a track."""
    point = tracked.point
    where = "no position yet"
    if point.lat is not None and point.lon is not None:
        where = f"{point.lat:.6f}, {point.lon:.6f}, heading {point.heading:.0f}°, 95 % of belief within"
        where += f" {point.within_95:.0f} m"
    image = tracked.image or "-"
    if "://" not in image:  # of a file, the name is enough
        image = Path(image).name
    output.print(f"{tracked.time:.2f} s  {point.state:9}  {where}  {image}", soft_wrap=True)
