"""A model whose every operator is INT8, measured against its float32 form: what two benchmarks share."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from geodtr.calibration.ranges import RangeOptions, Ranges, calibrate
from geodtr.export.calibration_pool import read_pool
from geodtr.export.int8 import Int8Quantiser
from geodtr.export.kept_cosine import describe
from geodtr.runtime.bundle import open_bundle
from geodtr.runtime.names import BRANCHES, Branch, Dialect
from geodtr.runtime.pipeline import load_batches
from geodtr.runtime.recall import rank
from geodtr.runtime.spec import Descriptors, Images
from geodtr.training.data.pair_set import PairSet
from geodtr.training.data.spec import read_test_set

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
        return hits(self.rows, self.pairs)

    def quantised(self, dialect: Dialect, quantise: Quantise = as_built) -> str:
        """Hits and lost cosine where every operator is INT8, in words."""
        rows, cosines = dict[Branch, Descriptors](), []
        for branch in BRANCHES:
            quantiser = Int8Quantiser(self.graphs[branch], self.ranges[branch].activations, dialect)
            graph = quantise(quantiser, [operator.name for operator in quantiser.operators])
            rows[branch] = describe(graph, self.images[branch])
            cosines.append(np.sum(rows[branch] * self.rows[branch], axis=1))
        both = np.concatenate(cosines)
        return f"{hits(rows, self.pairs)} hits, 1 - cosine {1 - both.mean():.1e}, at most {1 - both.min():.1e}"


def open_exact(bundle: Path, calibration: str, spec: str) -> Exact:
    """Of an exported float32 bundle, calibrated on one data set, on the pairs of another."""
    exported, pairs = open_bundle(bundle), read_test_set(spec)
    graphs, images = dict[Branch, Any](), dict[Branch, Images]()
    for branch in BRANCHES:
        engine = exported.manifest.engine(branch)
        paths = pairs.paths("ground") if branch == "ground" else pairs.references
        graphs[branch] = onnx.load(str(exported.path / engine.file))
        images[branch] = np.concatenate(list(load_batches(paths, engine.spec.preprocessing)))
    rows = {branch: describe(graphs[branch], images[branch]) for branch in BRANCHES}
    return Exact(graphs, calibrate(exported, read_pool(calibration)[0], RangeOptions()).ranges, images, rows, pairs)


def hits(rows: Mapping[Branch, Descriptors], pairs: PairSet) -> int:
    return int(np.count_nonzero(rank(rows["ground"], rows["aerial"], pairs.truth).rank == 0))
