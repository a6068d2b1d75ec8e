"""The second stage of a nadir frame: its features on the map's tiles, a homography, and a position in metres.

The first stage supposes places, headings and ground sizes; here each place is confirmed or refused. With a known field
of view the camera's own position is computed, tilt included; otherwise the position that the frame's middle shows.
"""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, cos, hypot, log2, radians, sin
from threading import Lock
from typing import Generic

import numpy as np
from PIL import Image

from geodtr.runtime.arguments import check_fields
from geodtr.runtime.errors import ConfigError
from geodtr.runtime.gallery.base import Gallery
from geodtr.runtime.gallery.ground import Reread
from geodtr.runtime.geodesy import Near, distance, east_north, moved
from geodtr.runtime.images.nadir import from_crop, north_up
from geodtr.runtime.images.video import check_opencv
from geodtr.runtime.localization.fix import Floats
from geodtr.runtime.localization.matching import F, Matcher, Matches
from geodtr.runtime.localization.pose import camera_pose, fault_of, flat_pose
from geodtr.runtime.localization.result import Candidate, Refined
from geodtr.runtime.sources.tile import Tile

_CANVAS = 600
"""Pixels: the frame is matched no larger than this, corner to corner."""
_THRESHOLD = 3.0
"""Pixels by which a match may miss the homography, at most."""
_CACHED = 512
"""Tiles whose features are kept."""


@dataclass(frozen=True, slots=True)
class RefineOptions:
    """`places` that the first stage found are tried, each on up to `tiles` tiles around the best one there; a position
    needs `min_inliers` features that agree. Raises ConfigError naming a value out of range.
    """

    places: int = 3
    tiles: int = 5
    min_inliers: int = 15

    def __post_init__(self) -> None:
        check_fields(self)
        for name, value, low, high in (
            ("places", self.places, 1, 32),
            ("tiles", self.tiles, 1, 32),
            ("min_inliers", self.min_inliers, 6, 10_000),
        ):
            if not low <= value <= high:
                raise ConfigError(f"{name} is {value}; allowed are {low} to {high}.")


@dataclass(frozen=True, slots=True)
class _Scene:
    """A frame north up around `anchor`, the place that it is supposed to show in its middle; `resolution` in metres."""

    frame: Image.Image
    candidate: Candidate
    resolution: float
    side: int

    @property
    def ground_metres(self) -> float:
        assert self.candidate.ground_metres is not None  # a nadir frame's candidates have it
        return self.candidate.ground_metres

    @property
    def metres_per_pixel(self) -> float:
        return self.ground_metres / self.frame.width

    @property
    def heading(self) -> float:
        return self.candidate.heading or 0.0

    @property
    def anchor(self) -> tuple[float, float]:
        place = self.candidate.place
        assert place.lat is not None  # only such places are tried
        assert place.lon is not None
        return place.lat, place.lon


class Refiner(Generic[F]):
    """Refines answers on one gallery's tiles, whose pixels are read where the gallery was built from.

    Safe to use from several threads.
    """

    def __init__(self, gallery: Gallery, matcher: Matcher[F], options: RefineOptions, fov: float | None) -> None:
        """`fov` is the angle of the frame's width in degrees, None where it is unknown. Raises MissingDependency
        without OpenCV.
        """
        check_opencv("The second stage needs")
        self._gallery, self._matcher, self._options, self._fov = gallery, matcher, options, fov
        self._pixels = Reread()
        self._lock = Lock()
        self._cache: OrderedDict[tuple[int, int], tuple[F, tuple[int, int], float]] = OrderedDict()

    def refine(self, frame: Image.Image, candidates: Sequence[Candidate]) -> Refined | str:
        """The position of a frame, RGB, whose candidates the first stage found; or the reason why there is none.

        Raises ImageError when a tile cannot be read any more.
        """
        best: Refined | None = None
        reason = "no tile found has a position and a known scale"
        for candidate in self._places(candidates):
            answer = self._at(frame, candidate)
            if isinstance(answer, str):
                reason = answer if best is None and reason.startswith("no tile") else reason
            elif best is None or answer.inliers > best.inliers:
                best = answer
            if best is not None and best.inliers >= 2 * self._options.min_inliers:
                break
        return best or reason

    def _places(self, candidates: Sequence[Candidate]) -> list[Candidate]:
        """The best candidate of each place, best first."""
        places = list[Candidate]()
        for candidate in candidates:
            tile = candidate.place
            if tile.lat is None or tile.lon is None or tile.metres_per_pixel is None:
                continue
            near = (
                distance(tile.lat, tile.lon, other.place.lat, other.place.lon) < self._side(other)  # type: ignore[arg-type]
                for other in places
            )
            if not any(near):
                places.append(candidate)
            if len(places) == self._options.places:
                break
        return places

    def _side(self, candidate: Candidate) -> float:
        """Metres of a tile's side."""
        _, (width, _), resolution = self._tile(candidate.row, candidate.place, 0)
        return width * resolution

    def _at(self, frame: Image.Image, candidate: Candidate) -> Refined | str:
        """The frame's position if it shows the place of this candidate."""
        assert candidate.ground_metres is not None  # a nadir frame's candidates have it
        own = candidate.place.metres_per_pixel
        assert own is not None  # only such places are tried
        metres = candidate.ground_metres / frame.width
        diagonal = hypot(*frame.size) * metres
        # Tiles are halved by halves of an octave, so that their features serve many frames.
        level = max(0, ceil(2 * log2(max(metres, diagonal / _CANVAS) / own) - 0.5))
        resolution = own * 2 ** (level / 2)
        scene = _Scene(frame, candidate, resolution, ceil(diagonal / resolution))
        frame_points, places = self._matches(scene, level)
        if len(frame_points) < self._options.min_inliers:
            return self._few(len(frame_points), candidate)
        return self._solve(scene, frame_points, places)

    def _matches(self, scene: _Scene, level: int) -> tuple[Floats, Floats]:
        """What frame and map have in common: pixels of the frame, and metres east and north of the anchor, [M, 2]."""
        lat, lon = scene.anchor
        mpp, side, resolution = scene.metres_per_pixel, scene.side, scene.resolution
        (canvas,) = north_up(scene.frame, mpp, [scene.heading], side, resolution)
        described = self._matcher.describe(canvas)
        to_frame = from_crop(scene.frame.size, mpp, scene.heading, side, resolution)
        pixels, places = [np.empty((0, 2))], [np.empty((0, 2))]
        reach = 0.6 * self._side(scene.candidate) / resolution
        rows = self._rows_near(scene.anchor, self._side(scene.candidate))
        for row, tile in zip(rows, self._gallery.tiles(rows), strict=True):
            if tile.metres_per_pixel is None:
                continue
            features, size, _ = self._tile(row, tile, level)
            assert tile.lat is not None  # it was found by its position
            assert tile.lon is not None
            middle = np.array([float(part) for part in east_north(tile.lat, tile.lon, lat, lon)])
            corner = side / 2 + middle * (1, -1) / resolution - np.array(size) / 2
            matches = _inside(self._matcher.match(described, features, corner, reach), to_frame, scene.frame.size)
            offset = (matches.tile - np.array(size) / 2) * (resolution, -resolution)
            pixels.append(matches.frame)
            places.append(middle + _clockwise(offset, tile.heading or 0.0))
        # Tiles overlap: what two of them show counts once.
        together = np.concatenate([np.concatenate(pixels), np.concatenate(places)], axis=1)
        _, first = np.unique(np.round(together[:, :2]), axis=0, return_index=True)
        return together[first, :2], together[first, 2:]

    def _solve(self, scene: _Scene, pixels: Floats, places: Floats) -> Refined | str:
        """A homography from the frame to the ground, and what follows from it."""
        import cv2

        threshold = _THRESHOLD * scene.resolution
        # To metres east and south: OpenCV's USAC takes a mirrored plane for an impossible one.
        homography, mask = cv2.findHomography(
            pixels, places * (1, -1), cv2.USAC_MAGSAC, threshold, maxIters=4000, confidence=0.9999
        )
        inside = np.zeros(len(pixels), np.bool_) if homography is None else mask.ravel().astype(np.bool_)
        inliers = int(inside.sum())
        if inliers < self._options.min_inliers:
            return self._few(inliers, scene.candidate)
        pixels, places = pixels[inside], places[inside]
        to_ground = np.asarray(np.diag((1.0, -1.0, 1.0)) @ homography, np.float64)
        if self._fov is None:
            pose = flat_pose(pixels, places, to_ground, scene.frame.size)
        else:
            pose = camera_pose(pixels, places, to_ground, scene.frame.size, self._fov)
        fault = fault_of(pose, pixels, scene.frame.size, scene.ground_metres)
        if fault is not None:
            return f"{inliers} features agree, but {fault}"
        lat, lon = moved(*scene.anchor, *pose.place)
        (ee, en), (_, nn) = pose.covariance.tolist()
        return Refined(
            lat=float(lat),
            lon=float(lon),
            camera=self._fov is not None,
            heading=pose.heading,
            ground_metres=pose.width,
            altitude=pose.altitude,
            tilt=pose.tilt,
            tile=scene.candidate.place.id,
            matches=len(inside),
            inliers=inliers,
            covariance_m2=(ee, en, nn),
        )

    def _few(self, inliers: int, candidate: Candidate) -> str:
        return (
            f"{inliers} features agree with the map around tile {candidate.place.id}, and {self._options.min_inliers} "
            "are needed"
        )

    def _rows_near(self, place: tuple[float, float], side: float) -> list[int]:
        """The nearest tiles, whose ground is partly in reach."""
        lat, lon = self._gallery.lat, self._gallery.lon
        rows = np.flatnonzero(Near(*place, 1.5 * side).holds(lat, lon))
        order = np.argsort(distance(*place, lat[rows], lon[rows]), kind="stable")
        return [int(row) for row in rows[order[: self._options.tiles]]]

    def _tile(self, row: int, tile: Tile, level: int) -> tuple[F, tuple[int, int], float]:
        """A tile's features at its resolution divided by 2^(level / 2), its size in pixels, and metres of a pixel."""
        with self._lock:
            if (row, level) in self._cache:
                self._cache.move_to_end((row, level))
                return self._cache[row, level]
        assert tile.metres_per_pixel is not None  # only such places are tried
        image = self._pixels.read(tile).image
        factor = 2 ** (level / 2)
        width, height = (max(1, round(length / factor)) for length in image.size)
        smaller = image if level == 0 else image.resize((width, height), Image.Resampling.BOX)
        described = self._matcher.describe(np.asarray(smaller))
        entry = described, (width, height), tile.metres_per_pixel * image.width / width
        with self._lock:
            self._cache[row, level] = entry
            if len(self._cache) > _CACHED:
                self._cache.popitem(last=False)
        return entry


def _inside(found: Matches, to_frame: Floats, size: tuple[int, int]) -> Matches:
    """The matches within the frame, in its own pixels: the crop shows its fill beyond."""
    pixels = found.frame @ to_frame[:, :2].T + to_frame[:, 2]
    inside = ((pixels > 0) & (pixels < np.array(size))).all(axis=1)
    return Matches(pixels[inside], found.tile[inside])


def _clockwise(offset: Floats, heading: float) -> Floats:
    """Metres right of and above a tile's middle as metres east and north, [N, 2]."""
    angle = radians(heading)
    return np.asarray(offset @ np.array([(cos(angle), -sin(angle)), (sin(angle), cos(angle))]), np.float64)
