"""Windows of the map: tiles where they lie, whichever way they are turned, and nothing where there is none."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from geodtr.runtime.errors import ImageError
from geodtr.runtime.gallery.base import Gallery
from geodtr.runtime.geodesy import moved
from geodtr.runtime.localization.nadir.map_window import MapWindows
from geodtr.runtime.sources.tile import Tile

CENTRE = (48.0, 11.0)
SIDE, PIXELS = 60.0, 120


@dataclass
class Tiles:
    """What a window needs of a gallery."""

    folder: Path
    known: list[Tile] = field(default_factory=list)

    def add(self, east: float, north: float, picture: Image.Image, heading: float | None, scale: float | None) -> None:
        name = f"{len(self.known)}.png"
        picture.save(self.folder / name)
        lat, lon = (float(part) for part in moved(*CENTRE, east, north))
        self.known.append(Tile(name, str(self.folder / name), lat, lon, heading, scale))

    @property
    def rows(self) -> NDArray[np.int64]:
        return np.arange(len(self.known))

    @property
    def lat(self) -> NDArray[np.float64]:
        return np.array([tile.lat for tile in self.known], np.float64)

    @property
    def lon(self) -> NDArray[np.float64]:
        return np.array([tile.lon for tile in self.known], np.float64)

    def tiles(self, rows: list[int]) -> list[Tile]:
        return [self.known[row] for row in rows]

    @property
    def gallery(self) -> Gallery:
        return cast(Gallery, self)


def picture() -> Image.Image:
    noise = np.random.default_rng(0).integers(0, 256, (20, 20, 3), np.uint8)
    return Image.fromarray(noise).resize((PIXELS, PIXELS), Image.Resampling.BICUBIC)


@pytest.mark.parametrize("scale", [SIDE / PIXELS, None])
@pytest.mark.parametrize("quarters", [0, 1, 2, 3])
def test_a_tile_lies_north_up_where_it_belongs(tmp_path: Path, quarters: int, scale: float | None) -> None:
    tiles = Tiles(tmp_path)
    # A tile whose upper edge points east shows the north at its left.
    tiles.add(15, 10, picture().rotate(90 * quarters), 90.0 * quarters, scale)
    window = MapWindows(tiles.gallery, SIDE).cut(CENTRE, 100, 1.0, 1.0)
    expected = np.asarray(picture().resize((60, 60), Image.Resampling.BOX), np.float64)
    rows, columns = slice(50 - 10 - 30, 50 - 10 + 30), slice(50 + 15 - 30, 50 + 15 + 30)
    assert window.known[rows, columns][1:-1, 1:-1].all()
    assert window.known.sum() == pytest.approx(3600, rel=0.04)
    assert np.abs(window.image[rows, columns] - expected)[1:-1, 1:-1].mean() < 2
    assert not window.image[~window.known].any()


def test_tiles_that_overlap_are_one_picture(tmp_path: Path) -> None:
    tiles = Tiles(tmp_path)
    whole = np.random.default_rng(1).integers(0, 256, (30, 30, 3), np.uint8)
    ground = Image.fromarray(whole).resize((240, 240), Image.Resampling.BICUBIC)
    for top in range(0, 121, 30):
        for left in range(0, 121, 30):
            part = ground.crop((left, top, left + PIXELS, top + PIXELS))
            tiles.add((left + 60 - 120) / 2, (120 - top - 60) / 2, part, 0.0, SIDE / PIXELS)
    window = MapWindows(tiles.gallery, SIDE).cut(CENTRE, 240, 0.5, 0.5)
    assert window.known.all()
    assert np.abs(window.image.astype(int) - np.asarray(ground)).mean() < 2
    half = MapWindows(tiles.gallery, SIDE).cut(CENTRE, 120, 1.0, 0.5)
    shrunk = np.asarray(ground.resize((120, 120), Image.Resampling.BOX), int)
    assert np.abs(half.image.astype(int) - shrunk).mean() < 2


def test_a_place_without_tiles_is_unknown_and_a_lost_file_is_named(tmp_path: Path) -> None:
    tiles = Tiles(tmp_path)
    tiles.add(0, 0, picture(), 0.0, SIDE / PIXELS)
    far = tuple(float(part) for part in moved(*CENTRE, 900, 0))
    window = MapWindows(tiles.gallery, SIDE).cut((far[0], far[1]), 50, 1.0, 1.0)
    assert not window.known.any()
    (tmp_path / "0.png").unlink()
    with pytest.raises(ImageError, match=r"0\.png"):
        MapWindows(tiles.gallery, SIDE).cut(CENTRE, 50, 1.0, 1.0)
