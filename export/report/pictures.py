"""The queries whose answer changed, as pictures small enough to stand in the page itself."""

from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from itertools import zip_longest
from pathlib import Path

import numpy as np
from PIL import Image

from geodtr.export.parity.result import Evidence, ParityResult, first_tiles
from geodtr.runtime.errors import ImageError
from geodtr.runtime.images.decode import read_image
from geodtr.runtime.recall import Ranking

_GROUND, _AERIAL = (640, 320), (240, 240)
_QUALITY = 85


@dataclass(frozen=True, slots=True)
class Picture:
    """An image as a data URI; `uri` is None if the file can no longer be read, with the reason in `trouble`."""

    name: str
    uri: str | None
    width: int = 0
    height: int = 0
    trouble: str = ""


@dataclass(frozen=True, slots=True)
class Answer:
    """A tile that some of the models put first, and which did; nobody where it is only the right one."""

    tile: Picture
    right: bool
    by: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Move:
    """Where the nearest right tile stood for one candidate that answers otherwise, counted from 1, and how much closer
    than the nearest wrong tile it was, in cosine.
    """

    name: str
    before: int
    after: int
    margin_before: float
    margin_after: float

    @property
    def fate(self) -> str:
        """What that means in a word."""
        if self.before == 1:
            return "still right" if self.after == 1 else "lost"
        return "gained" if self.after == 1 else "still wrong"


@dataclass(frozen=True, slots=True)
class ChangedQuery:
    """One query that a candidate answers otherwise than the reference: the right tile first among `answers`."""

    number: int
    query: Picture
    answers: tuple[Answer, ...]
    moves: tuple[Move, ...]


def changed_queries(result: ParityResult, at_most: int) -> tuple[list[ChangedQuery], int]:
    """Some of the changed queries, `at_most` so many, and how many there are.

    The candidates take turns; of each come first the hits that it lost, the farthest gone ahead, then those that it
    gained, then wrong answers in place of others, and right ones.
    """
    evidence = result.evidence
    turns = zip_longest(*(_telling(evidence, each.rankings["own"]) for each in evidence.candidates))
    every = dict.fromkeys(query for turn in turns for query in turn if query is not None)
    return [_changed_query(result, query) for query in list(every)[:at_most]], len(every)


def _telling(evidence: Evidence, after: Ranking) -> Sequence[int]:
    """The candidate's changed queries, the most telling first."""
    changed = evidence.changed(after)
    before_hit, after_hit = evidence.reference.rank[changed] == 0, after.rank[changed] == 0
    kind = np.where(before_hit, np.where(after_hit, 3, 0), np.where(after_hit, 1, 2))
    return [int(query) for query in changed[np.lexsort((-after.rank[changed], kind))]]


def _changed_query(result: ParityResult, query: int) -> ChangedQuery:
    evidence, pair = result.evidence, result.evidence.pair_set.pairs[query]
    before, references = evidence.reference, evidence.pair_set.references
    first = int(first_tiles(before)[query])
    by: dict[int, list[str]] = {int(before.right[query]): []}
    by.setdefault(first, []).append(result.figures.reference.name)
    moves = []
    for candidate, each in zip(result.candidates, evidence.candidates, strict=True):
        after = each.rankings["own"]
        answer = int(first_tiles(after)[query])
        by.setdefault(answer, []).append(candidate.name)
        if answer != first:
            moves.append(
                Move(
                    candidate.name,
                    before=int(before.rank[query]) + 1,
                    after=int(after.rank[query]) + 1,
                    margin_before=float(before.margin[query]),
                    margin_after=float(after.margin[query]),
                )
            )
    return ChangedQuery(
        number=query + 1,
        query=_picture(pair.ground, _GROUND),
        answers=tuple(
            Answer(_picture(references[tile], _AERIAL), references[tile] in pair.right, tuple(models))
            for tile, models in by.items()
        ),
        moves=tuple(moves),
    )


def _picture(path: Path, largest: tuple[int, int]) -> Picture:
    """The image, made smaller where it is larger, as a JPEG."""
    try:
        image = Image.fromarray(read_image(path))
    except ImageError as error:
        return Picture(path.name, None, trouble=str(error))
    image.thumbnail(largest, Image.Resampling.LANCZOS)
    packed = BytesIO()
    image.save(packed, "jpeg", quality=_QUALITY, optimize=True)
    uri = f"data:image/jpeg;base64,{b64encode(packed.getvalue()).decode()}"
    return Picture(path.name, uri, image.width, image.height)
