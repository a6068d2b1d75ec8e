"""A nadir frame becomes an aerial image: north up, at a tile's resolution, at any heading."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from geodtr.runtime.errors import DataError, ImageError
from geodtr.runtime.images.altitudes import read_altitudes
from geodtr.runtime.images.frames import Frame
from geodtr.runtime.images.nadir import from_crop, north_up, share_covered


@pytest.mark.parametrize(
    ("heading", "row", "column"), [(0, 8, 32), (90, 32, 56), (180, 56, 32), (270, 32, 8), (45, 15, 49)]
)
def test_what_a_frame_shows_ahead_is_in_the_direction_of_its_heading(heading: int, row: int, column: int) -> None:
    frame = np.zeros((60, 80, 3), np.uint8)
    frame[4:9, 38:43] = 255  # 24 pixels ahead of the middle, at half a metre each
    (crop,) = north_up(Image.fromarray(frame), 0.5, [heading], 64, 0.5)
    rows, columns = np.nonzero(crop[..., 0] > 128)
    assert abs(rows.mean() + 0.5 - row) < 1.2
    assert abs(columns.mean() + 0.5 - column) < 1.2


def test_a_finer_frame_is_averaged_and_its_surroundings_are_its_mean() -> None:
    frame = np.random.default_rng(0).integers(0, 256, (240, 320, 3), np.uint8)
    crops = north_up(Image.fromarray(frame), 0.1, [0, 30], 64, 1.0)
    assert crops.shape == (2, 64, 64, 3)
    assert abs(int(crops[0, 0, 0, 0]) - frame[..., 0].mean()) <= 1  # 32 m of 64 are shown
    shown = crops[0, 22:42, 18:46, 0]
    assert shown.std() < 15  # of 74 before


def test_a_crop_s_pixels_are_found_in_the_frame() -> None:
    to_frame = from_crop((80, 60), 0.25, 90, 100, 0.5)
    # 10 m north of the middle lies to the left of a frame that heads east.
    assert np.allclose(to_frame @ (50, 50 - 20, 1), (40 - 40, 30))


def test_a_frame_covers_part_of_a_tile() -> None:
    assert share_covered((400, 300), 0.1, 60) == pytest.approx(0.25)
    assert share_covered((400, 300), 1.0, 60) == 1


def test_altitudes_come_from_a_csv(tmp_path: Path) -> None:
    table = tmp_path / "frames.csv"
    table.write_text("file,altitude,heading\nframes/a.png,80.5,1\nframes/b.png,,2\n")
    frames = [Frame(str(tmp_path / "frames" / name), None) for name in ("a.png", "b.png", "c.png")]
    altitudes = read_altitudes(table)
    first, second, third = map(altitudes.of, frames)
    assert (first.altitude, first.image) == (80.5, None)
    for frame, fault in ((second, "leaves the altitude of"), (third, "has no row for")):
        assert isinstance(frame.image, ImageError)
        assert str(frame.image) == (
            f"{table} {fault} {frame.name}{' empty' if frame is second else ''}. Add it, or leave it out: "
            "--on-error skip"
        )
    assert altitudes.of(replace(frames[2], altitude=60.0)).altitude == 60.0  # by a flight record


def test_altitudes_belong_to_files_for_every_way_to_write_a_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "frames").mkdir()
    (tmp_path / "frames.csv").write_text("file,altitude\nframes/a.png,80.5\n")
    monkeypatch.chdir(tmp_path / "frames")
    (tmp_path / "link").symlink_to("frames")
    ways = ["a.png", "../frames/a.png", "../link/a.png", str(tmp_path / "frames" / "a.png")]
    altitudes = read_altitudes(Path("../frames.csv"))
    assert [frame.altitude for frame in map(altitudes.of, [Frame(way, None) for way in ways])] == [80.5] * 4


def test_an_altitude_may_be_stated_twice_and_a_path_lead_nowhere(tmp_path: Path) -> None:
    (tmp_path / "circle").symlink_to("circle")
    table = tmp_path / "frames.csv"
    table.write_text("file,altitude\na.png,80\na.png,80\ncircle/a.png,7\n")
    altitudes = read_altitudes(table)
    frames = [Frame(str(tmp_path / name), None) for name in ("a.png", "circle/a.png", "circle/b.png", "a\0.png")]
    assert [altitudes.of(frame).altitude for frame in frames] == [80, 7, None, None]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file,lat\na.png,1\n", "no column altitude"),
        ("", "no column file and altitude"),
        ("file,altitude\na.png,-5\n", "line 2: the altitude is '-5'"),
        ("file,altitude\na.png,high\n", "line 2: the altitude is 'high'"),
        ("file,altitude\na.png\n", "line 2: 1 values"),
        ("file,altitude\na.png,inf\n", "above 0"),
        ("file,altitude\na.png,1e300\n", "line 2: the altitude is '1e300'.*at most 20,000"),
        ("file,altitude\na.png,80\nb.png,7\n./a.png,90\n", "line 4: ./a.png has another altitude in a line before"),
        ("file,altitude\na\0.png,80\n", "line 2"),
    ],
)
def test_altitudes_that_cannot_be_are_refused(text: str, message: str, tmp_path: Path) -> None:
    table = tmp_path / "frames.csv"
    table.write_text(text)
    with pytest.raises(DataError, match=message):
        read_altitudes(table)
