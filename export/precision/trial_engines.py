"""Engines with any choice of quantised blocks, built one after another, and what they find and how fast they are.

Knows one exported model, its ranges and one backend; knows nothing of which choice is good.
"""

from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import closing
from functools import cached_property
from itertools import count
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from geodtr.export.backends.base import Builder
from geodtr.export.precision.agreement import check_agreement
from geodtr.export.precision.cosine_selection import Quantiser
from geodtr.export.speed import times_as_fast
from geodtr.export.statistics import Drop, paired_drop
from geodtr.runtime.bundle import Bundle
from geodtr.runtime.engines.base import EngineFiles, EngineOptions
from geodtr.runtime.engines.registry import open_embedders
from geodtr.runtime.names import BRANCHES, Branch, Precision
from geodtr.runtime.progress import Track, untracked
from geodtr.runtime.recall import Ranking, rank
from geodtr.runtime.spec import Descriptors, Embedder, EmbedderPair, Images
from geodtr.training.data.counting import check_ground_queries
from geodtr.training.data.pair_set import PairSet
from geodtr.training.evaluation.evaluate import row_batches

Blocks = frozenset[str]
"""Which blocks are quantised, named branch/block."""

NONE: Blocks = frozenset()
_BATCH, _ROUNDS, _KEPT = 32, 7, 24
_COMPARED = 8


class Workbench:
    """Builds engines into `folder` and measures them on `pairs`, whose pixels are held in memory, and on `batch` images
    of noise for their speed. Raises DataError when the set has tiles to look up.
    """

    def __init__(
        self,
        exported: Bundle,
        quantisers: Mapping[Branch, Quantiser],
        builder: Builder,
        precision: Precision,
        pairs: PairSet,
        folder: Path,
        *,
        batch: int,
        track: Track = untracked,
    ) -> None:
        check_ground_queries(pairs, "the search")
        self._exported, self._quantisers, self._builder, self._precision = exported, quantisers, builder, precision
        self._folder, self._numbers = folder, count()
        self._backend = builder.check(precision)
        self._pairs, self._timed = pairs, batch
        self._images = {branch: self._load(branch, track) for branch in BRANCHES}
        self._described: OrderedDict[tuple[Branch, Blocks | None], Descriptors] = OrderedDict()

    def build_by(self, builder: Builder) -> None:
        """Build with `builder` from now on, and forget the results of other engines."""
        self._builder, self._backend = builder, builder.check(self._precision)
        self._described.clear()

    @property
    def queries(self) -> int:
        """How many queries a complete measurement of recall has."""
        return len(self._pairs)

    @cached_property
    def blocks(self) -> list[str]:
        """Every block that can be quantised, named branch/block."""
        names = (f"{branch}/{each.block}" for branch in BRANCHES for each in self._quantisers[branch].operators)
        return list(dict.fromkeys(names))

    def operators(self, branch: Branch, chosen: Blocks) -> list[str]:
        """The names of a branch's operators in the `chosen` blocks."""
        return [each.name for each in self._quantisers[branch].operators if f"{branch}/{each.block}" in chosen]

    def cosine(self, chosen: Blocks) -> NDArray[np.float32]:
        """Cosine of each image's descriptor with its float32 one, of the branches that `chosen` touches."""
        touched = [branch for branch in BRANCHES if _of(branch, chosen)]
        rows = [np.sum(self._describe(each, None) * self._describe(each, chosen), axis=1) for each in touched]
        return np.concatenate(rows)

    def drop(self, chosen: Blocks, hopeless: Callable[[Drop], bool] = lambda _drop: False) -> Drop:
        """The change in hits at rank 1 from all-float32. Stops after any hundred queries that show it `hopeless`."""
        before = self._ranking(self._describe("ground", None), self._describe("aerial", None)).rank == 0
        gallery = self._describe("aerial", chosen)
        if self._key("ground", chosen) in self._described or not _of("ground", chosen):
            return paired_drop(before, self._ranking(self._describe("ground", chosen), gallery).rank == 0)
        embedder, parts = self.embedder("ground", chosen), list[Descriptors]()
        for first in range(0, len(before), 100):
            parts.append(_embed(embedder, self._images["ground"][first : first + 100]))
            rows = np.concatenate(parts)
            drop = paired_drop(before[: len(rows)], self._ranking(rows, gallery).rank == 0)
            if hopeless(drop):
                return drop
        self._keep(self._key("ground", chosen), rows)
        return drop

    def speeds(self, choices: Sequence[Blocks], *, track: Track = untracked) -> list[float]:
        """How many times as fast as with no block quantised each choice is, both branches together, measured in one
        interleaved run: medians.
        """
        built: dict[tuple[Branch, Blocks | None], Embedder] = {}

        def engine(branch: Branch, chosen: Blocks) -> Embedder:
            key = self._key(branch, chosen)
            if key not in built:
                built[key] = self.embedder(*key)
            return built[key]

        none, *pairs = (EmbedderPair(engine("ground", each), engine("aerial", each)) for each in (NONE, *choices))
        ratios = times_as_fast(pairs, none, self._timed, rounds=_ROUNDS, track=track)
        return [each.both.median for each in ratios]

    def embedder(self, branch: Branch, chosen: Blocks | None) -> Embedder:
        """A branch's engine with the `chosen` blocks quantised, built by the backend; None for all of it in float32.

        Raises EngineDisagrees when TensorRT's engine does not match its graph: its recall would not measure the blocks.
        """
        import onnx

        quantiser = self._quantisers[branch]
        names = [] if chosen is None else self.operators(branch, chosen)
        folder = self._folder / str(next(self._numbers))
        folder.mkdir()
        file = folder / f"{branch}.onnx"
        onnx.save(quantiser.graph if chosen is None else quantiser.quantise(names), str(file))
        spec = self._exported.manifest.engine(branch).spec
        precision = self._precision if names else "fp32" if chosen is None else quantiser.rest
        compiled = self._builder.compile(file, spec, precision, folder, track=untracked)
        files = EngineFiles(spec, precision, file, compiled.file if compiled else None)
        (embedder,) = open_embedders([files], self._backend, EngineOptions(trust_host_code=True))
        if self._backend.tensorrt is not None:
            check_agreement(embedder, file, self._images[branch][:_COMPARED], precision, None)
        for path in folder.iterdir():
            path.unlink()
        return embedder

    def _key(self, branch: Branch, chosen: Blocks | None) -> tuple[Branch, Blocks | None]:
        """The cache key of a branch's engine: None, all float32, if the fallback precision is float32 and no block is
        quantised.
        """
        own = None if chosen is None else _of(branch, chosen)
        return branch, own if own or self._quantisers[branch].rest != "fp32" else None

    def _describe(self, branch: Branch, chosen: Blocks | None) -> Descriptors:
        key = self._key(branch, chosen)
        if key not in self._described:
            self._keep(key, _embed(self.embedder(*key), self._images[branch]))
        self._described.move_to_end(key)
        return self._described[key]

    def _keep(self, key: tuple[Branch, Blocks | None], rows: Descriptors) -> None:
        self._described[key] = rows
        # The float32 ones are asked for again and again.
        droppable = [key for key in self._described if key[1]]
        if len(droppable) > _KEPT:
            del self._described[droppable[0]]

    def _ranking(self, queries: Descriptors, references: Descriptors) -> Ranking:
        """Of the set's first queries, as many as there are rows."""
        truth = self._pairs.truth.first(len(queries))
        left_out = self._pairs.left_out.first(len(queries)) if self._pairs.left_out is not None else None
        scorer = self._exported.manifest.ground.spec.scorer
        return rank(queries, references, truth, left_out, scorer)

    def _load(self, branch: Branch, track: Track) -> Images:
        spec = self._exported.manifest.engine(branch).spec
        images = np.empty((len(self._pairs.rows(branch)), *spec.preprocessing.shape), np.uint8)
        with closing(row_batches(self._pairs, spec, f"Reading {branch} images", track=track)) as batches:
            for rows, pixels in batches:
                images[rows] = pixels
        return images


def _of(branch: Branch, chosen: Collection[str]) -> Blocks:
    """The `chosen` blocks of one branch."""
    return frozenset(name for name in chosen if name.startswith(f"{branch}/"))


def _embed(embedder: Embedder, images: Images) -> Descriptors:
    parts = [embedder.embed(images[first : first + _BATCH]) for first in range(0, len(images), _BATCH)]
    return np.concatenate(parts)
