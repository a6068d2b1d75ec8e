"""What a localizer asks of a kind of image: street.py and overhead.py answer, for street-level images and nadir frames.

A view makes the engine's inputs of an image, and interprets the tiles found for it. It does not search.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from geodtr.runtime.geodesy import Near
from geodtr.runtime.images.frames import Frame
from geodtr.runtime.localization.fix import Floats
from geodtr.runtime.localization.headings import TurnedHits
from geodtr.runtime.localization.result import Nadir
from geodtr.runtime.localization.waypoint import Candidate
from geodtr.runtime.search.exact import Hits
from geodtr.runtime.search.topk import Rows
from geodtr.runtime.sources.tile import Tile
from geodtr.runtime.spec import Images


@dataclass(frozen=True, slots=True)
class Query:
    """An image as the engine takes it, uint8 [N, H, W, 3]: once for each of N suppositions, such as headings.
    `headings`, degrees [N], is None where none is searched or stated. `doubt`: see Localisation.
    """

    images: Images
    headings: Floats | None
    doubt: str | None


Q = TypeVar("Q", bound=Query)


@dataclass(frozen=True, slots=True)
class Found(Generic[Q]):
    """The nearest tiles of a query within `near`, each by its best supposition; `hits` are of each supposition."""

    query: Q
    best: TurnedHits
    hits: Hits
    near: Near | None


class QueryView(ABC, Generic[Q]):
    """A kind of image. `most` is how many suppositions an image has at most, `tiles` how many of the nearest tiles it
    interprets at least.
    """

    most: int
    tiles = 1

    @abstractmethod
    def load(self, frame: Frame) -> Q:
        """Decode, check and preprocess one image. Raises ImageError."""

    def group(self, query: Q) -> int:
        """Which of its groups a query belongs to; a group is searched together."""
        del query
        return 0

    def rows(self, group: int) -> Rows | None:
        """The gallery's rows that a group's queries are compared with, rising; None for all."""
        del group
        return None

    @abstractmethod
    def candidates(self, found: Found[Q], tiles: Sequence[Tile]) -> Iterator[Candidate]:
        """The tiles found, best first, each with the pose under which it was found."""

    @abstractmethod
    def heading(self, candidates: Sequence[Candidate]) -> float | None:
        """The image's heading, by the tiles found; None where none was searched or stated."""

    @abstractmethod
    def unclaimed(self, query: Q, heading: float | None) -> str | None:
        """Why no calibration can apply to this image, None where one may."""

    def nadir(self, found: Found[Q], candidates: Sequence[Candidate]) -> Nadir | None:
        """What a nadir frame shows beside its place, None for other images."""
        del found, candidates
        return None
