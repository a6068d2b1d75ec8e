"""Where tiles come from, on the command line: SOURCE and its options, written once for all commands that take them."""

import inspect
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from geodtr.cli.console import messages, output, report_skipped, show_json, table, track, warn
from geodtr.cli.options import AsJson

if TYPE_CHECKING:
    from geodtr.runtime.sources.coverage import Coverage
    from geodtr.runtime.sources.folder import Origin
    from geodtr.runtime.sources.registry import OpenedSource, Options


def _option(panel: str, name: str, help_: str, default: str | bool = False, **more: Any) -> typer.models.OptionInfo:
    info: typer.models.OptionInfo = typer.Option(name, help=help_, show_default=default, rich_help_panel=panel, **more)
    return info


_OF_ALL_KINDS = ("source", "id_prefix")
_FOLDER, _MAP, _XYZ = "A folder of images", "A map file", "Map tiles"


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceOptions:
    """SOURCE as a user writes it. An option that is None (or False, of a flag) was not given."""

    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE",
            help="A folder of tiles, a map (.tif, .vrt, .jp2), map tiles (.mbtiles, or a folder Z/X/Y.png), or a data "
            "set (KIND:PATH).",
            show_default=False,
        ),
    ]
    id_prefix: Annotated[
        str | None,
        typer.Option(
            "--id-prefix",
            metavar="TEXT",
            help="Prefix of each tile's id, for sources with equal tile names; for example north/.",
            show_default=False,
        ),
    ] = None
    positions: Annotated[
        str | None,
        _option(
            _FOLDER,
            "--positions",
            "Where positions are: a CSV (file,lat,lon[,heading,metres_per_pixel,id], or corners), names, exif or none.",
            "tiles.csv, else names, else exif",
            metavar="FILE|names|exif|none",
        ),
    ] = None
    pattern: Annotated[
        str | None,
        _option(
            _FOLDER,
            "--pattern",
            "Pattern of positions in file names: 'tile_{lat}_{lon}*', or {west}, {south}, {east} and {north}.",
            metavar="TEXT",
        ),
    ] = None
    skip_unpositioned: Annotated[
        bool, _option(_FOLDER, "--skip-unpositioned", "Leave out images without a position, or with a wrong one.")
    ] = False
    tile_metres: Annotated[
        float | None, _option(_MAP, "--tile-metres", "Side of a tile on the ground.", metavar="METRES")
    ] = None
    overlap: Annotated[
        float | None, _option(_MAP, "--overlap", "Overlap of neighbouring tiles.", "0", metavar="METRES")
    ] = None
    stride: Annotated[
        float | None,
        _option(_MAP, "--stride", "Distance between tile centres, instead of --overlap.", metavar="METRES"),
    ] = None
    tile_pixels: Annotated[
        int | None, _option(_MAP, "--tile-pixels", "A tile's side in pixels.", "as the map", metavar="N")
    ] = None
    bands: Annotated[
        str | None,
        _option(_MAP, "--bands", "Three band numbers from 1, or one grey band.", "red, green, blue", metavar="R,G,B"),
    ] = None
    stretch: Annotated[
        str | None,
        _option(
            _MAP, "--stretch", "Values that become black and white; for maps of more than 8 bits.", metavar="LOW,HIGH"
        ),
    ] = None
    max_empty: Annotated[
        float | None,
        _option(
            _MAP,
            "--max-empty",
            "Largest share of a tile without data; other tiles are left out.",
            "0.2",
            metavar="SHARE",
        ),
    ] = None
    nodata: Annotated[
        float | None,
        _option(_MAP, "--nodata", "Value of pixels without data, where the map does not mark them.", metavar="VALUE"),
    ] = None
    zoom: Annotated[int | None, _option(_XYZ, "--zoom", "Zoom level to read.", "the only one", metavar="Z")] = None
    tms: Annotated[bool, _option(_XYZ, "--tms", "Files count y from the south.")] = False
    merge: Annotated[int | None, _option(_XYZ, "--merge", "N x N tiles make one reference.", "1", metavar="N")] = None
    step: Annotated[
        int | None, _option(_XYZ, "--step", "Distance between references, in tiles.", "as --merge", metavar="N")
    ] = None


def takes_source(command: Callable[..., None]) -> Callable[..., None]:
    """Let typer see a command's parameter of type SourceOptions as the argument and options that it holds, so that
    several commands have them and they are written once.
    """
    own = inspect.signature(command).parameters
    place = next(name for name, parameter in own.items() if parameter.annotation is SourceOptions)
    held = inspect.signature(SourceOptions).parameters

    def spelled(**values: Any) -> None:
        options = SourceOptions(**{name: values.pop(name) for name in held})
        command(**values, **{place: options})

    seen = [each for name, one in own.items() for each in (held.values() if name == place else (one,))]
    # By keyword alone: a parameter without a default may then stand behind one that has one.
    seen = [one.replace(kind=inspect.Parameter.KEYWORD_ONLY) for one in seen]
    spelled.__signature__ = inspect.Signature(seen)  # type: ignore[attr-defined] # what inspect.signature looks for
    spelled.__name__, spelled.__doc__ = command.__name__, command.__doc__
    return spelled


def source_from_options(asked: SourceOptions) -> "OpenedSource":
    """Open the source, and say on standard error how it was read.

    Raises ConfigError for options that are another kind's or exclude each other, and what opening raises.
    """
    from geodtr.runtime.sources.prefixed import PrefixedTiles

    opened = _open(asked)
    for note in opened.notes:
        messages.print(note, soft_wrap=True)
    return opened if asked.id_prefix is None else PrefixedTiles(opened, asked.id_prefix)


def _open(asked: SourceOptions) -> "OpenedSource":
    from geodtr.runtime.errors import ConfigError
    from geodtr.runtime.sources.registry import open_source
    from geodtr.training.data.references import reference_tiles
    from geodtr.training.data.spec import is_spec, read_test_set

    options = _options(asked)
    if not is_spec(asked.source):
        return open_source(Path(asked.source), options, track=track)
    if options is not None:
        raise ConfigError(f"{asked.source} is a data set, which contains its tile positions: leave the options out.")
    pair_set = read_test_set(asked.source)
    report_skipped(pair_set.name, pair_set.skipped)
    return reference_tiles(pair_set)


def _options(asked: SourceOptions) -> "Options | None":
    """The options of the one kind that any were given of. Raises ConfigError where they are of several."""
    from geodtr.runtime.errors import ConfigError
    from geodtr.runtime.sources.folder import FolderOptions
    from geodtr.runtime.sources.slippy import XyzOptions

    given = {panel: flags for panel, flags in _given(asked).items() if flags}
    if len(given) > 1:
        held = "; ".join(f"{', '.join(flags)}: {panel.lower()}" for panel, flags in given.items())
        raise ConfigError(f"Options of different kinds of sources were given ({held}). Give options of one kind.")
    if _FOLDER in given:
        return FolderOptions(_positions(asked.positions), asked.pattern, asked.skip_unpositioned)
    if _XYZ in given:
        return XyzOptions(asked.zoom, asked.tms, 1 if asked.merge is None else asked.merge, asked.step)
    return _map_options(asked) if _MAP in given else None


def _positions(text: str | None) -> "Path | Origin | None":
    from geodtr.runtime.sources.folder import ORIGINS

    return None if text is None else next((origin for origin in ORIGINS if origin == text), Path(text))


def _given(asked: SourceOptions) -> dict[str, list[str]]:
    """The flags that were given, by the kind of source that they are for."""
    given: dict[str, list[str]] = {_FOLDER: [], _MAP: [], _XYZ: []}
    for name, parameter in inspect.signature(SourceOptions).parameters.items():
        value = getattr(asked, name)
        if name not in _OF_ALL_KINDS and value is not None and value is not False:  # a zero was given
            (option,) = parameter.annotation.__metadata__
            given[option.rich_help_panel].append("--" + name.replace("_", "-"))
    return given


def _map_options(asked: SourceOptions) -> "Options":
    from geodtr.runtime.errors import ConfigError
    from geodtr.runtime.sources.geotiff import GeoTiffOptions

    if asked.tile_metres is None:
        raise ConfigError("Say how large a map's tile is on the ground, for example --tile-metres 60")
    stride = asked.stride
    if asked.overlap is not None:
        if stride is not None:
            raise ConfigError("--overlap and --stride say the same thing: give one of them.")
        if not 0 <= asked.overlap < asked.tile_metres:
            raise ConfigError(f"--overlap is {asked.overlap:g}; it must lie within 0 and --tile-metres.")
        stride = asked.tile_metres - asked.overlap
    low_high = None if asked.stretch is None else _numbers(asked.stretch, float, "--stretch", "0,3000")
    if low_high is not None and len(low_high) != 2:
        raise ConfigError(f"--stretch is {asked.stretch!r}; two numbers are needed, for example 0,3000.")
    return GeoTiffOptions(
        asked.tile_metres,
        stride,
        asked.tile_pixels,
        None if asked.bands is None else _numbers(asked.bands, int, "--bands", "1,2,3"),
        None if low_high is None else (low_high[0], low_high[1]),
        nodata=asked.nodata,
        **({} if asked.max_empty is None else {"max_empty": asked.max_empty}),
    )


def _numbers(text: str, of: Callable[[str], Any], flag: str, example: str) -> tuple[Any, ...]:
    from geodtr.runtime.errors import ConfigError

    try:
        return tuple(of(part) for part in text.split(","))
    except ValueError:
        raise ConfigError(f"{flag} is {text!r}; numbers with commas are needed, for example {example}.") from None


@takes_source
def preview(
    source: SourceOptions,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="PATH", help="Picture of the coverage to write, PNG.", show_default="none"),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show what tiles a source would give a gallery: how many, where, how far apart; no bundle is needed."""
    from geodtr.export.plots.files import check_pictures, save_picture
    from geodtr.runtime.sources.coverage import measure

    check_pictures(out)
    opened = source_from_options(source)
    coverage = measure(opened.tiles)
    unreadable: tuple[str, ...] = ()
    if out is not None:
        from geodtr.export.plots.coverage import coverage_plot

        drawn = coverage_plot(opened, coverage, track=track)
        unreadable = drawn.unreadable
        save_picture(drawn.figure, out)
    if as_json:
        measured = asdict(coverage) | {"frame": None if coverage.frame is None else coverage.frame.bounds}
        show_json({"source": opened.name, "notes": opened.notes, "coverage": measured, "unreadable": unreadable})
    else:
        _show(opened.name, coverage)
    if unreadable:
        warn(f"{len(unreadable)} tiles cannot be read and are dots in the picture, the first: {unreadable[0]}")
    if out is not None:
        messages.print(f"Wrote {out}")


def _show(name: str, coverage: "Coverage") -> None:
    rows = table(name, ("", "coverage"))
    rows.add_row("tiles", str(coverage.tiles))
    rows.add_row("with a position", str(coverage.positioned))
    if coverage.frame is not None:
        bounds = coverage.frame.bounds
        rows.add_row("at another's place", str(coverage.doubled))
        rows.add_row("latitudes", "{south:.6f} to {north:.6f}".format(**bounds))
        rows.add_row("longitudes", "{west:.6f} to {east:.6f}".format(**bounds))
        rows.add_row("centre to centre", f"{coverage.width_metres:.0f} m x {coverage.height_metres:.0f} m")
        if coverage.spacing_metres is not None:
            rows.add_row("nearest other tile, median", f"{coverage.spacing_metres:.1f} m")
        rows.add_row("farthest place from a tile", f"{coverage.farthest_metres:.1f} m")
    output.print(rows)


def add_to(gallery: typer.Typer) -> None:
    gallery.command("preview")(preview)
