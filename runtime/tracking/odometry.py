"""Odometry: how a vehicle moved, from a CSV of time, speed and yaw, with its images where they were taken; a file that
is there, or rows that come while it drives.

    time_s,speed_m_s,yaw_rate_deg_s,image
    0.0,8.2,0.5,frames/000.jpg
    0.5,8.4,0.7,

Units stand in the header. Yaw and its rate are positive clockwise as seen from above, as a compass counts; where yaw is
zero does not matter, only its changes are used. A row without an image is odometry alone.
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

from geodtr.runtime.errors import DataError
from geodtr.runtime.files.text_rows import by_column, open_text, rows_of

TIMES = ("time_s", "time_unix_s")
SPEEDS: Mapping[str, float] = {"speed_m_s": 1.0, "speed_km_h": 1 / 3.6}
YAWS: Mapping[str, float] = {
    "yaw_rate_deg_s": 1.0,
    "yaw_rate_rad_s": math.degrees(1),
    "yaw_deg": 1.0,
    "yaw_rad": math.degrees(1),
}
IMAGE = "image"
MAX_ROWS = 1_000_000
"""Rows of a file, which are all kept in memory. Rows that arrive live have no limit."""
_LARGEST = 253_402_300_799.0
"""Of any value: 9999-12-31T23:59:59Z in seconds since 1970, the latest time that GPX can be given."""
_FASTEST = 340.0
"""Metres a second: more is a speed in another unit."""
_GROUPS = (TIMES, tuple(SPEEDS), tuple(YAWS))
_ALLOWED = ", ".join(" or ".join(group) for group in _GROUPS) + f", and {IMAGE} where there are images"


@dataclass(frozen=True, slots=True)
class Motion:
    """What happened since the step before: `seconds` passed, `distance` metres forward and `right` metres to the right,
    `turn` degrees clockwise.
    """

    seconds: float
    distance: float
    turn: float
    right: float = 0.0

    def lasting(self, seconds: float) -> "Motion":
        """So many seconds at the same speed and turn: a part of it, or going on; STANDING where its speed is unknown,
        because it took no time.
        """
        if self.seconds <= 0:
            return STANDING
        share = seconds / self.seconds
        return Motion(seconds, self.distance * share, self.turn * share, self.right * share)


STANDING = Motion(0.0, 0.0, 0.0)


@dataclass(frozen=True, slots=True)
class Step:
    """One row: its time in seconds, how the vehicle came here, and the image taken here, if there is one."""

    time: float
    motion: Motion
    image: Path | None


@dataclass(frozen=True, slots=True)
class Odometry:
    """All steps in the order of time. `unix`: times count from 1970-01-01T00:00Z. `images`: rows may name one.

    `count` is None of rows that are still to come: their `steps` are taken once, each when its row is there.
    """

    name: str
    unix: bool
    images: bool
    steps: Iterable[Step]
    count: int | None


def read_odometry(path: Path) -> Odometry:
    """Read a CSV in UTF-8; images are relative to its folder.

    Between two rows the vehicle moves at the mean of their speeds and turns at the mean of their rates, over any
    interval. Raises DataError naming the line and column of a value that is not a finite number, of a time that does
    not increase, of a speed above 340 m/s, and of a column that is missing, unknown or repeated.
    """
    with open_text(path, newline="") as file:
        coming = follow_odometry(file, str(path), path.parent)
        steps = tuple(islice(coming.steps, MAX_ROWS + 1))
    if len(steps) > MAX_ROWS:
        raise DataError(f"{path} has more than {MAX_ROWS:,} rows, a day at 10 Hz. Split it.")
    if not steps:
        raise DataError(f"{path} holds a header and no rows.")
    return replace(coming, steps=steps, count=len(steps))


def follow_odometry(lines: Iterable[str], name: str, folder: Path) -> Odometry:
    """The same of lines that are still to come, called `name`, with images relative to `folder`.

    The header is waited for now. Raises DataError as read_odometry does, of a row when it is taken.
    """
    rows = rows_of(lines, name)
    try:
        _, header = next(rows)
    except StopIteration:
        raise DataError(f"{name} is empty. It needs a header with the columns {_ALLOWED}.") from None
    columns = _columns(name, header)
    return Odometry(
        name, columns[0] == "time_unix_s", IMAGE in header, _steps(name, folder, header, columns, rows), None
    )


def _steps(
    name: str, folder: Path, header: list[str], columns: tuple[str, str, str], rows: Iterator[tuple[int, list[str]]]
) -> Iterator[Step]:
    time, speed, yaw = columns
    last: tuple[float, float, float] | None = None
    for where, cells in by_column(rows, header, name):
        now = _number(cells, time, where)
        here = (now, _speed(cells, speed, where), _number(cells, yaw, where) * YAWS[yaw])
        if last is not None and now <= last[0]:
            raise DataError(f"{where}: {time} is {now:g} after {last[0]:g}; times must rise from row to row.")
        motion = STANDING if last is None else _motion(last, here, rate="rate" in yaw)
        image = cells.get(IMAGE, "")
        yield Step(now, motion, folder / image if image else None)
        last = here


def _motion(last: tuple[float, float, float], here: tuple[float, float, float], *, rate: bool) -> Motion:
    seconds = here[0] - last[0]
    # An angle's change is taken the short way round, so that 359 to 1 degree is 2 and not -358.
    turned = (here[2] + last[2]) / 2 * seconds if rate else math.remainder(here[2] - last[2], 360)
    return Motion(seconds, (here[1] + last[1]) / 2 * seconds, turned)


def _columns(name: str, header: list[str]) -> tuple[str, str, str]:
    """The names of the time, speed and yaw columns."""
    unknown = [column for column in header if column != IMAGE and not any(column in group for group in _GROUPS)]
    if unknown:
        raise DataError(f"{name} has the column {unknown[0]!r}; allowed are {_ALLOWED}.")
    columns = list[str]()
    for group in _GROUPS:
        those = [column for column in header if column in group]
        if len(those) != 1:
            problem = f"the columns {', '.join(those)}, of which one is enough" if those else f"no {' or '.join(group)}"
            raise DataError(f"{name} has {problem}; allowed are {_ALLOWED}.")
        columns += those
    if header.count(IMAGE) > 1:
        raise DataError(f"{name} names the column {IMAGE} twice.")
    return columns[0], columns[1], columns[2]


def _speed(cells: dict[str, str], name: str, where: str) -> float:
    """Metres a second."""
    value = _number(cells, name, where) * SPEEDS[name]
    if abs(value) > _FASTEST:
        raise DataError(
            f"{where}: {name} is {cells[name]}, above {_FASTEST:g} m/s. Is it in another unit? Allowed "
            f"are {' and '.join(SPEEDS)}."
        )
    return value


def _number(cells: dict[str, str], name: str, where: str) -> float:
    try:
        value = float(cells[name])
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise DataError(
            f"{where}: {name} is {cells[name]!r}; a finite number is needed. Leave the row out where there is none."
        )
    least = 0.0 if name == "time_unix_s" else -_LARGEST
    if not least <= value <= _LARGEST:
        raise DataError(f"{where}: {name} is {cells[name]}; allowed are {least:.0f} to {_LARGEST:.0f}.")
    return value
