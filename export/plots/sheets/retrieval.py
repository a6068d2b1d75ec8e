"""A picture of what a model retrieves: queries down the page, their nearest tiles beside them, the right one framed."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL.Image import Image, fromarray

from geodtr.export.plots.colours import LIGHT
from geodtr.export.plots.sheets.sheet import EDGE, INK, fitted, font, new_sheet, spread
from geodtr.runtime.images.decode import decode
from geodtr.runtime.recall import Ranking
from geodtr.runtime.search.exact import search
from geodtr.training.data.views import View, cut
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


def retrieved(descriptors: DescriptorPair, ranking: Ranking, label: str, count: int, tiles: int) -> list[SheetRow]:
    """`count` queries with their `tiles` nearest tiles, in the set's order; a right tile beyond them is the last.

    Three of eight are misses if there are enough, spread over the set like the hits: a sheet of hits alone does not
    show how a model fails.
    """
    missed, hit = np.flatnonzero(ranking.rank > 0), np.flatnonzero(ranking.rank == 0)
    misses = min(len(missed), max(3 * count // 8, count - len(hit)))
    selected = sorted(
        int(rows[row]) for rows, n in ((missed, misses), (hit, count - misses)) for row in spread(len(rows), n)
    )
    pair_set = descriptors.pair_set
    hits = search(descriptors.ground[selected], descriptors.aerial, tiles)
    rows = []
    for query, nearest, scores in zip(selected, hits.rows.tolist(), hits.scores.tolist(), strict=True):
        pair, right = pair_set.pairs[query], int(pair_set.tiles[query])
        place = f"rank {ranking.rank[query] + 1}"
        shown = []
        for row, score in zip(nearest, scores, strict=True):
            tile = pair_set.references[row]
            left_out = ", not counted" if tile in pair.semi_positives else ""
            shown.append((tile, f"{score:.3f}{left_out}", row == right))
        if right not in nearest:
            own = float(descriptors.ground[query] @ descriptors.aerial[right])
            shown.append((pair.aerial, f"{own:.3f}, {place}", True))
        caption = f"{label}, {pair.ground.name}: right tile at {place} of {ranking.references}"
        rows.append(SheetRow(pair.ground, caption, tuple(shown), pair.view))
    return rows


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
            image = fromarray(cut(np.asarray(image), row.view))
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
