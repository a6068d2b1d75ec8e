"""Answers as a map for a browser: one HTML file that asks no network for anything.

Its script and its looks are in web_map.html; here is what it is given.
"""

import base64
import hashlib
import io
import re
from collections.abc import Sequence
from importlib.resources import files
from typing import Any

import numpy as np

from geodtr.runtime.errors import ConfigError
from geodtr.runtime.files.documents import encode_json
from geodtr.runtime.gallery.base import Gallery
from geodtr.runtime.gallery.ground import ground_of
from geodtr.runtime.localization.waypoint import Waypoint, record
from geodtr.runtime.sources.coverage import Frame, frame_of

_LEAST = 200.0
"""Metres shown at least."""
_EDGE = 0.05
"""Of the spread of the answers, around them."""
_PIXELS = 1600
"""A side of the picture of the ground."""
_AROUND = 0.25
"""Of the ground that is shown at first, how much more there is on each side."""
_MOST = 50_000
"""Answers that a browser is given."""
_OBEYED = re.compile("[<>&\u2028\u2029]")
"""Characters that end a script, or a line of one."""


def side_shown(frame: Frame, placed: Sequence[Waypoint]) -> float:
    """Metres a side of a square map of answers in the frame, with half of their circles whole."""
    spread = max(*frame.size, _LEAST)
    radii = [waypoint.within_95_m for waypoint in placed if waypoint.reliable and waypoint.within_95_m is not None]
    return (spread + 2 * min(float(np.median(radii)) if radii else 0.0, spread)) * (1 + 2 * _EDGE)


def web_map(waypoints: Sequence[Waypoint], *, track: bool, gallery: Gallery | None = None) -> bytes:
    """The file: answers with their radii and candidates, of a `track` its line, on the tiles of `gallery` and what they
    show. Of very many answers, every so manieth. Raises ConfigError when no answer has a position.
    """
    every = 1 + len(waypoints) // _MOST
    placed = [waypoint for waypoint in waypoints if waypoint.lat is not None]
    if not placed:
        raise ConfigError("No answer has a position, so there is nothing to draw. Search where there are tiles.")
    note = f"{len(placed)} of {len(waypoints)} answers with a position"
    if every > 1:
        note += f", of which one in {every} is drawn"
        placed = placed[::every]
    answers = frame_of(*np.array([(point.lat, point.lon) for point in placed], np.float64).T)
    side = side_shown(answers, placed) * (1 + 2 * _AROUND)
    frame = answers.wider((side - answers.size[0]) / 2, (side - answers.size[1]) / 2)
    document: dict[str, Any] = {"track": track, "bounds": [frame.south, frame.west, frame.north, frame.east]}
    document["size"] = frame.size
    if gallery is not None:
        mosaic = ground_of(gallery, frame, (_PIXELS, _PIXELS))
        document["tiles"] = [
            [tile.id, *_metres(frame, tile.lat, tile.lon), metres, tile.heading or 0.0] for tile, metres in mosaic.sides
        ]
        if mosaic.image.getchannel("A").getbbox() is not None:
            stream = io.BytesIO()
            mosaic.image.save(stream, "WEBP", quality=80)
            document["ground"] = "data:image/webp;base64," + base64.b64encode(stream.getvalue()).decode()
        elif mosaic.unreadable:
            note += f"; no map behind them: {mosaic.unreadable[0][1]}"
    document["note"] = note
    document["answers"] = [_answer(frame, waypoint) for waypoint in placed]
    return _page(document)


def _answer(frame: Frame, waypoint: Waypoint) -> dict[str, Any]:
    """The record, with where it and its candidates lie in the frame."""
    answer = record(waypoint)
    for place in (answer, *answer["candidates"]):
        if place["lat"] is not None:
            place["x"], place["y"] = _metres(frame, place["lat"], place["lon"])
    if answer["gnss_lat"] is not None:
        answer["gnss_x"], answer["gnss_y"] = _metres(frame, answer["gnss_lat"], answer["gnss_lon"])
    return answer


def _metres(frame: Frame, lat: float | None, lon: float | None) -> tuple[float, float]:
    x, y = frame.metres(*np.array([[lat], [lon]], np.float64))
    return round(float(x[0]), 2), round(float(y[0]), 2)


def _page(document: dict[str, Any]) -> bytes:
    """The template with the document in it, and of all scripts only its own allowed."""
    page = files(__package__).joinpath("web_map.html").read_text("utf-8")
    script = page.partition("<script>")[2].partition("</script>")[0]
    own = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    data = _OBEYED.sub(lambda found: f"\\u{ord(found[0]):04x}", encode_json(document).decode())
    return page.replace("SCRIPT-HASH", own).replace("DATA", data).encode()
