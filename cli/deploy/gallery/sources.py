"""Where tiles come from, on the command line: SOURCE and its options, written once for all commands that take them."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from geodtr.cli.console import messages, output, report_skipped, show_json, track, warn
from geodtr.cli.dataclass_options import with_options
from geodtr.cli.options import AsJson, argument, flag, numbers_of
from geodtr.cli.tables import table
from geodtr.export.options import flag_of, from_given, option, options_of
from geodtr.runtime.errors import BundleError, ConfigError

if TYPE_CHECKING:
    from geodtr.runtime.bundle import Bundle
    from geodtr.runtime.sources.coverage import Coverage
    from geodtr.runtime.sources.ground_size import Advice, SizeCoverage
    from geodtr.runtime.sources.registry import OpenedSource, Options
    from geodtr.runtime.sources.tile import TileSource


Source = Annotated[
    str,
    argument(
        "SOURCE",
        "A folder of tiles, a map (.tif, .vrt, .jp2), map tiles (.mbtiles, .pmtiles, or a folder Z/X/Y.png), or a "
        "data set (KIND:PATH).",
    ),
]


@dataclass(frozen=True, slots=True)
class _Ids:
    """The option of every kind of source."""

    id_prefix: str | None = option(
        None, "Prefix of each tile's id, for sources with equal tile names; for example north/.", "TEXT"
    )


@dataclass(frozen=True, slots=True)
class _Folder:
    positions: str | None = option(
        None,
        "Where positions are: a CSV (file,lat,lon[,heading,metres_per_pixel,id], or corners), names, exif or none.",
        "FILE|names|exif|none",
        shown="tiles.csv, else names, else exif",
    )
    pattern: str | None = option(
        None, "Pattern of positions in file names: 'tile_{lat}_{lon}*', or {west}, {south}, {east} and {north}.", "TEXT"
    )
    skip_unpositioned: bool = option(False, "Leave out images without a position, or with a wrong one.")

    def options(self) -> "Options":
        from geodtr.runtime.sources.positioned.folder import ORIGINS, FolderOptions

        if self.positions is None:
            return FolderOptions(None, self.pattern, self.skip_unpositioned)
        origin = next((each for each in ORIGINS if each == self.positions), Path(self.positions))
        return FolderOptions(origin, self.pattern, self.skip_unpositioned)


@dataclass(frozen=True, slots=True)
class _Map:
    tile_metres: str | None = option(None, "Side of a tile on the ground; several sizes: 40,80,160.", "METRES,...")
    overlap: str | None = option(
        None, "Overlap of neighbouring tiles, for all sizes or for each.", "METRES,...", shown="0"
    )
    stride: str | None = option(None, "Distance between tile centres, instead of --overlap.", "METRES,...")
    tile_pixels: int | None = option(None, "A tile's side in pixels.", "N", shown="as the map")
    bands: str | None = option(None, "Three band numbers from 1, or one grey band.", "R,G,B", shown="red, green, blue")
    stretch: str | None = option(None, "Values that become black and white; for maps of more than 8 bits.", "LOW,HIGH")
    max_empty: float | None = option(
        None, "Largest share of a tile without data; other tiles are left out.", "SHARE", shown="0.2"
    )
    nodata: float | None = option(None, "Value of pixels without data, where the map does not mark them.", "VALUE")

    def options(self) -> "Options":
        from geodtr.runtime.sources.raster.cut import GeoTiffOptions

        if self.tile_metres is None:
            raise ConfigError("Say how large a map's tile is on the ground, for example --tile-metres 60")
        sizes = numbers_of(self.tile_metres, "--tile-metres", "60 or 40,80,160")
        return GeoTiffOptions(
            sizes,
            self._strides(sizes),
            self.tile_pixels,
            None if self.bands is None else numbers_of(self.bands, "--bands", "1,2,3", int),
            None if self.stretch is None else numbers_of(self.stretch, "--stretch", "0,3000", count=2),
            nodata=self.nodata,
            **({} if self.max_empty is None else {"max_empty": self.max_empty}),
        )

    def _strides(self, sizes: tuple[float, ...]) -> tuple[float, ...] | None:
        """The distance between the centres of the tiles of each size; None where neither option is given."""
        if self.overlap is not None and self.stride is not None:
            raise ConfigError("--overlap and --stride state the same thing: give one of them.")
        flag, text = ("--stride", self.stride) if self.overlap is None else ("--overlap", self.overlap)
        if text is None:
            return None
        values = numbers_of(text, flag, "20 or 20,40,80")
        if len(values) not in (1, len(sizes)):
            raise ConfigError(
                f"{flag} has {len(values)} values for {len(sizes)} sizes of tiles; give one for all, or one for each."
            )
        values = values * len(sizes) if len(values) == 1 else values
        if self.overlap is None:
            return values
        for overlap, size in zip(values, sizes, strict=True):
            if not 0 <= overlap < size:
                raise ConfigError(f"--overlap is {overlap:g}; it must lie within 0 and the tile's side, {size:g} m.")
        return tuple(size - overlap for overlap, size in zip(values, sizes, strict=True))


@dataclass(frozen=True, slots=True)
class _MapTiles:
    zoom: int | None = option(None, "Zoom level to read.", "Z", shown="the only one")
    tms: bool = option(False, "Files count y from the south.")
    merge: int = option(1, "N x N tiles make one reference.", "N")
    step: int | None = option(None, "Distance between references, in tiles.", "N", shown="as --merge")

    def options(self) -> "Options":
        from geodtr.runtime.sources.tiled.slippy import XyzOptions

        return XyzOptions(self.zoom, self.tms, self.merge, self.step)


_KINDS = {"A folder of images": _Folder, "A map file": _Map, "Map tiles": _MapTiles}

takes_source_options = with_options({None: (_Ids,), **{panel: (kind,) for panel, kind in _KINDS.items()}})
"""Gives a command that takes a SOURCE the options of all kinds of sources."""


def open_given(source: str, given: Mapping[str, Any]) -> "OpenedSource":
    """Open a source with the options that the user gave, and report on standard error how it was read.

    Raises ConfigError for options that are another kind's or exclude each other, and what opening raises.
    """
    from geodtr.runtime.sources.prefixed import PrefixedTiles

    opened = _open(source, _options(given))
    for note in opened.notes:
        messages.print(note)
    return PrefixedTiles(opened, given["id_prefix"]) if "id_prefix" in given else opened


def _open(source: str, options: "Options | None") -> "OpenedSource":
    from geodtr.runtime.sources.registry import open_source
    from geodtr.training.data.references import open_references
    from geodtr.training.data.spec import is_spec

    if not is_spec(source):
        return open_source(Path(source), options, track=track)
    tiles, pair_set = open_references(source, options)
    report_skipped(pair_set.name, pair_set.skipped)
    return tiles


def _options(given: Mapping[str, Any]) -> "Options | None":
    """The options of the one kind that any were given of. Raises ConfigError where they are of several."""
    flags = {
        panel: [flag_of(each) for each, _ in options_of(kind) if each.name in given] for panel, kind in _KINDS.items()
    }
    panels = [panel for panel in _KINDS if flags[panel]]
    if len(panels) > 1:
        held = "; ".join(f"{', '.join(flags[panel])}: {panel.lower()}" for panel in panels)
        raise ConfigError(f"Options of different kinds of sources were given ({held}). Give options of one kind.")
    return from_given(_KINDS[panels[0]], given).options() if panels else None


@takes_source_options
def preview(
    source: Source,
    *,
    given: Mapping[str, Any],
    out: Annotated[
        Path | None, flag("--out PATH", "Picture of the coverage to write, PNG.", show_default="none")
    ] = None,
    bundle: Annotated[
        Path | None,
        flag("--bundle", "Recommend tile size and overlap for this bundle's model, and cut a map so by default."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show what tiles a source would give a gallery: how many, where, how far apart; no bundle is needed."""
    from geodtr.export.plots.files import check_pictures, save_picture
    from geodtr.runtime.sources.coverage import measure
    from geodtr.runtime.sources.ground_size import measure_sizes

    check_pictures(out)
    advice = None if bundle is None else _advice_of(bundle)
    opened = open_given(source, given if advice is None else _as_advised(source, given, advice))
    coverage = measure(opened.tiles)
    sizes = measure_sizes(opened)
    unreadable: tuple[str, ...] = ()
    if out is not None:
        from geodtr.export.plots.coverage import coverage_plot

        drawn = coverage_plot(opened, coverage, track=track)
        unreadable = drawn.unreadable
        save_picture(drawn.figure, out)
    if as_json:
        measured = asdict(coverage) | {"frame": None if coverage.frame is None else coverage.frame.bounds}
        show_json(
            {
                "source": opened.name,
                "notes": opened.notes,
                "coverage": measured,
                "sizes": [asdict(size) | {"overlap_metres": size.overlap_metres} for size in sizes],
                "recommended_tile_metres": None if advice is None else advice.tile_metres,
                "unreadable": unreadable,
            }
        )
    else:
        _show(opened.name, coverage, sizes)
    if advice is not None:
        advice = advice.of(opened)
        messages.print(f"Recommended for this model: {advice.recommended}")
        for fault in advice.faults(sizes):
            warn(fault)
    if unreadable:
        warn(f"{len(unreadable)} tiles cannot be read and are dots in the picture, the first: {unreadable[0]}")
    if out is not None:
        messages.print(f"Wrote {out}")


def _advice_of(bundle: Path) -> "Advice":
    from geodtr.runtime.bundle import open_bundle
    from geodtr.runtime.sources.ground_size import Advice

    metres = open_bundle(bundle).manifest.aerial.spec.preprocessing.imagery.tile_metres
    if metres is None:
        raise BundleError(
            f"{bundle} does not state the ground size of its model's training tiles. Leave --bundle out, or train with "
            "it stated: --set aerial.imagery.tile_metres=60"
        )
    return Advice(metres)


def _as_advised(source: str, given: Mapping[str, Any], advice: "Advice") -> Mapping[str, Any]:
    """The options that the user gave, and for a map whose tile has no size the recommended ones."""
    from geodtr.runtime.sources.raster.geotiff import SUFFIXES

    if Path(source).suffix.lower() not in SUFFIXES or "tile_metres" in given:
        return given
    overlap = {} if {"overlap", "stride"} & set(given) else {"overlap": f"{advice.overlap:.17g}"}
    return {**given, "tile_metres": f"{advice.tile_metres:.17g}", **overlap}


def warn_of_ground_size(bundle: "Bundle", source: "TileSource") -> None:
    """Warn where tiles to be embedded cover other ground than the training tiles of the model."""
    from geodtr.runtime.sources.ground_size import Advice, measure_sizes

    metres = bundle.manifest.aerial.spec.preprocessing.imagery.tile_metres
    if metres is not None:
        for fault in Advice(metres).of(source).faults(measure_sizes(source), apart=False):
            warn(fault)


def _show(name: str, coverage: "Coverage", sizes: "list[SizeCoverage]") -> None:
    rows = table(name, ("", "coverage"))
    rows.add_row("tiles", str(coverage.tiles))
    rows.add_row("with a position", str(coverage.positioned))
    for size in sizes:
        if size.tile_metres is None:
            continue
        if len(sizes) == 1:
            rows.add_row("side of a tile", f"{size.tile_metres:.1f} m")
            continue
        overlap = "" if size.overlap_metres is None else f", overlapping by {size.overlap_metres:.1f} m"
        rows.add_row(f"tiles of {size.tile_metres:.1f} m", f"{size.tiles}{overlap}")
    if coverage.frame is not None:
        bounds = coverage.frame.bounds
        rows.add_row("at another's centre", str(coverage.doubled))
        rows.add_row("latitudes", "{south:.6f} to {north:.6f}".format(**bounds))
        rows.add_row("longitudes", "{west:.6f} to {east:.6f}".format(**bounds))
        rows.add_row("centre to centre", f"{coverage.width_metres:.0f} m x {coverage.height_metres:.0f} m")
        if coverage.spacing_metres is not None:
            rows.add_row("nearest other tile, median", f"{coverage.spacing_metres:.1f} m")
        rows.add_row("farthest place from a tile", f"{coverage.farthest_metres:.1f} m")
    output.print(rows)
