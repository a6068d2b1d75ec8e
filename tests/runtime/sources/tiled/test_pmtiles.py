"""PMTiles are read as the specification defines them; damaged and hostile ones end in a sentence."""

import gzip
import pickle
from collections.abc import Iterable
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pmtiles_file import Number, assemble, directory, pmtiles, tile_id

from geodtr import UserError
from geodtr.runtime.errors import ConfigError, DataError
from geodtr.runtime.sources.registry import open_source
from geodtr.runtime.sources.tiled import pmtiles as reader
from geodtr.runtime.sources.tiled.pmtiles import open_pmtiles
from geodtr.runtime.sources.tiled.slippy import XyzOptions
from geodtr.runtime.sources.tiled.xyz import open_xyz


def _image(x: int, y: int, kind: str = "PNG") -> bytes:
    stream = BytesIO()
    Image.new("RGB", (8, 8), (x % 256, y % 256, 7)).save(stream, kind)
    return stream.getvalue()


def _tiles(numbers: Iterable[Number]) -> dict[Number, bytes]:
    return {(zoom, x, y): _image(x, y) for zoom, x, y in numbers}


_BLOCK = [(17, x, y) for x in range(70, 74) for y in range(40, 43)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "map.pmtiles"
    path.write_bytes(pmtiles(_tiles(_BLOCK)))
    return path


def test_numbers_follow_the_specification() -> None:
    """Its own examples, and a place of the reference implementation's tests."""
    assert [tile_id(*place) for place in ((0, 0, 0), (1, 0, 0), (1, 0, 1), (1, 1, 1), (1, 1, 0), (2, 0, 0))] == [
        *range(6)
    ]
    assert tile_id(12, 3423, 1763) == 19_078_479


def test_tiles_equal_a_folder_with_the_same_images(path: Path, tmp_path: Path) -> None:
    for zoom, x, y in _BLOCK:
        image = tmp_path / f"xyz/{zoom}/{x}/{y}.png"
        image.parent.mkdir(parents=True, exist_ok=True)
        image.write_bytes(_image(x, y))
    for options in (XyzOptions(), XyzOptions(zoom=17, merge=2, step=1)):
        one, other = open_source(path, options), open_xyz(tmp_path / "xyz", options)
        sent = pickle.loads(pickle.dumps(one))
        assert [(tile.id, tile.lat, tile.lon) for tile in one.tiles] == [
            (tile.id, tile.lat, tile.lon) for tile in other.tiles
        ]
        for a, b in zip(one.tiles, other.tiles, strict=True):
            np.testing.assert_array_equal(one.read(a).pixels, other.read(b).pixels)
            np.testing.assert_array_equal(sent.read(a).pixels, other.read(b).pixels)
    assert one.tiles[0].file == f"{path}#17/70/40"


@settings(max_examples=40, deadline=None)
@given(zoom=st.integers(0, 26), leaf=st.one_of(st.none(), st.integers(1, 4)), data=st.data())
def test_any_places_are_found_again(
    tmp_path_factory: pytest.TempPathFactory, zoom: int, leaf: int | None, data: st.DataObject
) -> None:
    number = st.integers(0, 2**zoom - 1)
    places = data.draw(st.lists(st.tuples(number, number), min_size=1, max_size=9, unique=True))
    path = tmp_path_factory.getbasetemp() / "any.pmtiles"
    path.write_bytes(pmtiles(_tiles((zoom, x, y) for x, y in places), leaf=leaf))
    source = open_pmtiles(path)
    assert [(tile.more["x"], tile.more["y"]) for tile in source.tiles] == sorted(places)
    for tile in source.tiles:
        assert source.read(tile).pixels[0, 0].tolist() == [tile.more["x"] % 256, tile.more["y"] % 256, 7]


def test_a_run_repeats_one_image_and_may_go_on_in_the_next_zoom(tmp_path: Path) -> None:
    image = _image(1, 2)
    path = tmp_path / "map.pmtiles"
    path.write_bytes(assemble(directory([(tile_id(1, 0, 0), 12, len(image), 0)]), b"", image))
    for zoom, count in ((1, 4), (2, 8)):
        source = open_pmtiles(path, XyzOptions(zoom=zoom))
        assert len(source.tiles) == count
        assert {tuple(source.read(tile).pixels[0, 0].tolist()) for tile in source.tiles} == {(1, 2, 7)}


def test_several_zooms_vector_tiles_and_too_many_tiles_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "map.pmtiles"
    path.write_bytes(pmtiles(_tiles([(3, 1, 1), (4, 1, 1)])))
    with pytest.raises(DataError, match="zooms 3, 4; choose one: --zoom"):
        open_pmtiles(path)
    with pytest.raises(ConfigError, match="--tms"):
        open_pmtiles(path, XyzOptions(tms=True))
    path.write_bytes(pmtiles(_tiles(_BLOCK), kind=1))
    with pytest.raises(DataError, match="vector tiles"):
        open_pmtiles(path)
    path.write_bytes(assemble(directory([(tile_id(20, 0, 0), 1 << 38, 10, 0)]), b"", bytes(10)))
    with pytest.raises(DataError, match=r"more than 5,000,000 tiles of zoom 20"):
        open_pmtiles(path)
    monkeypatch.setattr(reader, "MAX_TILES", 5)
    path.write_bytes(pmtiles(_tiles(_BLOCK)))
    with pytest.raises(DataError, match="more than 5 entries"):
        open_pmtiles(path)


def test_a_file_that_the_disk_does_not_give_is_named(tmp_path: Path) -> None:
    """Linux has a file that opens and cannot be read at its beginning, as a disk's broken sector."""
    (tmp_path / "map.pmtiles").symlink_to("/proc/self/mem")
    with pytest.raises(DataError, match=r"map\.pmtiles cannot be read"):
        open_pmtiles(tmp_path / "map.pmtiles")


def test_hostile_directories_end_in_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "MAX_BYTES", 1 << 20)
    itself = directory([(0, 0, 100, 0)])
    for number, (root, leaves) in enumerate(
        [
            (gzip.compress(bytes(4 << 20)), b""),  # unpacks to more than is allowed
            (directory([(0, 0, len(itself), 0)]), itself.ljust(100, b"\0")),  # a leaf that holds itself
            (gzip.compress(b"\xff" * 50), b""),
            (gzip.compress(b"\x05\x01"), b""),
            (gzip.compress(b""), b""),
            (b"no gzip", b""),
            (directory([(0, 1, 1 << 48, 0)]), b""),
        ]
    ):
        path = tmp_path / f"{number}.pmtiles"
        path.write_bytes(assemble(root, leaves, b""))
        with pytest.raises(UserError, match=rf"{number}\.pmtiles"):
            source = open_pmtiles(path)
            source.read(source.tiles[0])


@settings(max_examples=80, deadline=None)
@given(
    flips=st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), min_size=1, max_size=6),
    cut=st.integers(0, 2000),
)
def test_damaged_files_give_tiles_or_a_sentence(
    tmp_path_factory: pytest.TempPathFactory, flips: list[tuple[int, int]], cut: int
) -> None:
    path = tmp_path_factory.getbasetemp() / "damaged.pmtiles"
    content = bytearray(pmtiles(_tiles(_BLOCK), leaf=5))
    for place, value in flips:
        content[place % len(content)] = value
    path.write_bytes(content[: max(0, len(content) - cut)])
    try:
        source = open_pmtiles(path)
        for tile in source.tiles[:20]:
            source.read(tile)
    except UserError as error:
        assert "damaged.pmtiles" in str(error)
