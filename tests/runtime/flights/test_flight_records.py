"""Flight records are read in every dialect; what cannot be right is named, and what is unknown stays unknown."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import Outcome
from flight_files import (
    DIALECTS,
    HEADING,
    HEIGHT,
    PLACE,
    TABLES,
    Dialect,
    airdata,
    bracketed,
    latitude_first,
    longitude_first,
    misspelled,
    one_line,
    places,
    srt,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from geodtr.runtime.errors import ConfigError, DataError
from geodtr.runtime.flights.frames import Joining, read_flight, with_flight
from geodtr.runtime.flights.record import Column, Flight, flight_of
from geodtr.runtime.geodesy import distance, moved
from geodtr.runtime.images.frames import Frame
from geodtr.runtime.images.recorded import Recorded


def refuse(reason: str) -> None:
    raise DataError(reason)


def read(path: Path, content: str, on_bad: Callable[[str], None] = refuse) -> Flight:
    path.write_text(content, encoding="utf-8")
    return read_flight(path, on_bad)


def off(recorded: Recorded, lat: float, lon: float) -> float:
    assert recorded.position is not None
    return float(distance(*recorded.position, lat, lon))


@pytest.mark.parametrize("dialect", DIALECTS)
def test_every_dialect_of_srt_gives_positions(tmp_path: Path, dialect: Dialect) -> None:
    flight = read(tmp_path / "a.SRT", srt(dialect))
    recorded = flight.at(1.05, "frame")
    middle = moved(*PLACE, 0.0, 8.0 * 1.05)
    assert off(recorded, *map(float, middle)) < 0.2
    assert flight.start == 0
    assert all(stated is None or stated.origin.startswith("SRT ") for stated in (recorded.lat, recorded.height))


def test_srt_states_height_heading_tilt_and_ground_with_their_origins(tmp_path: Path) -> None:
    recorded = read(tmp_path / "a.srt", srt(bracketed)).at(1.0, "frame")
    assert recorded.height is not None
    assert recorded.heading is not None
    assert recorded.tilt is not None
    assert recorded.ground_metres is not None
    assert (recorded.height.value, recorded.height.origin) == (HEIGHT, "SRT rel_alt")
    assert recorded.heading.value == pytest.approx(HEADING)
    assert recorded.tilt.value == 0
    # A 4:3 sensor of 24 mm equivalent sees 71.6 degrees: 1.442 times the height.
    assert recorded.ground_metres.value == pytest.approx(1.4422 * HEIGHT, rel=1e-3)
    assert recorded.ground_metres.origin == "SRT rel_alt, SRT focal_len"


def test_an_altitude_above_an_unknown_level_is_no_height(tmp_path: Path) -> None:
    flight = read(tmp_path / "a.srt", srt(misspelled))
    recorded = flight.at(1.0, "frame")
    assert (recorded.height, recorded.heading, recorded.tilt, recorded.ground_metres) == (None, None, None, None)
    assert "unknown level" in flight.notes[0]


def test_the_gimbals_angles_without_brackets(tmp_path: Path) -> None:
    recorded = read(tmp_path / "a.srt", srt(one_line)).at(1.0, "frame")
    assert recorded.heading is not None
    assert recorded.tilt is not None
    assert recorded.heading.value == pytest.approx(HEADING)
    assert recorded.heading.origin == "SRT G.PRY"
    assert recorded.tilt.value == 0


@pytest.mark.parametrize(
    ("dialect", "order", "why"),
    [
        (longitude_first, "longitude, latitude", "counts satellites"),
        (latitude_first, "latitude, longitude", "an altitude"),
    ],
)
def test_the_order_of_gps_is_stated(tmp_path: Path, dialect: Dialect, order: str, why: str) -> None:
    (note,) = read(tmp_path / "a.srt", srt(dialect)).notes
    assert order in note
    assert why in note


def test_a_longitude_beyond_90_decides_the_order(tmp_path: Path) -> None:
    flight = read(tmp_path / "a.srt", srt(latitude_first, at=places(10, (30.0, 120.0))).replace(",0.0M", ",16"))
    assert off(flight.at(0.0, "frame"), 30.0, 120.0) < 0.2
    with pytest.raises(DataError, match="beyond 90 in both places"):
        read(tmp_path / "b.srt", srt(latitude_first, at=[(100.0, 120.0)] * 3))


@pytest.mark.parametrize("table", TABLES)
def test_every_table_gives_the_same(tmp_path: Path, table: Callable[[], str]) -> None:
    flight = read(tmp_path / "a.csv", table())
    recorded = flight.at(1.05, "frame")
    assert off(recorded, *map(float, moved(*PLACE, 0.0, 8.0 * 1.05))) < 0.2
    assert flight.start == pytest.approx(0.5)
    values = [None if stated is None else stated.value for stated in (recorded.height, recorded.heading, recorded.tilt)]
    assert values == [pytest.approx(HEIGHT, abs=0.05), pytest.approx(HEADING), 0]


def test_a_gimbal_whose_angles_are_all_0_is_unknown(tmp_path: Path) -> None:
    flight = read(tmp_path / "a.csv", airdata().replace(f",{HEADING},-90,0\n", ",0,0,0\n"))
    assert (flight.at(1.0, "frame").tilt, flight.at(1.0, "frame").heading) == (None, None)


def test_the_compass_stands_in_for_a_gimbal_without_a_heading(tmp_path: Path) -> None:
    text = airdata().replace("gimbal_heading(degrees)", "other").replace(f",{HEADING},-90,0\n", ",0,-90,180\n")
    heading = read(tmp_path / "a.csv", text).at(1.0, "frame").heading
    assert heading is not None
    assert (heading.value, heading.origin) == (199, "compass_heading(degrees)"), "which no roll of the gimbal turns"


@pytest.mark.parametrize("bad", [0, 3])
def test_an_entry_whose_date_is_none_costs_no_other(tmp_path: Path, bad: int) -> None:
    rows = [
        f"2022.{13 if row == bad else 6}.21 16:06:{row:02d}\nGPS({lat:.6f},{lon:.6f},0.0M)\n"
        for row, (lat, lon) in enumerate(places(6))
    ]
    named = list[str]()
    flight = read(tmp_path / "a.srt", "".join(rows), named.append)
    assert len(flight.times) == 5
    assert named == [f"{tmp_path / 'a.srt'}: 1 entries have no time that can be read."]


def test_names_of_columns_are_known_in_any_spelling(tmp_path: Path) -> None:
    text = (
        airdata().replace("height_above_takeoff(feet)", " Height Above TakeOff (FEET) ").replace("latitude", "LATITUDE")
    )
    recorded = read(tmp_path / "a.csv", text).at(1.0, "frame")
    assert recorded.height is not None
    assert recorded.height.value == pytest.approx(HEIGHT, abs=0.05)


def test_a_height_without_a_unit_is_unknown(tmp_path: Path) -> None:
    flight = read(tmp_path / "a.csv", airdata().replace("height_above_takeoff(feet)", "height_above_takeoff"))
    assert flight.at(1.0, "frame").height is None
    assert "feet or metres" in flight.notes[0]


def test_several_videos_need_their_start(tmp_path: Path) -> None:
    rows = airdata(30, range(30)).splitlines()
    rows[11] = rows[11].replace(",1,200.0", ",0,200.0")
    flight = read(tmp_path / "a.csv", "\n".join(rows))
    with pytest.raises(ConfigError, match=r"2 videos \(from 0 s, 0.9 s long; from 1.1 s, 1.8 s long\).*--flight-start"):
        with_flight([], flight)
    (frame,) = with_flight([Frame("v#3", None, 0.3)], flight, 1.1, Joining(radius=50))
    assert frame.near is not None
    assert frame.near.radius == 50
    assert frame.altitude == pytest.approx(HEIGHT, abs=0.05)


def test_positions_0_0_are_unknown(tmp_path: Path) -> None:
    at = places(30)
    at[10:20] = [(0.0, 0.0)] * 10
    flight = read(tmp_path / "a.srt", srt(bracketed, at=at))
    recorded = flight.at(1.5, "frame")
    assert recorded.position is None
    assert recorded.height is not None
    assert "10 of 30 entries have the position 0, 0" in flight.notes[0]


def cut(text: str) -> str:
    return text[: text.rindex("[longitude") + 14]


def jumped(text: str) -> str:
    del text
    at = places(30)
    at[10:13] = places(3, (-30.1, -15.0))
    return srt(bracketed, at=at)


def backwards(text: str) -> str:
    return text + text


def off_earth(text: str) -> str:
    return text.replace("[latitude: -29.999", "[latitude: -129.999", 1).replace(
        "[latitude: -30.0", "[latitude: -130.0", 1
    )


FAULTS: dict[Callable[[str], str], str] = {
    cut: "breaks off in its last entry, at 2.9 s",
    jumped: r"from 1 to 1.2 s \(3 entries, first -30.1",
    backwards: "29 entries are earlier than one before them, the first at 0 after 2.9 s",
    off_earth: "2 positions are not on Earth, the first -130",
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_cannot_be_right_is_named_and_left_out(tmp_path: Path, fault: Callable[[str], str]) -> None:
    text, named = fault(srt(bracketed)), list[str]()
    with pytest.raises(DataError, match=FAULTS[fault]):
        read(tmp_path / "a.srt", text)
    flight = read(tmp_path / "a.srt", text, named.append)
    assert len(named) == 1
    recorded = flight.at(2.0, "frame")
    assert off(recorded, *map(float, moved(*PLACE, 0.0, 16.0))) < 0.2


def test_recordings_that_were_joined_are_noted(tmp_path: Path) -> None:
    at = [*places(15), *places(15, (-30.01, -15.0))]
    text = srt(bracketed, at=at)
    for row in range(15, 30):  # the second part begins an hour later, elsewhere
        text = text.replace(f"13:10:{row // 10:02d}.{row % 10}00", f"14:10:{row // 10:02d}.{row % 10}00")
    flight = read(tmp_path / "a.srt", text)
    assert "leap against its time codes at 1 entries, first by 3600.1 s at 1.5 s" in flight.notes[0]
    assert flight.at(2.0, "frame").position is not None


def test_a_row_that_was_cut_is_named(tmp_path: Path) -> None:
    text, named = airdata()[:-40], list[str]()
    with pytest.raises(DataError, match="line 31: 4 values where the header names 12"):
        read(tmp_path / "a.csv", text)
    assert len(read(tmp_path / "a.csv", text, named.append).times) == 29
    with pytest.raises(DataError, match="line 3: latitude is 'x', no number"):
        read(tmp_path / "a.csv", airdata().replace(f"{places(2)[1][0]:.7f}", "x"))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.srt", "", "no time codes"),
        ("a.srt", "1\n00:00:01,000 --> 00:00:02,000\nGood morning.\n\n", "none knows a position"),
        ("a.csv", "", r"\(none\); needed are a time"),
        ("a.csv", "a,b\n1,2\n", "the columns a, b; needed are a time"),
        ("a.csv", airdata(0), "no rows"),
        ("a.txt", "", "no flight record by its ending; allowed: .srt, .csv"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, name: str, content: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read(tmp_path / name, content)


def test_times_outside_the_record_are_unknown(tmp_path: Path) -> None:
    flight = read(tmp_path / "a.srt", srt(bracketed))
    assert flight.at(60.0, "frame") == Recorded("frame")
    assert flight.at(-5.0, "frame") == Recorded("frame")


@settings(max_examples=50, deadline=None)
@given(first=st.floats(0, 360, exclude_max=True), turn=st.floats(-170, 170), share=st.floats(0, 1))
def test_headings_are_interpolated_the_short_way_round(first: float, turn: float, share: float) -> None:
    headings = Column(np.array([first, (first + turn) % 360]), "yaw")
    flight = flight_of("a", np.array([0.0, 1.0]), {"heading": headings}, refuse)
    heading = flight.at(share, "frame").heading
    assert heading is not None
    assert abs((heading.value - first - share * turn + 180) % 360 - 180) < 1e-6


def test_photos_shows_a_record(cli: Callable[..., Outcome], tmp_path: Path) -> None:
    (tmp_path / "a.srt").write_text(srt(bracketed), encoding="utf-8")
    outcome = cli("photos", tmp_path / "a.srt")
    assert "rel_alt" in outcome.out
    assert "30 entries, 0 to 2.9 s" in outcome.err
    assert len(cli("photos", tmp_path / "a.srt", "--json").out.splitlines()) == 30
