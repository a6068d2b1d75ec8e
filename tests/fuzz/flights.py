"""Flight records, DJI's text in every dialect and tables of every program, and rigs of cameras: damaged and hostile."""

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
from flight_files import DIALECTS, airdata, converted, litchi, srt
from hostile import changed_table, changed_text, damaged
from hypothesis import strategies as st
from kinds import Kind, Maker, of_file
from rigs import angles, kalibr

from geodtr.runtime.errors import DataError
from geodtr.runtime.flights.frames import Joining, read_flight
from geodtr.runtime.flights.odometry import odometry_of
from geodtr.runtime.images.frames import Frame
from geodtr.runtime.images.rig import read_rig


def subtitles(root: Path) -> Kind:
    texts = [srt(dialect, 4) for dialect in DIALECTS]
    words = [word for text in texts for word in text.split()]
    file = root / "a.srt"
    file.write_text(texts[0], encoding="utf-8")
    inputs = st.sampled_from(texts).flatmap(lambda text: changed_text(text, words) | damaged(text.encode(), len(text)))
    return of_file(file, inputs, lambda: _read(file))


def _table(program: Callable[..., str]) -> Maker:
    def make(root: Path) -> Kind:
        file, text = root / "a.csv", program(4, range(1, 3))
        file.write_text(text)
        return of_file(file, changed_table(text) | damaged(text.encode(), len(text)), lambda: _read(file))

    return make


airdata_table, converted_table, litchi_table = (_table(program) for program in (airdata, converted, litchi))


def rig_file(root: Path) -> Kind:
    """Camchains and lists of cameras, read as a rig and as a camera."""
    texts = [kalibr(root / "chain.yaml").read_text(), angles(root / "list.yaml").read_text()]
    words = [word for text in texts for word in text.split()]
    file = kalibr(root / "rig.yaml")
    inputs = st.sampled_from(texts).flatmap(lambda text: changed_text(text, words) | damaged(text.encode(), len(text)))

    def read() -> None:
        rig = read_rig(file, 6.0, 64)
        images = [np.zeros((camera.height, camera.width, 3), np.uint8) for camera in rig.cameras]
        assert rig.join(images, ["a"] * len(images)).shape == (rig.size[1], rig.size[0], 3)

    return of_file(file, inputs, read)


def _read(file: Path) -> None:
    """All of it, with what is wrong left out; then as a user who wants to know."""
    flight = read_flight(file, list[str]().append)
    assert (np.diff(flight.times) > 0).all()
    for time in [*flight.times.tolist(), flight.times[0] - 9, flight.times[-1] + 0.03]:
        frame = Joining(radius=100.0).joined(Frame("a", None), flight.at(time, "a"))
        assert frame.recorded is not None
        at, heading = frame.recorded.position, frame.recorded.heading
        assert at is None or (abs(at[0]) <= 90 and abs(at[1]) <= 180)
        assert heading is None or 0 <= heading.value <= 360
    with suppress(DataError):  # it states no motion
        times = [step.time for step in odometry_of(flight).odometry.steps]
        assert (np.diff(times) > 0).all()
    read_flight(file, _refuse)


def _refuse(reason: str) -> None:
    raise DataError(reason)
