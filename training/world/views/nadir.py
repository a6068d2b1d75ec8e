"""The view of a camera that looks down: a perspective frame, ray-cast onto ground and objects, with motion blur.

Objects lean away from the point below the camera, as in a real frame, and hide what is behind them.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from geodtr.runtime.spec import Images
from geodtr.training.world.arrays import Floats
from geodtr.training.world.colours import GAP, draw_look, photograph
from geodtr.training.world.hashing import Feature
from geodtr.training.world.objects import Shown, Things, tops
from geodtr.training.world.scene import Surface, build_scene
from geodtr.training.world.terrain import World
from geodtr.training.world.views.aerial import view_from_above
from geodtr.training.world.views.points import Points

_TALLEST = 15.0
"""Metres: no object is taller."""
_STEP = 1.5
"""Metres of height from one sample of a ray to the next."""
_WALL = np.float32(0.6)
"""Brightness of a wall, relative to its roof."""
_MARGIN = 16.0  # metres: as far as shadows reach, and objects lean


@dataclass(frozen=True, slots=True)
class Camera:
    """A camera above the ground: `altitude` in metres, angles in degrees.

    `heading` is where the frame's upper edge points if it looks straight down, clockwise from north. It is tilted by
    `tilt`, so that its axis points towards `towards`, clockwise from the upper edge. `fov` is the angle of its width.
    """

    altitude: float
    heading: float
    fov: float = 70.0
    tilt: float = 0.0
    towards: float = 0.0
    height: int = 240
    width: int = 320

    @property
    def focal(self) -> float:
        """Focal length in pixels."""
        return self.width / (2 * math.tan(math.radians(self.fov) / 2))

    @property
    def axes(self) -> NDArray[np.float64]:
        """Unit vectors (east, north, up) of the frame's right, of its lower edge, and of the camera's axis, rows of
        [3, 3].
        """
        heading, tilt, towards = (math.radians(angle) for angle in (self.heading, self.tilt, self.towards))
        right = np.array([math.cos(heading), -math.sin(heading), 0.0])
        ahead = np.array([math.sin(heading), math.cos(heading), 0.0])
        lean = math.cos(towards) * ahead + math.sin(towards) * right
        # Rodrigues' rotation about the horizontal axis across the lean, which takes the axis from below towards it.
        about = np.array([lean[1], -lean[0], 0.0])
        return np.stack([_rotated(axis, about, tilt) for axis in (right, -ahead, np.array([0.0, 0.0, -1.0]))])

    def ground(self, columns: NDArray[np.float64], rows: NDArray[np.float64]) -> NDArray[np.float64]:
        """Where points of the frame, in pixels from its corner, lie on the ground, relative to the point below the
        camera: metres east and north, [N, 2].
        """
        slopes = self.slopes(columns, rows)
        return slopes * self.altitude

    def slopes(self, columns: NDArray[np.float64], rows: NDArray[np.float64]) -> NDArray[np.float64]:
        """Metres east and north that the ray of a point takes for a metre down, [N, 2]."""
        across, down = columns - self.width / 2, rows - self.height / 2
        rays = np.stack([across, down, np.full(across.shape, self.focal)], axis=-1) @ self.axes
        return np.asarray(rays[:, :2] / -rays[:, 2:], np.float64)


def draw_camera(
    random: np.random.Generator,
    altitude: tuple[float, float],
    tilt: float,
    *,
    fov: float = 70.0,
    height: int,
    width: int,
) -> Camera:
    """A camera at any heading, within the range of altitudes, tilted by up to `tilt` degrees any way."""
    return Camera(
        altitude=random.uniform(*altitude),
        heading=random.uniform(0, 360),
        fov=fov,
        tilt=tilt * math.sqrt(random.random()),
        towards=random.uniform(0, 360),
        height=height,
        width=width,
    )


def nadir_frame(
    world: World,
    position: NDArray[np.float64],
    camera: Camera,
    random: np.random.Generator,
    *,
    gap: float = GAP,
    blur: float = 0.0,
) -> Images:
    """The frame of a camera above `position`, [2] world metres: uint8 [height, width, 3].

    Season, light and cars are drawn by `random`, other than the map's; `gap` is the log-normal sigma of each ground
    material's colour, `blur` the length of the motion during the exposure in pixels, along the heading.
    """
    columns, rows = (np.arange(count) + 0.5 for count in (camera.width, camera.height))
    pixels = (part.ravel() for part in np.meshgrid(columns, rows))
    slopes = camera.slopes(*pixels).T.astype(np.float32)
    reach = float(np.abs(slopes).max()) * camera.altitude + _MARGIN
    scene = build_scene(world, position[None], Feature.CARS_SEEN_FROM_THE_ROAD, reach)
    look = draw_look(world.style, [random], gap)
    points, shown, walls = _cast(scene.things, slopes, camera.altitude)
    view = view_from_above(scene, look, points, shown)
    view.colour[0, walls] *= _WALL
    colour = _blurred(view.colour.reshape(camera.height, camera.width, 3), blur)
    return photograph(colour.reshape(view.colour.shape), look, [random]).reshape(camera.height, camera.width, 3)


def _cast(things: dict[int, Things], slopes: Floats, altitude: float) -> tuple[Points, Shown, NDArray[np.intp]]:
    """What each pixel's ray meets first, and which pixels see a wall.

    A ray is sampled from above all objects down; it meets the first object that is as high as it.
    """
    count = slopes.shape[1]
    z = np.zeros(count, np.float32)
    flying = np.arange(count)
    aside = list[NDArray[np.intp]]()
    for level in np.arange(_TALLEST, 0, -_STEP):
        x, y = slopes[:, flying] * np.float32(altitude - level)
        top = tops(things, x[None], y[None])[0]
        met = top >= level
        # Above the ray's last sample by more than a step: it comes from the side.
        aside.append(flying[met & (top > level + _STEP)])
        z[flying[met]] = np.minimum(top[met], level + _STEP)
        flying = flying[~met]
    x, y = slopes * (np.float32(altitude) - z)
    height, shown = tops(things, x[None], y[None])
    # What is lower than a step is met by its top.
    z = np.maximum(z, np.minimum(height, _STEP) * (z == 0))
    sides = np.concatenate([*aside, np.empty(0, np.intp)])
    return Points(x[None], y[None], z[None]), shown, sides[shown.kind[sides] != Surface.TREE]


def _blurred(colour: Floats, length: float) -> Floats:
    """The mean over a motion of so many pixels along the columns, [H, W, 3]."""
    steps = round(length)
    if steps < 2:
        return colour
    before = (steps - 1) // 2
    padded = np.pad(colour, ((before, steps - 1 - before), (0, 0), (0, 0)), mode="edge")
    return np.asarray(sum(padded[step : step + len(colour)] for step in range(steps)) / np.float32(steps), np.float32)


def _rotated(vector: NDArray[np.float64], about: NDArray[np.float64], angle: float) -> NDArray[np.float64]:
    """Rodrigues' formula, for a unit vector `about` and radians."""
    along = about * (about @ vector)
    return np.asarray(
        vector * math.cos(angle) + np.cross(about, vector) * math.sin(angle) + along * (1 - math.cos(angle)), np.float64
    )
