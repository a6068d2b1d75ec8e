"""Compare exact search with other libraries and write docs/search.md: python benchmarks/search.py

Needs `pip install '.[cpu,search,bench]'`, 12 GB of memory and tens of minutes on two idle cores. --quick takes a few
minutes with smaller galleries and writes no file.

Descriptors are generated: each is a mixture of --directions random directions plus a third as much of an individual
direction, so that some are similar, as with a trained model. With --directions 0 all are independent, so that the
largest cosines are nearly equal and many rows are rescored. A query is a reference rotated by 45 degrees towards
another generated descriptor. --alike SPREAD generates what a collapsed model does, one direction for all plus SPREAD of
an individual one, and compares our storages with float32 alone; it writes no file.

Contenders are interleaved, so that other load affects all alike; ratios are computed within a round.
"""

import argparse
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from statistics import median
from textwrap import fill
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geodtr.cli.console import times, track
from geodtr.export.timing import rounded
from geodtr.runtime.files import write_bytes
from geodtr.runtime.machine import this_cpu
from geodtr.runtime.manifest import Ratio
from geodtr.runtime.search import exact as searching
from geodtr.runtime.search.exact import search, search_compressed
from geodtr.runtime.search.matmul import library
from geodtr.runtime.search.quantize import Compressed, Compression, compress
from geodtr.runtime.spec import Descriptors

SIZES = ((92_802, 4096), (1_000_000, 512))
QUICK = ((10_000, 4096), (100_000, 512))
BATCHES = (1, 64)
TOP = 10
QUERY_COSINE = np.cos(np.pi / 4)
OWN = 1 / 3
BLOCK = 4096
SETTLE, TURN, CALLS = 0.3, 0.1, 3
"""Seconds between turns, while threads still spin; minimum seconds and calls of a turn."""
LIBRARIES = ("numpy", "onnxruntime", "numkong", "faiss-cpu", "usearch")

Rows = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Contender:
    """A search method: `find` returns rows [Q, TOP].

    `reads` is the minimum number of bytes read per batch; None for approximate search. `storage` groups contenders for
    comparison; `ours` are compared with the fastest of the others.
    """

    name: str
    storage: str
    find: Callable[[Descriptors], Rows]
    reads: int | None
    ours: bool = False


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--directions", type=int, default=64)
    parser.add_argument("--alike", type=float, metavar="SPREAD")
    parser.add_argument("--quick", action="store_true", help="Use smaller galleries and write no file.")
    parser.add_argument("--out", type=Path, default=Path(__file__).resolve().parents[1] / "docs" / "search.md")
    options = parser.parse_args()
    page = [introduction(options)]
    for count, size in QUICK if options.quick else SIZES:
        page += tables(count, size, options.directions, options.alike, options.rounds)
    if not options.quick and options.alike is None:
        write_bytes(options.out, "\n".join(page).encode())
    sys.stdout.write("\n".join(page))


class Directions:
    """Generates unit rows [N, size] in blocks; deterministic for a seed."""

    def __init__(self, size: int, shared: int, alike: float | None, seed: int) -> None:
        self._alike = alike
        self._random = np.random.default_rng(seed)
        self._shared = self._random.standard_normal((shared, size), np.float32) / np.float32(max(1, shared)) ** 0.5

    def rows(self, count: int) -> Descriptors:
        shared, size = self._shared.shape
        rows = self._random.standard_normal((count, size), np.float32)
        if self._alike is not None:
            rows *= np.float32(self._alike)
            rows += self._shared[0]
        elif shared:
            rows *= np.float32(OWN)
            rows += self._random.standard_normal((count, shared), np.float32) @ self._shared
        return unit(rows)


def unit(rows: Descriptors) -> Descriptors:
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)


def tables(count: int, size: int, directions: int, alike: float | None, rounds: int) -> Iterator[str]:
    generator = Directions(size, directions if alike is None else 1, alike, 0)
    rows = np.empty((count, size), np.float32)
    for start in track(range(0, count, BLOCK), f"Generating {count:,} x {size}", -(-count // BLOCK)):
        rows[start : start + BLOCK] = generator.rows(min(BLOCK, count - start))
    targets = np.linspace(0, count - 1, max(BATCHES)).astype(np.int64)
    queries = unit(QUERY_COSINE * rows[targets] + (1 - QUERY_COSINE**2) ** 0.5 * generator.rows(len(targets)))
    contenders = list(open_all(rows) if alike is None else open_ours(rows))
    for batch in BATCHES:
        yield table(contenders, rows, queries[:batch], rounds)


def open_ours(rows: Descriptors) -> Iterator[Contender]:
    yield Contender("geodtr", "float32", lambda queries: search(queries, rows, TOP).rows, rows.nbytes, ours=True)
    kinds: tuple[Compression, ...] = ("float16", "int8")
    for kind in kinds:
        packed = compressed(rows, kind)
        yield Contender("geodtr", kind, by_bounds(packed, rows), packed.values.nbytes, ours=True)


def open_all(rows: Descriptors) -> Iterator[Contender]:
    # ONNX Runtime, which our search uses, crashes if usearch is loaded first.
    _, faiss, usearch = map(import_module, ("onnxruntime", "faiss", "usearch.index"))

    def by_usearch(dataset: NDArray[Any], prepare: Callable[[Descriptors], NDArray[Any]]) -> Callable[..., Rows]:
        def find(queries: Descriptors) -> Rows:
            keys = usearch.search(dataset, prepare(queries), TOP, usearch.MetricKind.IP, exact=True).keys
            return np.asarray(keys, np.int64).reshape(len(queries), TOP)

        return find

    def by_faiss(index: Any, prepare: Callable[[Descriptors], Descriptors] = np.asarray) -> Callable[..., Rows]:
        index.train(prepare(rows[:1]))
        for start in track(range(0, len(rows), BLOCK), f"Filling {type(index).__name__}", -(-len(rows) // BLOCK)):
            index.add(prepare(rows[start : start + BLOCK]))
        return lambda queries: np.asarray(index.search(prepare(queries), TOP)[1])

    size = rows.shape[1]
    yield from open_ours(rows)
    yield Contender("NumPy", "float32", lambda queries: by_numpy(queries, rows), rows.nbytes)
    yield Contender("FAISS IndexFlatIP", "float32", by_faiss(faiss.IndexFlatIP(size)), rows.nbytes)
    yield Contender("usearch exact", "float32", by_usearch(rows, lambda queries: queries), rows.nbytes)
    hnsw = faiss.IndexHNSWFlat(size, 32, faiss.METRIC_INNER_PRODUCT)
    hnsw.hnsw.efSearch = 64
    yield Contender("FAISS HNSW, approximate", "", by_faiss(hnsw), None)

    # These two compare bytes only, so all rows share one scale, and larger values are clipped.
    scale = 127 / np.quantile(np.abs(rows[: 10 * BLOCK]).max(axis=1), 0.99)

    def whole(of: Descriptors) -> Descriptors:
        return np.asarray(np.clip(np.rint(of * scale), -127, 127), np.float32)

    signed = np.empty(rows.shape, np.int8)
    for start in range(0, len(rows), BLOCK):
        signed[start : start + BLOCK] = whole(rows[start : start + BLOCK])

    def scalar(kind: int) -> Any:
        return faiss.IndexScalarQuantizer(size, kind, faiss.METRIC_INNER_PRODUCT)

    halves, bytes_ = (scalar(getattr(faiss.ScalarQuantizer, name)) for name in ("QT_fp16", "QT_8bit_direct_signed"))
    yield Contender("FAISS scalar quantiser", "float16", by_faiss(halves), 2 * rows.size)
    yield Contender("FAISS scalar quantiser, direct", "int8", by_faiss(bytes_, whole), rows.size)
    yield Contender("usearch exact", "int8", by_usearch(signed, lambda of: whole(of).astype(np.int8)), rows.size)


def by_numpy(queries: Descriptors, rows: Descriptors) -> Rows:
    """The straightforward implementation."""
    scores = queries @ rows.T
    best = np.argpartition(scores, -TOP, axis=1)[:, -TOP:]
    order = np.argsort(-np.take_along_axis(scores, best, axis=1), axis=1)
    return np.take_along_axis(best, order, axis=1)


def by_bounds(packed: Compressed, rows: Descriptors) -> Callable[[Descriptors], Rows]:
    return lambda queries: search_compressed(queries, packed, rows, TOP).rows


def compressed(rows: Descriptors, kind: Compression) -> Compressed:
    values = np.empty(rows.shape, np.int8 if kind == "int8" else np.float16)
    scales, errors = np.empty(len(rows), np.float32), np.empty(len(rows), np.float32)
    for start in range(0, len(rows), BLOCK):
        part = slice(start, start + BLOCK)
        packed = compress(rows[part], kind)
        values[part], scales[part], errors[part] = packed.values, packed.scales, packed.errors
    return Compressed(values, scales, errors)


def read_all(rows: Descriptors) -> None:
    """Read every byte once, on all cores, with minimal arithmetic."""
    cores = os.cpu_count() or 1
    parts = np.array_split(rows.reshape(-1).view(np.int64), 16 * cores)
    with ThreadPoolExecutor(cores) as pool:
        list(pool.map(np.bitwise_or.reduce, parts))


def table(contenders: Sequence[Contender], rows: Descriptors, queries: Descriptors, rounds: int) -> str:
    results = [contender.find(queries) for contender in contenders]
    calls = [lambda contender=contender: contender.find(queries) for contender in contenders]
    *taken, reading = interleaved([*calls, lambda: read_all(rows)], rounds, f"Searching, batch {len(queries)}")
    bandwidth = rows.nbytes / median(reading)
    scored = [rescored(contender, queries) for contender in contenders]
    lines = [
        f"## {len(rows):,} x {rows.shape[1]}, batch {len(queries)}\n",
        f"Memory bandwidth: {bandwidth / 1e9:.1f} GB/s.\n",
        "| | | ms, median (range) | GB/s | of bandwidth | against the fastest other | recall@10 | rescored |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for contender, seconds, hits, again in zip(contenders, taken, results, scored, strict=True):
        speed = "" if contender.reads is None else rounded(contender.reads / median(seconds) / 1e9)
        share = "" if contender.reads is None else f"{contender.reads / median(seconds) / bandwidth:.0%}"
        ratio = times(against_others(contender, contenders, taken)) if contender.ours else ""
        recall = np.mean([len(set(a) & set(b)) / TOP for a, b in zip(hits.tolist(), results[0].tolist(), strict=True)])
        middle, least, most = (rounded(1e3 * value(seconds)) for value in (median, min, max))
        lines.append(
            f"| {contender.name} | {contender.storage} | {middle} ({least} to {most}) | {speed} | {share} | {ratio} | "
            f"{recall:.3f} | {again} |"
        )
    return "\n".join(lines) + "\n"


def interleaved(calls: Sequence[Callable[[], object]], rounds: int, description: str) -> list[list[float]]:
    """Seconds per call: the median of each round's turn. The order is random in each round."""
    taken: list[list[float]] = [[] for _ in calls]
    order = np.random.default_rng(0)
    for _ in track(range(rounds), description, rounds):
        for which in order.permutation(len(calls)):
            time.sleep(SETTLE)
            turn = list[float]()
            while sum(turn) < TURN or len(turn) < CALLS:
                start = time.perf_counter()
                calls[which]()
                turn.append(time.perf_counter() - start)
            taken[which].append(median(turn))
    return taken


def against_others(ours: Contender, contenders: Sequence[Contender], taken: Sequence[Sequence[float]]) -> Ratio:
    """Speed relative to the fastest other contender of the same storage; without others, to ours of float32."""
    mine = taken[contenders.index(ours)]
    others = [
        seconds
        for contender, seconds in zip(contenders, taken, strict=True)
        if contender.storage == ours.storage and not contender.ours
    ] or [taken[0]]
    ratios = [other / own for other, own in zip(min(others, key=median), mine, strict=True)]
    return Ratio(median=median(ratios), lowest=min(ratios), highest=max(ratios))


def rescored(contender: Contender, queries: Descriptors) -> str:
    """Number of float32 rows that our compressed search rescores per query."""
    if not contender.ours or contender.storage == "float32":
        return ""
    with counting() as counts:
        contender.find(queries)
    return rounded(sum(counts) / len(queries))


@contextmanager
def counting() -> Iterator[list[int]]:
    """Record the number of pairs that each call scores exactly."""
    counts, original = list[int](), searching._cosines

    def counted(queries: Descriptors, references: Descriptors) -> Any:
        exact = original(queries, references)

        def count(which: Rows, rows: Rows) -> Any:
            counts.append(len(which))
            return exact(which, rows)

        return count

    searching._cosines = counted
    try:
        yield counts
    finally:
        searching._cosines = original


def introduction(options: argparse.Namespace) -> str:
    cpu = this_cpu()
    hidden = os.environ.get("GEODTR_AVX2_ONLY")
    command = ("python tools/avx2_only.py " if hidden else "") + "python benchmarks/search.py"
    command += "" if options.directions == 64 else f" --directions {options.directions}"
    command += "" if options.alike is None else f" --alike {options.alike:g}"
    command += "" if options.rounds == 7 else f" --rounds {options.rounds}"
    versions = ", ".join(f"{name} {version(name)}" for name in (LIBRARIES if options.alike is None else LIBRARIES[:3]))
    paragraphs = (
        f"Written by this command on {os.cpu_count()} cores, {cpu.architecture} ({', '.join(cpu.cpu_flags)}), "
        f"with {versions}. `geodtr` multiplies float32 with {library('float32')}, a single query with NumPy, "
        f"and int8 and float16 with {library('int8')}.",
        "Descriptors are generated: "
        + (
            f"one direction plus {options.alike:g} of an individual one, as of a collapsed model"
            if options.alike is not None
            else f"mixtures of {options.directions} random directions and a third as much of an individual one"
            if options.directions
            else "independent random directions, the hardest case for compressed search"
        )
        + ". A query is a reference rotated by 45 degrees. GB/s counts the stored descriptors, which must be read "
        "once; the memory bandwidth is measured in the same rounds by reading float32. Ratios are relative to the "
        "fastest other exhaustive search of the same storage, computed within a round, with their range. Recall is "
        "relative to float32 search. `geodtr` reaches 1 in every storage by rescoring float32 rows; the column "
        "`rescored` gives the rows per query. Other libraries compare rounded values.",
    )
    page = "\n\n".join(fill(paragraph, 120, break_on_hyphens=False) for paragraph in paragraphs)
    return f"# Speed of the search\n\n    {command}\n\n{page}\n"


if __name__ == "__main__":
    main()
