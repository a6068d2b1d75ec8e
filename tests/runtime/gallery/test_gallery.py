"""A gallery returns its contents, and has the search results of float32."""

import math
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Outcome
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_gallery import (
    SIZE,
    MadeTiles,
    build,
    descriptors_of,
    fill,
    in_memory,
    made_tiles,
    unit_rows,
)

from geodtr.runtime.errors import (
    ConfigError,
    DataError,
    GalleryError,
)
from geodtr.runtime.gallery.folder import reader, vectors
from geodtr.runtime.gallery.folder.reader import open_folder
from geodtr.runtime.gallery.folder.verify import verify
from geodtr.runtime.gallery.folder.writer import FolderWriter
from geodtr.runtime.gallery.row import Row, as_tile
from geodtr.runtime.geodesy import Near, distance
from geodtr.runtime.names import STORAGES, Storage
from geodtr.runtime.search import exact
from geodtr.runtime.search.quantize import Compression, compress
from geodtr.runtime.sources.tile import Tile, check_tiles

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
TEXT = st.text(st.characters(codec="utf-8"), min_size=1, max_size=20)
PLACES = st.none() | st.tuples(st.floats(-90, 90), st.floats(-180, 180))


@st.composite
def tiles(draw: st.DrawFn) -> Tile:
    lat, lon = draw(PLACES) or (None, None)
    return Tile(
        draw(TEXT),
        draw(TEXT),
        lat,
        lon,
        draw(st.none() | st.floats(-360, 360)),
        draw(st.none() | st.floats(1e-6, 1e6)),
        draw(st.dictionaries(st.text(), JSON, max_size=3)),
    )


@settings(max_examples=40, deadline=None)
@given(put=st.lists(tiles(), max_size=6, unique_by=lambda tile: tile.id), storage=st.sampled_from(STORAGES))
def test_the_contents_can_be_read_back(put: list[Tile], storage: Storage) -> None:
    with in_memory() as folder:
        path = build(folder / "gallery", MadeTiles(put), storage)
        with open_folder(path) as gallery:
            assert list(gallery.all_tiles()) == put
            np.testing.assert_array_equal(
                gallery.descriptors(np.arange(len(gallery))), descriptors_of([tile.id for tile in put])
            )
            np.testing.assert_array_equal(gallery.lat, np.array([tile.lat for tile in put], np.float64))
            np.testing.assert_array_equal(gallery.lon, np.array([tile.lon for tile in put], np.float64))
            assert gallery.info.finished
            assert gallery.info.references == len(put)
            assert gallery.info.positioned == sum(tile.lat is not None for tile in put)
        assert verify(path) == ()


@pytest.mark.parametrize("more", [{}, {"window": [0, 0, 8, 8]}])
def test_what_a_caller_does_to_a_tile_changes_no_later_answer(tmp_path: Path, more: dict[str, Any]) -> None:
    with open_folder(build(tmp_path / "gallery", MadeTiles([Tile("a", "a.png", more=more)]))) as gallery:
        for _ in range(2):
            changed: Any = gallery.tile(0).more
            assert changed == more
            changed.setdefault("window", []).append(9)


def test_many_references_at_once_are_stored_as_few_by_few(tmp_path: Path) -> None:
    tiles = [replace(tile, more={"n": n} if n % 3 else {}) for n, tile in enumerate(made_tiles(1_200).tiles)]
    rows = unit_rows(len(tiles), 300, 1)
    at_once = fill(tmp_path / "at-once", tiles, rows, "int8")
    with FolderWriter.create(tmp_path / "by-few", open_folder(at_once).manifest) as writer:
        for start in range(0, len(tiles), 53):
            writer.add(tiles[start : start + 53], rows[start : start + 53])
        assert writer.missing([*tiles, Tile("new", "new.png")]) == [Tile("new", "new.png")]
        with pytest.raises(GalleryError, match="holds a tile '1100' already"):
            writer.add([Tile("new", "new.png"), *tiles[1_100:]], rows[1_099:])
        writer.finish()
    for name in ("float32", "int8", "scales"):
        one, other = ((tmp_path / folder / f"descriptors-1.{name}").read_bytes() for folder in ("at-once", "by-few"))
        assert one == other
    assert not verify(at_once) and not verify(tmp_path / "by-few")
    backwards = range(len(tiles) - 1, -1, -1)
    with open_folder(at_once) as gallery, open_folder(tmp_path / "by-few") as other_gallery:
        assert gallery.tiles(backwards) == other_gallery.tiles(backwards) == tiles[::-1]


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"id": "0001"}, "its id is taken by another tile"),
        ({"id": ""}, "its id is empty"),
        ({"lat": None}, "both or neither must be known"),
        ({"lat": 90.5}, "lat is 90.5; it must lie within"),
        ({"lon": math.nan}, "lon is nan; it must lie within"),
        ({"heading": -361}, "heading is -361; it must lie within"),
        ({"metres_per_pixel": 0.0}, "metres_per_pixel is 0.0; it must be above 0"),
        ({"metres_per_pixel": math.inf}, "metres_per_pixel is inf; it must be above 0"),
        ({"file": "\udcff.png"}, "a name is not UTF-8"),
        ({"more": {"of": object()}}, "it cannot be written down as JSON"),
        ({"more": {"number": 2**64}}, "it cannot be written down as JSON"),
    ],
)
def test_the_first_impossible_tile_of_many_is_named(changes: dict[str, Any], fault: str) -> None:
    tiles = [Tile(f"{n:04}", f"{n}.png", 48.0, 8.0, more={"n": n} if n % 2 else {}) for n in range(5_000)]
    check_tiles("many", tiles)
    tiles[4_500] = replace(tiles[4_500], **changes)
    tiles[4_600] = replace(tiles[4_600], lat=91.0)
    with pytest.raises(DataError, match=re.escape(fault)) as raised:
        check_tiles("many", tiles)
    assert f"tile {tiles[4_500].id!r}" in str(raised.value)


def test_a_copy_of_a_gallery_leaves_the_tiles_in_memory_that_are_in_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader, "_KEPT", 4)
    read = list[str]()

    def looked_up(row: Row) -> Tile:
        read.append(row[0])
        return as_tile(row)

    with open_folder(build(tmp_path / "gallery", made_tiles(9))) as gallery:
        first = gallery.tiles([0, 1])
        assert [tile for block, _ in gallery.described() for tile in block] == list(gallery.all_tiles())
        monkeypatch.setattr(reader, "as_stored", looked_up)
        assert gallery.tiles([0, 1]) == first
    assert read == []


@settings(max_examples=60, deadline=None)
@given(
    count=st.integers(1, 60),
    removed=st.sets(st.integers(0, 59)),
    compacted=st.booleans(),
    storage=st.sampled_from(STORAGES),
    top=st.integers(1, 70),
    reach=st.none() | st.floats(1, 1000),
    levels=st.sampled_from([2, 5, 1000]),
    seed=st.integers(0, 99),
)
def test_every_storage_has_the_results_of_sorting_all_cosines(
    count: int,
    removed: set[int],
    compacted: bool,
    storage: Storage,
    top: int,
    reach: float | None,
    levels: int,
    seed: int,
) -> None:
    generator = np.random.default_rng(seed)
    # With few levels, many references are nearly or exactly equal.
    rows = generator.integers(-levels, levels + 1, (count, 8)).astype(np.float32) + np.float32(0.1)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    source = made_tiles(count)
    with in_memory() as folder:
        path = fill(folder / "gallery", source.tiles, rows, storage)
        left = [n for n in range(count) if n not in removed]
        with FolderWriter(path) as writer:
            if len(left) < count:
                writer.remove([source.tiles[n].id for n in removed if n < count])
            if compacted:
                writer.compact()
        near = None if reach is None else Near(48.0, 8.0, reach)
        allowed = [
            row
            for row, n in enumerate(left)
            if near is None or distance(48.0, 8.0, source.tiles[n].lat or 0, 8.0) <= near.radius
        ]
        queries = unit_rows(3, 8, seed + 1)
        queries[0] = rows[0]
        with open_folder(path) as gallery:
            assert [tile.id for tile in gallery.all_tiles()] == [source.tiles[n].id for n in left]
            hits = gallery.search(queries, top, near)
        kept = min(top, len(allowed))
        assert hits.rows.shape == hits.scores.shape == (3, kept)
        cosines = queries @ rows[left].T
        expected = -np.sort(-cosines[:, allowed], axis=1)[:, :kept]
        np.testing.assert_allclose(hits.scores, expected, atol=2e-6)
        np.testing.assert_allclose(np.take_along_axis(cosines, hits.rows, axis=1), hits.scores, atol=2e-6)
        assert set(hits.rows.ravel().tolist()) <= set(allowed)
        assert all(len(set(row)) == kept for row in hits.rows.tolist())


@settings(deadline=None)
@given(
    around=st.tuples(st.sampled_from([-90.0, -89.99, -0.004, 0.0, 47.3, 90.0]), st.sampled_from([-180.0, 0.0, 179.99])),
    radius=st.floats(1, 1e7),
    removed=st.sets(st.integers(0, 99), max_size=50),
    seed=st.integers(0, 99),
)
def test_a_large_gallery_finds_what_lies_near_by_its_index(
    around: tuple[float, float],
    radius: float,
    removed: set[int],
    seed: int,
) -> None:
    random = np.random.default_rng(seed)
    lat = np.clip(around[0] + random.normal(0, 0.02, 100), -90, 90)
    lon = (around[1] + random.normal(0, 0.1, 100) + 180) % 360 - 180
    # Some have no position; some lie on the circle's edge, as nearly as numbers can.
    tiles = [Tile(f"{n:03}", "map.tif", *((None, None) if n % 9 == 0 else (lat[n], lon[n]))) for n in range(100)]
    with in_memory() as folder:
        path = fill(folder / "gallery", tiles, unit_rows(100, 8, seed))
        near = Near(*around, radius)
        with FolderWriter(path) as writer:
            if removed:
                writer.remove([tiles[n].id for n in removed])
        held = near.holds(lat, lon)
        expected = {tile.id for n, tile in enumerate(tiles) if n not in removed and tile.lat is not None and held[n]}
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(reader, "_LOOKED_THROUGH", 0)
            with open_folder(path) as gallery:
                rows = gallery.search(unit_rows(1, 8, 0), 100, near).rows[0]
                assert {tile.id for tile in gallery.tiles(rows.tolist())} == expected


@pytest.mark.parametrize(("storage", "share"), [("float16", 1 / 2), ("int8", 1 / 4)])
def test_compressed_galleries_have_the_recall_of_float32_in_a_half_and_a_quarter_of_the_bytes(
    tmp_path: Path, storage: Storage, share: float
) -> None:
    references = unit_rows(3000, 512, 0)
    # Queries are far enough from their references that recall is neither 0 nor 1.
    queries = references + 4.5 * unit_rows(3000, 512, 1)
    queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    plain = open_folder(fill(tmp_path / "plain", made_tiles(3000).tiles, references))
    packed = open_folder(fill(tmp_path / "packed", made_tiles(3000).tiles, references, storage))
    expected, results = plain.search(queries, 5), packed.search(queries, 5)
    right = np.arange(3000)[:, None]
    assert 0.2 < (expected.rows[:, :1] == right).mean() < 0.98
    np.testing.assert_array_equal(results.rows[:, :1] == right, expected.rows[:, :1] == right)
    np.testing.assert_array_equal((results.rows == right).any(axis=1), (expected.rows == right).any(axis=1))
    np.testing.assert_allclose(results.scores, expected.scores, atol=2e-6)
    assert packed.info.searched_bytes == pytest.approx(share * plain.info.searched_bytes, rel=0.02)


@settings(max_examples=100, deadline=None)
@given(
    compression=st.sampled_from(["float16", "int8"]),
    count=st.integers(1, 20),
    size=st.integers(1, 40),
    spikes=st.floats(1, 8),
    seed=st.integers(0, 99),
)
def test_no_compressed_row_exceeds_its_recorded_error(
    compression: Compression, count: int, size: int, spikes: float, seed: int
) -> None:
    rows = np.sign(unit_rows(count, size, seed)) * np.abs(unit_rows(count, size, seed)) ** np.float32(spikes)
    packed = compress(rows, compression)
    off = np.linalg.norm(rows - packed.values.astype(np.float64) * packed.scales[:, None].astype(np.float64), axis=1)
    assert (off <= packed.errors).all()
    assert (packed.errors <= 0.5 / 127 * math.sqrt(size) + 1e-6).all()


def test_a_prior_admits_only_references_within_it(tmp_path: Path) -> None:
    places = [(0.0, 179.9999), (0.0, -179.9999), (0.0, 0.0), (None, None), (90.0, 10.0)]
    put = [Tile(str(n), "x", lat, lon) for n, (lat, lon) in enumerate(places)]
    with open_folder(build(tmp_path / "g", MadeTiles(put))) as gallery:
        query = descriptors_of(["3"])
        assert gallery.search(query, 1).rows.tolist() == [[3]]
        assert sorted(gallery.search(query, 5, Near(0, 180, 100)).rows[0].tolist()) == [0, 1]
        assert gallery.search(query, 5, Near(90, -170, 1)).rows.tolist() == [[4]]
        assert gallery.search(query, 5, Near(45, 45, 1000)).rows.shape == (1, 0)


@pytest.mark.parametrize(
    "values", [(91, 0, 5), (0, 181, 5), (math.nan, 0, 5), (0, math.inf, 5), (0, 0, 0), (0, 0, math.nan)]
)
def test_an_impossible_prior_is_refused(values: tuple[float, float, float]) -> None:
    with pytest.raises(ConfigError, match=r"allowed|must be"):
        Near(*values)


def test_a_search_lets_go_of_the_pages_of_large_files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(vectors, "_KEPT", 1 << 20)
    monkeypatch.setattr(exact, "_BLOCK_SCORES", 1 << 12)  # the blocks that were scored last stay in memory
    rows = unit_rows(20_000, 128, 0)
    path = fill(tmp_path / "g", [Tile(f"{n}", "map.tif") for n in range(len(rows))], rows)
    with open_folder(path) as gallery:
        hits = gallery.search(rows[:3], 1)
        assert hits.rows[:, 0].tolist() == [0, 1, 2]
        assert resident(path / "descriptors-1.float32") < rows.nbytes // 2
        scattered = np.arange(0, len(rows), 2500)  # each brings the pages around it, 2 MB with some systems
        np.testing.assert_array_equal(gallery.descriptors(scattered), rows[scattered])
        assert gallery.descriptors(scattered[:0]).shape == (0, 128)
        assert resident(path / "descriptors-1.float32") < rows.nbytes // 2


def resident(mapped: Path) -> int:
    """Bytes of a mapped file that are in this process's memory."""
    if not Path("/proc/self/smaps").exists():
        pytest.skip("needs Linux: how much of a mapped file is in memory is read in /proc")
    lines = iter(Path("/proc/self/smaps").read_text(encoding="utf-8").splitlines())
    total = 0
    for line in lines:
        if line.endswith(str(mapped)):
            total += 1024 * next(int(after.split()[1]) for after in lines if after.startswith("Rss:"))
    return total


@pytest.mark.parametrize("looked_through", [0, 50_000])
def test_a_gallery_without_positions_cannot_be_searched_near_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, looked_through: int
) -> None:
    monkeypatch.setattr(reader, "_LOOKED_THROUGH", looked_through)
    with open_folder(build(tmp_path / "g", MadeTiles([Tile("a", "a.png")]))) as gallery:
        with pytest.raises(GalleryError, match="no positions"):
            gallery.search(descriptors_of(["a"]), 1, Near(0, 0, 10))
        assert gallery.search(descriptors_of(["a"]), 1).rows.tolist() == [[0]]


@pytest.mark.parametrize("storage", STORAGES)
def test_an_empty_gallery_finds_nothing_and_reports_it(
    tmp_path: Path, storage: Storage, cli: Callable[..., Outcome]
) -> None:
    path = build(tmp_path / "g", made_tiles(2), storage)
    with FolderWriter(path) as writer:
        assert writer.remove(["*"]) == 2
    for _ in range(2):
        with open_folder(path) as gallery:
            assert gallery.search(descriptors_of(["a", "b"]), 5).rows.shape == (2, 0)
            assert gallery.search(descriptors_of(["a"]), 5, Near(0, 0, 10)).rows.shape == (1, 0)
        assert "empty" in cli("gallery", "info", path).out
        with FolderWriter(path) as writer:
            writer.compact()


@pytest.mark.parametrize("queries", [np.ones(SIZE), np.ones((1, SIZE + 1)), np.full((1, SIZE), np.nan)])
def test_queries_of_the_wrong_shape_are_refused(tmp_path: Path, queries: Any) -> None:
    with (
        open_folder(build(tmp_path / "g", made_tiles(1))) as gallery,
        pytest.raises(GalleryError, match="descriptor"),
    ):
        gallery.search(queries.astype(np.float32), 1)


def test_queries_that_are_not_float32_are_refused_by_their_type(tmp_path: Path) -> None:
    with open_folder(build(tmp_path / "g", made_tiles(1))) as gallery:
        for dtype in (np.float64, np.float16, np.int64):
            with pytest.raises(GalleryError, match=rf"float32.*{np.dtype(dtype)}"):
                gallery.search(descriptors_of(["000"]).astype(dtype), 1)


def test_threads_share_one_open_gallery(tmp_path: Path) -> None:
    path = build(tmp_path / "g", made_tiles(60), "int8")
    ids = [f"{n:03}" for n in range(60)]

    def find(name: str) -> tuple[str, str]:
        nearest = gallery.search(descriptors_of([name]), 1, Near(48, 8, 10_000)).rows[0, 0]
        return name, gallery.tile(int(nearest)).id

    with open_folder(path) as gallery, ThreadPoolExecutor(8) as pool:
        assert all(asked == found for asked, found in pool.map(find, ids * 5))


CLOSED_CALLS: dict[str, Callable[[reader.FolderGallery], object]] = {
    "search": lambda gallery: gallery.search(unit_rows(1, SIZE, 0), 1),
    "search near": lambda gallery: gallery.search(unit_rows(1, SIZE, 0), 1, Near(48, 8, 100)),
    "len": len,
    "tiles": lambda gallery: gallery.tiles([0]),
    "all_tiles": lambda gallery: list(gallery.all_tiles()),
    "described": lambda gallery: list(gallery.described()),
    "descriptors": lambda gallery: gallery.descriptors(np.array([0])),
    "lat": lambda gallery: gallery.lat,
    "info": lambda gallery: gallery.info,
    "attached": lambda gallery: gallery.attached("fixes.json"),
    "attach": lambda gallery: gallery.attach("fixes.json", b"{}"),
}


@pytest.mark.parametrize("call", CLOSED_CALLS)
def test_a_closed_gallery_is_reported(tmp_path: Path, call: str) -> None:
    gallery = open_folder(build(tmp_path / "map", made_tiles(3)))
    lat = gallery.lat
    gallery.tiles([0])
    gallery.close()
    with pytest.raises(GalleryError, match=r"map was closed\. Open it again"):
        CLOSED_CALLS[call](gallery)
    assert len(lat) == 3


def test_a_closed_writer_is_reported(tmp_path: Path) -> None:
    writer = FolderWriter(build(tmp_path / "map", made_tiles(3)))
    writer.close()
    calls: list[Callable[[], object]] = [
        lambda: writer.missing(made_tiles(4).tiles),
        lambda: writer.add(made_tiles(1).tiles, descriptors_of(["000"])),
        lambda: len(writer),
        lambda: writer.finished,
        writer.finish,
        writer.compact,
    ]
    for call in calls:
        with pytest.raises(GalleryError, match="was closed"):
            call()
