"""A folder of images: positions come from their origin, and incomplete ones are named."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from positioned_folder import places_of, write_folder

from geodtr.runtime.errors import ConfigError, DataError, ImageError
from geodtr.runtime.sources.positioned.folder import FolderOptions, open_folder
from geodtr.runtime.sources.registry import open_source


@pytest.fixture
def folder(tmp_path: Path) -> Callable[..., Path]:
    return partial(write_folder, tmp_path / "tiles")


def _write(root: Path, text: str, name: str = "tiles.csv") -> Path:
    (root / name).write_text(text)
    return root / name


def test_a_csv_gives_all_values_of_a_tile(folder: Callable[..., Path]) -> None:
    root = folder("a.png", "deep/b.png")
    _write(
        root,
        "file,lat,lon,heading,metres_per_pixel,id,flown\ndeep/b.png,48.1,11.5,-90,0.25,B,2024-05-01\na.png,,,,,,\n",
    )
    source = open_source(root)
    b, a = source.tiles
    assert (b.id, b.lat, b.lon, b.heading, b.metres_per_pixel) == ("B", 48.1, 11.5, 270, 0.25)
    assert b.more == {"flown": "2024-05-01"}
    assert (a.id, a.lat, a.lon, a.heading, a.metres_per_pixel, a.more) == ("a.png", None, None, None, None, {})
    assert "tiles.csv" in source.notes[0]
    assert source.read(b).pixels[0, 0].tolist() == [1, 0, 0]


def test_a_csv_may_be_in_another_folder_and_come_from_a_spreadsheet(
    folder: Callable[..., Path], tmp_path: Path
) -> None:
    root = folder("a.png")
    (tmp_path / "mine.csv").write_bytes("\ufefffile, lat ,lon\r\na.png, 1.5,-2.5\r\n\r\n".encode())
    assert places_of(root, FolderOptions(tmp_path / "mine.csv")) == {"a.png": (1.5, -2.5)}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "columns (none)"),
        ("file,lat,lon\n", "lists no tiles"),
        ("name,lat,lon\na.png,1,2\n", "needed are file"),
        ("file,lat\na.png,1\n", "both lat and lon"),
        ("file,lat,lon,lat\na.png,1,2,3\n", "twice"),
        ("file,lat,lon\na.png,1\n", "line 2: 2 values where the header names 3"),
        ("file,lat,lon\na.png,1,\n", "line 2: give both lat and lon of a.png"),
        ("file,lat,lon\na.png,north,2\n", "line 2: lat is 'north'"),
        ("file,lat,lon\na.png,nan,2\n", "line 2: lat is nan"),
        ("file,lat,lon\na.png,1,inf\n", "line 2: lon is inf"),
        ("file,lat,lon\na.png,91,2\n", "line 2: lat is 91; it must lie within -90 and 90"),
        ("file,lat,lon\na.png,1,-180.5\n", "line 2: lon is -180.5"),
        ("file,lat,lon,heading\na.png,1,2,400\n", "line 2: heading is 400"),
        ("file,metres_per_pixel\na.png,0\n", "line 2: metres_per_pixel is 0"),
        ("file,metres_per_pixel\na.png,nan\n", "line 2: metres_per_pixel is nan"),
        ("file\n\"\"\n", "line 2: file is empty"),
        ("file\nb.png\n", "b.png does not exist"),
        ("file\n" + "b" * 300 + ".png\n", "does not exist"),
        ("file\na.png\na.png\n", "line 3: the id a.png is also in line 2"),
        ("file,id\na.png,1\nc.png,1\n", "line 3: the id 1 is also in line 2"),
    ],
)  # fmt: skip
def test_a_wrong_csv_is_named_by_its_line(folder: Callable[..., Path], text: str, expected: str) -> None:
    root = folder("a.png", "c.png")
    _write(root, text)
    with pytest.raises(DataError) as caught:
        open_folder(root)
    assert expected in str(caught.value)
    assert "tiles.csv" in str(caught.value)


def test_what_is_no_csv_is_named(folder: Callable[..., Path], tmp_path: Path) -> None:
    root = folder("a.png")
    (root / "tiles.csv").write_bytes(b"\xff\xfe\x00file")
    with pytest.raises(DataError, match="not a CSV in UTF-8"):
        open_folder(root)
    with pytest.raises(DataError, match="cannot be read"):
        open_folder(root, FolderOptions(tmp_path / "none.csv"))


@settings(max_examples=80, deadline=None)
@given(
    content=st.one_of(st.binary(max_size=300), st.text(max_size=200).map(lambda text: f"file,lat,lon\n{text}".encode()))
)
def test_any_bytes_for_a_csv_give_a_sentence(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    root = tmp_path_factory.getbasetemp()
    (root / "tiles.csv").write_bytes(content)
    with pytest.raises(DataError, match=r"tiles\.csv"):
        open_folder(root)


# The folder itself


def test_an_empty_and_a_missing_folder_are_named(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="holds no images"):
        open_source(tmp_path)
    with pytest.raises(DataError, match=r"none does not exist.*\.tif"):
        open_source(tmp_path / "none")
    (tmp_path / "a.txt").touch()
    with pytest.raises(DataError, match="file of another kind"):
        open_source(tmp_path / "a.txt")


def test_a_pattern_excludes_other_origins() -> None:
    with pytest.raises(ConfigError, match="exif"):
        FolderOptions("exif", "{lat}_{lon}")


def test_a_tile_that_is_no_image_is_named_when_it_is_read(folder: Callable[..., Path]) -> None:
    root = folder("a.png", "b.png")
    (root / "b.png").write_bytes((root / "a.png").read_bytes()[:40])
    source = open_folder(root)
    assert source.read(source.tiles[0]).pixels.dtype == np.uint8
    with pytest.raises(ImageError, match=r"b\.png"):
        source.read(source.tiles[1])
