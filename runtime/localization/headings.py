"""An unknown heading is found by turning: a panorama is rolled in equal steps, and each turn is searched.

The convention, here and wherever a heading is kept: degrees clockwise from north, 0 to 360, in which the column at half
the panorama's width looks. A model that was trained on panoramas aligned to north expects that column to look north and
column 0 south, as the polar transform of a north-up tile does. A panorama of heading h is aligned by rolling it
h / 360 of its width to the right. Tiles are north up.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from geodtr.runtime.errors import ArgumentError
from geodtr.runtime.search.exact import Hits
from geodtr.runtime.spec import Images


@dataclass(frozen=True, slots=True)
class Turns:
    """One panorama, aligned on the supposition of each of N headings: `images` uint8 [N, H, W, 3], `headings` float64
    [N] in degrees.
    """

    images: Images
    headings: NDArray[np.float64]


def turn(panorama: Images, count: int) -> Turns:
    """Roll a preprocessed panorama, uint8 [H, W, 3], by `count` equal steps of a full turn.

    It rolls the preprocessed pixels by whole columns, so that the image is resized once and not interpolated: if
    `count` does not divide the width, a step is rounded to the nearest column, and the returned heading is exact for
    that column. A rotated camera would differ only at the image's edges, where the resizing filter has no pixels beyond
    the edge. Raises ConfigError when there are more steps than columns, or none.
    """
    width = panorama.shape[1]
    if not 1 <= count <= width:
        raise ArgumentError("headings", f"is {count}; allowed are 1 to {width}, the columns of the model's panorama.")
    shifts = np.rint(np.arange(count) * (width / count)).astype(np.int64)
    return Turns(np.stack([np.roll(panorama, shift, axis=1) for shift in shifts]), shifts * (360.0 / width))


def align(panorama: Images, heading: float) -> Turns:
    """Roll a preprocessed panorama of a known heading, in degrees, to north, by whole columns as `turn` does."""
    width = panorama.shape[1]
    shift = round(heading / 360 * width) % width
    return Turns(np.roll(panorama, shift, axis=1)[None], np.array([heading % 360]))


@dataclass(frozen=True, slots=True)
class TurnedHits:
    """The nearest references of one image over all its turns, best first: `rows` int64 [K], `scores` float32 [K], and
    the heading that found each, float64 [K] in degrees, by the turn `turns`, int64 [K].
    """

    rows: NDArray[np.int64]
    scores: NDArray[np.float32]
    headings: NDArray[np.float64]
    turns: NDArray[np.int64]


def best_turns(hits: Hits, headings: NDArray[np.float64]) -> TurnedHits:
    """Each reference once, by the turn that found it best; as many as one turn found. `hits` of the N turns, [N, K]."""
    top = hits.rows.shape[1]
    if len(hits.rows) == 1:
        (rows,), (scores,) = hits.rows, hits.scores
        return TurnedHits(rows, scores, np.full(top, headings[0]), np.zeros(top, np.int64))
    order = np.argsort(-hits.scores, axis=None, kind="stable")
    rows = hits.rows.ravel()[order]
    _, first = np.unique(rows, return_index=True)
    kept = np.sort(first)[:top]
    best = order[kept]
    turns = best // max(1, top)
    return TurnedHits(rows[kept], hits.scores.ravel()[best], headings[turns], turns)
