"""A gallery in Milvus has the search results of one in a folder, while others change it too."""

import uuid
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from milvus_places import begun, client_of, collection_of, fill
from tiny_gallery import (
    MADE_BY,
    SIZE,
    MadeTiles,
    TinyEmbedder,
    build,
    descriptors_of,
    made_tiles,
    unit_rows,
)

from geodtr import open_gallery
from geodtr.runtime.errors import GalleryError
from geodtr.runtime.gallery.base import Gallery
from geodtr.runtime.gallery.build import begin_gallery, build_gallery
from geodtr.runtime.gallery.milvus.client import Collection
from geodtr.runtime.gallery.registry import change_gallery, verify_gallery
from geodtr.runtime.geodesy import Near
from geodtr.runtime.sources.tile import Tile

pytest.importorskip("pymilvus", reason="Milvus is tested with pymilvus: pip install '.[milvus]'")


@pytest.fixture(scope="module")
def twins(milvus: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Gallery, Gallery]]:
    """The same 300 tiles in a folder and on a server: at the antimeridian, at a pole, elsewhere, without a position."""
    random = np.random.default_rng(3)
    where = [(70, 179.9, 0.4), (89.9, 0.0, 90.0), (-5, 8.0, 0.2)]
    tiles = []
    for number in range(300):
        lat, lon, wide = where[number % 3]
        east = (lon + random.uniform(-wide, wide) + 180) % 360 - 180
        at = (min(90.0, lat + random.uniform(-0.1, 0.1)), east) if number % 10 else (None, None)
        tiles.append(Tile(f"{number:03}", f"{number}.png", *at))
    folder = tmp_path_factory.mktemp("twins") / "g"
    place = f"{milvus}/geodtr_{uuid.uuid4().hex}"
    build(folder, MadeTiles(tiles))
    build_gallery(place, MadeTiles(tiles), TinyEmbedder(), MADE_BY)
    with open_gallery(folder) as one, open_gallery(place) as other:
        yield one, other
    client_of(place).drop_collection(collection_of(place))


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 99),
    queries=st.integers(1, 4),
    top=st.sampled_from([1, 2, 7, 40, 300, 500]),
    place=st.none() | st.sampled_from([(70.0, 179.99), (70.05, -179.8), (89.95, 100.0), (-5.0, 8.0), (0.0, 0.0)]),
    radius=st.floats(1.0, 40_000.0),
)
def test_a_search_has_the_results_of_a_folder(
    twins: tuple[Gallery, Gallery],
    seed: int,
    queries: int,
    top: int,
    place: tuple[float, float] | None,
    radius: float,
) -> None:
    folder, milvus = twins
    vectors = unit_rows(queries, SIZE, seed)
    near = None if place is None else Near(*place, radius)
    one, other = folder.search(vectors, top, near), milvus.search(vectors, top, near)
    np.testing.assert_allclose(other.scores, one.scores, atol=1e-6)
    assert _ids(milvus, other.rows) == _ids(folder, one.rows)


@pytest.mark.parametrize("near", [None, Near(70.0, 179.99, 40_000.0)])
@pytest.mark.parametrize("numbers", [range(100, 118), range(0, 300, 3), range(299), [7], []])
def test_few_rows_of_many_are_all_found(
    twins: tuple[Gallery, Gallery], monkeypatch: pytest.MonkeyPatch, numbers: Sequence[int], near: Near | None
) -> None:
    """Others are nearer than all that Milvus returns, and one request cannot list the rows."""
    monkeypatch.setattr("geodtr.runtime.gallery.milvus.reader.MOST_HITS", 40)
    monkeypatch.setattr("geodtr.runtime.gallery.milvus.reader.LISTED", 30)
    folder, milvus = twins
    rows = np.array(numbers, np.int64)
    ids = {tile.id for tile in folder.tiles(numbers)}
    keys = milvus.rows[[tile.id in ids for tile in milvus.all_tiles()]]
    vectors = unit_rows(3, SIZE, 1)
    one, other = folder.search(vectors, 12, near, rows), milvus.search(vectors, 12, near, keys)
    assert _ids(milvus, other.rows) == _ids(folder, one.rows)


@pytest.mark.parametrize("top", [1, 30, 40])
def test_a_prior_with_more_tiles_than_milvus_returns_is_searched_whole(
    twins: tuple[Gallery, Gallery], monkeypatch: pytest.MonkeyPatch, top: int
) -> None:
    """A circle has less than its box: of as many hits as Milvus returns of the box, too few are within."""
    monkeypatch.setattr("geodtr.runtime.gallery.milvus.reader.MOST_HITS", 40)
    monkeypatch.setattr("geodtr.runtime.gallery.milvus.reader.LISTED", 30)
    folder, milvus = twins
    vectors, near = unit_rows(3, SIZE, 1), Near(70.0, 179.9, 11_000.0)
    one, other = folder.search(vectors, top, near), milvus.search(vectors, top, near)
    assert one.rows.shape == (3, top)
    assert _ids(milvus, other.rows) == _ids(folder, one.rows)


@settings(max_examples=200, deadline=None)
@given(
    lat=st.floats(-90, 90) | st.sampled_from([90.0, -90.0, 89.999]),
    lon=st.floats(-180, 180) | st.sampled_from([180.0, -180.0]),
    radius=st.floats(1e-3, 3e7),
    seed=st.integers(0, 9),
)
def test_a_box_contains_everything_within_the_radius(lat: float, lon: float, radius: float, seed: int) -> None:
    near, random = Near(lat, lon, radius), np.random.default_rng(seed)
    box, spread = near.box, np.degrees(radius / 6.371e6)
    around = np.clip(lat + spread * random.uniform(-1, 1, 400), -90, 90)
    aside = (lon + spread * random.uniform(-1, 1, 400) / np.maximum(np.cos(np.radians(around)), 1e-6) + 180) % 360 - 180
    held = near.holds(around, aside)
    crossing = box.west > box.east
    beside = (aside >= box.west) | (aside <= box.east) if crossing else (aside >= box.west) & (aside <= box.east)
    assert ((around >= box.south) & (around <= box.north) & beside)[held].all()


def test_an_index_that_is_not_exact_is_measured(place: str) -> None:
    with begin_gallery(place, begun(32, "hnsw")) as writer:
        tiles = [Tile(f"{number}", "made.png") for number in range(1000)]
        writer.add(tiles, unit_rows(1000, 32, 0))
        writer.finish()
    verified = verify_gallery(place)
    assert verified.faults == ()
    assert verified.recall is not None
    assert (verified.recall.index, verified.recall.top, verified.recall.queries) == ("HNSW", 10, 100)
    assert 0.5 < verified.recall.found <= 1


def _remove(place: str, *ids: str) -> None:
    with change_gallery(place) as writer:
        writer.remove(ids)


def _ids(gallery: Gallery, rows: Any) -> list[list[str]]:
    return [[tile.id for tile in gallery.tiles(each)] for each in rows.tolist()]


def test_results_of_a_search_can_be_read_after_another_process_removed_them(place: str) -> None:
    fill(place, 30)
    with open_gallery(place) as gallery:
        hits = gallery.search(descriptors_of(["004", "011"]), 5)
        _remove(place, "004", "011")
        assert [ids[0] for ids in _ids(gallery, hits.rows)] == ["004", "011"]
        assert not {"004", "011"} & {name for ids in _ids(gallery, hits.rows[:, 1:]) for name in ids}
        again = gallery.search(descriptors_of(["004", "011"]), 28)
        assert not {"004", "011"} & {name for ids in _ids(gallery, again.rows) for name in ids}


def test_tiles_removed_during_a_search_are_not_found(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(place, 30)
    search = Collection.search

    def search_and_remove(self: Collection, *arguments: Any) -> Any:
        results = search(self, *arguments)
        _remove(place, "004")
        return results

    with open_gallery(place) as gallery:
        monkeypatch.setattr(Collection, "search", search_and_remove)
        hits = gallery.search(descriptors_of(["004"]), 5)
        assert hits.rows.shape == (1, 4)
        assert "004" not in _ids(gallery, hits.rows)[0]


def test_a_graph_index_returns_everything_within_a_small_prior(place: str) -> None:
    with begin_gallery(place, begun(64, "hnsw")) as writer:
        writer.add(made_tiles(3000).tiles, unit_rows(3000, 64, 0))
        writer.finish()
    with open_gallery(place) as gallery:
        hits = gallery.search(unit_rows(64, 64, 5), 10, Near(48.1, 8.0, 30))
        assert hits.rows.shape == (64, 5)


def test_a_gallery_without_positions_is_not_searched_near_one(place: str) -> None:
    build_gallery(place, MadeTiles([Tile("a", "a.png"), Tile("b", "b.png")]), TinyEmbedder(), MADE_BY)
    with open_gallery(place) as gallery, pytest.raises(GalleryError, match="no positions"):
        gallery.search(unit_rows(1, SIZE, 0), 1, Near(0, 0, 10))


def test_an_empty_gallery_finds_nothing(place: str) -> None:
    fill(place, 0)
    with open_gallery(place) as gallery:
        assert gallery.search(unit_rows(2, SIZE, 0), 3).rows.shape == (2, 0)
        assert gallery.lat.shape == (0,)
    assert verify_gallery(place).faults == ()
