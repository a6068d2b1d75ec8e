"""A model whose every operator is INT8, measured against its float32 form: what two benchmarks share."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from geodtr.calibration.ranges import RangeOptions, Ranges, calibrate
from geodtr.export.calibration_pool import read_pool
from geodtr.export.parity.pairings import change
from geodtr.export.precision.cosine_selection import describe
from geodtr.export.precision.int8 import Int8Quantiser
from geodtr.runtime.bundle import open_bundle
from geodtr.runtime.embed.pipeline import load_batches
from geodtr.runtime.names import BRANCHES, Branch, Dialect
from geodtr.runtime.recall import Ranking, rank
from geodtr.runtime.spec import Descriptors, Images
from geodtr.training.data.pair_set import PairSet
from geodtr.training.data.spec import read_test_set

BY_DEFAULT = RangeOptions()
_AT_ONCE = 250

Quantise = Callable[[Int8Quantiser, list[str]], Any]
"""From a quantiser and its operators' names to a graph."""


def as_built(quantiser: Int8Quantiser, operators: list[str]) -> Any:
    """As build-engine does it."""
    return quantiser.quantise(operators)


@dataclass(frozen=True, slots=True)
class Exact:
    """A float32 model's graphs, its ranges, the images of a set of pairs, and their descriptors."""

    graphs: Mapping[Branch, Any]
    ranges: Ranges
    images: Mapping[Branch, Images]
    rows: Mapping[Branch, Descriptors]
    pairs: PairSet

    @property
    def hits(self) -> int:
        """Queries whose tile comes first, in float32."""
        return int(np.count_nonzero(ranked(self.rows, self.pairs).rank == 0))

    def quantised(self, dialect: Dialect, quantise: Quantise = as_built) -> str:
        """What is lost where every operator is INT8, in words."""
        rows = dict[Branch, Descriptors]()
        for branch in BRANCHES:
            quantiser = Int8Quantiser(self.graphs[branch], self.ranges[branch].activations, dialect)
            graph = quantise(quantiser, [operator.name for operator in quantiser.operators])
            rows[branch] = in_batches(graph, self.images[branch])
        return self.compared(rows)

    def compared(self, rows: Mapping[Branch, Descriptors]) -> str:
        """Hits of an engine with these descriptors, points of R@1 with their 95 % interval, lost cosine; in words."""
        r_at_1 = change("R@1", 1, ranked(self.rows, self.pairs), ranked(rows, self.pairs))
        points = "{:+.2f} points ({:+.2f} to {:+.2f})".format(
            *(100 * value for value in (r_at_1.change, r_at_1.low, r_at_1.high))
        )
        both = np.concatenate([np.sum(rows[branch] * self.rows[branch], axis=1) for branch in BRANCHES])
        hits = round(r_at_1.after * len(self.pairs))
        return f"{hits} hits, {points}, 1 - cosine {1 - both.mean():.1e}, at most {1 - both.min():.1e}"


def open_exact(bundle: Path, calibration: str, spec: str, options: RangeOptions = BY_DEFAULT) -> Exact:
    """Of an exported float32 bundle, calibrated on one data set as `options` say, on the pairs of another."""
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
    """Descriptors of any number of images, as many at once as memory bears."""
    parts = range(0, len(images), _AT_ONCE)
    return np.concatenate([describe(graph, images[start : start + _AT_ONCE]) for start in parts])


def ranked(rows: Mapping[Branch, Descriptors], pairs: PairSet) -> Ranking:
    return rank(rows["ground"], rows["aerial"], pairs.truth)
