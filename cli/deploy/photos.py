"""The command that shows what photographs state of themselves. It needs the lean runtime only."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from geodtr.cli.console import output, printing_results, show_line, warn
from geodtr.cli.options import OnError
from geodtr.cli.tables import table

if TYPE_CHECKING:
    from geodtr.runtime.sources.positioned.photograph import Photograph, Stated

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
        list[Path], typer.Argument(metavar="PHOTOS...", help="Photographs, or folders of them.", show_default=False)
    ],
    on_error: OnError = "stop",
    as_json: Annotated[bool, typer.Option("--json", help="Print a line of JSON for each photograph.")] = False,
) -> None:
    """Show what photographs state by EXIF and XMP: position, heading, tilt, height, ground size, and the tag of each.

    What no tag states is left out.
    """
    from geodtr.runtime.errors import DataError, ImageError
    from geodtr.runtime.images.decode import list_images
    from geodtr.runtime.sources.positioned.photograph import read_photograph

    for path in [image for place in places for image in (list_images(place) if place.is_dir() else [place])]:
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


def _show(photograph: "Photograph") -> None:
    rows = table(photograph.file, ("", "value", "from"))
    for name, unit in _UNITS.items():
        stated: Stated | None = getattr(photograph, name)
        if stated is not None:
            digits = 6 if name in ("lat", "lon") else 1
            rows.add_row(name.replace("_", " "), f"{stated.value:.{digits}f}{unit}", stated.origin)
    if photograph.rtk is not None:
        rows.add_row("rtk", "fixed" if photograph.rtk else "not fixed", "XMP RtkFlag")
    output.print(rows)


def add_to(app: typer.Typer) -> None:
    app.command()(photos)
