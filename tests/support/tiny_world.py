"""A world of coloured tiles and a model without training: a real bundle and gallery, built in a second.

Both branches average their pixels in cells and return the cells, minus their mean, as a unit vector. A panorama is the
polar transform of its tile, rotated by its heading, so the correct tile's cosine is about 1.
"""

from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper
from PIL import Image
from tiny_bundle import write_bundle_of

from geodtr import Localizer, open_bundle
from geodtr.runtime.gallery.build import build_gallery
from geodtr.runtime.gallery.manifest import made_by
from geodtr.runtime.geodesy import moved
from geodtr.runtime.images.polar import polar_transform
from geodtr.runtime.localization.calibration import Cell, FixCalibration, write_calibration
from geodtr.runtime.manifest import read_manifest, write_manifest
from geodtr.runtime.names import BRANCHES, Branch
from geodtr.runtime.sources.tile import ListedTiles, Tile
from geodtr.runtime.spec import INPUT, OUTPUT, Imagery, Images, Preprocessing

HEIGHT, WIDTH, SIDE = 16, 64, 32
CENTRE = (-30.0, -15.0)
SPACING = 50.0
ID = "0123456789abcdef"
"""The embedding id of the bundle."""
_CELL = 4
_SIZE = 3 * (HEIGHT // _CELL) * (WIDTH // _CELL)


@dataclass(frozen=True, slots=True)
class TinyWorld:
    """`tiles` uint8 [N, S, S, 3] on a square grid, row by row from the south-west; lat and lon [N] of their centres."""

    bundle: Path
    gallery: Path
    tiles: Images
    lat: NDArray[np.float64]
    lon: NDArray[np.float64]

    def panorama(self, row: int, heading: float = 0.0, noise: float = 4.0, seed: int = 0) -> Images:
        """The panorama at the centre of tile `row` whose middle column looks to `heading`, [HEIGHT, WIDTH, 3]."""
        aligned = polar_transform(self.tiles[row], HEIGHT, WIDTH)
        rotated = np.roll(aligned, -round(heading * WIDTH / 360), axis=1)
        noisy = rotated + np.random.default_rng(seed).normal(0, noise, rotated.shape)
        return np.clip(noisy, 0, 255).astype(np.uint8)

    def photograph(self, path: Path, row: int, heading: float = 0.0, seed: int | None = None) -> Path:
        """Write the panorama to a file, with the noise of `seed`, else of the row."""
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(self.panorama(row, heading, seed=row if seed is None else seed)).save(path)
        return path


def make_world(root: Path, across: int = 8, *, positioned: bool = True) -> TinyWorld:
    """A bundle and a gallery of `across` x `across` tiles in the folder `root`."""
    random = np.random.default_rng(0)
    tiles = np.stack([_texture(random) for _ in range(across**2)])
    line = (np.arange(across) - (across - 1) / 2) * SPACING
    north, east = (part.ravel() for part in np.meshgrid(line, line, indexing="ij"))
    lat, lon = moved(*CENTRE, east, north)
    how: dict[Branch, Preprocessing] = {
        branch: Preprocessing(height=HEIGHT, width=WIDTH, polar=branch == "aerial") for branch in BRANCHES
    }
    bundle = write_bundle_of(root / "bundle", _graph(), how, _SIZE, ID)
    references = []
    (root / "tiles").mkdir()
    for row, tile in enumerate(tiles):
        path = root / "tiles" / f"{row:03d}.png"
        Image.fromarray(tile).save(path)
        position = (float(lat[row]), float(lon[row])) if positioned else (None, None)
        references.append(Tile(path.name, str(path), *position))
    gallery, opened = root / "gallery", open_bundle(bundle)
    build_gallery(gallery, ListedTiles("tiles", references), opened.embedder("aerial"), made_by(opened.manifest))
    return TinyWorld(bundle, gallery, tiles, lat, lon)


def claim_radii(tiny: TinyWorld, *metres: float) -> None:
    """A calibration by which every fix claims these radii, at 68 % and 95 %."""
    with Localizer.open(tiny.bundle, tiny.gallery) as localizer:
        cell = Cell(margin=-2.0, spread_m=0.0, queries=60, radii_m=metres)
        shares = (0.68, 0.95)
        calibration = FixCalibration(
            conditions=localizer.conditions, data="test", queries=90, shares=shares, cells=(cell,)
        )
        write_calibration(localizer.gallery, calibration)


def trained_on(world: TinyWorld, imagery: Imagery) -> TinyWorld:
    """The same world, whose bundle states what its ground branch was trained on."""
    state_imagery(world.bundle, "ground", imagery)
    return world


def state_imagery(bundle: Path, branch: Branch, imagery: Imagery) -> None:
    """Write into a bundle's manifest what the branch was trained on."""
    manifest = read_manifest(bundle)
    entry = getattr(manifest, branch)
    how = msgspec.structs.replace(entry.spec.preprocessing, imagery=imagery)
    stated = msgspec.structs.replace(entry, spec=msgspec.structs.replace(entry.spec, preprocessing=how))
    write_manifest(bundle, msgspec.structs.replace(manifest, **{branch: stated}))


def _texture(random: np.random.Generator) -> Images:
    blocks = Image.fromarray(random.integers(0, 256, (6, 6, 3), dtype=np.uint8))
    return np.asarray(blocks.resize((SIDE, SIDE), Image.Resampling.BICUBIC))


def _graph() -> onnx.ModelProto:
    nodes = [
        helper.make_node("Cast", [INPUT], ["levels"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["levels"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("AveragePool", ["planes"], ["cells"], kernel_shape=[_CELL] * 2, strides=[_CELL] * 2),
        helper.make_node("Flatten", ["cells"], ["rows"]),
        helper.make_node("ReduceMean", ["rows", "axis"], ["mean"]),
        helper.make_node("Sub", ["rows", "mean"], ["contrast"]),
        helper.make_node("LpNormalization", ["contrast"], [OUTPUT], axis=1, p=2),
    ]
    images = helper.make_tensor_value_info(INPUT, TensorProto.UINT8, ["B", HEIGHT, WIDTH, 3])
    descriptors = helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, ["B", _SIZE])
    axis = helper.make_tensor("axis", TensorProto.INT64, [1], [1])
    graph = helper.make_graph(nodes, "cells", [images], [descriptors], [axis])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)


def write_drive(tiny: TinyWorld, folder: Path, across: int = 8) -> Path:
    """A drive eastwards along a row of tiles, four steps from tile to tile, with an image at each tile's centre."""
    lines = ["time_unix_s,speed_m_s,yaw_rate_deg_s,image"]
    for step in range(33):
        row, between = divmod(step, 4)
        name = ""
        if not between and row < across:
            tiny.photograph(folder / "frames" / f"{row}.png", across * (across // 2) + row, heading=90)
            name = f"frames/{row}.png"
        speed = SPACING / 4 if step < 28 else 0.0
        lines.append(f"{1.7e9 + step},{speed},0,{name}")
    path = folder / "drive.csv"
    path.write_text("\n".join(lines) + "\n")
    return path
