"""The coverage of a source: its figures are correct, and its picture shows them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from maps import picture, utm_map
from PIL import ImageColor
from plotted import pixel_at, pixels_of

from geodtr.export.plots.colours import LIGHT
from geodtr.export.plots.coverage import coverage_plot
from geodtr.runtime.errors import DataError, ImageError
from geodtr.runtime.geodesy import metres_per_degree
from geodtr.runtime.images.decode import Decoded
from geodtr.runtime.sources.coverage import measure
from geodtr.runtime.sources.raster.cut import GeoTiffOptions
from geodtr.runtime.sources.raster.geotiff import open_geotiff
from geodtr.runtime.sources.tile import Tile

BLUE = ImageColor.getrgb(LIGHT["s1"])


@dataclass(frozen=True)
class Painted:
    """A source whose tiles are red in their upper half and blue in the lower."""

    tiles: Sequence[Tile]
    name: str = "painted"

    def read(self, tile: Tile) -> Decoded:
        if tile.id == "bad":
            raise ImageError("bad.png cannot be decoded")
        pixels = np.zeros((20, 20, 3), np.uint8)
        pixels[:10, :, 0] = pixels[10:, :, 2] = 255
        return Decoded.of(pixels)


def _grid(
    columns: int, rows: int, metres: float, lat: float = 48.0, lon: float = 11.0, heading: float = 0.0
) -> list[Tile]:
    north, east = (float(value) for value in metres_per_degree(lat))
    return [
        Tile(
            id=f"{column},{row}",
            file="a.png",
            lat=lat + row * metres / north,
            lon=(lon + column * metres / east + 180) % 360 - 180,
            heading=heading,
            metres_per_pixel=metres / 20 * 0.8,
        )
        for row in range(rows)
        for column in range(columns)
    ]


@pytest.mark.parametrize("lon", [11.0, -179.9999, 179.9999])
@pytest.mark.parametrize("lat", [-60, 0.0, 48])
def test_a_grid_is_measured_as_it_was_laid_out(lat: float, lon: float) -> None:
    coverage = measure(_grid(11, 7, 50, lat, lon))
    assert (coverage.tiles, coverage.positioned, coverage.doubled) == (77, 77, 0)
    assert coverage.spacing_metres == pytest.approx(50, rel=0.001)
    assert coverage.width_metres == pytest.approx(500, rel=0.001)
    assert coverage.height_metres == pytest.approx(300, rel=0.001)
    assert coverage.farthest_metres == pytest.approx(50 / 2**0.5, abs=500 / 256 * 1.5)
    assert coverage.frame is not None
    assert -180 <= coverage.frame.west <= 180
    assert 0 <= coverage.frame.east - coverage.frame.west < 0.02


def test_a_hole_in_a_map_is_detected() -> None:
    whole = _grid(21, 21, 10)
    holed = [tile for tile in whole if not all(5 < int(number) < 15 for number in tile.id.split(","))]
    assert measure(whole).farthest_metres < 10
    # Nine by nine tiles are missing: the middle is five spacings from the nearest one that is left.
    assert measure(holed).farthest_metres == pytest.approx(50, abs=2)
    assert measure(holed).spacing_metres == pytest.approx(10, rel=0.001)


def test_duplicate_and_unknown_positions_are_counted() -> None:
    coverage = measure([*_grid(3, 1, 10), *_grid(2, 1, 10), Tile("a", "a.png"), Tile("b", "b.png")])
    assert (coverage.tiles, coverage.positioned, coverage.doubled) == (7, 5, 2)


def test_few_tiles_and_none_are_measured_too() -> None:
    assert measure([]) == measure([])
    assert (measure([]).frame, measure([Tile("a", "a.png")]).frame) == (None, None)
    single = measure(_grid(1, 1, 10))
    assert (single.positioned, single.spacing_metres, single.farthest_metres) == (1, None, 0)
    line = measure(_grid(9, 1, 10))
    assert line.spacing_metres == pytest.approx(10, rel=0.001)
    assert line.farthest_metres == pytest.approx(5, abs=0.5)


places = st.tuples(st.floats(-90, 90), st.floats(-180, 180))


@settings(max_examples=100, deadline=None)
@given(st.lists(places, min_size=1, max_size=30))
def test_any_positions_have_a_frame_that_contains_them(known: list[tuple[float, float]]) -> None:
    coverage = measure(_tiles_at(known))
    frame = coverage.frame
    assert frame is not None
    assert frame.south == min(lat for lat, _ in known)
    assert frame.north == max(lat for lat, _ in known)
    for _, lon in known:
        assert any(frame.west - 1e-9 <= lon + turn <= frame.east + 1e-9 for turn in (-360, 0, 360))
    assert np.isfinite([coverage.width_metres, coverage.height_metres, coverage.farthest_metres]).all()


@settings(max_examples=15, deadline=None)
@given(st.lists(places, min_size=1, max_size=30))
def test_any_positions_have_a_picture(known: list[tuple[float, float]]) -> None:
    tiles = _tiles_at(known)
    assert max(pixels_of(coverage_plot(Painted(tiles), measure(tiles)).figure).shape) <= 1400


def _tiles_at(known: list[tuple[float, float]]) -> list[Tile]:
    return [Tile(str(number), "a.png", lat, lon) for number, (lat, lon) in enumerate(known)]


def test_tiles_are_drawn_at_their_position_and_rotation() -> None:
    for heading, (above, left) in {0.0: ("red", None), 180.0: ("blue", None), 90.0: (None, "blue")}.items():
        tiles = _grid(2, 2, 100, heading=heading)
        drawn = coverage_plot(Painted(tiles), measure(tiles))
        assert drawn.unreadable == ()
        pixels = pixels_of(drawn.figure)
        red, blue = (np.argwhere((pixels[..., channel] > 200) & (pixels.sum(axis=2) < 300)) for channel in (0, 2))
        assert len(red) > 1000
        assert len(blue) > 1000
        if above is not None:
            assert (red[:, 0].min() < blue[:, 0].min()) == (above == "red")
        if left is not None:
            assert blue[:, 1].min() < red[:, 1].min()


def test_the_scale_is_the_pictures_own() -> None:
    """Tiles of 80 m are drawn 100 m apart: the bar of so many metres has as many pixels as the tiles have."""
    tiles = _grid(5, 5, 100)
    figure = coverage_plot(Painted(tiles), measure(tiles)).figure
    picture = pixels_of(figure)
    red = (picture[..., 0] > 200) & (picture[..., 1] < 60)
    rows = np.flatnonzero(red.sum(axis=1) > 100)
    across = np.flatnonzero(red[rows[0]])
    pixels_per_metre = (across[-1] - across[0] + 1) / 480
    middle, _ = pixel_at(figure, 0, -50)
    bar = picture[middle + 56 : middle + 64]
    dark = np.flatnonzero((bar.sum(axis=2) < 200).any(axis=0))
    assert (dark[-1] - dark[0]) / pixels_per_metre == pytest.approx(100, rel=0.03)


def test_tiles_that_overlap_are_centres_and_the_edges_of_one_and_are_shown_whole() -> None:
    """Edges of tiles of 80 m every 40 m would look like the edges of tiles of 40 m."""
    tiles = [replace(tile, metres_per_pixel=4.0) for tile in _grid(5, 5, 40)]
    figure = coverage_plot(Painted(tiles), measure(tiles)).figure
    (axes,) = figure.axes
    assert axes.get_xlim() == pytest.approx((-40, 200), rel=0.01)  # from edge to edge of the outermost tiles
    assert axes.get_legend_handles_labels()[1] == ["centre of a tile", "one of the tiles"]
    assert any("40 m apart, 80 m wide" in text.get_text() for text in figure.texts)
    apart = coverage_plot(Painted(_grid(5, 5, 100)), measure(_grid(5, 5, 100))).figure
    assert apart.axes[0].get_legend_handles_labels()[1] == ["tile"]


def test_a_tile_that_cannot_be_read_is_a_dot_and_is_named() -> None:
    tiles = _grid(3, 1, 100)
    tiles[1] = Tile("bad", "bad.png", tiles[1].lat, tiles[1].lon)
    drawn = coverage_plot(Painted(tiles), measure(tiles))
    assert drawn.unreadable == ("bad.png cannot be decoded",)
    row, column = pixel_at(drawn.figure, 100, 0)
    assert tuple(pixels_of(drawn.figure)[row, column]) == BLUE


def test_the_edges_of_a_map_name_round_degrees_where_they_are() -> None:
    for lon in (11.0, 179.999):
        tiles = _grid(5, 5, 100, lon=lon)
        figure = coverage_plot(Painted(tiles), measure(tiles)).figure
        (axes,) = figure.axes
        north, east = (float(value) for value in metres_per_degree(tiles[12].lat or 0))
        for axis, start, metres in ((axes.xaxis, lon, east), (axes.yaxis, 48.0, north)):
            named = {label.get_text(): at for label, at in zip(axis.get_ticklabels(), axis.get_ticklocs(), strict=True)}
            assert 3 <= len(named) <= 7
            for text, at in named.items():
                off = (float(text.removesuffix("°")) - start + 180) % 360 - 180
                assert off * metres == pytest.approx(at, abs=1)


def test_many_tiles_are_dots_and_are_not_read() -> None:
    tiles = [Tile("bad", "bad.png", tile.lat, tile.lon) for tile in _grid(150, 140, 10)]
    drawn = coverage_plot(Painted(tiles), measure(tiles))
    assert drawn.unreadable == ()
    assert (pixels_of(drawn.figure) == BLUE).all(axis=2).sum() > 10_000


class Counted(Sequence[Tile]):
    """Tiles that are made when they are asked for, as a map's are, and how many were."""

    def __init__(self, tiles: Sequence[Tile]) -> None:
        self._tiles, self.made = tiles, 0

    def __len__(self) -> int:
        return len(self._tiles)

    def __getitem__(self, index: Any) -> Any:
        self.made += 1
        return self._tiles[index]


def test_of_a_map_of_very_many_tiles_none_is_kept_for_the_picture(tmp_path: Path) -> None:
    """A million of them would take a gigabyte."""
    source = open_geotiff(utm_map(tmp_path / "map.tif", picture(200, 200)), GeoTiffOptions(1.0, 0.5))
    tiles = Counted(source.tiles)
    coverage = measure(source.tiles)
    assert coverage.tiles > 39_000
    coverage_plot(replace(source, tiles=tiles), coverage)
    assert tiles.made < 10


def test_nothing_is_drawn_of_tiles_without_a_position() -> None:
    tiles = [Tile("a", "a.png")]
    with pytest.raises(DataError, match="none of 1 tiles has a position"):
        coverage_plot(Painted(tiles), measure(tiles))
