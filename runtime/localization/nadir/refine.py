"""The second stage of a nadir frame: aligned with the map, matched, and solved for a position in metres.

The first stage supposes places, headings and ground sizes; here each place is confirmed or refused. With a known field
of view the camera's own position is computed, tilt included; otherwise the position that the frame's middle shows.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import chain
from math import ceil, hypot
from typing import Annotated

import numpy as np
from msgspec import Meta
from numpy.typing import NDArray
from PIL import Image

from geodtr.runtime.arguments import check_fields
from geodtr.runtime.gallery.base import Gallery
from geodtr.runtime.geodesy import Near, distance
from geodtr.runtime.images.nadir import whole_pixels
from geodtr.runtime.images.video import check_opencv
from geodtr.runtime.localization.fix import Floats
from geodtr.runtime.localization.nadir.alignment import Aligner, spectra_of
from geodtr.runtime.localization.nadir.guesses import Guess, Guesses, shrunk
from geodtr.runtime.localization.nadir.hypotheses import NadirOptions
from geodtr.runtime.localization.nadir.map_window import MapWindows, Place, place_at, step_of
from geodtr.runtime.localization.nadir.matching import Matcher, Patches
from geodtr.runtime.localization.nadir.pose import camera_pose, fault_of, flat_pose, homography_of, through
from geodtr.runtime.localization.result import Refined
from geodtr.runtime.localization.waypoint import Candidate
from geodtr.runtime.search.topk import Rows
from geodtr.runtime.sources.tile import Tile
from geodtr.runtime.spec import Images

_COARSE, _FINE = 80, 320
"""Pixels of the frame's diagonal where it is aligned and where it is matched, each within half an octave; it is
matched roughly at half of the latter.
"""
_ROUGH_REACH, _FINE_REACH = 11, 6
"""Pixels that a point may be from its supposed place: by tilt and the alignment's errors; by what heights do."""
_ROUGH_INLIERS = 8
_THRESHOLD = 3.0
"""Pixels by which a match may miss the homography, at most."""
_INSIDE = 0.99
_LEAST_SCORE = 0.2
"""Of an alignment that is worth matching; frames of other places reach 0.25 at most, and a third of that usually."""
_LEAST_SHARE = 0.2
"""Of the matches that agree: at other places up to a half of few matches do, at the right one mostly three quarters."""
_DECISIVE, _DECISIVE_SHARE = 2.0, 0.5
"""Of the inliers that are needed, and the share: no further place is tried,"""
_LEAST_TRIED = 2
"""but so many, lest there is a place that looks the same."""
_RIVAL = 0.6
"""Of the best place's inliers: with as many somewhere else, neither is believed."""


@dataclass(frozen=True, slots=True)
class RefineOptions:
    """Up to `places` of a survey and as many of the first stage are tried; a position needs `min_inliers` matches that
    agree, of those that `matcher` finds. Raises ConfigError naming a value out of range.
    """

    places: Annotated[int, Meta(ge=1, le=32)] = 8
    min_inliers: Annotated[int, Meta(ge=8, le=10_000)] = 20
    matcher: Matcher = field(default_factory=Patches)

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True, slots=True)
class _Views:
    """A frame at the three sizes at which it is compared; its height in parts of its width."""

    coarse: Images
    middle: Images
    fine: Images
    aspect: float

    @property
    def diagonal(self) -> float:
        return hypot(1, self.aspect)


@dataclass(frozen=True, slots=True)
class _Common:
    """What a frame and the map have in common: points in parts of the frame's width, and places in metres east and
    north of an anchor, [M, 2] each, found at `resolution` metres a pixel. `independent`: see Matches.
    """

    points: Floats
    places: Floats
    resolution: float
    independent: float

    def homography(self) -> tuple[Floats, NDArray[np.bool_]] | None:
        """From points to places, and which matches agree with it."""
        return homography_of(self.points, self.places, _THRESHOLD * self.resolution)


class Refiner:
    """Refines answers on one gallery's tiles, whose pixels are read where the gallery was built from.

    Safe to use from several threads.
    """

    def __init__(
        self,
        gallery: Gallery,
        options: RefineOptions,
        nadir: NadirOptions,
        tile_metres: float,
        rows: Rows | None = None,
    ) -> None:
        """`tile_metres` is the side of the tiles in these `rows`, of all where None. Raises MissingDependency without
        OpenCV.
        """
        check_opencv("The second stage needs")
        self._map, self._tile = MapWindows(gallery, tile_metres, rows), tile_metres
        self._options = options
        self._guesses = Guesses(self._map, tile_metres, nadir, options.places)

    def refine(
        self,
        frame: Image.Image,
        candidates: Sequence[Candidate],
        width_range: tuple[float, float],
        fov: float | None,
        near: Near | None,
    ) -> Refined | str:
        """The position of a frame, RGB, whose candidates the first stage found, whose width in metres is in this range,
        and whose width shows an angle of `fov` degrees, if that is known; or the reason why there is none. Where a
        prior or the map is small enough, the frame is sought everywhere in it before.

        Raises ImageError when a tile cannot be read any more.
        """
        fine, middle, coarse = (np.asarray(shrunk(frame, 1.2 * each)) for each in (_FINE, _FINE / 2, _COARSE))
        views = _Views(coarse, middle, fine, frame.height / frame.width)
        answers = list[Refined]()
        reasons = ["no tile found has a position"]
        guesses = chain(self._guesses.survey(frame, width_range, near), self._guesses.of_candidates(candidates))
        for tried, guess in enumerate(guesses, 1):
            answer = self._at(views, guess, fov)
            if isinstance(answer, str):
                reasons.append(answer)
            else:
                answers.append(answer)
            if tried >= _LEAST_TRIED and any(map(self._is_decisive, answers)):
                break
        if not answers:
            return reasons[-1] if len(reasons) < 3 else f"{reasons[1]}; {len(reasons) - 2} more places were tried"
        best = max(answers, key=lambda answer: answer.inliers)
        for other in answers:
            apart = distance(best.lat, best.lon, other.lat, other.lon)
            if apart > self._tile / 2 and other.inliers > _RIVAL * best.inliers:
                return (
                    f"two places fit, {apart:.0f} m apart: {best.inliers} matches agree around tile {best.tile}, and "
                    f"{other.inliers} around {other.tile}"
                )
        return best

    def _is_decisive(self, answer: Refined) -> bool:
        enough = answer.inliers >= _DECISIVE * self._options.min_inliers
        return enough and answer.inliers >= _DECISIVE_SHARE * answer.matches

    def _at(self, views: _Views, guess: Guess, fov: float | None) -> Refined | str:
        """The frame's position if it shows this place."""
        import cv2

        fine = step_of(views.diagonal * guess.width / _FINE)
        coarse = fine * _FINE / _COARSE
        side = cv2.getOptimalDFTSize(ceil((views.diagonal * max(guess.widths) + guess.reach) / coarse))
        ground = spectra_of(self._map.cut(guess.place, side, coarse, fine))
        aligned = Aligner(views.coarse).align(ground, guess.headings, guess.widths)
        if aligned.score < _LEAST_SCORE:
            return f"the frame does not look like the map around tile {guess.tile.id}"
        anchor = place_at(guess.place, aligned.middle)
        rough = self._match(views.middle, aligned.homography(views.aspect), anchor, 2 * fine, _ROUGH_REACH)
        if (nearly := rough.homography()) is None or nearly[1].sum() < _ROUGH_INLIERS:
            return self._few(0 if nearly is None else int(nearly[1].sum()), guess.tile)
        matches = self._match(views.fine, nearly[0], anchor, fine, _FINE_REACH)
        return self._solve(views.fine, matches, anchor, guess, fov)

    def _match(self, frame: Images, to_ground: Floats, anchor: Place, resolution: float, reach: int) -> _Common:
        """What frame and map have in common, where `to_ground` lays the frame nearly right: a homography from parts of
        the frame's width to metres east and north of the anchor.
        """
        import cv2

        height, width = frame.shape[:2]
        corners = np.array([(0, 0), (1, 0), (0, height / width), (1, height / width)])
        most = np.abs(through(to_ground, corners)).max() / resolution
        side = 2 * ceil(np.fmin(most, _FINE))  # NaN where a corner is at infinity
        to_metres = np.array(
            [(resolution, 0, -side * resolution / 2), (0, -resolution, side * resolution / 2), (0, 0, 1)]
        )
        to_frame = np.diag((width, width, 1.0)) @ np.linalg.inv(to_ground) @ to_metres
        warp = whole_pixels(to_frame)
        how = cv2.WARP_INVERSE_MAP | cv2.INTER_LINEAR
        canvas = cv2.warpPerspective(frame, warp, (side, side), flags=how, borderMode=cv2.BORDER_REPLICATE)
        inside = cv2.warpPerspective(np.ones((height, width), np.float32), warp, (side, side), flags=how) > _INSIDE
        window = self._map.cut(anchor, side + 2 * reach, resolution, resolution)
        matches = self._options.matcher.match(np.asarray(canvas, np.uint8), np.asarray(inside), window.image, reach)
        return _Common(
            through(to_frame, matches.frame) / width, window.metres(matches.ground), resolution, matches.independent
        )

    def _solve(self, frame: Images, common: _Common, anchor: Place, guess: Guess, fov: float | None) -> Refined | str:
        """The pose that follows from the matches."""
        solution = common.homography()
        inliers = 0 if solution is None else int(solution[1].sum())
        if solution is None or inliers < max(self._options.min_inliers, _LEAST_SHARE * len(common.points)):
            return self._few(inliers, guess.tile)
        to_ground, inside = solution
        size = (1.0, frame.shape[0] / frame.shape[1])
        points, places = common.points[inside], common.places[inside]
        pose = flat_pose(points, places, to_ground, size, common.independent)
        fault = fault_of(pose, points, size, guess.width)
        if fault is None and fov is not None:
            tolerance = common.resolution / pose.width
            pose = camera_pose(common.points, common.places, pose, size, fov, tolerance, common.independent)
            fault = fault_of(pose, points, size, guess.width)
        if fault is not None:
            return f"{inliers} matches agree, but {fault}"
        lat, lon = place_at(anchor, pose.place)
        (ee, en), (_, nn) = pose.covariance.tolist()
        return Refined(
            lat=lat,
            lon=lon,
            camera=fov is not None,
            heading=pose.heading,
            ground_metres=pose.width,
            altitude=pose.altitude,
            tilt=pose.tilt,
            tile=guess.tile.id,
            matches=len(inside),
            inliers=inliers,
            covariance_m2=(ee, en, nn),
        )

    def _few(self, inliers: int, tile: Tile) -> str:
        needed = self._options.min_inliers
        return f"{inliers} matches agree with the map around tile {tile.id}, and {needed} are needed"
