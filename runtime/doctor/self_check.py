"""Whether this machine computes what it must: small products and a search with answers that are known exactly.

Libraries choose their code by the processor. All values here are whole numbers, so that every order of additions gives
one result, and anything else is an error of the library, the processor or its memory.
"""

from collections.abc import Callable, Iterator
from functools import partial
from importlib.resources import files
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from geodtr.runtime.installation import pip
from geodtr.runtime.machine import cpu_dialect
from geodtr.runtime.preflight import Finding
from geodtr.runtime.search.exact import search_compressed
from geodtr.runtime.search.matmul import compressed_product, library, product
from geodtr.runtime.search.quantize import Compression, compress

_ROWS, _SIZE, _TOP = 600, 256, 3
_QUERIES = (1, 8, 48)
"""Numbers of queries: each is multiplied in another way."""


def check_arithmetic() -> Iterator[Finding]:
    """One finding that all is exact, or one for each part that is not, with what differs. Takes less than a second."""
    faults, exact = list[Finding](), list[str]()
    for what, by, check in _checks():
        try:
            difference = check()
        except Exception as error:  # a library that does not work here raises errors of its own
            difference = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        if difference is None:
            exact.append(f"{what} ({by})")
        else:
            faults.append(
                Finding(
                    what=f"arithmetic, {what}",
                    found=f"{by} is wrong on this machine: {difference}",
                    failed=True,
                    remedy=f"{pip(f'install --upgrade {by.split()[0]}')}; if it stays wrong, test the memory",
                )
            )
    yield from faults or [Finding(what="arithmetic", found=f"exact: {', '.join(exact)}")]


def _checks() -> Iterator[tuple[str, str, Callable[[], str | None]]]:
    """What is checked, the library that computes it, and the check, which returns a difference in words."""
    random = np.random.default_rng(0)
    rows = random.integers(-8, 9, (_ROWS, _SIZE)).astype(np.float32)
    queries = random.integers(-8, 9, (max(_QUERIES), _SIZE)).astype(np.float32)
    yield "float32 products", library("float32"), lambda: _products(rows, queries)
    for kind in get_args(Compression):
        yield f"{kind} products", library(kind), partial(_compressed_products, rows, queries, kind)
    yield "int8 search", library("int8"), lambda: _search(rows, queries)
    if library("float32").startswith("onnxruntime"):
        yield "int8 engines", library("float32"), lambda: _integers(random)


def _products(rows: NDArray[np.float32], queries: NDArray[np.float32]) -> str | None:
    return _first(_difference(product(queries[:n]).multiply(rows), _exact(rows, queries[:n])) for n in _QUERIES)


def _compressed_products(rows: NDArray[np.float32], queries: NDArray[np.float32], kind: Compression) -> str | None:
    values: NDArray[Any] = rows.astype(np.float16)
    if kind == "int8":
        # A largest value of 127 has the scale 1, by which no value is rounded.
        values, queries = rows.astype(np.int8), np.where(np.arange(_SIZE) == 0, np.float32(127), queries)
    differences = list[str | None]()
    for n in _QUERIES:
        compressed = compressed_product(queries[:n], kind)
        numbers = np.asarray(compressed.multiply(values), np.float64) * compressed.scales
        differences.append(_difference(numbers, _exact(rows, queries[:n])))
    return _first(iter(differences))


def _search(rows: NDArray[np.float32], queries: NDArray[np.float32]) -> str | None:
    """The best rows of a compressed search, by their exact products."""
    many = np.tile(rows, (8, 1)) + np.repeat(np.arange(8, dtype=np.float32), _ROWS)[:, None]
    # A power of two keeps every digit, and makes the rows as short as descriptors are.
    many, few = many / np.float32(2**9), queries[:8] / np.float32(2**9)
    hits = search_compressed(few, compress(many, "int8"), many, _TOP)
    exact = _exact(many * 2**9, few * 2**9)
    best = -np.sort(-exact, axis=0)[:_TOP].T
    return _difference(np.take_along_axis(exact.T, hits.rows, axis=1), best)


def _integers(random: np.random.Generator) -> str | None:
    """Products of bytes as int8 engines have them here: 7-bit weights where the processor adds pairs in 16 bits."""
    import onnxruntime

    largest = 127 if cpu_dialect() == "cpu-8bit" else 63
    a = random.integers(0, 256, (16, _SIZE)).astype(np.uint8)
    b = random.integers(-largest, largest + 1, (_SIZE, 24)).astype(np.int8)
    a[0], a[1], b[:, 0], b[:, 1] = 255, 0, largest, -largest  # the largest sums, and as signed bytes the smallest
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    graph = files("geodtr.runtime.search").joinpath("matmulinteger.onnx").read_bytes()
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    return _difference(session.run(None, {"a": a, "b": b})[0], a.astype(np.int64) @ b.astype(np.int64))


def _exact(rows: NDArray[np.floating], queries: NDArray[np.floating]) -> NDArray[np.int64]:
    return np.asarray(rows.astype(np.int64) @ queries.astype(np.int64).T, np.int64)


def _difference(computed: NDArray[np.generic], exact: NDArray[np.int64]) -> str | None:
    wrong = np.argwhere(np.asarray(computed) != exact)
    if not len(wrong):
        return None
    place = tuple(wrong[0])
    first = np.asarray(computed)[place]
    return f"{len(wrong)} of {exact.size} values differ, the first is {first:g} and must be {exact[place]}"


def _first(differences: Iterator[str | None]) -> str | None:
    return next((each for each in differences if each is not None), None)
