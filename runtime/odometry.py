"""Odometry: how a vehicle moved, from a CSV of time, speed and yaw, with its images where they were taken.

    time_s,speed_m_s,yaw_rate_deg_s,image
    0.0,8.2,0.5,frames/000.jpg
    0.5,8.4,0.7,

Units stand in the header. Yaw and its rate are positive clockwise as seen from above, as a compass counts; where yaw is
zero does not matter, only its changes are used. A row without an image is odometry alone.
"""

import csv
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from geodtr.runtime.errors import DataError

TIMES = ("time_s", "time_unix_s")
SPEEDS: Mapping[str, float] = {"speed_m_s": 1.0, "speed_km_h": 1 / 3.6}
YAWS: Mapping[str, float] = {
    "yaw_rate_deg_s": 1.0,
    "yaw_rate_rad_s": math.degrees(1),
    "yaw_deg": 1.0,
    "yaw_rad": math.degrees(1),
}
IMAGE = "image"
_GROUPS = (TIMES, tuple(SPEEDS), tuple(YAWS))
_ALLOWED = ", ".join(" or ".join(group) for group in _GROUPS) + f", and {IMAGE} where there are images"


@dataclass(frozen=True, slots=True)
class Motion:
    """What happened since the step before: `seconds` passed, `distance` metres forward, `turn` degrees clockwise."""

    seconds: float
    distance: float
    turn: float


STANDING = Motion(0.0, 0.0, 0.0)


@dataclass(frozen=True, slots=True)
class Step:
    """One row: its time in seconds, how the vehicle came here, and the image taken here, if there is one."""

    time: float
    motion: Motion
    image: Path | None


@dataclass(frozen=True, slots=True)
class Odometry:
    """All steps in the order of time; `unix` where times count from 1970-01-01T00:00Z."""

    path: Path
    unix: bool
    steps: tuple[Step, ...]


def read_odometry(path: Path) -> Odometry:
    """Read a CSV in UTF-8; images are relative to its folder.

    Between two rows the vehicle went at the mean of their speeds and turned at the mean of their rates, however long
    that took. Raises DataError naming the line and column of a value that is no finite number, of a time that does not
    come after the one before, and of a column that is missing, unknown or doubled.
    """
    rows = _read(path)
    try:
        _, header = next(rows)
    except StopIteration:
        raise DataError(f"{path} is empty. It needs a header with the columns {_ALLOWED}.") from None
    time, speed, yaw = _columns(path, header)
    steps = list[Step]()
    last: tuple[float, float, float] | None = None
    for line, row in rows:
        where = f"{path}, line {line}"
        if len(row) != len(header):
            raise DataError(f"{where}: {len(row)} values where the header names {len(header)}.")
        cells = dict(zip(header, row, strict=True))
        now = _number(cells, time, where)
        here = (now, _number(cells, speed, where) * SPEEDS[speed], _number(cells, yaw, where) * YAWS[yaw])
        if last is not None and now <= last[0]:
            raise DataError(f"{where}: {time} is {now:g} after {last[0]:g}; times must rise from row to row.")
        motion = STANDING if last is None else _motion(last, here, rate="rate" in yaw)
        image = cells.get(IMAGE, "")
        steps.append(Step(now, motion, path.parent / image if image else None))
        last = here
    if not steps:
        raise DataError(f"{path} holds a header and no rows.")
    return Odometry(path, time == "time_unix_s", tuple(steps))


def _motion(last: tuple[float, float, float], here: tuple[float, float, float], *, rate: bool) -> Motion:
    seconds = here[0] - last[0]
    # An angle's change is taken the short way round, so that 359 to 1 degree is 2 and not -358.
    turned = (here[2] + last[2]) / 2 * seconds if rate else math.remainder(here[2] - last[2], 360)
    return Motion(seconds, (here[1] + last[1]) / 2 * seconds, turned)


def _columns(path: Path, header: list[str]) -> tuple[str, str, str]:
    """The names of the time, speed and yaw columns."""
    unknown = [name for name in header if name != IMAGE and not any(name in group for group in _GROUPS)]
    if unknown:
        raise DataError(f"{path} has the column {unknown[0]!r}; allowed are {_ALLOWED}.")
    found = list[str]()
    for group in _GROUPS:
        names = [name for name in header if name in group]
        if len(names) != 1:
            problem = f"the columns {', '.join(names)}, of which one is enough" if names else f"no {' or '.join(group)}"
            raise DataError(f"{path} has {problem}; allowed are {_ALLOWED}.")
        found += names
    if header.count(IMAGE) > 1:
        raise DataError(f"{path} names the column {IMAGE} twice.")
    return found[0], found[1], found[2]


def _number(cells: dict[str, str], name: str, where: str) -> float:
    try:
        value = float(cells[name])
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise DataError(
            f"{where}: {name} is {cells[name]!r}; a finite number is needed. Leave the row out where there is none."
        )
    return value


def _read(path: Path) -> Iterator[tuple[int, list[str]]]:
    """All rows that are not empty, cells stripped, with their line numbers; a byte-order mark is dropped."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file)
            for row in reader:
                if row:
                    yield reader.line_num, [cell.strip() for cell in row]
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} is not a CSV in UTF-8 ({error}).") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}).") from None
