"""Real satellite or aerial pictures, of a folder that GEODTR_REAL names: frames made from them are fixed within metres,
and the tile that they were made from finds itself. Skipped where no folder is given.
"""

import csv
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from real_imagery import FOV, RESOLUTION, Taken, flown_over, pictures, real_tiles
from tiny_world import CENTRE, make_world

from geodtr import Localizer, open_bundle
from geodtr.runtime.gallery.build import build_gallery
from geodtr.runtime.gallery.manifest import made_by
from geodtr.runtime.geodesy import Near, distance, moved
from geodtr.runtime.images.frames import Frame
from geodtr.runtime.localization.nadir.hypotheses import NadirOptions
from geodtr.runtime.localization.nadir.refine import RefineOptions
from geodtr.runtime.sources.registry import open_source

pytestmark = pytest.mark.slow
FRAMES = 4
"""Of each picture."""
_APART = 2000.0
_CUT = 3
"""Each picture is cut into so many tiles a side, which overlap by half."""


@dataclass(frozen=True, slots=True)
class Place:
    """A picture's middle in degrees, and the frames taken of it."""

    lat: float
    lon: float
    taken: list[Taken]


@dataclass(frozen=True, slots=True)
class Imagery:
    bundle: Path
    gallery: Path
    places: list[Place]
    tiles: list[Path]


@pytest.fixture(scope="module")
def imagery(tmp_path_factory: pytest.TempPathFactory) -> Imagery:
    """The pictures, kilometres apart, each cut into overlapping tiles."""
    paths = real_tiles()
    root = tmp_path_factory.mktemp("real")
    bundle_folder = make_world(root, 2).bundle
    folder = root / "cut"
    folder.mkdir()
    places, rows = list[Place](), [("file", "lat", "lon", "metres_per_pixel")]
    for number, picture in enumerate(pictures(paths)):
        lat, lon = (float(part) for part in moved(*CENTRE, number * _APART, 0.0))
        side = min(picture.shape[:2])
        tile = side * 2 // (_CUT + 1)
        for row in range(_CUT):
            for column in range(_CUT):
                top, left = row * tile // 2, column * tile // 2
                name = f"{number}-{row}{column}.png"
                Image.fromarray(picture[top : top + tile, left : left + tile]).save(folder / name)
                middle = np.array((left + tile / 2 - side / 2, side / 2 - top - tile / 2)) * RESOLUTION
                at = moved(lat, lon, *middle)
                rows.append((name, f"{float(at[0]):.9f}", f"{float(at[1]):.9f}", str(RESOLUTION)))
        places.append(Place(lat, lon, list(flown_over(picture[:side, :side], FRAMES, seed=number))))
    with (folder / "tiles.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    bundle = open_bundle(bundle_folder)
    build_gallery(root / "map", open_source(folder), bundle.embedder("aerial"), made_by(bundle.manifest))
    return Imagery(bundle_folder, root / "map", places, [folder / row[0] for row in rows[1:]])


def test_frames_in_other_light_and_season_are_fixed_within_metres(imagery: Imagery) -> None:
    """By a prior of 300 m about the picture, which the second stage surveys whole; the altitude is off by 5 %."""
    random, errors, headings, refused = np.random.default_rng(0), list[float](), list[float](), list[str]()
    nadir = NadirOptions(fov=FOV, size_error=0.12, rotations=4, ground_sizes=1)
    with Localizer.open(imagery.bundle, imagery.gallery, nadir=nadir, refine=RefineOptions()) as localizer:
        for place in imagery.places:
            for taken in place.taken:
                altitude = taken.altitude * float(np.exp(random.normal(0, 0.05)))
                near = Near(place.lat, place.lon, 300)
                answer = localizer.locate(Frame("frame", taken.frame, altitude=altitude), near=near)
                assert answer.nadir is not None
                refined = answer.nadir.refined
                if refined is None:
                    refused.append(answer.nadir.unrefined or "")
                    continue
                truth = moved(place.lat, place.lon, taken.east, taken.north)
                errors.append(float(distance(refined.lat, refined.lon, *truth)))
                headings.append(abs((refined.heading - taken.heading + 180) % 360 - 180))
    count = len(errors) + len(refused)
    sys.stdout.write(
        f"\n{len(errors)} of {count} frames fixed; error median {np.median(errors):.2f} m, 90 % "
        f"{np.quantile(errors, 0.9):.2f} m, most {max(errors):.2f} m; "
        f"heading median {np.median(headings):.2f} degrees; refused: {refused}\n"
    )
    assert len(errors) >= 0.9 * count, refused
    assert np.median(errors) < 2
    assert max(errors) < 15, "a wrong fix is worse than none"
    assert np.median(headings) < 1


def test_a_tile_finds_itself_among_all(imagery: Imagery) -> None:
    options = NadirOptions(frame_metres=_exactly(imagery), rotations=8, ground_sizes=1)
    with Localizer.open(imagery.bundle, imagery.gallery, nadir=options) as localizer:
        answers = list(localizer.locate_frames(imagery.tiles, 3))
    names = [answer.candidates[0].place.id for answer in answers]
    assert names == [path.name for path in imagery.tiles]
    assert all(answer.heading is not None and min(answer.heading, 360 - answer.heading) < 10 for answer in answers)


def _exactly(imagery: Imagery) -> tuple[float, float]:
    with Image.open(imagery.tiles[0]) as tile:
        return tile.width * RESOLUTION, tile.width * RESOLUTION
