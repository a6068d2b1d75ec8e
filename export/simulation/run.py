"""Simulates a flight into a folder: its map, the gallery of it, the flight, its figures, a table and a picture."""

from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np

from geodtr import __version__
from geodtr.export.plots.files import require_matplotlib, save_picture
from geodtr.export.simulation.flight import FAILS, Flight, fly, points_of, steps_of
from geodtr.runtime.autopilot.messages import require_pymavlink
from geodtr.runtime.bundle import Bundle
from geodtr.runtime.errors import ArgumentError, ConfigError, OutputExists
from geodtr.runtime.files import check_new_folder, new_file, new_folder, write_bytes
from geodtr.runtime.files.documents import read_document
from geodtr.runtime.files.text_rows import new_csv
from geodtr.runtime.gallery.build import build_gallery
from geodtr.runtime.gallery.manifest import made_by
from geodtr.runtime.localization.localizer import Localizer
from geodtr.runtime.progress import Track, untracked
from geodtr.runtime.sources.registry import open_source
from geodtr.runtime.spec import Preprocessing
from geodtr.training.world.drive import follow_roads, grid_around, write_tiles
from geodtr.training.world.regions import Region, find_region
from geodtr.training.world.terrain import World

MARKER, TILES, GALLERY, PICTURE, TABLE = "simulation.json", "tiles", "gallery", "flight.png", "flight.csv"
_UNFINISHED = "gallery.unfinished"
_MARGIN = 60.0
"""Metres of map on both sides of the route."""


@dataclass(frozen=True, slots=True)
class SimulationOptions:
    """What is flown. Raises ConfigError for values out of range."""

    region: str = "coast"
    """A name in training/world/regions."""
    minutes: float = 10.0
    """Without GNSS, after one with it."""
    spacing: float = 12.0
    """Metres between the centres of tiles, which are 60 m wide."""
    every: int = 3
    """Steps of 0.2 s from a frame to the next."""
    prior: float | None = 300.0
    """Each frame is searched within so many metres of the autopilot's position; None: everywhere."""
    seed: int = 0

    def __post_init__(self) -> None:
        find_region(self.region)
        prior = 300.0 if self.prior is None else self.prior
        for name, value, least, most in (
            ("minutes", self.minutes, 0.1, 60),
            ("spacing", self.spacing, 3, 60),
            ("every", self.every, 1, 100),
            ("prior", prior, 30, 100_000),
        ):
            if not least <= value <= most:
                everywhere = ", or 0: everywhere" if name == "prior" else ""
                raise ArgumentError(name, f"is {value:g}; allowed are {least:g} to {most:.0f}{everywhere}.")


@dataclass(frozen=True, slots=True)
class SimulationReport:
    """Errors in metres of the autopilot's position since GNSS failed; `dead_reckoning_m` is by the same odometry alone,
    at the end. `tracking`: the share of frames after which the track was sure. `sent`: positions that were sent.
    """

    options: SimulationOptions
    tiles: int
    median_m: float
    worst_m: float
    last_minute_median_m: float
    dead_reckoning_m: float
    tracking: float
    sent: int


class _Marker(msgspec.Struct, frozen=True):
    """What the folder's map was made by: another flight needs another folder."""

    version: str
    embedding_id: str
    region: str
    minutes: float
    spacing: float
    seed: int


def simulate(
    bundle: Bundle, out: Path, options: SimulationOptions | None = None, *, track: Track = untracked
) -> SimulationReport:
    """Fly through the generated world by the bundle's positions; leave flight.png and flight.csv in `out`.

    Parameters
    ----------
    bundle
        Its ground branch takes full panoramas.
    out
        A new folder, or one of an earlier call with the same bundle, whose map and gallery are then used again.
    options
        The flight.
    track
        Receives the progress.

    Raises
    ------
    ConfigError
        The bundle takes other images than full panoramas.
    OutputExists
        `out` holds something else, or the map of another flight.
    MissingDependency
        pymavlink or matplotlib is not installed.
    """
    options = options or SimulationOptions()
    require_pymavlink()
    require_matplotlib()
    how = bundle.manifest.ground.spec.preprocessing
    _check_panoramas(how)
    marker = _Marker(
        version=__version__,
        embedding_id=bundle.manifest.embedding_id,
        region=options.region,
        minutes=options.minutes,
        spacing=options.spacing,
        seed=options.seed,
    )
    _claim(out, msgspec.json.format(msgspec.json.encode(marker), indent=2) + b"\n")
    region = find_region(options.region)
    world = World(0, region.style)
    route = follow_roads(world, region, points_of(options.minutes), options.seed)
    if not (out / TILES).exists():
        with new_folder(out / TILES) as folder:
            centres = grid_around(route.positions, options.spacing, _MARGIN)
            write_tiles(folder, world, region, centres, 2 * how.height, options.seed, track=track)
    if not (out / GALLERY).exists():
        source, unfinished = open_source(out / TILES), out / _UNFINISHED
        build_gallery(unfinished, source, bundle.embedder("aerial"), made_by(bundle.manifest), track=track)
        unfinished.rename(out / GALLERY)
    with Localizer.open(bundle.path, out / GALLERY) as localizer:
        flight = fly(
            localizer,
            how,
            world,
            region,
            route,
            steps=steps_of(options.minutes),
            every=options.every,
            prior=options.prior,
            seed=options.seed,
            track=track,
        )
        tiles = len(localizer.gallery)
    _write_table(out / TABLE, flight, region)
    _draw(flight, out / PICTURE)
    return _report(flight, options, tiles)


def _check_panoramas(how: Preprocessing) -> None:
    imagery = how.imagery
    if imagery.projection not in ("any", "panorama") or imagery.field_of_view not in (None, 360):
        seen = "nadir frames" if imagery.projection == "nadir" else f"views of {imagery.field_of_view:g} degrees"
        raise ConfigError(
            f"The simulation renders full panoramas; the bundle's model takes {seen}. Name another bundle."
        )


def _claim(out: Path, marker: bytes) -> None:
    """Make `out` this flight's folder: a new one, or one whose map is of the same flight."""
    file = out / MARKER
    if not file.is_file():
        check_new_folder(out)
    if not (out / TILES).exists():  # nothing is rendered yet
        write_bytes(file, marker)
    elif read_document(file) != marker:
        raise OutputExists(f"{out} holds the map of another flight or bundle (see {file}). Name another --out.")


def _report(flight: Flight, options: SimulationOptions, tiles: int) -> SimulationReport:
    without = flight.seconds >= FAILS
    last = without & (flight.seconds >= flight.seconds[-1] - 60)
    believed, reckoned = flight.error(flight.believed), flight.error(flight.reckoned)
    return SimulationReport(
        options=options,
        tiles=tiles,
        median_m=float(np.median(believed[without])),
        worst_m=float(believed[without].max()),
        last_minute_median_m=float(np.median(believed[last])),
        dead_reckoning_m=float(reckoned[-1]),
        tracking=float(np.mean([state == "tracking" for state in flight.states])),
        sent=flight.sent,
    )


def _write_table(path: Path, flight: Flight, region: Region) -> None:
    centre = np.array([region.east, region.north])
    places = [region.coordinates(np.array(rows) + centre) for rows in (flight.truth, flight.believed, flight.reckoned)]
    names = ("", "autopilot_", "dead_reckoning_")
    with new_file(path, replace=True) as file, new_csv(file) as rows:
        rows.write(["time_s", "gnss", *(f"{name}{axis}" for name in names for axis in ("lat", "lon"))])
        for second, *at in zip(flight.seconds, *places, strict=True):
            values = [f"{value:.8f}" for place in at for value in place]
            rows.write([f"{second:.1f}", int(second < FAILS), *values])


def _draw(flight: Flight, path: Path) -> None:
    from geodtr.export.plots.flight import flight_plot

    without = flight.seconds >= FAILS
    lines = {"true": flight.truth, "autopilot": flight.believed, "dead reckoning": flight.reckoned}
    errors = {name: flight.error(rows)[without] for name, rows in lines.items() if name != "true"}
    minutes = (flight.seconds[without] - FAILS) / 60
    picture = flight_plot({name: np.array(rows) for name, rows in lines.items()}, minutes, errors)
    save_picture(picture, path, replace=True)
