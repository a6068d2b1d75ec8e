"""Results equal a sort of all cosines in float64, with every library."""

import subprocess
import sys
import time
import tracemalloc
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from tiny_gallery import fill, made_tiles, unit_rows

from geodtr import open_gallery
from geodtr.runtime.names import STORAGES, Storage
from geodtr.runtime.search import exact as searching
from geodtr.runtime.search import matmul, topk
from geodtr.runtime.search.blocks import Block, scan
from geodtr.runtime.search.exact import Hits, search, search_compressed
from geodtr.runtime.search.quantize import compress
from geodtr.runtime.search.topk import Exact, Pairs, Scores
from geodtr.runtime.spec import Descriptors

LIBRARIES = (frozenset[str](), frozenset({"onnxruntime"}), frozenset({"onnxruntime", "numkong"}))
"""The libraries that may be installed besides NumPy."""


@contextmanager
def installed(libraries: frozenset[str], cores: int = 2) -> Iterator[None]:
    """Simulate that only these libraries are installed. All cores are used for any amount of work."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(matmul, "_has", libraries.__contains__)
        patch.setattr(matmul, "_cores", lambda: cores)
        patch.setattr(searching, "_THREAD_VALUES", 1)
        yield


def find(
    queries: Descriptors, rows: Descriptors, top: int, storage: Storage, among: NDArray[np.int64] | None = None
) -> Hits:
    if storage == "float32":
        return search(queries, rows, top, among)
    return search_compressed(queries, compress(rows, storage), rows, top, among)


def check(hits: Hits, queries: Descriptors, rows: Descriptors, top: int, among: NDArray[np.int64] | None) -> None:
    """Check that scores equal float64 up to rounding, best first, without duplicates or excluded rows."""
    cosines = queries.astype(np.float64) @ rows.astype(np.float64).T
    allowed = np.arange(len(rows)) if among is None else among
    kept = min(top, len(allowed))
    assert hits.rows.shape == hits.scores.shape == (len(queries), kept)
    assert hits.rows.dtype == np.int64 and hits.scores.dtype == np.float32
    np.testing.assert_allclose(hits.scores, -np.sort(-cosines[:, allowed], axis=1)[:, :kept], atol=2e-6)
    np.testing.assert_allclose(hits.scores, np.take_along_axis(cosines, hits.rows, axis=1), atol=2e-6)
    assert (np.diff(hits.scores, axis=1) <= 0).all()
    assert set(hits.rows.ravel().tolist()) <= set(allowed.tolist())
    assert all(len(set(each)) == kept for each in hits.rows.tolist())


@settings(max_examples=150, deadline=None)
@given(
    libraries=st.sampled_from(LIBRARIES),
    storage=st.sampled_from(STORAGES),
    queries=st.integers(0, 12) | st.sampled_from([39, 40, 70]),
    references=st.integers(0, 900),
    size=st.integers(1, 70),
    top=st.integers(1, 40),
    different=st.integers(1, 900),
    share=st.none() | st.floats(0, 1),
    closeness=st.sampled_from([0.0, 1.0, 100.0]),
    seed=st.integers(0, 99),
)
def test_the_best_are_found(
    libraries: frozenset[str],
    storage: Storage,
    queries: int,
    references: int,
    size: int,
    top: int,
    different: int,
    share: float | None,
    closeness: float,
    seed: int,
) -> None:
    generator = np.random.default_rng(seed)
    # Some references are copies of others; `closeness` makes all cosines nearly equal.
    some = generator.normal(size=(min(different, max(1, references)), size)) + closeness
    rows = (some / np.linalg.norm(some, axis=1, keepdims=True)).astype(np.float32)
    rows = rows[generator.integers(0, len(rows), references)]
    vectors = unit_rows(queries, size, seed + 1)
    vectors[: min(queries, references) // 2] = rows[: min(queries, references) // 2]
    among = None if share is None else np.flatnonzero(generator.random(references) < share)
    with installed(libraries):
        check(find(vectors, rows, top, storage, among), vectors, rows, top, among)


@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("libraries", LIBRARIES)
def test_batches_and_galleries_of_many_blocks(libraries: frozenset[str], storage: Storage) -> None:
    rows, queries = unit_rows(20_000, 96, 0), unit_rows(300, 96, 1)
    with installed(libraries, cores=3):
        hits = find(queries, rows, 10, storage)
        check(hits, queries, rows, 10, None)
        removed = np.delete(np.arange(len(rows)), [5, 17_000])
        check(find(queries[:70], rows, 10, storage, removed), queries[:70], rows, 10, removed)
        one = find(queries[7:8], rows, 10, storage)
    np.testing.assert_array_equal(one.rows[0], hits.rows[7])


@pytest.mark.parametrize("size", [2048, 2049, 4096, 300_000])
def test_one_query_of_any_length(size: int) -> None:
    rows, queries = unit_rows(3_000_000 // size, size, 0), unit_rows(1, size, 1)
    with installed(LIBRARIES[0], cores=3):
        check(search(queries, rows, 4), queries, rows, 4, None)


@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("libraries", LIBRARIES)
def test_equal_references_come_in_the_order_of_their_rows(libraries: frozenset[str], storage: Storage) -> None:
    # Sums of these are exact in any order.
    rows = np.tile(np.eye(8, dtype=np.float32), (500, 1))
    with installed(libraries):
        hits = find(np.eye(8, dtype=np.float32)[[3]], rows, 20, storage)
        everything = find(np.eye(8, dtype=np.float32)[[3]], rows[:16], 16, storage)
    np.testing.assert_array_equal(hits.rows[0], np.arange(20) * 8 + 3)
    np.testing.assert_array_equal(everything.rows[0], [3, 11, *(row for row in range(16) if row % 8 != 3)])


@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("libraries", LIBRARIES)
def test_a_collapsed_model_is_searched_like_any_other(libraries: frozenset[str], storage: Storage) -> None:
    rows = np.repeat(unit_rows(1, 32, 0), 3000, axis=0)
    with installed(libraries):
        hits = find(rows[:20], rows, 5, storage)
    np.testing.assert_allclose(hits.scores, 1, atol=1e-5)


@pytest.mark.parametrize("libraries", LIBRARIES)
@pytest.mark.parametrize("spread", [0.0, 1e-7, 1e-5, 1e-3, 0.03])
@pytest.mark.parametrize("wide", [1, 8, 50])
def test_few_of_nearly_equal_descriptors_are_scored_one_by_one(
    monkeypatch: pytest.MonkeyPatch, libraries: frozenset[str], spread: float, wide: int
) -> None:
    scored = list[int]()
    original = searching._cosines

    def counting(queries: Descriptors, references: Descriptors) -> Exact:
        exact = original(queries, references)

        def count(which: NDArray[np.int64], rows: NDArray[np.int64]) -> Scores:
            scored.append(len(which))
            return exact(which, rows)

        return count

    monkeypatch.setattr(searching, "_cosines", counting)
    own = unit_rows(30_000 + wide, 32, 0)
    alike = own[:1] + np.float32(spread) * own[1:]
    alike /= np.linalg.norm(alike, axis=1, keepdims=True)
    rows, queries = alike[wide - 1 :], alike[: wide - 1]
    queries = np.concatenate([queries, unit_rows(1, 32, 1)])
    with installed(libraries):
        check(find(queries, rows, 5, "int8"), queries, rows, 5, None)
    assert sum(scored) < len(rows) * wide // 10


class Read(np.ndarray[Any, np.dtype[np.float32]]):
    """Rows that count how many of them are taken."""

    taken = 0

    def __getitem__(self, which: Any) -> Any:
        rows = self.view(np.ndarray)[which]
        self.taken += len(rows)
        return rows


@pytest.mark.parametrize("libraries", LIBRARIES)
def test_one_query_reads_few_float32_rows_of_short_descriptors(libraries: frozenset[str]) -> None:
    # With 64 numbers each, the largest ones, and so the scales, differ much between rows.
    rows = unit_rows(200_000, 64, 0)
    counted = rows.view(Read)
    query = unit_rows(1, 64, 1)
    with installed(libraries):
        hits = search_compressed(query, compress(rows, "int8"), counted, 10)
    np.testing.assert_allclose(hits.scores[0], -np.sort(-(query @ rows.T)[0])[:10], atol=2e-6)
    assert counted.taken < 2000


def test_ten_thousand_hits_per_query_use_bounded_memory() -> None:
    rows, queries = unit_rows(30_000, 16, 0), unit_rows(256, 16, 1)
    for storage in STORAGES:
        packed = None if storage == "float32" else compress(rows, storage)
        tracemalloc.start()
        try:
            if packed is None:
                search(queries, rows, 10_000)
            else:
                search_compressed(queries, packed, rows, 10_000)
            assert tracemalloc.get_traced_memory()[1] < 300e6
        finally:
            tracemalloc.stop()


def test_queries_equally_close_to_all_tiles_use_bounded_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(topk, "_OPEN", 1000)
    most = 0

    class Watched(topk.TopK):
        def _settle(self) -> None:
            nonlocal most
            super()._settle()
            most = max(most, sum(map(len, self._open)))

    monkeypatch.setattr("geodtr.runtime.search.blocks.TopK", Watched)
    rows = unit_rows(4000, 32, 0)
    hits = find(np.zeros((8, 32), np.float32), rows, 5, "int8")
    np.testing.assert_array_equal(hits.rows, np.tile(np.arange(5), (8, 1)))
    assert most <= 1000


@pytest.mark.parametrize("libraries", LIBRARIES)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e30])
@pytest.mark.parametrize("wide", [1, 4, 50])
def test_a_damaged_row_is_found_and_hides_no_other(libraries: frozenset[str], value: float, wide: int) -> None:
    rows, queries = unit_rows(500, 24, 0), np.abs(unit_rows(wide, 24, 1))
    intact = search(queries, rows, 6)
    with installed(libraries):
        rows[123, 4] = value
        hits = search(queries, rows, 6)
        if value != -np.inf:
            assert (hits.rows[:, 0] == 123).all()
            assert not (hits.scores[:, 0] <= 1.01).any()
        for found, expected in zip(hits.rows.tolist(), intact.rows.tolist(), strict=True):
            assert [row for row in found if row != 123][:5] == [row for row in expected if row != 123][:5]


@pytest.mark.parametrize("libraries", LIBRARIES)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_damaged_row_is_among_all_rows(libraries: frozenset[str], value: float) -> None:
    rows = np.abs(unit_rows(5, 24, 0))
    rows[2, 4] = value
    with installed(libraries):
        assert sorted(search(np.abs(unit_rows(1, 24, 1)), rows, 9).rows[0].tolist()) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("libraries", LIBRARIES)
@pytest.mark.parametrize("value", [np.nan, np.inf, 6e4])
def test_a_damaged_compressed_row_is_scored_by_its_float32_row(libraries: frozenset[str], value: float) -> None:
    rows, queries = unit_rows(500, 24, 0), np.abs(unit_rows(4, 24, 1))
    expected, packed = search(queries, rows, 1), compress(rows, "float16")
    packed.values[expected.rows[0, 0] - 1, 4] = value
    with installed(libraries):
        hits = search_compressed(queries, packed, rows, 1)
    np.testing.assert_array_equal(hits.rows, expected.rows)


@pytest.mark.parametrize("storage", STORAGES)
def test_threads_may_search_simultaneously(storage: Storage) -> None:
    rows, queries = unit_rows(5000, 64, 0), unit_rows(40, 64, 1)
    alone = find(queries, rows, 5, storage).rows
    with installed(LIBRARIES[-1]), ThreadPoolExecutor(8) as pool:
        rows_found = list(pool.map(lambda q: find(queries[q : q + 1], rows, 5, storage).rows[0], range(40)))
    np.testing.assert_array_equal(rows_found, alone)


@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("libraries", LIBRARIES)
@pytest.mark.parametrize("wide", [1, 4, 50])
def test_queries_may_have_any_memory_layout(storage: Storage, libraries: frozenset[str], wide: int) -> None:
    rows, queries = unit_rows(3000, 48, 0), unit_rows(wide, 48, 1)
    with installed(libraries):
        expected = find(queries, rows, 5, storage).rows
        strided = np.repeat(queries, 2, axis=1)[:, ::2]
        layouts: list[NDArray[Any]] = [np.asfortranarray(queries), strided, queries.astype(np.float64)]
        for each in layouts:
            np.testing.assert_array_equal(find(each, rows, 5, storage).rows, expected)


def test_the_queue_of_results_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where adding takes longer than scoring, the other threads wait."""
    scored, added = list[int](), list[int]()
    waiting = 0

    class Slow(topk.TopK):
        def add(self, pairs: Pairs) -> None:
            time.sleep(0.002)
            added.append(len(pairs))

    def score_block(block: Block, _thresholds: Scores) -> Pairs:
        nonlocal waiting
        scored.append(len(block.numbers(np.zeros(1, np.int64))))
        waiting = max(waiting, len(scored) - len(added))
        none = np.empty(0, np.float32)
        return Pairs(np.empty(0, np.int64), np.empty(0, np.int64), none, none)

    monkeypatch.setattr("geodtr.runtime.search.blocks.TopK", Slow)
    scan(score_block, (Block(slice(row, row + 1)) for row in range(200)), 1, 1, None, 3)
    assert len(scored) == len(added) == 200
    assert waiting < 12


@pytest.mark.parametrize("where", ["atexit.register(find)", "threading.Thread(target=later).start()"])
def test_a_search_works_during_interpreter_shutdown(where: str) -> None:
    program = f"""
import atexit, threading, time, numpy
from geodtr.runtime.search import exact, matmul
matmul._cores, exact._THREAD_VALUES = (lambda: 2), 1
rows = numpy.random.default_rng(0).normal(size=(20_000, 64)).astype(numpy.float32)
rows /= numpy.linalg.norm(rows, axis=1, keepdims=True)
def find():
    print(exact.search(rows[7:8], rows, 3).rows[0, 0])
def later():
    threading.main_thread().join()
    find()
find()
{where}
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.stdout == "7\n7\n", done.stderr


def test_a_process_forked_after_a_search_searches() -> None:
    program = """
import multiprocessing, numpy
from geodtr.runtime.search.exact import search
rows = numpy.eye(64, dtype=numpy.float32).repeat(800, axis=0)
def find():
    assert search(rows[:1], rows, 3).rows.tolist() == [[0, 1, 2]]
find()
child = multiprocessing.get_context("fork").Process(target=find, daemon=True)
child.start()
child.join(60)
print(child.exitcode)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.stdout == "0\n", done.stderr


def test_numkong_multiplies_without_the_extension_that_gave_wrong_products(monkeypatch: pytest.MonkeyPatch) -> None:
    numkong, disabled = pytest.importorskip("numkong"), list[str]()
    there = {"neon": True, "sve": True, "sme": True, "smef64": True, "sme2": False}
    monkeypatch.setattr(numkong, "get_capabilities", lambda: there)
    monkeypatch.setattr(numkong, "disable_capability", disabled.append)
    matmul._numkong.cache_clear()
    rows = unit_rows(3, 8, 0)
    search_compressed(rows[:1], compress(np.tile(rows, (99, 1)), "int8"), np.tile(rows, (99, 1)), 1)
    matmul._numkong.cache_clear()
    assert disabled == ["sme", "smef64"]


def test_an_error_in_any_thread_is_raised_and_ends_the_others() -> None:
    scored = list[int]()

    def score_block(block: Block, _thresholds: Scores) -> Pairs:
        number = int(block.numbers(np.zeros(1, np.int64))[0])
        scored.append(number)
        if number == 3:
            raise ValueError("three")
        time.sleep(0.01)
        none = np.empty(0, np.float32)
        return Pairs(np.empty(0, np.int64), np.empty(0, np.int64), none, none)

    with pytest.raises(ValueError, match="three"):
        scan(score_block, (Block(slice(row, row + 1)) for row in range(1000)), 1, 1, None, 3)
    assert len(scored) < 10


@pytest.mark.parametrize(
    ("storage", "libraries", "named"),
    [
        ("float32", LIBRARIES[0], "numpy"),
        ("int8", LIBRARIES[1], "onnxruntime"),
        ("float32", LIBRARIES[2], "onnxruntime"),
        ("int8", LIBRARIES[2], "numkong"),
    ],
)
def test_a_gallery_names_the_library_that_searches_it(
    tmp_path: Path, storage: Storage, libraries: frozenset[str], named: str
) -> None:
    with (
        installed(libraries),
        open_gallery(fill(tmp_path / "g", made_tiles(3).tiles, unit_rows(3, 8, 0), storage)) as g,
    ):
        assert g.info.index.startswith(f"flat, by {named} ")
