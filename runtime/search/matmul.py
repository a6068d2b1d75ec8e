"""Products of many reference rows with a few queries, by the fastest installed library.

ONNX Runtime multiplies float32 with several queries faster than NumPy's BLAS does, and comes with the lean runtime.
NumKong multiplies int8 and float16 without conversion; it is optional (the extra `search`). NumPy replaces either if it
is missing.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from importlib.metadata import PackageNotFoundError, version
from importlib.resources import files
from importlib.util import find_spec
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from geodtr.runtime.names import Storage
from geodtr.runtime.search.quantize import Compression, compress
from geodtr.runtime.spec import Descriptors

_MANY = 40
"""Queries from which ONNX Runtime is faster with the rows as the second matrix, because packing them pays off."""
_SHORT = 2048
"""Longest query for which NumPy's vecdot is the fastest: it fits into a core's first cache beside the rows."""
_ALONE_VALUES = 1 << 18
"""Values that OpenBLAS in NumPy 2.4's wheels multiplies in one thread; older versions use more threads earlier."""
_CACHED_VALUES = 1 << 20


@dataclass(frozen=True, slots=True)
class Product:
    """`multiply` takes rows [M, D] to their products with Q queries, float32 [M, Q].

    `threads`: how many threads may call it at once; 1 where the library has its own.
    """

    multiply: Callable[[Descriptors], NDArray[np.float32]]
    threads: int


@dataclass(frozen=True, slots=True)
class CompressedProduct:
    """Products of compressed rows with queries that may be compressed as well.

    `multiply` takes values [M, D] to numbers [M, Q], any dtype: times `scales` float32 [Q], they are the products with
    rows that are no farther from the queries than `errors` float32 [Q].
    """

    multiply: Callable[[NDArray[Any]], NDArray[Any]]
    threads: int
    scales: NDArray[np.float32]
    errors: NDArray[np.float32]


def product(queries: Descriptors) -> Product:
    """How to multiply float32 rows with `queries` [Q, D]."""
    if len(queries) == 1:
        return Product(_by_one(queries[0]), _cores())
    if not _has("onnxruntime"):
        columns = np.ascontiguousarray(queries.T)
        return Product(lambda rows: np.matmul(rows, columns), 1)
    if len(queries) < _MANY:
        columns, session = np.ascontiguousarray(queries.T), _session("matmul")
        return Product(lambda rows: session.run(None, {"a": rows, "b": columns})[0], _cores())
    session = _session("gemm")
    return Product(lambda rows: session.run(None, {"a": queries, "b": rows})[0].T, _cores())


def _by_one(query: Descriptors) -> Callable[[Descriptors], NDArray[np.float32]]:
    """A function that multiplies rows with one query [D] in the calling thread.

    OpenBLAS uses its own threads for larger products. They spin for tens of milliseconds afterwards and take the
    processor from the engine that embeds the next image.
    """
    if len(query) <= _SHORT and hasattr(np, "vecdot"):
        return lambda rows: np.vecdot(rows, query)[:, None]
    column, step = query[:, None], max(1, _ALONE_VALUES // len(query))

    def multiply(rows: Descriptors) -> NDArray[np.float32]:
        products = np.empty((len(rows), 1), np.float32)
        whole = len(rows) - len(rows) % step
        parts = rows[:whole].reshape(-1, step, len(query))
        np.matmul(parts, column, out=products[:whole].reshape(-1, step, 1))
        np.matmul(rows[whole:], column, out=products[whole:])
        return products

    return multiply


def compressed_product(queries: Descriptors, compression: Compression) -> CompressedProduct:
    """How to multiply rows of this compression with `queries` [Q, D]."""
    if not _has("numkong"):
        floats = product(queries)
        scales, errors = np.ones(len(queries), np.float32), np.zeros(len(queries), np.float32)
        return CompressedProduct(partial(_as_floats, floats), floats.threads, scales, errors)
    packed = compress(queries, compression)
    # For one query, cdist is as fast as the memory; the matrix product takes twice as long.
    one = len(queries) == 1
    multiply = partial(_cdist, packed.values) if one else partial(_dots, _numkong().dots_pack(packed.values))
    return CompressedProduct(multiply, _cores(), packed.scales, packed.errors)


@cache
def _numkong() -> Any:
    """NumKong without its kernels for SME, ARM's matrix extension: those for int8 give wrong products where QEMU 7.2
    emulates it (NumKong 7.8.6). Whether they do on a processor that has it was not tested.
    """
    import numkong

    for capability, there in numkong.get_capabilities().items():
        if there and capability.startswith("sme"):
            numkong.disable_capability(capability)
    return numkong


def _cdist(query: NDArray[Any], values: NDArray[Any]) -> NDArray[Any]:
    return np.asarray(_numkong().cdist(values, query, "dot"))


def _dots(queries: Any, values: NDArray[Any]) -> NDArray[Any]:
    return np.asarray(_numkong().dots_packed(values, queries))


def _as_floats(floats: Product, values: NDArray[Any]) -> NDArray[np.float32]:
    """Convert to float32 and multiply, in blocks that fit into the cache, because they are read again at once."""
    step = max(1, _CACHED_VALUES // values.shape[1])
    blocks = (values[start : start + step] for start in range(0, len(values), step))
    return np.concatenate([floats.multiply(block.astype(np.float32)) for block in blocks])


def library(storage: Storage) -> str:
    """What multiplies descriptors of this storage with several queries here: a name and a version."""
    preferred = ("onnxruntime",) if storage == "float32" else ("numkong", "onnxruntime")
    name = next(filter(_has, preferred), "numpy")
    try:
        return f"{name} {version(name)}"
    except PackageNotFoundError:  # onnxruntime-gpu, whose module has the other's name
        return name


@cache
def _has(module: str) -> bool:
    spec = find_spec(module)
    return spec is not None and spec.origin is not None  # an uninstallation may leave a folder without files


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@cache
def _session(operator: Literal["matmul", "gemm"]) -> Any:
    """A session that multiplies `a` with `b`, or by gemm with `b` transposed, in the thread that calls it."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    graph = (
        files("geodtr.runtime.search").joinpath(f"{operator}.onnx").read_bytes()
    )  # written by tools/search_graphs.py
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
