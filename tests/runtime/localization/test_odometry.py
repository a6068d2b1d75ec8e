"""Odometry is read in the units of its header, and an error names line and column."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geodtr.runtime.errors import DataError
from geodtr.runtime.tracking.odometry import STANDING, read_odometry


def _write(folder: Path, *lines: str) -> Path:
    path = folder / "drive.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


def test_rates_and_angles_agree_in_all_units(tmp_path: Path) -> None:
    forms = {
        "time_s,speed_m_s,yaw_rate_deg_s": ("0,10,20", "0.5,10,20"),
        "speed_km_h,time_s,yaw_rate_rad_s": ("36,0,0.3490658504", "36,0.5,0.3490658504"),
        "time_s,yaw_deg,speed_m_s": ("0,355,10", "0.5,5,10"),
        "time_unix_s,speed_m_s,yaw_rad": ("1700000000,10,-0.0872664626", "1700000000.5,10,0.0872664626"),
    }
    for header, rows in forms.items():
        odometry = read_odometry(_write(tmp_path, header, *rows))
        first, second = odometry.steps
        assert first.motion == STANDING
        assert second.motion.seconds == pytest.approx(0.5)
        assert second.motion.distance == pytest.approx(5)
        assert second.motion.turn == pytest.approx(10)
        assert odometry.unix == ("unix" in header)


def test_images_are_relative_to_the_file_and_may_be_missing(tmp_path: Path) -> None:
    path = _write(tmp_path, "image, time_s ,speed_m_s,yaw_deg", "frames/0.jpg,0,1,0", ",1,1,0", "/abs/2.jpg,2,1,0")
    assert [step.image for step in read_odometry(path).steps] == [
        tmp_path / "frames" / "0.jpg",
        None,
        Path("/abs/2.jpg"),
    ]


def test_a_gap_in_time_is_one_long_step(tmp_path: Path) -> None:
    path = _write(tmp_path, "time_s,speed_m_s,yaw_rate_deg_s", "0,10,0", "60,20,0")
    assert list(read_odometry(path).steps)[1].motion.distance == pytest.approx(900)


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ((), "is empty"),
        (("time_s,speed_m_s,yaw_deg",), "no rows"),
        (("time_s,speed_mph,yaw_deg", "0,1,1"), "'speed_mph'; allowed are time_s"),
        (("time_s,yaw_deg", "0,1"), "no speed_m_s or speed_km_h"),
        (("time_s,time_s,speed_m_s,yaw_deg", "0,0,1,1"), "time_s, time_s, of which one"),
        (("time_s,speed_m_s,yaw_deg,yaw_rate_deg_s", "0,0,1,1"), "of which one is enough"),
        (("time_s,speed_m_s,yaw_deg,image,image", "0,0,1,a,b"), "twice"),
        (("time_s,speed_m_s,yaw_deg", "0,1,1", "0,1,1"), "line 3: time_s is 0 after 0"),
        (("time_s,speed_m_s,yaw_deg", "5,1,1", "4,1,1"), "times must rise"),
        (("time_s,speed_m_s,yaw_deg", "0,fast,1"), "line 2: speed_m_s is 'fast'"),
        (("time_s,speed_m_s,yaw_deg", "0,nan,1"), "line 2: speed_m_s is 'nan'"),
        (("time_s,speed_m_s,yaw_deg", "inf,1,1"), "line 2: time_s is 'inf'"),
        (("time_s,speed_m_s,yaw_deg", "0,1,1", "1,3000,1"), "line 3: speed_m_s is 3000, above 340 m"),
        (("time_s,speed_m_s,yaw_deg", "0,1,"), "line 2: yaw_deg is ''"),
        (("time_s,speed_m_s,yaw_deg", "0,1"), "line 2: 2 values where the header names 3"),
    ],
)
def test_an_error_is_named(tmp_path: Path, lines: tuple[str, ...], expected: str) -> None:
    path = tmp_path / "drive.csv"
    path.write_text("\n".join(lines))
    with pytest.raises(DataError, match=r"drive\.csv") as error:
        read_odometry(path)
    assert expected in str(error.value)


def test_a_binary_or_missing_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "drive.csv"
    with pytest.raises(DataError, match="cannot be read"):
        read_odometry(path)
    path.write_bytes(b"\xff\xfe\x00time_s")
    with pytest.raises(DataError, match="UTF-8"):
        read_odometry(path)


@settings(max_examples=150, deadline=None)
@given(
    content=st.one_of(
        st.binary(max_size=200),
        st.lists(
            st.lists(
                st.sampled_from(
                    ["0", "1e400", "-1", "time_s", "speed_m_s", "yaw_deg", "image", '"', "x\x00", "\u20ac"]
                ),
                max_size=5,
            ).map(",".join),
            max_size=5,
        )
        .map("\n".join)
        .map(str.encode),
    )
)
def test_any_file_is_read_or_refused_by_name(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.mktemp("odometry") / "drive.csv"
    path.write_bytes(content)
    try:
        times = [step.time for step in read_odometry(path).steps]
    except DataError as error:
        assert "drive.csv" in str(error)
    else:
        assert times == sorted(set(times))


def test_a_file_with_too_many_rows_is_refused_by_their_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("geodtr.runtime.tracking.odometry.MAX_ROWS", 3)
    rows = ["time_s,speed_m_s,yaw_deg", *(f"{second},1,0" for second in range(4))]
    assert read_odometry(_write(tmp_path, *rows[:4])).count == 3
    with pytest.raises(DataError, match=r"drive\.csv has more than 3 rows.*Split it"):
        read_odometry(_write(tmp_path, *rows))
