"""A picture of what a model retrieves: queries down the page, their nearest tiles beside them, the right one framed."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL.Image import Image, fromarray

from geodtr.export.plots.colours import LIGHT
from geodtr.export.plots.sheets.sheet import EDGE, INK, fitted, font, new_sheet, spread
from geodtr.runtime.images.decode import decode
from geodtr.runtime.matches import Matches
from geodtr.runtime.recall import Ranking
from geodtr.training.data.counting import Counting
from geodtr.training.data.views import View, seen_of
from geodtr.training.evaluation.evaluate import DescriptorPair

_TILE, _MARGIN, _FRAME, _CAPTION = 132, 12, 4, 18
_RIGHT = LIGHT["good"]


@dataclass(frozen=True, slots=True)
class SheetRow:
    """One query: its image, and of each nearest tile the image, a caption, and whether it is the right one; `view` is
    what was seen of a panorama.
    """

    query: Path
    caption: str
    tiles: tuple[tuple[Path, str, bool], ...]
    view: View | None = None


def retrieved(
    descriptors: DescriptorPair, counting: Counting, ranking: Ranking, label: str, count: int, nearest: int
) -> list[SheetRow]:
    """`count` queries with their `nearest` references, in the set's order; a right one beyond them is the last.

    Three of eight are misses if there are enough, spread over the set like the hits: a sheet of hits alone does not
    show how a model fails.
    """
    missed, hit = np.flatnonzero(ranking.rank > 0), np.flatnonzero(ranking.rank == 0)
    misses = min(len(missed), max(3 * count // 8, count - len(hit)))
    selected = sorted(
        int(rows[row]) for rows, n in ((missed, misses), (hit, count - misses)) for row in spread(len(rows), n)
    )
    pairs, tiles = descriptors.pair_set.pairs, descriptors.pair_set.references
    from_ground = counting.queries == "ground"
    queries = descriptors[counting.queries][counting.rows[selected]]
    hits = descriptors.nearest(counting, queries, nearest)
    sheet = []
    for query, descriptor, found, scores in zip(
        selected, queries, hits.rows.tolist(), hits.scores.tolist(), strict=True
    ):
        row, right = int(counting.rows[query]), _rows_of(query, counting.truth)
        left_out = _rows_of(query, counting.ignored)
        place = f"rank {ranking.rank[query] + 1}"
        rows = [
            (number, f"{score:.3f}{', not counted' * (number in left_out)}")
            for number, score in zip(found, scores, strict=True)
        ]
        if right.isdisjoint(found):
            best = descriptors.nearest(counting, descriptor[None], 1, np.array(sorted(right)))
            rows.append((int(best.rows[0, 0]), f"{best.scores[0, 0]:.3f}, {place}"))
        image, view = (pairs[row].ground, pairs[row].view) if from_ground else (tiles[row], None)
        shown = tuple(
            (tiles[number] if from_ground else pairs[number].ground, text, number in right) for number, text in rows
        )
        caption = f"{label}, {image.name}: right one at {place} of {ranking.references}"
        sheet.append(SheetRow(image, caption, shown, view))
    return sheet


def _rows_of(query: int, matches: Matches | None) -> set[int]:
    return set() if matches is None else set(matches.between(query, query + 1)[1].tolist())


def draw_sheet(rows: Sequence[SheetRow], title: str) -> Image:
    """The sheet as an RGB picture; every row is one query."""
    query_width = _TILE * 3
    columns = max(len(row.tiles) for row in rows)
    cell = _TILE + 2 * _FRAME + _MARGIN
    row_height = _TILE + 2 * _FRAME + _CAPTION + _MARGIN
    width = 2 * _MARGIN + query_width + _MARGIN + columns * cell
    height = 3 * _MARGIN + _CAPTION + len(rows) * row_height
    sheet, draw = new_sheet(width, height, _MARGIN, title)
    small = font(12)
    for index, row in enumerate(rows):
        top = 2 * _MARGIN + _CAPTION + index * row_height
        image = decode(row.query).image
        if row.view is not None:
            image = fromarray(seen_of(np.asarray(image), row.view))
        query = fitted(image, query_width, _TILE)
        sheet.paste(query, (_MARGIN, top + _FRAME + (_TILE - query.height) // 2))
        draw.text((_MARGIN, top + _TILE + 2 * _FRAME + 2), row.caption, INK, small)
        for column, (tile, caption, right) in enumerate(row.tiles):
            left = 2 * _MARGIN + query_width + column * cell
            frame = (left, top, left + _TILE + 2 * _FRAME - 1, top + _TILE + 2 * _FRAME - 1)
            draw.rectangle(frame, fill=_RIGHT if right else EDGE)
            sheet.paste(fitted(decode(tile).image, _TILE, _TILE), (left + _FRAME, top + _FRAME))
            draw.text((left, top + _TILE + 2 * _FRAME + 2), caption, _RIGHT if right else INK, small)
    return sheet
