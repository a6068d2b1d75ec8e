"""Compare a model with all operators in INT8 against float32; shared by several benchmarks."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from geodtr import open_bundle
from geodtr.calibration.ranges import RangeOptions, Ranges, calibrate
from geodtr.export.calibration_pool import read_pool
from geodtr.export.parity.measures.pairings import change
from geodtr.export.precision.cosine_selection import describe
from geodtr.export.precision.int8 import Int8Quantiser
from geodtr.runtime.embed.pipeline import load_batches
from geodtr.runtime.names import BRANCHES, Branch, Dialect
from geodtr.runtime.recall import Ranking, rank
from geodtr.runtime.spec import Descriptors, Images
from geodtr.training.data.pair_set import PairSet
from geodtr.training.data.spec import read_test_set

DEFAULT_OPTIONS = RangeOptions()
_BATCH = 250

Quantise = Callable[[Int8Quantiser, list[str]], Any]
"""Builds a graph from a quantiser and operator names."""


def as_built(quantiser: Int8Quantiser, operators: list[str]) -> Any:
    """Quantise as build-engine does."""
    return quantiser.quantise(operators)


@dataclass(frozen=True, slots=True)
class Exact:
    """A float32 model's graphs and ranges, and the images and descriptors of a set of pairs."""

    graphs: Mapping[Branch, Any]
    ranges: Ranges
    images: Mapping[Branch, Images]
    rows: Mapping[Branch, Descriptors]
    pairs: PairSet

    @property
    def hits(self) -> int:
        """Number of hits at rank 1 in float32."""
        return int(np.count_nonzero(ranked(self.rows, self.pairs).rank == 0))

    def quantised(self, dialect: Dialect, quantise: Quantise = as_built) -> str:
        """Quantise all operators and describe the loss."""
        rows = dict[Branch, Descriptors]()
        for branch in BRANCHES:
            quantiser = Int8Quantiser(self.graphs[branch], self.ranges[branch].activations, dialect)
            graph = quantise(quantiser, [operator.name for operator in quantiser.operators])
            rows[branch] = in_batches(graph, self.images[branch])
        return self.compared(rows)

    def compared(self, rows: Mapping[Branch, Descriptors]) -> str:
        """Describe an engine by its descriptors: hits, change of R@1 in points with 95 % interval, and lost cosine."""
        r_at_1 = change("R@1", 1, ranked(self.rows, self.pairs), ranked(rows, self.pairs))
        points = "{:+.2f} points ({:+.2f} to {:+.2f})".format(
            *(100 * value for value in (r_at_1.change, r_at_1.low, r_at_1.high))
        )
        both = np.concatenate([np.sum(rows[branch] * self.rows[branch], axis=1) for branch in BRANCHES])
        hits = round(r_at_1.after * len(self.pairs))
        return f"{hits} hits, {points}, 1 - cosine {1 - both.mean():.1e}, at most {1 - both.min():.1e}"


def open_exact(bundle: Path, calibration: str, spec: str, options: RangeOptions = DEFAULT_OPTIONS) -> Exact:
    """Open an exported float32 bundle, calibrate it on `calibration`, and embed the pairs of `spec`."""
    exported, pairs = open_bundle(bundle), read_test_set(spec)
    graphs, images = dict[Branch, Any](), dict[Branch, Images]()
    for branch in BRANCHES:
        engine = exported.manifest.engine(branch)
        paths = pairs.paths("ground") if branch == "ground" else pairs.references
        graphs[branch] = onnx.load(str(exported.path / engine.file))
        images[branch] = np.concatenate(list(load_batches(paths, engine.spec.preprocessing)))
    rows = {branch: in_batches(graphs[branch], images[branch]) for branch in BRANCHES}
    return Exact(graphs, calibrate(exported, read_pool(calibration)[0], options).ranges, images, rows, pairs)


def in_batches(graph: Any, images: Images) -> Descriptors:
    """Descriptors of any number of images, in batches that fit into memory."""
    starts = range(0, len(images), _BATCH)
    return np.concatenate([describe(graph, images[start : start + _BATCH]) for start in starts])


def ranked(rows: Mapping[Branch, Descriptors], pairs: PairSet) -> Ranking:
    return rank(rows["ground"], rows["aerial"], pairs.truth)
