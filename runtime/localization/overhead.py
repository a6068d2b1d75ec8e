"""Frames that look straight down: searched at several headings and ground sizes, and refined if that is asked for."""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass

from PIL import Image

from geodtr.runtime.errors import ConfigError, ImageError
from geodtr.runtime.gallery.base import Gallery
from geodtr.runtime.gallery.ground import Reread
from geodtr.runtime.images.frames import Frame, decode_frame
from geodtr.runtime.localization.fix import CANDIDATES
from geodtr.runtime.localization.matching import Patches
from geodtr.runtime.localization.nadir import Hypotheses, NadirOptions, sharpened, suppose
from geodtr.runtime.localization.refine import RefineOptions, Refiner
from geodtr.runtime.localization.result import Nadir, Refined
from geodtr.runtime.localization.view import Found, Query
from geodtr.runtime.localization.waypoint import Candidate
from geodtr.runtime.manifest.document import Manifest
from geodtr.runtime.names import Branch
from geodtr.runtime.sources.tile import Tile
from geodtr.runtime.spec import Preprocessing

_TILES_PER_PLACE = 4
"""Tiles of a place that are found together, where they overlap by three quarters."""


@dataclass(frozen=True, slots=True)
class NadirQuery(Query):
    """A frame and what it is supposed to show, by its own `options`; `frame` is kept for the second stage alone."""

    supposed: Hypotheses
    options: NadirOptions
    frame: Image.Image | None


def nadir_branch(manifest: Manifest) -> Branch:
    """The branch that embeds nadir frames: ground where it was trained on them; otherwise aerial, as they are images
    from above.
    """
    projection = manifest.ground.spec.preprocessing.imagery.projection
    return "ground" if projection == "nadir" else "aerial"


class NadirView:
    """Frames for a branch that preprocesses as `how`; `refine` is the second stage's, None leaves it out.

    Raises ConfigError when the size of the gallery's tiles on the ground is not known, MissingDependency when the
    second stage lacks OpenCV.
    """

    def __init__(
        self, how: Preprocessing, gallery: Gallery, options: NadirOptions, refine: RefineOptions | None
    ) -> None:
        self._how, self._options = how, options
        self._tile = _measure_tile(gallery, options, how)
        self._refiner: Refiner | None = None
        if refine is not None:
            self._refiner = Refiner(gallery, Patches(), refine, options, self._tile[0])

    @property
    def most(self) -> int:
        return self._options.steps * self._options.ground_sizes

    @property
    def tiles(self) -> int:
        """Tiles that overlap show one place several times."""
        return CANDIDATES if self._refiner is None else max(CANDIDATES, _TILES_PER_PLACE * self._refiner.places)

    def load(self, frame: Frame) -> NadirQuery:
        decoded = decode_frame(frame)
        try:
            options = self._options.of(frame.recorded)
            supposed = suppose(decoded.image, frame.altitude, options, *self._tile, self._how)
        except ImageError as error:
            raise ImageError(f"{frame.called}: {error}") from None
        kept = None if self._refiner is None else decoded.image
        return NadirQuery(supposed.images, supposed.headings, None, supposed, options, kept)

    def candidates(self, found: Found[NadirQuery], tiles: Sequence[Tile]) -> Iterator[Candidate]:
        """A tile's own heading is added to the frame's on it."""
        best = found.best
        for row, tile, score, turned in zip(
            best.rows.tolist(), tiles, best.scores.tolist(), best.turns.tolist(), strict=False
        ):
            pose = sharpened(found.hits, row, turned, found.query.supposed, found.query.options)
            yield Candidate(row, tile, score, (pose.heading + (tile.heading or 0.0)) % 360, pose.width)

    def heading(self, candidates: Sequence[Candidate]) -> float | None:
        return candidates[0].heading if candidates and self._options.steps > 1 else None

    def unclaimed(self, query: NadirQuery, heading: float | None) -> str:
        del query, heading
        return "a calibration is of street-level images, and this is a nadir frame"

    def nadir(self, found: Found[NadirQuery], candidates: Sequence[Candidate]) -> Nadir:
        width = candidates[0].ground_metres if candidates and self._options.ground_sizes > 1 else None
        answer: Refined | str | None = None
        if self._refiner is not None and found.query.frame is not None:
            width_range = found.query.supposed.width_range
            answer = self._refiner.refine(found.query.frame, candidates, width_range, found.near)
        return Nadir(
            ground_metres=width,
            altitude=None if width is None else found.query.options.altitude_of(width),
            refined=answer if isinstance(answer, Refined) else None,
            unrefined=answer if isinstance(answer, str) else None,
        )


def _measure_tile(gallery: Gallery, options: NadirOptions, how: Preprocessing) -> tuple[float, int]:
    """Metres and pixels of a tile's side, as the first tile has them. Raises ConfigError where they are unknown."""
    tile = next(gallery.all_tiles(), None)
    pixels = 2 * how.height if how.polar else max(how.height, how.width)
    if tile is None:
        return options.tile_metres or 1.0, pixels
    with suppress(ImageError):
        pixels = Reread().read(tile).image.width
    if options.tile_metres is not None:
        return options.tile_metres, pixels
    if tile.metres_per_pixel is None:
        raise ConfigError(
            f"{gallery.name} does not say how large its tiles are on the ground, which a nadir frame must be cropped "
            "to. Give the side of a tile in metres: --tile-metres 60"
        )
    return tile.metres_per_pixel * pixels, pixels
