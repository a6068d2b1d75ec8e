"""Alternate engine and search, as a vehicle does: python benchmarks/turns.py BUNDLE

Idle threads of one slow down the other: BLAS threads spin for tens of milliseconds after a matrix product. Searches a
single query in float32, with the runtime's search and with one matrix product of NumPy's BLAS, interleaved in turns of
several frames.
"""

import argparse
import random
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np

from geodtr import open_bundle
from geodtr.runtime.search.exact import search
from geodtr.runtime.spec import Descriptors, noise

FRAMES = 6
SETTLE = 0.4
TOP = 32


def by_blas(query: Descriptors, rows: Descriptors) -> object:
    scores = (query @ rows.T)[0]
    best = np.argpartition(scores, -TOP)[-TOP:]
    return best[np.argsort(-scores[best])]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--batch", type=int, default=16, help="Batch size: the headings of one panorama.")
    parser.add_argument("--references", type=int, default=10_000)
    parser.add_argument("--size", type=int, default=4096)
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()

    embedder = open_bundle(options.bundle).embedder("ground")
    images = noise(embedder.spec, options.batch)
    rows = np.random.default_rng(0).standard_normal((options.references, options.size), np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    query = rows[:1].copy()
    ways: dict[str, Callable[[], object]] = {
        "geodtr": lambda: search(query, rows, TOP),
        "BLAS": lambda: by_blas(query, rows),
    }
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for _ in range(options.rounds):
        for name in random.sample(list(ways), len(ways)):
            time.sleep(SETTLE)
            frames = [frame(lambda: embedder.embed(images), ways[name]) for _ in range(FRAMES)]
            engine, searching = (median(times) for times in zip(*frames[1:], strict=True))
            taken[name].append((engine, searching))
    for name, rounds in taken.items():
        parts = [*zip(*rounds, strict=True), [sum(both) for both in rounds]]
        texts = (f"{1e3 * median(part):.1f} ms ({1e3 * min(part):.1f} to {1e3 * max(part):.1f})" for part in parts)
        print("{:8} engine {}, search {}, both {}".format(name, *texts))


def frame(embed: Callable[[], object], find: Callable[[], object]) -> tuple[float, float]:
    start = time.perf_counter()
    embed()
    middle = time.perf_counter()
    find()
    return middle - start, time.perf_counter() - middle


if __name__ == "__main__":
    main()
