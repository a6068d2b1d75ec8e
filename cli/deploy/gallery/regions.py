"""The commands `gallery split` and `gallery merge`."""

from pathlib import Path
from typing import Annotated

import typer

from geodtr.cli.console import messages, output, show_json, track
from geodtr.cli.options import AsJson, out_option
from geodtr.runtime.names import Storage

_CALIBRATE = "Calibrations are not copied: geodtr-export gallery calibrate BUNDLE GALLERY --data SPEC"


def split(
    gallery: Annotated[Path, typer.Argument(metavar="FOLDER", help="A gallery folder.", show_default=False)],
    out: Annotated[Path, out_option("Folder to write, with a gallery for each part.")],
    box: Annotated[
        str | None,
        typer.Option(
            "--box",
            metavar="S,W,N,E",
            help="Two parts, inside and outside of these degrees.",
            show_default=False,
        ),
    ] = None,
    grid: Annotated[
        float | None,
        typer.Option("--grid", metavar="METRES", help="A part for each cell of this side.", show_default=False),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Split a gallery by region into several, without embedding again; it stays as it is."""
    from geodtr.runtime.errors import ConfigError
    from geodtr.runtime.gallery.regions import InBox, InGrid
    from geodtr.runtime.gallery.regions import split as split_gallery

    if box is not None and grid is None:
        try:
            south, west, north, east = (float(part) for part in box.split(","))
        except ValueError:
            raise ConfigError(
                f"--box {box!r} is not SOUTH,WEST,NORTH,EAST in degrees, for example 48.1,11.4,48.2,11.7."
            ) from None
        region: InBox | InGrid = InBox(south, west, north, east)
    elif grid is not None and box is None:
        region = InGrid(grid)
    else:
        raise ConfigError("A gallery is split either by --box S,W,N,E or by --grid METRES: give one.")
    counts = split_gallery(gallery, out, region, track=track)
    if as_json:
        show_json({"parts": counts})
        return
    for name, count in counts.items():
        output.print(f"{out / name}: {count} tiles", soft_wrap=True)
    messages.print(_CALIBRATE)


def merge(
    galleries: Annotated[
        list[Path], typer.Argument(metavar="FOLDER...", help="Gallery folders of one model.", show_default=False)
    ],
    out: Annotated[Path, out_option("Gallery folder to write.")],
    storage: Annotated[
        Storage | None,
        typer.Option("--storage", help="Storage to search.", show_default="the first gallery's"),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Merge galleries of one model into one, without embedding again; they stay as they are."""
    from geodtr.runtime.gallery.regions import merge as merge_galleries

    count = merge_galleries(galleries, out, storage=storage, track=track)
    if as_json:
        show_json({"references": count})
        return
    messages.print(f"Wrote {out}: {count} tiles. {_CALIBRATE}")


def add_to(app: typer.Typer) -> None:
    app.command("split")(split)
    app.command("merge")(merge)
