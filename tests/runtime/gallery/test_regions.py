"""Galleries split by region and merged again: nothing is lost, nothing is half there."""

import errno
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Outcome
from hypothesis import given
from hypothesis import strategies as st
from tiny_gallery import MADE_BY, fill, unit_rows

from geodtr import UserError
from geodtr.runtime.errors import EmbeddingSpaceMismatch, GalleryError, OutputExists
from geodtr.runtime.gallery import regions
from geodtr.runtime.gallery.folder.reader import open_folder
from geodtr.runtime.gallery.folder.vectors import DescriptorFiles
from geodtr.runtime.gallery.folder.verify import verify
from geodtr.runtime.gallery.folder.writer import FolderWriter
from geodtr.runtime.gallery.manifest import GalleryManifest
from geodtr.runtime.gallery.regions import UNPLACED, InBox, InGrid, merge, split
from geodtr.runtime.geodesy import distance
from geodtr.runtime.names import Storage
from geodtr.runtime.sources.tile import Tile
from geodtr.runtime.spec import Descriptors

COUNT, SIZE = 2500, 24


def tiles_of(count: int, seed: int = 0, name: str = "t") -> list[Tile]:
    """Tiles in a square of 40 km at the 180th meridian; the last ten have no position."""
    random = np.random.default_rng(seed)
    lat, lon = 48 + random.uniform(0, 0.36, count), (179.73 + random.uniform(0, 0.54, count) + 180) % 360 - 180
    places = [*zip(lat.tolist(), lon.tolist(), strict=True)][: count - 10] + [(None, None)] * 10
    return [Tile(f"{name}{row:05}", f"{row}.png", *at, None, 0.3, {"row": row}) for row, at in enumerate(places)]


@pytest.fixture(scope="module", params=["float32", "int8"])
def whole(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    storage: Storage = request.param
    return fill(tmp_path_factory.mktemp("whole") / "g", tiles_of(COUNT), unit_rows(COUNT, SIZE, 0), storage)


@pytest.mark.parametrize("region", [InGrid(20_000), InBox(48.1, 179.9, 48.2, -179.9)])
def test_what_is_split_and_merged_again_finds_the_same(
    whole: Path, tmp_path: Path, region: InGrid | InBox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(regions, "_BLOCK", 1000)
    counts = split(whole, tmp_path / "parts", region)
    assert sum(counts.values()) == COUNT
    assert counts[UNPLACED] == 10
    parts = [tmp_path / "parts" / name for name in counts]
    assert sorted(parts) == sorted((tmp_path / "parts").iterdir())
    for part, count in zip(parts, counts.values(), strict=True):
        assert verify(part) == ()
        with open_folder(part) as opened:
            assert (len(opened), opened.info.finished) == (count, True)
            if isinstance(region, InGrid) and part.name != UNPLACED:
                corners = opened.lat.min(), opened.lon.min(), opened.lat.max(), opened.lon.max()
                assert distance(*corners) < 20_000 * 1.5
    bars = list[tuple[str, int | None]]()

    def track(items: Iterable[Any], description: str, total: int | None) -> Iterator[Any]:
        bars.append((description, total))
        return iter(items)

    assert merge(parts, tmp_path / "merged", track=track) == COUNT
    assert bars == [("Verifying", len(parts)), ("Merging", len(parts))]
    assert verify(tmp_path / "merged") == ()
    queries = unit_rows(20, SIZE, 1)
    with open_folder(whole) as before, open_folder(tmp_path / "merged") as after:
        assert after.manifest.storage == before.manifest.storage
        named, _, more = after.info.source.partition(" and ")
        assert named.split(", ") == list(map(str, parts[:5]))
        assert more == (f"{len(parts) - 5} more" if len(parts) > 5 else "")
        assert sorted(after.all_tiles(), key=lambda each: each.id) == list(before.all_tiles())
        old, new = before.search(queries, 10), after.search(queries, 10)
        np.testing.assert_array_equal(old.scores, new.scores)
        for mine, theirs in zip(old.rows, new.rows, strict=True):
            assert before.tiles(mine.tolist()) == after.tiles(theirs.tolist())


def test_a_part_answers_like_a_search_within_its_region(whole: Path, tmp_path: Path) -> None:
    split(whole, tmp_path / "parts", InBox(48.1, 179.9, 48.2, -179.9))
    queries = unit_rows(5, SIZE, 2)
    with open_folder(whole) as gallery, open_folder(tmp_path / "parts" / "inside") as inside:
        allowed = (gallery.lat >= 48.1) & (gallery.lat <= 48.2) & ((gallery.lon >= 179.9) | (gallery.lon <= -179.9))
        scores = queries @ gallery.descriptors(np.flatnonzero(allowed)).T
        np.testing.assert_allclose(inside.search(queries, 1).scores[:, 0], scores.max(axis=1), atol=1e-6)
        assert len(inside) == allowed.sum()


@given(st.lists(st.tuples(st.floats(-90, 90), st.floats(-180, 180)), min_size=1, max_size=30), st.floats(10, 1e6))
def test_every_place_on_earth_has_a_cell_of_about_the_side(places: list[tuple[float, float]], side: float) -> None:
    lat, lon = np.array(places).T
    parts = InGrid(side)(lat, lon)
    assert len(parts.of) == len(places)
    assert len(set(parts.names)) == len(parts.names)
    for number, name in enumerate(parts.names):
        inside = parts.of == number
        assert inside.any()
        south = float(name[1:8]) * (1 if name[0] == "N" else -1)
        assert np.all(lat[inside] >= south - 1e-4)
        assert np.all((lat[inside] - south) * 110_000 <= side * 1.02 + 20)


def test_ids_in_two_galleries_are_named_and_nothing_is_written(tmp_path: Path) -> None:
    one = fill(tmp_path / "one", tiles_of(20), unit_rows(20, SIZE, 0))
    two = fill(tmp_path / "two", tiles_of(15, seed=1), unit_rows(15, SIZE, 1))
    three = fill(tmp_path / "three", tiles_of(15, seed=1, name="other"), unit_rows(15, SIZE, 1))
    with pytest.raises(GalleryError, match=rf"{two} and {one} both hold a tile 't00000'.*gallery remove {one} t00000"):
        merge([one, three, two], tmp_path / "out")
    assert sorted(each.name for each in tmp_path.iterdir()) == ["one", "three", "two"]


def test_galleries_that_do_not_go_together_are_refused(tmp_path: Path) -> None:
    one = fill(tmp_path / "one", tiles_of(20), unit_rows(20, SIZE, 0))
    other = GalleryManifest(
        descriptor_size=SIZE,
        storage="float32",
        source="made",
        made_by=type(MADE_BY)(embedding_id="fedcba9876543210", precision="fp32", backend="onnx 1"),
    )
    with FolderWriter.create(tmp_path / "other", other) as writer:
        writer.finish()
    FolderWriter.create(tmp_path / "begun", open_folder(one).manifest).close()
    with pytest.raises(EmbeddingSpaceMismatch, match=r"other was built .*gallery add BUNDLE .*one made") as refused:
        merge([one, tmp_path / "other"], tmp_path / "out")
    assert "bundle's" not in str(refused.value), "none is given"
    with pytest.raises(GalleryError, match="not finished"):
        merge([one, tmp_path / "begun"], tmp_path / "out")
    with pytest.raises(GalleryError, match="not a gallery"):
        merge([one, tmp_path / "nowhere"], tmp_path / "out")
    with pytest.raises(OutputExists):
        merge([one], one)
    with pytest.raises(OutputExists):
        split(one, one, InGrid(1000))
    with pytest.raises(GalleryError, match="empty"):
        split(tmp_path / "other", tmp_path / "out", InGrid(1000))
    assert not (tmp_path / "out").exists()


def test_a_damaged_gallery_is_not_copied_with_a_checksum_that_fits(tmp_path: Path) -> None:
    one = fill(tmp_path / "one", tiles_of(20), unit_rows(20, SIZE, 0))
    file = one / "descriptors-1.float32"
    content = bytearray(file.read_bytes())
    content[9] ^= 1
    file.write_bytes(content)
    for call in (lambda: split(one, tmp_path / "out", InGrid(1000)), lambda: merge([one], tmp_path / "out")):
        with pytest.raises(GalleryError, match=r"damaged.*gallery verify"):
            call()
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("calibration", [None, "fixes.json", "fixes-near-200.json"])
def test_calibrations_are_mentioned_where_there_are_some(
    cli: Callable[..., Outcome], tmp_path: Path, calibration: str | None
) -> None:
    one = fill(tmp_path / "one", tiles_of(20), unit_rows(20, SIZE, 0))
    two = fill(tmp_path / "two", tiles_of(20, name="u"), unit_rows(20, SIZE, 1))
    if calibration is not None:
        (two / calibration).write_text("{}")
    split_up = cli("gallery", "split", two, "--grid", 20_000, "--out", tmp_path / "parts")
    merged = cli("gallery", "merge", one, two, "--out", tmp_path / "both")
    for outcome in (split_up, merged):
        assert (outcome.code, "gallery calibrate" in outcome.err) == (0, calibration is not None)


@pytest.mark.parametrize("region", ["48,11,47,12", "48,11,49,200", "-91,0,0,1", "1,2,3", "a,b,c,d"])
def test_a_box_that_is_none_is_refused(refused: Callable[..., str], tmp_path: Path, region: str) -> None:
    one = fill(tmp_path / "one", tiles_of(20), unit_rows(20, SIZE, 0))
    assert "box" in refused("gallery", "split", one, f"--box={region}", "--out", tmp_path / "out")


def test_the_commands(cli: Callable[..., Outcome], refused: Callable[..., str], tmp_path: Path) -> None:
    one = fill(tmp_path / "one", tiles_of(40), unit_rows(40, SIZE, 0))
    assert "give one" in refused("gallery", "split", one, "--out", tmp_path / "out")
    assert "10 to 1,000,000" in refused("gallery", "split", one, "--grid", 1, "--out", tmp_path / "out")
    printed = cli("gallery", "split", one, "--grid", 20_000, "--out", tmp_path / "out")
    assert (printed.code, "unplaced: 10 tiles" in printed.out) == (0, True)
    parts = sorted((tmp_path / "out").iterdir())
    merged = cli("gallery", "merge", *parts, "--out", tmp_path / "merged", "--storage", "int8")
    assert (merged.code, "40 tiles" in merged.err) == (0, True)
    with open_folder(tmp_path / "merged") as opened:
        assert opened.manifest.storage == "int8"


@pytest.mark.parametrize(
    ("stop", "seen", "words"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), UserError, "the disk of .*out: nothing was written"),
        (SystemExit(130), SystemExit, "130"),
    ],
)
def test_a_full_disk_or_an_interruption_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop: BaseException, seen: type[BaseException], words: str
) -> None:
    one = fill(tmp_path / "one", tiles_of(2000), unit_rows(2000, SIZE, 0))
    write, calls = DescriptorFiles.write, list[int]()

    def second(files: DescriptorFiles, slot: int, rows: Descriptors) -> None:
        calls.append(slot)
        if len(calls) == 2:
            raise stop
        write(files, slot, rows)

    monkeypatch.setattr(DescriptorFiles, "write", second)
    for call in (lambda: split(one, tmp_path / "out", InGrid(20_000)), lambda: merge([one], tmp_path / "out")):
        calls.clear()
        with pytest.raises(seen, match=words):
            call()
        assert [each.name for each in tmp_path.iterdir()] == ["one"]
