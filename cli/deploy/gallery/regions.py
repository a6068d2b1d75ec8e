"""The commands `gallery split` and `gallery merge`."""

from pathlib import Path
from typing import Annotated

from geodtr.cli.console import messages, output, show_json, track
from geodtr.cli.options import AsJson, argument, flag, numbers_of, out_option
from geodtr.runtime.errors import ConfigError
from geodtr.runtime.names import Storage


def split(
    gallery: Annotated[Path, argument("FOLDER", "A gallery folder.")],
    out: Annotated[Path, out_option("Folder to write, with a gallery for each part.")],
    box: Annotated[str | None, flag("--box S,W,N,E", "Two parts, inside and outside of these degrees.")] = None,
    grid: Annotated[float | None, flag("--grid METRES", "A part for each cell of this side.")] = None,
    as_json: AsJson = False,
) -> None:
    """Split a gallery by region into several, without embedding again; it stays as it is."""
    from geodtr.runtime.gallery.regions import InBox, InGrid
    from geodtr.runtime.gallery.regions import split as split_gallery

    if box is not None and grid is None:
        edges = numbers_of(box, "--box", "48.1,11.4,48.2,11.7", named="SOUTH,WEST,NORTH,EAST in degrees", count=4)
        region: InBox | InGrid = InBox(*edges)
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
    _mention_calibrations(gallery)


def merge(
    galleries: Annotated[list[Path], argument("FOLDER...", "Gallery folders of one model.")],
    out: Annotated[Path, out_option("Gallery folder to write.")],
    storage: Annotated[
        Storage | None, flag("--storage", "Storage to search.", show_default="the first gallery's")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Merge galleries of one model into one, without embedding again; they stay as they are."""
    from geodtr.runtime.gallery.regions import merge as merge_galleries

    count = merge_galleries(galleries, out, storage=storage, track=track)
    if as_json:
        show_json({"references": count})
        return
    messages.print(f"Wrote {out}: {count} tiles.")
    _mention_calibrations(*galleries)


def _mention_calibrations(*galleries: Path) -> None:
    from geodtr.runtime.localization.calibration import is_calibrated

    if any(map(is_calibrated, galleries)):
        messages.print("Calibrations are not copied: geodtr-export gallery calibrate BUNDLE GALLERY --data SPEC")
