"""Whether a source's tiles cover the ground that a model's training tiles covered, and lie close enough.

A tile of another ground size is another input: buildings are larger or smaller than any that the model has seen.
"""

from contextlib import suppress
from dataclasses import dataclass
from statistics import median

from geodtr.runtime.errors import ImageError
from geodtr.runtime.sources.tile import TileSource

_TRIED = 5
_SAME = 1.25
"""The tiles of one data set differ by this factor where a zoom level was cut at several latitudes."""

_STEPS_OF_A_TRACK = 5
"""Tile centres a tile's side for --track; with half as many, a generated drive's filter was sure of wrong places."""


@dataclass(frozen=True, slots=True)
class Advice:
    """For tiles of `tile_metres` as in training: neighbours overlap by half, and for tracks by more."""

    tile_metres: float

    @property
    def overlap(self) -> float:
        """Metres."""
        return self.tile_metres / 2

    @property
    def overlap_of_tracks(self) -> float:
        """Metres."""
        return self.tile_metres * (1 - 1 / _STEPS_OF_A_TRACK)

    @property
    def options(self) -> str:
        """As they are typed."""
        return f"--tile-metres {self.tile_metres:g} --overlap {self.overlap:g}"

    def faults(self, side: float | None, spacing: float | None = None) -> list[str]:
        """What is wrong with tiles of this `side`, whose nearest neighbours are `spacing` away, in metres, as sentences
        for the user; nothing where it is not known.
        """
        faults = list[str]()
        if side is not None and not 1 / _SAME < side / self.tile_metres < _SAME:
            faults.append(
                f"The model was trained on tiles of {self.tile_metres:g} m, and these cover {side:.3g} m: few will be "
                f"recognised. Cut the map again: {self.options}"
            )
        if spacing is not None and spacing > 1.1 * (self.tile_metres - self.overlap):
            faults.append(
                f"Tile centres are {spacing:.0f} m apart; a place between them is shown by no tile's middle. "
                f"Recommended: {self.options}, and --overlap {self.overlap_of_tracks:g} for --track"
            )
        return faults


def side_of(source: TileSource) -> float | None:
    """The side of a source's tiles on the ground in metres: the median of a few; None where no tile states its scale.

    Reads their pixels, for a scale is metres per pixel.
    """
    stated = [tile for tile in source.tiles if tile.metres_per_pixel is not None]
    sides = list[float]()
    for tile in stated[:: max(1, len(stated) // _TRIED)][:_TRIED]:
        with suppress(ImageError):  # reported when the tile is embedded
            sides.append(max(source.read(tile).image.size) * (tile.metres_per_pixel or 0))
    return median(sides) if sides else None
