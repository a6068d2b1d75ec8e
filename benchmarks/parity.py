"""Measure time and memory of parity without embedding: compare descriptors of three candidates with a reference.

    python benchmarks/parity.py [PAIRS] [SIZE]      # 10,000 pairs, descriptors of 4,096

Descriptors are random, with a small noise for each candidate, like rounding; ranking, cosines and statistics take as
long as on real ones. Prints seconds per step, peak memory, and the operations of the matrix products.
"""

import resource
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np

from geodtr.export.parity.measures.descriptors import Compared, compare_descriptors
from geodtr.export.parity.measures.pairings import ranking
from geodtr.runtime.recall import Ranking
from geodtr.runtime.spec import Descriptors
from geodtr.training.data.pair_set import Pair, PairSet
from geodtr.training.evaluation.evaluate import DescriptorPair

T = TypeVar("T")

_NOISE = {"fp32": 1e-6, "fp16": 1e-3, "int8": 3e-2}
"""Norm of the noise added to unit rows."""


def main(pairs: int, size: int) -> None:
    generator = np.random.default_rng(0)
    pair_set = PairSet("random", tuple(Pair(Path(f"g{row}"), Path(f"a{row}")) for row in range(pairs)))
    aerial = _unit(generator.standard_normal((pairs, size), np.float32))
    ground = _unit(aerial + generator.standard_normal((pairs, size), np.float32) * np.float32(0.3))
    before = DescriptorPair(pair_set, ground, aerial, None, frozenset())
    seconds, busy = [0.0], time.process_time()

    def timed(what: str, work: Callable[[], T]) -> T:
        start = time.perf_counter()
        result = work()
        seconds.append(time.perf_counter() - start)
        print(f"{seconds[-1]:6.1f} s  {what}", flush=True)
        return result

    own = timed("reference", lambda: ranking(pair_set, ground, aerial))
    for name, noise in _NOISE.items():
        after = replace(before, ground=_noisy(ground, noise, generator), aerial=_noisy(aerial, noise, generator))
        timed(name, partial(_compare, before, own, after))
    matmuls = 1 + 3 * len(_NOISE)
    print(f"{sum(seconds):6.1f} s  in total: {matmuls} matrix products, {2e-12 * matmuls * pairs**2 * size:.1f} TFLOP")
    print(f"{time.process_time() - busy:6.1f} s  CPU time of all cores, including generation of the descriptors")
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6:.2f} GB")


def _compare(before: DescriptorPair, own: Ranking, after: DescriptorPair) -> Compared:
    return compare_descriptors(before, own, after, ranking(before.pair_set, after.ground, after.aerial), {})


def _noisy(rows: Descriptors, norm: float, generator: np.random.Generator) -> Descriptors:
    noise = generator.standard_normal(rows.shape, np.float32)
    noise *= np.float32(norm / np.sqrt(rows.shape[1]))
    noise += rows
    return _unit(noise)


def _unit(rows: Descriptors) -> Descriptors:
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows


if __name__ == "__main__":
    given = [int(text) for text in sys.argv[1:]]
    main(*(given + [10_000, 4096][len(given) :]))
