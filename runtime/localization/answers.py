"""From descriptors to answers: the nearest tiles in one gallery, the position fused from them, and what it claims."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby, islice
from typing import Any

import numpy as np

from geodtr.runtime.arguments import check_argument
from geodtr.runtime.gallery.base import Gallery
from geodtr.runtime.geodesy import Near
from geodtr.runtime.images.frames import Frame
from geodtr.runtime.localization.claims import Claims
from geodtr.runtime.localization.fix import CANDIDATES, Fix, fuse
from geodtr.runtime.localization.headings import best_turns
from geodtr.runtime.localization.result import Localisation
from geodtr.runtime.localization.view import Found, Query, QueryView
from geodtr.runtime.search.exact import Hits
from geodtr.runtime.search.topk import Rows
from geodtr.runtime.sources.tile import Tile
from geodtr.runtime.spec import Descriptors


@dataclass(frozen=True, slots=True)
class Prepared:
    """An image as the engine takes it; `frame` no longer holds its pixels."""

    frame: Frame
    query: Query


class Answers:
    """The answers of one gallery to images of one kind."""

    def __init__(self, gallery: Gallery, view: QueryView[Any], claims: Claims) -> None:
        self._gallery, self._view, self._claims = gallery, view, claims

    def of(
        self, prepared: Sequence[Prepared], descriptors: Descriptors, top: int, near: Near | None
    ) -> list[Localisation]:
        """One answer for each image, in order. `descriptors` [sum of suppositions, D]; `near`, as in Localizer.locate.

        Raises ConfigError where `top` is less than 1, and GalleryError.
        """
        answers, start = list[Localisation](), 0
        for (prior, number), alike in groupby(
            prepared, lambda each: (each.frame.near or near, self._view.group(each.query))
        ):
            group, rows = list(alike), self._view.rows(number)
            end = start + sum(len(each.query.images) for each in group)
            results = self._search([each.query for each in group], descriptors[start:end], top, prior, rows)
            answers += self._answered([each.frame for each in group], results, top, prior)
            start = end
        return answers

    def _search(
        self, queries: Sequence[Query], descriptors: Descriptors, top: int, near: Near | None, rows: Rows | None
    ) -> list[Found[Query]]:
        """The nearest tiles of each query over its suppositions, at least as many as a fix needs."""
        check_argument("top", top, int, 1)
        hits = self._gallery.search(descriptors, max(top, CANDIDATES, self._view.tiles), near, rows)
        results = list[Found[Query]]()
        start = 0
        for query in queries:
            part = slice(start, start + len(query.images))
            headings = np.full(1, np.nan) if query.headings is None else query.headings
            own = Hits(hits.rows[part], hits.scores[part])
            best = best_turns(own, headings)
            if hits.headings is not None:  # of images as they are, or aligned by a heading that they state
                (stated,) = np.nan_to_num(headings)
                best = replace(best, headings=(hits.headings[part][0] + stated) % 360)
            results.append(Found(query, best, own, near))
            start = part.stop
        return results

    def _answered(
        self, frames: Sequence[Frame], results: Sequence[Found[Query]], top: int, near: Near | None
    ) -> Iterator[Localisation]:
        """The answers to images that were searched together, so that each has as many hits."""
        rows = np.stack([each.best.rows for each in results])
        every = iter(self._gallery.tiles(rows.ravel().tolist()))
        tiles = [list(islice(every, rows.shape[1])) for _ in results]
        lat = np.array([[tile.lat for tile in own[:CANDIDATES]] for own in tiles], np.float64)
        lon = np.array([[tile.lon for tile in own[:CANDIDATES]] for own in tiles], np.float64)
        fixes = fuse(np.stack([each.best.scores[:CANDIDATES] for each in results]), lat, lon)
        for frame, result, own, fix in zip(frames, results, tiles, fixes, strict=True):
            yield self._answer(frame, result, own[: max(top, self._view.tiles)], fix, top, near)

    def _answer(
        self, frame: Frame, found: Found[Query], tiles: Sequence[Tile], fix: Fix | None, top: int, near: Near | None
    ) -> Localisation:
        every = tuple(self._view.candidates(found, tiles))
        candidates, heading, query = every[:top], self._view.heading(every), found.query
        radius = None if near is None else near.radius
        calibration, uncalibrated = self._claims.applicable(radius)
        unclaimed = self._view.unclaimed(query, heading)
        if near is not None and not candidates:
            uncalibrated = "no tile lies within the prior"
        elif fix is None:
            uncalibrated = "no tile found has a position"
        elif unclaimed is not None:
            uncalibrated = unclaimed
        elif calibration is not None:
            fix = calibration.apply(fix)
        nadir = self._view.nadir(found, every)
        return Localisation(
            frame.name or None, frame.time, candidates, fix, heading, uncalibrated, query.doubt, nadir, frame.recorded
        )
