"""MBTiles are read as their tiles are, regardless of their metadata; hostile ones end in a sentence."""

import pickle
import sqlite3
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from geodtr import UserError
from geodtr.runtime.errors import ConfigError, DataError, ImageError
from geodtr.runtime.sources.registry import open_source
from geodtr.runtime.sources.tiled import mbtiles, slippy
from geodtr.runtime.sources.tiled.mbtiles import open_mbtiles
from geodtr.runtime.sources.tiled.slippy import XyzOptions
from geodtr.runtime.sources.tiled.xyz import open_xyz

_TABLE = "CREATE TABLE tiles (zoom_level integer, tile_column integer, tile_row integer, tile_data blob)"
Row = tuple[object, object, object, object]


def _image(x: int, y: int, kind: str = "PNG", side: int = 16) -> bytes:
    stream = BytesIO()
    Image.new("RGB", (side, side), (x % 256, y % 256, 7)).save(stream, kind)
    return stream.getvalue()


def _write(path: Path, rows: Iterable[Row] = (), schema: Iterable[str] = (_TABLE,)) -> Path:
    path.unlink(missing_ok=True)
    with sqlite3.connect(path) as file:
        file.execute("CREATE TABLE metadata (name text, value text)")
        file.executemany("INSERT INTO metadata VALUES (?, ?)", [("format", "png"), ("minzoom", "0"), ("maxzoom", "22")])
        for statement in schema:
            file.execute(statement)
        for row in rows:
            file.execute("INSERT INTO tiles VALUES (?, ?, ?, ?)", row)
    file.close()
    return path


def _block(zoom: int = 17, kind: str = "PNG") -> list[Row]:
    count = 1 << zoom
    return [
        (zoom, x, count - 1 - y, _image(x, y, kind if x % 2 else "PNG")) for x in range(70, 74) for y in range(40, 43)
    ]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return _write(tmp_path / "map.mbtiles", _block())


def test_tiles_equal_a_folder_with_the_same_images(path: Path, tmp_path: Path) -> None:
    for x in range(70, 74):
        (tmp_path / f"xyz/17/{x}").mkdir(parents=True)
        for y in range(40, 43):
            (tmp_path / f"xyz/17/{x}/{y}.png").write_bytes(_image(x, y))
    for options in (XyzOptions(), XyzOptions(zoom=17, merge=2, step=1)):
        one, other = open_source(path, options), open_xyz(tmp_path / "xyz", options)
        assert [(tile.id, tile.lat, tile.lon, tile.metres_per_pixel) for tile in one.tiles] == [
            (tile.id, tile.lat, tile.lon, tile.metres_per_pixel) for tile in other.tiles
        ]
        for a, b in zip(one.tiles, other.tiles, strict=True):
            np.testing.assert_array_equal(one.read(a).pixels, other.read(b).pixels)
    assert one.tiles[0].file == f"{path}#17/70/40"


def test_the_bytes_decide_the_format_and_the_tiles_the_zooms(tmp_path: Path) -> None:
    path = _write(tmp_path / "map.mbtiles", [*_block(12, "JPEG"), *_block(16)])
    with pytest.raises(DataError, match="zooms 12, 16; choose one: --zoom"):
        open_mbtiles(path)
    source = open_mbtiles(path, XyzOptions(zoom=12))
    assert len(source.tiles) == 12
    for tile in source.tiles:
        assert np.abs(source.read(tile).pixels[0, 0].astype(int) - (tile.more["x"], tile.more["y"], 7)).max() < 8


def test_a_view_of_tiles_and_images_is_read_too(tmp_path: Path) -> None:
    """As programs write it that keep each image once."""
    image = _image(1, 2).hex()
    schema = (
        "CREATE TABLE map (zoom_level, tile_column, tile_row, tile_id)",
        "CREATE TABLE images (tile_data, tile_id)",
        f"INSERT INTO images VALUES (x'{image}', 'a')",
        "INSERT INTO map VALUES (3, 4, 5, 'a'), (3, 5, 5, 'a')",
        "CREATE VIEW tiles AS SELECT zoom_level, tile_column, tile_row, tile_data FROM map JOIN images USING (tile_id)",
    )
    source = open_mbtiles(_write(tmp_path / "map.mbtiles", (), schema))
    assert [tile.id for tile in source.tiles] == ["3/4/2", "3/5/2"]
    assert source.read(source.tiles[0]).pixels[0, 0].tolist() == [1, 2, 7]


def test_many_threads_and_another_process_read_what_one_does(path: Path) -> None:
    source = open_mbtiles(path)
    alone = [source.read(tile).pixels for tile in source.tiles]
    sent = pickle.loads(pickle.dumps(source))
    with ThreadPoolExecutor(8) as pool:
        for read in (source.read, sent.read):
            for expected, found in zip(alone, pool.map(read, source.tiles), strict=True):
                np.testing.assert_array_equal(expected, found.pixels)


def test_nothing_is_written(path: Path) -> None:
    before = {each.name: each.read_bytes() for each in path.parent.iterdir()}
    path.chmod(0o400)
    source = open_mbtiles(path)
    source.read(source.tiles[0])
    assert {each.name: each.read_bytes() for each in path.parent.iterdir()} == before


def test_tiles_that_are_none_are_counted_and_mixed_sizes_named(tmp_path: Path) -> None:
    odd: list[Row] = [(17, -1, 0, b""), (17, "a", 0, b""), (17, 1 << 17, 0, b""), (17, None, 0, b"")]
    large: Row = (17, 74, (1 << 17) - 41, _image(0, 0, side=32))
    source = open_mbtiles(_write(tmp_path / "map.mbtiles", [*_block(), *odd, large]))
    assert any("4 rows are left out" in note for note in source.notes)
    with pytest.raises(ImageError, match=r"map\.mbtiles#17/74/40 has 32x32"):
        source.read(source.tiles[-1])


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\x1f\x8b" + bytes(50), "vector tiles"),
        (b"no image", "not an image"),
        (None, "None bytes"),
        ("text", "no bytes of an image"),
        (_image(0, 0)[:40], r"map\.mbtiles#17/0/0"),
    ],
)
def test_what_is_no_image_is_named(tmp_path: Path, data: object, message: str) -> None:
    path = _write(tmp_path / "map.mbtiles", [(17, 0, (1 << 17) - 1, data)])
    with pytest.raises(UserError, match=message):
        open_mbtiles(path)


@pytest.mark.parametrize(
    "view",
    [
        "WITH RECURSIVE a(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM a) "
        "SELECT n AS zoom_level, n AS tile_column, n AS tile_row, n AS tile_data FROM a",
        "SELECT 17 AS zoom_level, 0 AS tile_column, 0 AS tile_row, zeroblob(2000000000) AS tile_data",
        "SELECT 17 AS zoom_level, 0 AS tile_column, 0 AS tile_row, load_extension('a') AS tile_data",
        "SELECT 17 AS zoom_level, 0 AS tile_column, 0 AS tile_row, a.n AS tile_data FROM n a, n b, n c, n d, n e, "
        "n f, n g",
    ],
)
def test_hostile_views_end_in_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, view: str) -> None:
    monkeypatch.setattr(mbtiles, "_SECONDS", 0.3)
    numbers = ", ".join(f"({number})" for number in range(200))
    schema = ("CREATE TABLE n (n)", f"INSERT INTO n VALUES {numbers}", f"CREATE VIEW tiles AS {view}")
    with pytest.raises(UserError, match=r"map\.mbtiles"):
        open_mbtiles(_write(tmp_path / "map.mbtiles", (), schema))


def test_values_of_gigabytes_and_too_many_tiles_are_refused(
    tmp_path: Path, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mbtiles, "MAX_BYTES", 1 << 20)
    large = _write(tmp_path / "large.mbtiles", [(17, 0, 0, bytes(2 << 20))])
    with pytest.raises(UserError, match=r"large\.mbtiles"):
        open_mbtiles(large)
    monkeypatch.setattr(slippy, "MAX_TILES", 5)
    with pytest.raises(DataError, match="more than 5 tiles"):
        open_mbtiles(path)


def test_a_refused_file_is_closed(path: Path) -> None:
    with pytest.raises(DataError, match="there is no 3") as error:
        open_mbtiles(path, XyzOptions(zoom=3))
    assert error.tb, "its frames are alive, and their connection would be"
    assert path not in [file.resolve() for file in Path("/proc/self/fd").iterdir()]


def test_what_is_no_mbtiles_or_being_written_is_refused(tmp_path: Path, path: Path) -> None:
    with pytest.raises(ConfigError, match="--tms"):
        open_mbtiles(path, XyzOptions(tms=True))
    whole = path.read_bytes()
    for content in (b"no database", b"", whole[: len(whole) // 2]):
        (tmp_path / "bad.mbtiles").write_bytes(content)
        with pytest.raises(UserError, match=r"bad\.mbtiles"):
            source = open_mbtiles(tmp_path / "bad.mbtiles")
            for tile in source.tiles:
                source.read(tile)
    path.with_name("map.mbtiles-wal").write_bytes(b"frames")
    with pytest.raises(DataError, match="being written"):
        open_mbtiles(path)


@settings(max_examples=60, deadline=None)
@given(flips=st.lists(st.tuples(st.integers(0, 12_287), st.integers(0, 255)), min_size=1, max_size=8))
@example(flips=[(4053, 128)])  # SQLite's message holds a name that is not UTF-8
def test_flipped_bytes_give_tiles_or_a_sentence(
    tmp_path_factory: pytest.TempPathFactory, flips: list[tuple[int, int]]
) -> None:
    path = tmp_path_factory.getbasetemp() / "flip.mbtiles"
    content = bytearray(_write(path, _block()).read_bytes())
    for place, value in flips:
        content[place % len(content)] = value
    path.write_bytes(content)
    try:
        source = open_mbtiles(path)
        for tile in source.tiles:
            source.read(tile)
    except UserError as error:
        assert "flip.mbtiles" in str(error)
