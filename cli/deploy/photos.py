"""The command that shows what photographs and flight records state. It needs the lean runtime only."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from geodtr.cli.console import output, printing_results, show_line, warn
from geodtr.cli.deploy.localize.flight import say_what_was_read
from geodtr.cli.options import OnError, argument, flag, leaving_out
from geodtr.cli.tables import table
from geodtr.runtime.errors import DataError, ImageError

if TYPE_CHECKING:
    from geodtr.runtime.images.recorded import Recorded, Stated

_UNITS = {
    "lat": "°",
    "lon": "°",
    "heading": "°",
    "tilt": "°",
    "height": " m",
    "field_of_view": "°",
    "ground_metres": " m",
}


@printing_results()
def photos(
    places: Annotated[
        list[Path],
        argument("PHOTOS...", "Photographs, folders of them, or flight records (.srt, .csv; see localize --flight)."),
    ],
    on_error: OnError = "stop",
    as_json: Annotated[bool, flag("--json", "Print a line of JSON for each photograph, or entry of a record.")] = False,
) -> None:
    """Show what photographs state by EXIF and XMP: position, heading, tilt, height, ground size, and the tag of each;
    and flight records: how they are understood, and what they state in the middle.

    What no tag states is left out.
    """
    from geodtr.runtime.flights.frames import READERS
    from geodtr.runtime.images.decode import list_images
    from geodtr.runtime.sources.positioned.photograph import read_photograph

    for path in [image for place in places for image in (list_images(place) if place.is_dir() else [place])]:
        if path.suffix.lower() in READERS:
            _show_flight(path, on_error, as_json=as_json)
            continue
        try:
            photograph = read_photograph(path)
        except (DataError, ImageError) as error:
            if on_error == "stop":
                raise
            warn(f"Left out: {error}")
            continue
        if as_json:
            show_line(photograph)
        else:
            _show(photograph)


def _show(photograph: "Recorded") -> None:
    rows = table(photograph.file, ("", "value", "from"))
    for name, unit in _UNITS.items():
        stated: Stated | None = getattr(photograph, name)
        if stated is not None:
            digits = 6 if name in ("lat", "lon") else 1
            rows.add_row(name.replace("_", " "), f"{stated.value:.{digits}f}{unit}", stated.origin)
    if photograph.rtk is not None:
        rows.add_row("rtk", "fixed" if photograph.rtk else "not fixed", "XMP RtkFlag")
    output.print(rows)


def _show_flight(path: Path, on_error: OnError, *, as_json: bool) -> None:
    from geodtr.runtime.flights.frames import read_flight

    flight = read_flight(path, leaving_out(on_error, DataError, "entries"))
    say_what_was_read(flight)
    times = flight.times.tolist() if as_json else [flight.times[len(flight.times) // 2]]
    for time in times:
        recorded = flight.at(time, f"{path} at {time:g} s")
        if as_json:
            show_line(recorded)
        else:
            _show(recorded)
