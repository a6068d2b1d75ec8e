"""Engines with any choice of quantised blocks, built one after another, and what they find and how fast they are.

Knows one exported model, its ranges and one backend; knows nothing of which choice is good.
"""

from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import cached_property
from itertools import count
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from geodtr.calibration.operators import blocks
from geodtr.export.build.builder import Builder
from geodtr.export.kept_cosine import Quantiser
from geodtr.export.statistics import Drop, paired_drop
from geodtr.export.timing import time_pairs
from geodtr.runtime.bundle import Bundle
from geodtr.runtime.engines.opening import EngineFiles, EngineOptions, open_embedders
from geodtr.runtime.names import BRANCHES, Branch, Precision
from geodtr.runtime.pipeline import load_batches
from geodtr.runtime.progress import Track, untracked
from geodtr.runtime.recall import Ranking, rank
from geodtr.runtime.spec import Descriptors, Embedder, EmbedderPair, Images
from geodtr.training.data.pair_set import PairSet

Blocks = frozenset[str]
"""Which blocks are quantised, named branch/block."""

NONE: Blocks = frozenset()
_BATCH, _SPEED_BATCH, _ROUNDS, _KEPT = 32, 8, 7, 24


class Workbench:
    """Builds engines into `folder` and measures them on `pairs`, whose pixels are held in memory."""

    def __init__(
        self,
        exported: Bundle,
        quantisers: Mapping[Branch, Quantiser],
        builder: Builder,
        precision: Precision,
        pairs: PairSet,
        folder: Path,
        *,
        track: Track = untracked,
    ) -> None:
        self._exported, self._quantisers, self._builder, self._precision = exported, quantisers, builder, precision
        self._folder, self._numbers = folder, count()
        self._backend = builder.check(precision)
        self._pairs = pairs
        self._images = {branch: self._load(branch, track) for branch in BRANCHES}
        self._described: OrderedDict[tuple[Branch, Blocks], Descriptors] = OrderedDict()

    @property
    def queries(self) -> int:
        """How many queries a complete measurement of recall has."""
        return len(self._pairs)

    @cached_property
    def blocks(self) -> list[str]:
        """Every block that can be quantised, named branch/block."""
        return [f"{branch}/{name}" for branch in BRANCHES for name in blocks(self._quantisers[branch].operators)]

    def operators(self, branch: Branch, chosen: Blocks) -> list[str]:
        """The names of a branch's operators in the `chosen` blocks."""
        return [each.name for each in self._quantisers[branch].operators if f"{branch}/{each.block}" in chosen]

    def cosine(self, chosen: Blocks) -> NDArray[np.float32]:
        """Cosine of each image's descriptor with its float32 one, of the branches that `chosen` touches."""
        touched = [branch for branch in BRANCHES if _of(branch, chosen)]
        rows = [np.sum(self._describe(each, NONE) * self._describe(each, chosen), axis=1) for each in touched]
        return np.concatenate(rows)

    def drop(self, chosen: Blocks, hopeless: Callable[[Drop], bool] = lambda _drop: False) -> Drop:
        """The change in hits at rank 1 from all-float32. Stops after any hundred queries that show it `hopeless`."""
        before = self._ranking(self._describe("ground", NONE), self._describe("aerial", NONE)).rank == 0
        gallery = self._describe("aerial", chosen)
        known = ("ground", _of("ground", chosen)) in self._described
        if known or not _of("ground", chosen):
            return paired_drop(before, self._ranking(self._describe("ground", chosen), gallery).rank == 0)
        embedder, parts = self.embedder("ground", chosen), list[Descriptors]()
        for first in range(0, len(before), 100):
            parts.append(_embed(embedder, self._images["ground"][first : first + 100]))
            rows = np.concatenate(parts)
            drop = paired_drop(before[: len(rows)], self._ranking(rows, gallery).rank == 0)
            if hopeless(drop):
                return drop
        self._keep("ground", chosen, rows)
        return drop

    def speeds(self, choices: Sequence[Blocks], *, track: Track = untracked) -> list[float]:
        """How many times as fast as all-float32 each choice is, measured in one interleaved run: medians."""
        built: dict[tuple[Branch, Blocks], Embedder] = {}

        def engine(branch: Branch, chosen: Blocks) -> Embedder:
            key = (branch, _of(branch, chosen))
            if key not in built:
                built[key] = self.embedder(branch, chosen)
            return built[key]

        pairs = [EmbedderPair(engine("ground", each), engine("aerial", each)) for each in (NONE, *choices)]
        found = time_pairs(pairs, _SPEED_BATCH, rounds=_ROUNDS, track=track)
        return [timing.ratio(found[0]).median for timing in found[1:]]

    def embedder(self, branch: Branch, chosen: Blocks) -> Embedder:
        """A branch's engine with the `chosen` blocks quantised, built by the backend."""
        import onnx

        quantiser = self._quantisers[branch]
        names = self.operators(branch, chosen)
        folder = self._folder / str(next(self._numbers))
        folder.mkdir()
        file = folder / f"{branch}.onnx"
        onnx.save(quantiser.quantise(names), str(file))
        spec = self._exported.manifest.engine(branch).spec
        precision = self._precision if names else "fp32"
        made = self._builder.compile(file, spec, precision, folder, track=untracked)
        files = EngineFiles(spec, precision, file, made.file if made else None)
        (embedder,) = open_embedders([files], self._backend, EngineOptions(trust_host_code=True))
        for path in folder.iterdir():
            path.unlink()
        return embedder

    def _describe(self, branch: Branch, chosen: Blocks) -> Descriptors:
        key = (branch, _of(branch, chosen))
        if key not in self._described:
            self._keep(branch, chosen, _embed(self.embedder(branch, chosen), self._images[branch]))
        self._described.move_to_end(key)
        return self._described[key]

    def _keep(self, branch: Branch, chosen: Blocks, rows: Descriptors) -> None:
        self._described[branch, _of(branch, chosen)] = rows
        # The float32 ones are asked for again and again.
        droppable = [key for key in self._described if key[1]]
        if len(droppable) > _KEPT:
            del self._described[droppable[0]]

    def _ranking(self, queries: Descriptors, references: Descriptors) -> Ranking:
        """Of the set's first queries, as many as there are rows."""
        truth = self._pairs.truth.first(len(queries))
        ignored = self._pairs.ignored.first(len(queries)) if self._pairs.ignored is not None else None
        return rank(queries, references, truth, ignored)

    def _load(self, branch: Branch, track: Track) -> Images:
        paths = self._pairs.paths("ground") if branch == "ground" else self._pairs.references
        how = self._exported.manifest.engine(branch).spec.preprocessing
        images, row = np.empty((len(paths), how.height, how.width, 3), np.uint8), 0
        for batch in track(load_batches(paths, how, _BATCH), f"Reading {branch} images", -(-len(paths) // _BATCH)):
            images[row : row + len(batch)] = batch
            row += len(batch)
        return images


def _of(branch: Branch, chosen: Collection[str]) -> Blocks:
    """Those of the `chosen` blocks that are a branch's own."""
    return frozenset(name for name in chosen if name.startswith(f"{branch}/"))


def _embed(embedder: Embedder, images: Images) -> Descriptors:
    parts = [embedder.embed(images[first : first + _BATCH]) for first in range(0, len(images), _BATCH)]
    return np.concatenate(parts)
