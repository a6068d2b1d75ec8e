"""Frames made from real satellite or aerial pictures, as a drone with another camera, in another light and season,
would have taken them: by warp, tilt, light, haze, season, shadows of clouds, blur and noise.
"""

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from geodtr.runtime.images.decode import list_images, read_image
from geodtr.runtime.spec import Images

VARIABLE = "GEODTR_REAL"
"""The environment variable that names a folder of real tiles, at least 512 pixels a side, of 0.2 to 1 m each."""
RESOLUTION = 0.3
"""Metres a pixel that are supposed: what a tile shows decides, not the ground. Of zoom 19 at 40 degrees it is 0.23."""
_LEAST, _MOST = 512, 12
FOV = 70.0
WIDTH, HEIGHT = 400, 300


def real_tiles() -> list[Path]:
    """The pictures of the folder, up to some; skips the test where none is given."""
    folder = os.environ.get(VARIABLE)
    if not folder:
        pytest.skip(f"no real imagery: set {VARIABLE} to a folder of satellite or aerial tiles")
    large = [path for path in list_images(Path(folder)) if min(Image.open(path).size) >= _LEAST][:_MOST]
    assert large, f"{folder} has no picture of {_LEAST} x {_LEAST} pixels or more"
    return large


@dataclass(frozen=True, slots=True)
class Taken:
    """A frame uint8 [H, W, 3], and where its camera was: metres east and north of the middle of the picture (the upper
    edge north), `heading` and `tilt` in degrees, metres above the ground.
    """

    frame: Images
    east: float
    north: float
    heading: float
    tilt: float
    altitude: float


def flown_over(picture: Images, count: int, seed: int) -> Iterator[Taken]:
    """Frames that lie within the picture."""
    random = np.random.default_rng(seed)
    extent = min(picture.shape[:2]) * RESOLUTION
    for _ in range(count):
        width = random.uniform(0.42, 0.55) * extent
        altitude = width / 2 / math.tan(math.radians(FOV / 2))
        tilt, towards, heading = random.uniform(0, 8), random.uniform(0, 2 * math.pi), random.uniform(0, 360)
        aside = altitude * math.tan(math.radians(tilt))
        room = extent / 2 - 0.72 * width
        middle = random.uniform(-room, room, 2)
        east, north = middle - aside * np.array((math.sin(towards), math.cos(towards)))
        warped = _photographed(picture, (east, north), altitude, heading, tilt, towards)
        yield Taken(_in_other_light(warped, random), float(east), float(north), heading, tilt, altitude)


def _photographed(
    picture: Images, at: tuple[float, float], altitude: float, heading: float, tilt: float, towards: float
) -> NDArray[np.float64]:
    """The picture as a camera sees it that looks down, tilted towards a direction (radians from north), 0 to 255."""
    import cv2

    angle, lean = math.radians(heading), math.radians(tilt)
    upright = np.array(
        [(math.cos(angle), -math.sin(angle), 0), (-math.sin(angle), -math.cos(angle), 0), (0, 0, -1)]
    )  # east, north, up to right, down, ahead
    axis = lean * np.array((math.cos(towards), -math.sin(towards), 0))  # horizontal, to the right of the direction
    rotation = upright @ cv2.Rodrigues(axis)[0]
    focal = WIDTH / 2 / math.tan(math.radians(FOV / 2))
    camera = np.array([(focal, 0, WIDTH / 2), (0, focal, HEIGHT / 2), (0, 0, 1)])
    side = np.array(picture.shape[1::-1]) / 2
    # A pixel of the picture to metres east, north and up of the camera.
    ground = np.array(
        [
            (RESOLUTION, 0, -side[0] * RESOLUTION - at[0]),
            (0, -RESOLUTION, side[1] * RESOLUTION - at[1]),
            (0, 0, -altitude),
        ]
    )
    half = np.array([(1, 0, 0.5), (0, 1, 0.5), (0, 0, 1)])  # a pixel's middle is at a half, OpenCV's at whole numbers
    warp = np.linalg.inv(half) @ camera @ rotation @ ground @ half
    seen = cv2.warpPerspective(picture, warp, (WIDTH, HEIGHT), flags=cv2.INTER_AREA, borderMode=cv2.BORDER_REFLECT)
    return np.asarray(seen, np.float64)


def _in_other_light(seen: NDArray[np.float64], random: np.random.Generator) -> Images:
    """Another season tints what is green and what is not, the sun's colour and haze all of it, a cloud a part."""
    level = seen.mean(axis=2, keepdims=True)
    green = np.clip((seen[..., 1:2] - seen[..., ::2].max(axis=2, keepdims=True)) / 20, 0, 1)
    season = np.array((random.uniform(0.9, 1.4), random.uniform(0.75, 1.1), random.uniform(0.7, 1.1)))
    seen = seen * (1 - green + green * season)
    seen = level + random.uniform(0.4, 1.1) * (seen - level)
    seen = 255 * (np.clip(seen, 0, 255) / 255) ** random.uniform(0.6, 1.6)
    seen = seen * random.uniform(0.85, 1.15, 3)
    cells = random.uniform(0, 1, (3, 4)).astype(np.float32)
    cloud = np.asarray(Image.fromarray(cells).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC))
    seen = seen * np.where(cloud > 0.7, 0.65, 1.0)[..., None]
    haze = random.uniform(0, 0.25)
    seen = (1 - haze) * seen + haze * 210 + random.normal(0, 4, seen.shape)
    image = Image.fromarray(np.clip(seen, 0, 255).astype(np.uint8))
    return np.asarray(image.filter(ImageFilter.GaussianBlur(random.uniform(0, 1.2))))


def pictures(paths: list[Path]) -> list[Images]:
    """The pixels of each, RGB."""
    return [np.asarray(read_image(path)) for path in paths]
