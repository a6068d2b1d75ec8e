"""Answers as files: JSON lines, CSV, GeoJSON, GPX and KML for other programs, and a map for a browser; chosen by the
file's name.

Knows one flat record for each frame; knows nothing of how it was found.
"""

import io
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from functools import partial
from pathlib import Path

from geodtr.runtime.errors import ConfigError
from geodtr.runtime.files import GrowingFile, check_new_file, write_bytes
from geodtr.runtime.files.documents import encode_json
from geodtr.runtime.files.text_rows import RowWriter
from geodtr.runtime.gallery.base import Gallery
from geodtr.runtime.localization.output.gis import geojson, gpx, kml
from geodtr.runtime.localization.output.web_map import web_map
from geodtr.runtime.localization.waypoint import Waypoint, record, scalars

SUFFIXES = (".jsonl", ".csv", ".geojson", ".gpx", ".kml", ".html")
_OF_A_CANDIDATE = ("tile", "score", "lat", "lon")
"""Columns of a CSV, each with the candidate's rank behind its name: tile_1, score_1."""


def check_out(path: Path) -> None:
    """Raise ConfigError when `path`'s ending names no format, OutputExists when it is taken."""
    check_new_file(path, SUFFIXES)


@contextmanager
def waypoint_file(
    path: Path, *, track: bool, unix: bool = False, live: bool = False, gallery: Gallery | None = None
) -> Iterator[Callable[[Waypoint], object]]:
    """A new file, and the function that takes each answer for it. A .jsonl grows by one flushed line each, so that
    other programs can read it meanwhile, and it stays after an error; the other formats are written at the end, whole
    or not at all.

    A `track` is a line, with a break wherever the filter was not tracking; otherwise waypoints are separate. GPX and
    KML have times if they are `unix` times. The map of a .html shows the tiles of `gallery`, which stays open until the
    end. For a `live` source an interruption counts as the end: the file is written with the waypoints so far. Without
    an answer there is no file. Raises ConfigError, OutputExists as `check_out` does, UserError when the disk refuses.
    """
    check_out(path)
    if path.suffix.lower() == ".jsonl":
        with closing(GrowingFile(path)) as file:
            yield lambda waypoint: file.write(encode_json(record(waypoint)) + b"\n")
        return
    bytes_of: dict[str, Callable[[list[Waypoint]], bytes]] = {
        ".csv": _csv_bytes,
        ".geojson": lambda waypoints: encode_json(geojson(waypoints, track=track)) + b"\n",
        ".gpx": partial(gpx, track=track, unix=unix),
        ".kml": partial(kml, track=track, unix=unix),
        ".html": partial(web_map, track=track, gallery=gallery),
    }
    encode = bytes_of[path.suffix.lower()]
    with collected(lambda waypoints: write_bytes(path, encode(waypoints), replace=False), live=live) as take:
        yield take


@contextmanager
def collected(
    write: Callable[[list[Waypoint]], object], *, live: bool = False
) -> Iterator[Callable[[Waypoint], object]]:
    """A function that collects each answer and passes all to `write` at the end, if there are any; if `live`, also
    after an error.

    After an error, a ConfigError of `write`, which means that it cannot use the answers, does not replace the error.
    """
    waypoints = list[Waypoint]()
    try:
        yield waypoints.append
    except BaseException:
        if live and waypoints:
            with suppress(ConfigError):
                write(waypoints)
        raise
    if waypoints:
        write(waypoints)


def _csv_bytes(waypoints: Sequence[Waypoint]) -> bytes:
    text = io.StringIO()
    writer = RowWriter(text)
    most = max((len(waypoint.candidates) for waypoint in waypoints), default=0)
    candidates = [f"{name}_{number}" for number in range(1, most + 1) for name in _OF_A_CANDIDATE]
    writer.write([*scalars(Waypoint("no fix")), *candidates])
    for waypoint in waypoints:
        cells = [each[name] for each in record(waypoint)["candidates"] for name in _OF_A_CANDIDATE]
        writer.write([*scalars(waypoint).values(), *cells, *[None] * (len(candidates) - len(cells))])
    return text.getvalue().encode("utf-8", "surrogateescape")
