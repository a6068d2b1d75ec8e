"""A gallery is built, resumed, extended and compacted; a tile that it cannot keep is refused by name."""

import math
import os
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_gallery import (
    MADE_BY,
    MadeTiles,
    TinyEmbedder,
    build,
    descriptors_of,
    made_tiles,
)

from geodtr import UserError
from geodtr.runtime.errors import DataError, EmbeddingSpaceMismatch, GalleryError, ImageError, OutputExists
from geodtr.runtime.gallery.build import add_to_gallery, build_gallery
from geodtr.runtime.gallery.folder.reader import open_folder
from geodtr.runtime.gallery.folder.verify import verify
from geodtr.runtime.gallery.folder.writer import FolderWriter
from geodtr.runtime.names import Storage
from geodtr.runtime.sources.tile import Tile


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"lat": 91.0}, "lat is 91;"),
        ({"lat": math.nan}, "lat is nan"),
        ({"lon": -180.5}, "lon is -180.5"),
        ({"lon": math.inf}, "lon is inf"),
        ({"lat": None}, "both or neither"),
        ({"heading": math.nan}, "heading is nan"),
        ({"metres_per_pixel": 0.0}, "metres_per_pixel is 0.0"),
        ({"more": {"of": {1, 2}.__iter__}}, "JSON"),
        ({"id": ""}, "id is empty"),
        ({"id": "000"}, "taken by another"),
    ],
)
def test_an_impossible_tile_is_refused_by_name_before_any_work(
    tmp_path: Path, changes: dict[str, Any], named: str
) -> None:
    source = made_tiles(3)
    source = MadeTiles([*source.tiles[:2], replace(source.tiles[2], **changes)])
    embedder = TinyEmbedder()
    with pytest.raises(DataError, match=named) as refusal:
        build_gallery(tmp_path / "g", source, embedder, MADE_BY)
    assert "tiles/002.png" in str(refusal.value)
    assert embedder.seen == 0
    assert not (tmp_path / "g").exists()
    with FolderWriter(build(tmp_path / "other", made_tiles(1))) as writer, pytest.raises(UserError):
        writer.add(source.tiles, descriptors_of(["a", "b", "c"]))


def test_a_stopped_build_resumes_and_embeds_nothing_twice(tmp_path: Path) -> None:
    source, embedder = made_tiles(100), TinyEmbedder()
    source.broken.add("070")
    with pytest.raises(ImageError, match=r"070\.png"):
        build_gallery(tmp_path / "g", source, embedder, MADE_BY)
    with open_folder(tmp_path / "g") as gallery:
        assert not gallery.info.finished
        assert [tile.id for tile in gallery.all_tiles()] == [f"{n:03}" for n in range(64)]
    source.broken.clear()
    added = build_gallery(tmp_path / "g", source, embedder, MADE_BY)
    assert (added.embedded, added.held, added.left_out) == (36, 64, 0)
    assert embedder.seen == 100
    with open_folder(tmp_path / "g") as gallery:
        assert gallery.info.finished
        assert list(gallery.all_tiles()) == source.tiles


def test_a_build_that_kept_nothing_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ImageError):
        build_gallery(tmp_path / "g", made_tiles(9, broken={"003"}), TinyEmbedder(), MADE_BY)
    assert list(tmp_path.iterdir()) == []


def test_bad_tiles_can_be_left_out_and_are_reported(tmp_path: Path) -> None:
    reported = []
    added = build_gallery(
        tmp_path / "g",
        made_tiles(9, broken={"003", "005"}),
        TinyEmbedder(),
        MADE_BY,
        on_bad_tile=lambda tile, error: reported.append((tile.id, str(error))),
    )
    assert (added.embedded, added.left_out) == (7, 2)
    assert [name for name, _ in reported] == ["003", "005"]
    repaired = add_to_gallery(tmp_path / "g", made_tiles(9), TinyEmbedder(), MADE_BY.embedding_id)
    assert (repaired.embedded, repaired.held) == (2, 7)


@pytest.mark.parametrize(
    ("source", "made_by", "storage", "named"),
    [
        ("elsewhere", MADE_BY, "float32", "source"),
        ("made", MADE_BY, "int8", "storage"),
        ("made", type(MADE_BY)(embedding_id="f" * 16, precision="fp32", backend="tests 1.0"), "float32", "made_by"),
    ],
)
def test_a_build_resumes_only_with_the_same_options(
    tmp_path: Path, source: str, made_by: Any, storage: Storage, named: str
) -> None:
    with pytest.raises(ImageError):
        build(tmp_path / "g", made_tiles(40, broken={"039"}))
    with pytest.raises(GalleryError, match=f"begun with {named}"):
        build_gallery(tmp_path / "g", made_tiles(40, name=source), TinyEmbedder(), made_by, storage=storage)
    with pytest.raises(GalleryError, match="not finished"):
        add_to_gallery(tmp_path / "g", made_tiles(50), TinyEmbedder(), MADE_BY.embedding_id)
    build(tmp_path / "g", made_tiles(40))
    with pytest.raises(OutputExists, match="finished"):
        build(tmp_path / "g", made_tiles(40))


def test_a_source_with_another_record_of_a_tile_is_refused(tmp_path: Path) -> None:
    build(tmp_path / "g", made_tiles(3))
    moved = MadeTiles([replace(made_tiles(3).tiles[1], lat=50.0)])
    with pytest.raises(GalleryError, match="gallery remove"):
        add_to_gallery(tmp_path / "g", moved, TinyEmbedder(), MADE_BY.embedding_id)
    with pytest.raises(EmbeddingSpaceMismatch, match="gallery build"):
        add_to_gallery(tmp_path / "g", made_tiles(4), TinyEmbedder(), "f" * 16)
    with FolderWriter(tmp_path / "g") as writer, pytest.raises(GalleryError, match="'001' already"):
        writer.add(moved.tiles, descriptors_of(["x"]))
    assert verify(tmp_path / "g") == ()


def test_a_remedy_can_be_pasted_into_a_shell(tmp_path: Path) -> None:
    path = tmp_path / "my maps"
    tile = Tile("it's 1.png", "a.png")
    build(path, MadeTiles([tile]))
    with pytest.raises(GalleryError, match="gallery remove") as error:
        add_to_gallery(path, MadeTiles([replace(tile, file="b.png")]), TinyEmbedder(), MADE_BY.embedding_id)
    remedy = str(error.value).split("remove the old one first: ")[1].split(". To keep")[0]
    assert shlex.split(remedy) == ["geodtr-export", "gallery", "remove", str(path), tile.id]


@pytest.mark.parametrize("value", [np.nan, np.inf, 2.0])
def test_an_invalid_descriptor_is_refused_by_name(tmp_path: Path, value: float) -> None:
    bad = descriptors_of(["a", "b"])
    bad[1, 3] = value
    with FolderWriter(build(tmp_path / "g", made_tiles(1))) as writer, pytest.raises(GalleryError, match="'b'"):
        writer.add([Tile("a", "a.png"), Tile("b", "b.png")], bad)


def test_references_are_removed_by_id_or_glob_and_compacting_frees_their_space(tmp_path: Path) -> None:
    path = build(tmp_path / "g", made_tiles(300), "int8")
    before = sum(file.stat().st_size for file in path.glob("descriptors-*"))
    old = open_folder(path)
    with FolderWriter(path) as writer:
        with pytest.raises(GalleryError, match="'nowhere'"):
            writer.remove(["000", "nowhere"])
        assert len(writer) == 300
        assert writer.remove(["000", "1*", "0[12]?"]) == 121
        assert open_folder(path).info.removed == 121
        compacted = writer.compact()
    assert (compacted.references, compacted.freed) == (179, 121)
    assert sum(file.stat().st_size for file in path.glob("descriptors-*")) == before * 179 // 300
    with open_folder(path) as gallery:
        left = [tile.id for tile in gallery.all_tiles()]
        assert left == [f"{n:03}" for n in range(300) if n and not 10 <= n < 30 and not 100 <= n < 200]
        np.testing.assert_array_equal(gallery.descriptors(np.arange(179)), descriptors_of(left))
    # A reader that opened the gallery before still sees the earlier state.
    assert [tile.id for tile in old.all_tiles()] == [f"{n:03}" for n in range(300)]
    np.testing.assert_array_equal(old.descriptors(np.arange(300)), descriptors_of([f"{n:03}" for n in range(300)]))
    assert verify(path) == ()


def test_a_second_writer_is_refused_immediately(tmp_path: Path) -> None:
    path = build(tmp_path / "g", made_tiles(2))
    with FolderWriter(path), pytest.raises(GalleryError, match=f"another process .*{os.getpid()}"):
        FolderWriter(path)
    with FolderWriter(path) as writer:
        assert len(writer) == 2
