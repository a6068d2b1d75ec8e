"""Tiles of several ground sizes in one gallery: each knows its own, and each is searched by what fits it."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import Outcome
from maps import utm_map
from PIL import Image
from tiny_world import make_world

from geodtr import Localizer, open_bundle, open_gallery
from geodtr.runtime.errors import ConfigError, DataError
from geodtr.runtime.gallery.build import build_gallery
from geodtr.runtime.gallery.manifest import made_by
from geodtr.runtime.geodesy import distance
from geodtr.runtime.localization.nadir.hypotheses import NadirOptions
from geodtr.runtime.localization.nadir.refine import RefineOptions
from geodtr.runtime.sources.ground_size import side_metres, sizes_of
from geodtr.runtime.sources.raster.cut import GeoTiffOptions
from geodtr.runtime.sources.raster.geotiff import open_geotiff
from geodtr.runtime.sources.tile import Tile
from geodtr.runtime.spec import Images
from geodtr.runtime.tracking.run import sighting_of

SIZES = ("--tile-metres", "40,80,160", "--overlap", "20,40,80")
METRES, PIXEL = 320, 0.5
"""A side of the map, and of a pixel of it."""


@pytest.fixture(scope="module")
def picture() -> Images:
    """Smooth noise at two scales."""
    random, size = np.random.default_rng(1), int(METRES / PIXEL)
    layers = [
        np.asarray(
            Image.fromarray(random.integers(0, 256, (cells, cells, 3), np.uint8)).resize(
                (size, size), Image.Resampling.BICUBIC
            ),
            np.float64,
        )
        for cells in (25, 120)
    ]
    return np.asarray((layers[0] + layers[1]) / 2, np.uint8)


@pytest.fixture(scope="module")
def ortho(tmp_path_factory: pytest.TempPathFactory, picture: Images) -> Path:
    return utm_map(tmp_path_factory.mktemp("ortho") / "ortho.tif", picture.transpose(2, 0, 1))


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_world(tmp_path_factory.mktemp("tiny"), 2).bundle


@pytest.fixture(scope="module")
def gallery(tmp_path_factory: pytest.TempPathFactory, ortho: Path, bundle: Path) -> Path:
    source = open_geotiff(ortho, GeoTiffOptions((40.0, 80.0, 160.0), (20.0, 40.0, 80.0), 64))
    path, opened = tmp_path_factory.mktemp("gallery") / "map", open_bundle(bundle)
    build_gallery(path, source, opened.embedder("aerial"), made_by(opened.manifest))
    return path


def photograph(picture: Images, east: float, north: float, width: float, turns: int = 0) -> Images:
    """What a camera straight above shows, `width` metres wide, 4:3, the upper edge north; or after quarter turns."""
    pixels = round(width / PIXEL)
    column, row = len(picture) / 2 + east / PIXEL, len(picture) / 2 - north / PIXEL
    left, top = round(column - pixels / 2), round(row - 0.375 * pixels)
    part = np.rot90(picture[top : top + round(0.75 * pixels), left : left + pixels], turns)
    return np.asarray(Image.fromarray(np.ascontiguousarray(part)).resize((320, 240) if turns % 2 == 0 else (240, 320)))


def test_a_map_is_cut_in_several_sizes_with_an_overlap_for_each(
    cli: Callable[..., Outcome], ortho: Path, tmp_path: Path
) -> None:
    report = json.loads(cli("gallery", "preview", ortho, *SIZES, "--json", "--out", tmp_path / "a.png").out)
    assert report["coverage"]["tiles"] == sum(size["tiles"] for size in report["sizes"]) == 15**2 + 7**2 + 3**2
    for size, metres in zip(report["sizes"], (40, 80, 160), strict=True):
        assert size["tile_metres"] == pytest.approx(metres, rel=0.01)
        assert size["spacing_metres"] == pytest.approx(metres / 2, rel=0.02)
        assert size["overlap_metres"] == pytest.approx(metres / 2, rel=0.04)
    shown = cli("gallery", "preview", ortho, *SIZES).out
    assert "tiles of 40.0 m" in shown
    assert "225, overlapping by 20" in shown
    for_all = json.loads(cli("gallery", "preview", ortho, "--tile-metres", "40,80", "--overlap", 20, "--json").out)
    assert [size["spacing_metres"] for size in for_all["sizes"]] == pytest.approx([20, 60], rel=0.03)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--tile-metres", "40,80", "--overlap", "1,2,3"), "--overlap has 3 values for 2 sizes"),
        (
            ("--tile-metres", "40,80", "--overlap", "50"),
            "--overlap is 50; it must lie within 0 and the tile's side, 40",
        ),
        (("--tile-metres", "40,44"), "nearly the same; sizes of one gallery differ by a factor of 1.25"),
        (("--tile-metres", "40,40"), "nearly the same"),
        (("--tile-metres", "40,x"), "--tile-metres is '40,x'; numbers with commas"),
        (("--tile-metres", "40,0"), "--tile-metres is 0; it must be above 0"),
        (("--tile-metres", "40,4000"), "No tile of 4000 m fits"),
        (("--tile-metres", "40,80", "--stride", "0,1"), "--stride is 0; it must be above 0"),
    ],
)
def test_sizes_that_cannot_be_are_refused(
    refused: Callable[..., str], ortho: Path, options: tuple[object, ...], message: str
) -> None:
    assert message in refused("gallery", "preview", ortho, *options)


def test_each_tile_knows_its_size_and_keeps_it_in_a_gallery(ortho: Path, gallery: Path) -> None:
    source = open_geotiff(ortho, GeoTiffOptions((40.0, 80.0, 160.0), (20.0, 40.0, 80.0), 64))
    assert len({tile.id for tile in source.tiles}) == len(source.tiles)
    assert all(max(source.read(tile).image.size) == 64 for tile in source.tiles[:: len(source.tiles) // 6])
    with open_gallery(gallery) as opened:
        sizes = sizes_of(tile.side_metres for tile in opened.all_tiles())
        assert [(round(size.metres or 0), len(size.rows)) for size in sizes] == [(40, 225), (80, 49), (160, 9)]
        queries = np.stack([row for _, rows in opened.described() for row in rows])[[0, 230, 280]]
        for size in sizes:
            hits = opened.search(queries, 5, rows=size.rows)
            assert set(hits.rows.ravel().tolist()) <= set(size.rows.tolist())


@pytest.mark.parametrize(("width", "tile"), [(52.0, 40), (110.0, 80), (200.0, 160)])
def test_a_nadir_frame_is_searched_among_tiles_of_the_nearest_size(
    bundle: Path, gallery: Path, picture: Images, width: float, tile: int
) -> None:
    options = NadirOptions(frame_metres=(0.9 * width, width / 0.9), rotations=4, ground_sizes=3)
    frame = photograph(picture, 0.0, 0.0, width, turns=1)
    upright = NadirOptions(frame_metres=(0.675 * width, 0.75 * width / 0.9), rotations=4, ground_sizes=3)
    with Localizer.open(bundle, gallery, nadir=options) as localizer:
        middle = np.nanmean(localizer.gallery.lat), np.nanmean(localizer.gallery.lon)
        first, second = localizer.locate_frames([photograph(picture, 0.0, 0.0, width), photograph(picture, 0, 0, 52.0)])
        best = first.candidates[0]
        assert distance(*middle, best.place.lat or 0.0, best.place.lon or 0.0) < tile / 4
        assert best.ground_metres == pytest.approx(width, rel=0.1)
        for answer in (first, second):
            assert all(each.tile_metres == pytest.approx(tile, rel=0.01) for each in answer.candidates)
    with Localizer.open(bundle, gallery, nadir=upright) as localizer:
        turned = localizer.locate(frame)
    assert turned.candidates[0].tile_metres == pytest.approx(tile, rel=0.01)
    assert turned.heading is not None
    assert abs((turned.heading - 90 + 180) % 360 - 180) < 15


def test_the_answer_states_the_size_and_the_second_stage_goes_by_the_finest(
    bundle: Path,
    gallery: Path,
    picture: Images,
    tmp_path: Path,
    cli: Callable[..., Outcome],
    refused: Callable[..., str],
) -> None:
    frame = tmp_path / "a.png"
    Image.fromarray(photograph(picture, 30.0, -20.0, 110.0)).save(frame)
    command = ("localize", frame, "--bundle", bundle, "--gallery", gallery, "--view", "nadir")
    more = ("--frame-metres", "100,120", "--rotations", 4)
    answer = json.loads(cli(*command, *more, "--refine", "--json").out)
    assert answer["state"] == "fix", answer["unrefined"]
    assert answer["candidates"][0]["tile_metres"] == pytest.approx(80, rel=0.01)
    assert answer["ground_metres"] == pytest.approx(110, rel=0.01)
    with Localizer.open(
        bundle, gallery, nadir=NadirOptions(frame_metres=(100, 120)), refine=RefineOptions()
    ) as localizer:
        lat, lon = localizer.positions
    off = distance(answer["lat"], answer["lon"], (lat.min() + lat.max()) / 2, (lon.min() + lon.max()) / 2)
    assert off == pytest.approx(np.hypot(30, 20), abs=1.5)
    assert "80.0 m" in cli(*command, *more).out
    assert "--tile-metres is 60, and tiles of" in refused(*command, *more, "--tile-metres", 60)


def test_a_track_takes_each_tile_for_as_uncertain_as_it_is_wide(bundle: Path, gallery: Path) -> None:
    with Localizer.open(bundle, gallery) as localizer:
        located = localizer.locate(np.zeros((16, 64, 3), np.uint8) + np.arange(64, dtype=np.uint8)[None, :, None], 200)
    seen = sighting_of(located)
    assert seen is not None
    assert seen.sights is not None
    sides = [each.tile_metres for each in located.candidates]
    assert seen.sights.tolist() == pytest.approx([side / 4 for side in sides if side is not None])
    one = replace(located, candidates=tuple(each for each in located.candidates if (each.tile_metres or 0) < 50))
    alone = sighting_of(one)
    assert alone is not None
    assert alone.sights is None


def test_a_calibration_works_with_several_sizes(
    bundle: Path, gallery: Path, tmp_path: Path, cli: Callable[..., Outcome]
) -> None:
    """Panoramas of no place here: what is asked is that the command measures, and that localize takes the result."""
    random, rows = np.random.default_rng(3), ["ground,lat,lon"]
    with open_gallery(gallery) as opened:
        tiles = opened.tiles(random.integers(0, len(opened), 60).tolist())
    for number, tile in enumerate(tiles):
        Image.fromarray(random.integers(0, 256, (16, 64, 3), np.uint8)).save(tmp_path / f"{number}.png")
        rows.append(f"{number}.png,{tile.lat},{tile.lon}")
    (tmp_path / "known.csv").write_text("\n".join(rows))
    calibrated = cli("gallery", "calibrate", bundle, gallery, "--data", tmp_path / "known.csv")
    assert calibrated.code == 0, calibrated.err
    printed = cli("localize", tmp_path / "0.png", "--bundle", bundle, "--gallery", gallery, "--json")
    assert json.loads(printed.out)["uncalibrated"] is None


def test_tiles_of_a_zoom_level_are_one_size_at_every_latitude() -> None:
    tiles = list[Tile]()
    for zoom, merged in ((17, ""), (17, "+3"), (18, "")):
        for lat in (60.0, 30.0, 0.0):
            scale = float(np.cos(np.radians(lat))) * 2.0 ** (17 - zoom) * (3 if merged else 1)
            tiles.append(Tile(f"{zoom}/{lat}{merged}", "a.png", lat, 11.0, None, scale, {"zoom": zoom}))
    assert [size.rows.tolist() for size in sizes_of(side_metres(tiles, 256))] == [[6, 7, 8], [0, 1, 2], [3, 4, 5]]


def test_sizes_begin_at_gaps() -> None:
    sizes = sizes_of([80.2, None, 40.1, 39.9, 80.0, 160.0])
    assert [(size.metres, size.rows.tolist()) for size in sizes] == [
        (40.0, [2, 3]),
        (pytest.approx(80.1), [0, 4]),
        (160.0, [5]),
        (None, [1]),
    ]


def test_python_refuses_what_the_command_refuses(ortho: Path) -> None:
    with pytest.raises(ConfigError, match="2 sizes of tiles and 1 strides"):
        GeoTiffOptions((40.0, 80.0), 20.0)
    with pytest.raises(DataError, match="No tile of 900 m fits"):
        open_geotiff(ortho, GeoTiffOptions((40.0, 900.0)))


def test_several_sizes_in_milvus_answer_as_in_a_folder(
    bundle: Path, ortho: Path, gallery: Path, picture: Images, tmp_path: Path, cli: Callable[..., Outcome]
) -> None:
    pytest.importorskip("pymilvus", reason="Milvus is tested with pymilvus: pip install '.[milvus]'")
    place, frame = tmp_path / "map.db", tmp_path / "frame.png"
    built = cli("gallery", "build", bundle, ortho, *SIZES, "--tile-pixels", 64, "--out", place)
    assert built.code == 0, built.err
    assert cli("gallery", "verify", place).code == 0
    assert cli("gallery", "export", place, "--out", tmp_path / "tiles.csv").code == 0
    with open_gallery(place) as opened:
        sizes = sizes_of(tile.side_metres for tile in opened.all_tiles())
        assert [(round(size.metres or 0), len(size.rows)) for size in sizes] == [(40, 225), (80, 49), (160, 9)]
    Image.fromarray(photograph(picture, 20.0, -15.0, 110.0)).save(frame)
    answers = []
    for each in (gallery, place):
        near = ("--near", "{},{},300".format(*centre_of(gallery)))
        command = ("localize", frame, "--bundle", bundle, "--gallery", each, "--view", "nadir", "--refine", *near)
        outcome = cli(*command, "--frame-metres", "100,120", "--rotations", 4, "--ground-sizes", 3, "--json")
        assert outcome.code == 0, outcome.err
        answers.append(json.loads(outcome.out))
    folder, milvus = answers
    assert milvus["state"] == "fix"
    assert (milvus["lat"], milvus["lon"]) == pytest.approx((folder["lat"], folder["lon"]), abs=1e-6)
    sides, scores = ([each[name] for each in milvus["candidates"]] for name in ("tile_metres", "score"))
    assert sides == pytest.approx([80] * len(sides), rel=0.01)
    assert scores == pytest.approx([each["score"] for each in folder["candidates"]], abs=1e-4)
    html = tmp_path / "fixes.html"
    assert cli(*command, "--frame-metres", "100,120", "--out", html).code == 0
    assert "data:image" in html.read_text()


def centre_of(gallery: Path) -> tuple[float, float]:
    with open_gallery(gallery) as opened:
        return float(np.nanmean(opened.lat)), float(np.nanmean(opened.lon))
