"""Whether a gallery in Milvus is what was written, row by row, and how much of the nearest its index finds."""

from collections.abc import Iterator, Sequence
from math import ceil

import numpy as np

from geodtr.runtime.gallery.base import Fault, IndexRecall, Verified
from geodtr.runtime.gallery.location import MilvusLocation
from geodtr.runtime.gallery.milvus.client import KEY, Entity, block_of
from geodtr.runtime.gallery.milvus.reader import MilvusGallery, open_milvus
from geodtr.runtime.gallery.milvus.schema import CHECKSUM, row_of, row_values, vectors_of
from geodtr.runtime.gallery.row import checksums
from geodtr.runtime.progress import Track, untracked
from geodtr.runtime.spec import Descriptors

_QUERIES, _TOP = 100, 10
_EQUAL = 1e-5
"""Cosines closer than this are ties: two float32 products of one pair differ by less."""


def verify(place: MilvusLocation, *, track: Track = untracked) -> Verified:
    """Read all of the gallery and name every row that is not as it was written; search it, and count what is found.

    The queries lie halfway between two of its descriptors, so that none is a tile's own. With a FLAT index anything
    not found is a fault; with another it is what that index costs. Raises GalleryError when it is no gallery.
    """
    faults = list[Fault]()
    with open_milvus(place) as gallery:
        nearest: _Nearest | None = None
        blocks = ceil(len(gallery) / block_of(gallery.manifest.descriptor_size))
        for block in track(gallery.entities(), "Verifying", blocks):
            descriptors = vectors_of(block)
            faults += _faults(block, descriptors)
            # Rows are drawn from ids by a hash: the first ones are a sample.
            nearest = nearest or _Nearest(_between(descriptors), min(_TOP, len(gallery)))
            nearest.see(descriptors)
        recall = None if nearest is None else nearest.recall(gallery)
    if recall is not None and recall.index == "FLAT" and recall.found < 1:
        what = f"a search finds {recall.found:.1%} of the nearest; a FLAT index finds all. Drop and rebuild the index."
        faults.append(Fault(None, what))
    return Verified(tuple(faults), recall)


def _faults(block: Sequence[Entity], descriptors: Descriptors) -> Iterator[Fault]:
    sums = checksums(map(row_values, block), descriptors)
    for entity, found in zip(block, sums, strict=True):
        name = str(entity["id"])
        if entity[KEY] != row_of(name):
            yield Fault(name, f"row {entity[KEY]} is not its own")
        elif found != entity[CHECKSUM]:
            yield Fault(name, "its descriptor, or another field, was changed after it was written")


def _between(descriptors: Descriptors) -> Descriptors:
    """Queries halfway between pairs of the first descriptors, of unit length; a single descriptor itself."""
    first = descriptors[: 2 * _QUERIES]
    half = ceil(len(first) / 2)
    between = first[:half] + first[-half:]
    lengths = np.linalg.norm(between, axis=1, keepdims=True)
    return np.asarray(between / np.where(lengths > 0, lengths, 1), np.float32)


class _Nearest:
    """The exact cosines of the nearest, as more and more descriptors are seen."""

    def __init__(self, queries: Descriptors, top: int) -> None:
        self._queries = queries
        self._best = np.full((len(queries), top), -np.inf, np.float32)

    def see(self, descriptors: Descriptors) -> None:
        scores = np.concatenate([self._best, self._queries @ descriptors.T], axis=1)
        top = self._best.shape[1]
        self._best = np.partition(scores, -top, axis=1)[:, -top:]

    def recall(self, gallery: MilvusGallery) -> IndexRecall:
        top = self._best.shape[1]
        hits = gallery.search(self._queries, top)
        equal = (hits.scores >= self._best.min(axis=1, keepdims=True) - _EQUAL).sum(axis=1)
        return IndexRecall(gallery.index, top, len(self._queries), float(equal.sum() / (top * len(equal))))
