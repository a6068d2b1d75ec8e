"""A map of smooth noise, and photographs of it by a camera that looks down."""

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from tiny_world import CENTRE

from geodtr import open_bundle
from geodtr.runtime.gallery.build import build_gallery
from geodtr.runtime.gallery.manifest import made_by
from geodtr.runtime.geodesy import moved
from geodtr.runtime.sources.registry import open_source
from geodtr.runtime.spec import Images
from geodtr.training.world.views.nadir import Camera

TILE, SIDE, ACROSS = 64.0, 128, 5
"""Metres and pixels of a tile, and tiles across the map."""
FOV = 70.0
CAMERA = Camera(70.0, 0.0, fov=FOV, height=240, width=320)


@dataclass(frozen=True, slots=True)
class Ground:
    """A map of smooth noise in tiles of 64 m, north up, and its gallery."""

    bundle: Path
    gallery: Path
    picture: Images

    def photograph(self, place: tuple[float, float], camera: Camera, seed: int = 0) -> Images:
        """The frame of a camera above `place`, metres east and north of the map's middle, over flat ground."""
        columns, rows = np.meshgrid(np.arange(camera.width) + 0.5, np.arange(camera.height) + 0.5)
        east, north = (camera.ground(columns.ravel(), rows.ravel()) + place).T
        scale, middle = SIDE / TILE, len(self.picture) / 2
        x, y = (np.rint(part - 0.5).astype(int) for part in (middle + east * scale, middle - north * scale))
        pixels = self.picture[np.clip(y, 0, len(self.picture) - 1), np.clip(x, 0, len(self.picture) - 1)]
        noise = np.random.default_rng(seed).normal(0, 4, pixels.shape)
        frame = np.clip(pixels * 0.8 + 20 + noise, 0, 255).astype(np.uint8)
        return np.asarray(frame.reshape(camera.height, camera.width, 3))


def make_ground(bundle_folder: Path, folder: Path) -> Ground:
    """The map, in `folder`, and its gallery by the bundle."""
    random = np.random.default_rng(1)
    size = ACROSS * SIDE
    layers = [
        np.asarray(
            Image.fromarray(random.integers(0, 256, (cells, cells, 3), np.uint8)).resize(
                (size, size), Image.Resampling.BICUBIC
            ),
            np.float64,
        )
        for cells in (5 * ACROSS, 24 * ACROSS)
    ]
    picture = ((layers[0] + layers[1]) / 2).astype(np.uint8)
    rows: list[tuple[str, ...]] = [("file", "lat", "lon", "metres_per_pixel")]
    (folder / "tiles").mkdir()
    for row in range(ACROSS):
        for column in range(ACROSS):
            name = f"{row}{column}.png"
            part = picture[row * SIDE : (row + 1) * SIDE, column * SIDE : (column + 1) * SIDE]
            Image.fromarray(part).save(folder / "tiles" / name)
            at = moved(*CENTRE, (column - ACROSS // 2) * TILE, (ACROSS // 2 - row) * TILE)
            rows.append((name, *(f"{float(part):.9f}" for part in at), str(TILE / SIDE)))
    with (folder / "tiles" / "tiles.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    bundle = open_bundle(bundle_folder)
    source = open_source(folder / "tiles")
    build_gallery(folder / "gallery", source, bundle.embedder("aerial"), made_by(bundle.manifest))
    return Ground(bundle_folder, folder / "gallery", picture)
