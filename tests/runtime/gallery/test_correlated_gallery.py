"""A gallery of maps that are compared at every orientation: it gives tiles and headings, and refuses other scorers."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
import pytest
from conftest import Outcome
from tiny_bundle import SIDE, TURN, write_bundle, write_correlating_bundle
from tiny_gallery import MadeTiles, made_tiles

from geodtr import Localizer, open_bundle, open_gallery
from geodtr.runtime.errors import ConfigError, EmbeddingSpaceMismatch, GalleryError
from geodtr.runtime.gallery.build import build_gallery
from geodtr.runtime.gallery.manifest import made_by, read_gallery_manifest, write_gallery_manifest
from geodtr.runtime.gallery.registry import change_gallery
from geodtr.runtime.images.decode import Decoded
from geodtr.runtime.localization.nadir.hypotheses import NadirOptions
from geodtr.runtime.names import Storage
from geodtr.runtime.sources.tile import Tile
from geodtr.runtime.spec import Images


def turn_of(tile: str) -> Images:
    """What a tile looks like in a full turn."""
    return np.random.default_rng(int(tile)).integers(0, 256, (SIDE, TURN.columns, 3), np.uint8)


@dataclass
class Turns(MadeTiles):
    def read(self, tile: Tile) -> Decoded:
        return Decoded.of(turn_of(tile.id))


def build(bundle: Path, out: Path | str, storage: Storage = "float32") -> None:
    opened = open_bundle(bundle)
    source = Turns(made_tiles(30).tiles)
    build_gallery(out, source, opened.embedder("aerial"), made_by(opened.manifest), storage=storage)


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return write_correlating_bundle(tmp_path / "bundle")


@pytest.fixture
def gallery(bundle: Path, tmp_path: Path) -> Path:
    build(bundle, tmp_path / "gallery")
    return tmp_path / "gallery"


@pytest.mark.parametrize("turned", [0, 3, 7])
def test_a_turned_panorama_finds_its_tile_and_its_heading(bundle: Path, gallery: Path, turned: int) -> None:
    image = np.roll(turn_of("017"), -turned, axis=1)
    with Localizer.open(bundle, gallery) as localizer:
        located = localizer.locate(image, top=3)
    first = located.candidates[0]
    assert first.place.id == "017"
    assert first.score == pytest.approx(1, abs=1e-6)
    assert first.heading == located.heading == turned * 45


def test_headings_belong_to_their_tiles_after_others_were_removed(bundle: Path, gallery: Path) -> None:
    with change_gallery(gallery) as writer:
        writer.remove(["00*", "016"])
    with Localizer.open(bundle, gallery) as localizer:
        first = localizer.locate(np.roll(turn_of("021"), -2, axis=1)).candidates[0]
    assert (first.place.id, first.heading) == ("021", 90)


def test_the_manifest_names_the_scorer(gallery: Path) -> None:
    assert read_gallery_manifest(gallery).scorer == TURN
    assert '"name": "correlation"' in (gallery / "gallery.json").read_text()


def test_a_gallery_for_another_scorer_is_refused_by_name(
    bundle: Path, gallery: Path, tmp_path: Path, cli: Callable[..., Outcome]
) -> None:
    vectors = write_bundle(tmp_path / "vectors")
    with pytest.raises(
        EmbeddingSpaceMismatch, match=r"scorer correlation over the heading .*bundle's is cosine\. Build"
    ):
        Localizer.open(vectors, gallery)
    narrower = msgspec.structs.replace(TURN, columns=4, seen=4, values=2 * TURN.values)
    manifest = read_gallery_manifest(gallery)
    write_gallery_manifest(gallery, msgspec.structs.replace(manifest, scorer=narrower))
    with pytest.raises((EmbeddingSpaceMismatch, GalleryError), match=r"4 of 4 columns|gallery\.json"):
        Localizer.open(bundle, gallery)
    refused = cli("localize", bundle, gallery, tmp_path / "none.png")
    assert refused.code == 2


def test_what_ranks_by_the_cosine_alone_is_refused(bundle: Path, tmp_path: Path) -> None:
    for out, storage in ((tmp_path / "int8", "int8"), (tmp_path / "map.db", "float32")):
        with pytest.raises(ConfigError, match=r"heading, which needs a folder and the storage float32"):
            build(bundle, out, storage)  # type: ignore[arg-type] # the loop's literals
        assert not out.exists()


def test_headings_and_nadir_frames_are_refused(bundle: Path, gallery: Path) -> None:
    with pytest.raises(ConfigError, match="finds the heading"):
        Localizer.open(bundle, gallery, headings=4)
    with pytest.raises(ConfigError, match="finds the heading"):
        Localizer.open(bundle, gallery, nadir=NadirOptions())


def test_a_query_of_another_size_is_refused(gallery: Path) -> None:
    with open_gallery(gallery) as opened, pytest.raises(GalleryError, match=r"takes descriptors \[Q, 96\]"):
        opened.search(np.ones((1, 48), np.float32), 1)
