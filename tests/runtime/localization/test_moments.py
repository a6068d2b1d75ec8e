"""Synchronising odometry and frames: at any rates, no motion is lost or counted twice."""

import os
from collections.abc import Iterator
from pathlib import Path
from threading import Event

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_gallery import pixels_of

from geodtr.runtime.errors import DataError
from geodtr.runtime.images.frames import Frame
from geodtr.runtime.prefetch import arriving_lines
from geodtr.runtime.tracking.odometry import Odometry, follow_odometry
from geodtr.runtime.tracking.synchronize import by_arrival, by_row, by_time

HEADER = "time_s,speed_m_s,yaw_rate_deg_s"


def odometry_of(*rows: str, header: str = HEADER) -> Odometry:
    return follow_odometry([header, *rows], "rows", Path())


def frames_at(*times: float | None) -> Iterator[Frame]:
    return (Frame(f"#{number}", pixels_of("a"), moment) for number, moment in enumerate(times))


def test_each_row_is_a_moment_with_the_image_that_it_names() -> None:
    moments = list(by_row(odometry_of("0,1,0,a.png", "1,1,0,", header=f"{HEADER},image")))
    assert [moment.time for moment in moments] == [0, 1]
    assert [None if moment.frame is None else moment.frame.name for moment in moments] == ["a.png", None]


def test_between_rows_the_motion_is_uniform() -> None:
    moments = list(by_time(frames_at(0, 0.5, 3), odometry_of("10,2,4", "12,4,4", "14,4,0")))
    assert [moment.time for moment in moments] == [10, 10.5, 13]
    assert [[motion.distance for motion in moment.motions] for moment in moments] == [[], [1.5], [4.5, 4]]
    assert [[motion.turn for motion in moment.motions] for moment in moments] == [[], [2], [6, 2]]


@given(
    gaps=st.lists(st.floats(0.01, 10), min_size=1, max_size=20),
    speeds=st.lists(st.floats(-50, 50), min_size=21, max_size=21),
    shares=st.lists(st.floats(0, 1), min_size=1, max_size=20),
)
def test_motion_is_counted_once(gaps: list[float], speeds: list[float], shares: list[float]) -> None:
    times = [sum(gaps[:count]) for count in range(len(gaps) + 1)]
    odometry = odometry_of(*(f"{moment},{speed},3" for moment, speed in zip(times, speeds, strict=False)))
    steps = list(odometry.steps)
    there = Odometry("rows", unix=False, images=False, steps=steps, count=len(steps))
    moments = list(by_time(frames_at(*sorted(share * times[-1] for share in shares), times[-1]), there))
    motions = [motion for moment in moments for motion in moment.motions]
    assert len(moments) == len(shares) + 1
    assert sum(motion.seconds for motion in motions) == pytest.approx(times[-1])
    assert sum(motion.distance for motion in motions) == pytest.approx(sum(step.motion.distance for step in steps))
    assert sum(motion.turn for motion in motions) == pytest.approx(3 * times[-1])


def test_a_frame_with_an_unknown_or_earlier_time_has_no_motion() -> None:
    moments = list(by_time(frames_at(0, 1, 0.2, None, 2), odometry_of("0,1,0", "2,1,0")))
    assert [moment.time for moment in moments] == [0, 1, 1, 1, 2]
    assert [sum(motion.distance for motion in moment.motions) for moment in moments] == [0, 1, 0, 0, 1]


def test_frames_outside_the_odometrys_times_are_left_out() -> None:
    moments = list(by_time(frames_at(0, 1, 2, 3, 4), odometry_of("10,1,0", "12,1,0"), start=9))
    assert [moment.time for moment in moments] == [10, 11, 12]
    for start in (0, 13):
        with pytest.raises(DataError, match=r"No frame lies within the times of rows, which begin at 10"):
            list(by_time(frames_at(0, 1, 2), odometry_of("10,1,0", "12,1,0"), start=start))


def test_odometry_without_rows_is_refused() -> None:
    for moments in (by_time(frames_at(0), odometry_of()), by_arrival(frames_at(0), odometry_of())):
        with pytest.raises(DataError, match="no rows"):
            list(moments)


def test_after_the_frame_limit_the_remaining_rows_are_no_moments() -> None:
    ended = Event()

    def lines() -> Iterator[str]:
        yield from (HEADER, "0,1,0")
        ended.wait(10)
        yield "1,1,0"

    moments = list(by_arrival(frames_at(0, 1), follow_odometry(lines(), "rows", Path()), limit=2))
    ended.set()
    assert [moment.frame and moment.frame.name for moment in moments] == ["#0", "#1"]


def test_if_a_camera_stops_before_the_limit_rows_are_moments() -> None:
    moments = list(by_arrival(iter(()), odometry_of("0,1,0", "1,1,0", "2,1,0"), limit=2))
    assert [(moment.time, moment.frame) for moment in moments] == [(1, None), (2, None)]


def test_a_byte_order_mark_before_the_first_line_is_dropped() -> None:
    reading, writing = os.pipe()
    os.write(writing, f"\ufeff{HEADER}\n0,1,0\n\ufeff1,1,0".encode())
    os.close(writing)
    assert list(arriving_lines(reading, "pipe")) == [HEADER, "0,1,0", "\ufeff1,1,0"]
    os.close(reading)


def test_a_wrong_row_is_named_when_it_arrives() -> None:
    with pytest.raises(DataError, match="rows, line 3: speed_m_s is 'x'"):
        list(by_row(odometry_of("0,1,0", "1,x,0")))
    with pytest.raises(DataError, match="rows, line 3: speed_m_s is 'x'"):
        list(by_arrival(iter(()), odometry_of("0,1,0", "1,x,0")))
