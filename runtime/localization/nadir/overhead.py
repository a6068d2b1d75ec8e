"""Frames that look straight down: searched at several headings and ground sizes, and refined if that is asked for."""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from math import log, sqrt

from PIL import Image

from geodtr.runtime.errors import ArgumentError, ConfigError, ImageError
from geodtr.runtime.gallery.base import Gallery
from geodtr.runtime.gallery.ground import Reread
from geodtr.runtime.images.camera_model import undistort
from geodtr.runtime.images.frames import Frame, decode_frame
from geodtr.runtime.localization.fix import CANDIDATES
from geodtr.runtime.localization.nadir.hypotheses import Hypotheses, NadirOptions, sharpened, suppose
from geodtr.runtime.localization.nadir.refine import RefineOptions, Refiner
from geodtr.runtime.localization.result import Nadir, Refined
from geodtr.runtime.localization.view import Found, Query, QueryView
from geodtr.runtime.localization.waypoint import Candidate
from geodtr.runtime.manifest.document import Manifest
from geodtr.runtime.names import Branch
from geodtr.runtime.search.topk import Rows
from geodtr.runtime.sources.ground_size import LEAST_RATIO, side_metres, sizes_of
from geodtr.runtime.sources.tile import Tile
from geodtr.runtime.spec import Preprocessing

_TILES_PER_PLACE = 4
"""Tiles of a place that are found together, where they overlap by three quarters."""


@dataclass(frozen=True, slots=True)
class NadirQuery(Query):
    """A frame and what it is supposed to show, by its own `options`, cropped to tiles of the size numbered `size`;
    `frame` is kept for the second stage alone.
    """

    size: int
    supposed: Hypotheses
    options: NadirOptions
    frame: Image.Image | None


def nadir_branch(manifest: Manifest) -> Branch:
    """The branch that embeds nadir frames: ground where it was trained on them; otherwise aerial, as they are images
    from above.
    """
    projection = manifest.ground.spec.preprocessing.imagery.projection
    return "ground" if projection == "nadir" else "aerial"


class NadirView(QueryView[NadirQuery]):
    """Frames for a branch that preprocesses as `how`; `refine` is the second stage's, None leaves it out.

    A gallery may have tiles of several sizes; a frame is compared with tiles of the size nearest to its own. Raises
    ConfigError when the size of the gallery's tiles on the ground is not known, MissingDependency when the second stage
    lacks OpenCV.
    """

    def __init__(
        self, how: Preprocessing, gallery: Gallery, options: NadirOptions, refine: RefineOptions | None
    ) -> None:
        self._how, self._options = how, options
        self._sizes = _sizes_in(gallery, options, how)
        self._refiner: Refiner | None = None
        if refine is not None:
            finest = self._sizes[0]
            self._refiner = Refiner(gallery, refine, options, finest.metres, finest.rows)
        self.most = options.steps * options.ground_sizes
        # Tiles that overlap show one place several times.
        self.tiles = CANDIDATES if refine is None else max(CANDIDATES, _TILES_PER_PLACE * refine.places)

    def load(self, frame: Frame) -> NadirQuery:
        decoded = decode_frame(frame)
        try:
            options = self._options.of(frame.recorded, frame.altitude)
            if options.camera is not None:
                decoded = undistort(decoded, options.camera, "it")
            size = self._nearest(options.width_range(frame.altitude), decoded.image.size)
            tile = self._sizes[size]
            supposed = suppose(decoded.image, frame.altitude, options, tile.metres, tile.pixels, self._how)
        except ImageError as error:
            raise ImageError(f"{frame.called}: {error}") from None
        kept = None if self._refiner is None else decoded.image
        return NadirQuery(supposed.images, supposed.headings, None, size, supposed, options, kept)

    def _nearest(self, width_range: tuple[float, float], pixels: tuple[int, int]) -> int:
        """The size of tiles that is nearest to a frame's shorter side on the ground."""
        shorter = sqrt(width_range[0] * width_range[1]) * min(pixels) / pixels[0]
        return min(range(len(self._sizes)), key=lambda each: abs(log(shorter / self._sizes[each].metres)))

    def group(self, query: NadirQuery) -> int:
        return query.size

    def rows(self, group: int) -> Rows | None:
        return self._sizes[group].rows

    def candidates(self, found: Found[NadirQuery], tiles: Sequence[Tile]) -> Iterator[Candidate]:
        """A tile's own heading is added to the frame's on it."""
        best, side = found.best, self._sizes[found.query.size].metres
        for row, tile, score, turned in zip(
            best.rows.tolist(), tiles, best.scores.tolist(), best.turns.tolist(), strict=False
        ):
            pose = sharpened(found.hits, row, turned, found.query.supposed, found.query.options)
            yield Candidate(row, tile, score, (pose.heading + (tile.heading or 0.0)) % 360, pose.width, side)

    def heading(self, candidates: Sequence[Candidate]) -> float | None:
        return candidates[0].heading if candidates and self._options.steps > 1 else None

    def unclaimed(self, query: NadirQuery, heading: float | None) -> str:
        del query, heading
        return "a calibration is of street-level images, and this is a nadir frame"

    def nadir(self, found: Found[NadirQuery], candidates: Sequence[Candidate]) -> Nadir:
        width = candidates[0].ground_metres if candidates and self._options.ground_sizes > 1 else None
        answer: Refined | str | None = None
        if self._refiner is not None and found.query.frame is not None:
            query = found.query
            fov, width_range = query.options.field_of_view, query.supposed.width_range
            answer = self._refiner.refine(found.query.frame, candidates, width_range, fov, found.near)
        return Nadir(
            ground_metres=width,
            altitude=None if width is None else found.query.options.altitude_of(width),
            refined=answer if isinstance(answer, Refined) else None,
            unrefined=answer if isinstance(answer, str) else None,
        )


@dataclass(frozen=True, slots=True, eq=False)
class _Tiles:
    """Tiles of one size: metres and pixels of a side, and their rows in the gallery, None for all."""

    metres: float
    pixels: int
    rows: Rows | None


def _sizes_in(gallery: Gallery, options: NadirOptions, how: Preprocessing) -> tuple[_Tiles, ...]:
    """The sizes of a gallery's tiles, rising. Raises ConfigError where one is unknown, or is not as it was stated."""
    drawn = 2 * how.height if how.polar else max(how.height, how.width)
    first = next(gallery.all_tiles(), None)
    if first is None:
        return (_Tiles(options.tile_metres or 1.0, drawn, None),)
    pixels = _pixels_of(first)
    stated = options.tile_metres
    if stated is not None and first.side_metres is None and (first.metres_per_pixel is None or pixels is None):
        return (_Tiles(stated, pixels or drawn, None),)
    sizes = sizes_of(side_metres(gallery.all_tiles(), pixels or drawn))
    if (unknown := sizes[-1]).metres is None:
        some = "its tiles are" if len(sizes) == 1 else f"{len(unknown.rows)} of its tiles are"
        raise ConfigError(
            f"{gallery.name} does not state how large {some} on the ground, which a nadir frame must be cropped to. "
            "Give the side of a tile in metres: --tile-metres 60"
        )
    if stated is not None and (len(sizes) > 1 or not 1 / LEAST_RATIO < stated / (sizes[0].metres or 1) < LEAST_RATIO):
        sides = ", ".join(f"{size.metres:.4g}" for size in sizes)
        fault = f"is {stated:g}, and tiles of {gallery.name} cover {sides} m. Leave it out."
        raise ArgumentError("tile_metres", fault)
    rows = [gallery.rows[size.rows] for size in sizes]
    return tuple(
        _Tiles(
            stated or size.metres or 1.0,
            _pixels_of(gallery.tiles([int(own[0])])[0]) or drawn,
            own if len(sizes) > 1 else None,
        )
        for size, own in zip(sizes, rows, strict=True)
    )


def _pixels_of(tile: Tile) -> int | None:
    """The width of a tile's picture, None where it cannot be read."""
    with suppress(ImageError):
        return Reread().read(tile).image.width
    return None
