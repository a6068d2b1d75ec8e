"""Street-level images: a panorama whose heading is unknown is searched at several headings."""

from collections.abc import Iterator, Sequence

import numpy as np

from geodtr.runtime.errors import ArgumentError
from geodtr.runtime.images.frames import Frame, decode_frame, preprocess_frame
from geodtr.runtime.images.intake import Intake
from geodtr.runtime.localization.headings import align, turn
from geodtr.runtime.localization.view import Found, Query, QueryView
from geodtr.runtime.localization.waypoint import Candidate
from geodtr.runtime.sources.tile import Tile
from geodtr.runtime.spec import Preprocessing


class StreetView(QueryView[Query]):
    """Images for a ground branch that preprocesses as `how`. Raises ConfigError when the model's panorama has fewer
    columns than `headings`, or the model cannot take what `intake` states.
    """

    def __init__(self, how: Preprocessing, headings: int, intake: Intake) -> None:
        if not 1 <= headings <= how.width:
            raise ArgumentError("headings", f"is {headings}; allowed are 1 to {how.width}, the model's columns.")
        intake.check(how.imagery)
        self._how, self._intake = how, intake
        self.most = headings

    def load(self, frame: Frame) -> Query:
        taken = self._intake.take(decode_frame(frame), self._how.imagery, frame.called, frame.recorded)
        pixels = preprocess_frame(frame, taken.image, self._how)
        if self.most > 1 and taken.full_turn:
            turns = turn(pixels, self.most)
        elif taken.heading is not None:
            turns = align(pixels, taken.heading)
        else:
            return Query(pixels[None], None, taken.doubt)
        return Query(turns.images, turns.headings, taken.doubt)

    def candidates(self, found: Found[Query], tiles: Sequence[Tile]) -> Iterator[Candidate]:
        best = found.best
        for row, tile, score, heading in zip(
            best.rows.tolist(), tiles, best.scores.tolist(), best.headings.tolist(), strict=False
        ):
            known = None if np.isnan(heading) else heading
            yield Candidate(row, tile, score, known, tile_metres=tile.side_metres)

    def heading(self, candidates: Sequence[Candidate]) -> float | None:
        return candidates[0].heading if candidates else None

    def unclaimed(self, query: Query, heading: float | None) -> str | None:
        if query.doubt is not None:
            return f"the model was not trained on such images: {query.doubt}"
        if self.most > 1 and heading is None:
            return "the image is no full turn, so no headings were searched"
        return None
