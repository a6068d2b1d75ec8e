"""`doctor` computes what is known exactly, and names the library that is wrong."""

from typing import Any

import numpy as np
import onnxruntime
import pytest

from geodtr.runtime.doctor import diagnosis, self_check
from geodtr.runtime.doctor.self_check import check_arithmetic
from geodtr.runtime.search import matmul
from geodtr.runtime.search.exact import search_compressed
from geodtr.runtime.search.quantize import compress


def test_this_machine_is_exact() -> None:
    (finding,) = check_arithmetic()
    assert not finding.failed, finding
    for part in ("float32 products", "float16 products", "int8 products", "int8 search", "int8 engines"):
        assert part in finding.found


def test_without_the_optional_library_the_others_are_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matmul, "_has", lambda module: module == "onnxruntime")
    (finding,) = check_arithmetic()
    assert not finding.failed, finding
    assert "numkong" not in finding.found
    monkeypatch.setattr(matmul, "_has", lambda _: False)
    (finding,) = check_arithmetic()
    assert not finding.failed, finding
    assert "onnxruntime" not in finding.found


@pytest.mark.parametrize("compute", ["_cdist", "_dots"])
def test_a_product_that_is_off_by_one_is_named_with_its_library(monkeypatch: pytest.MonkeyPatch, compute: str) -> None:
    right = getattr(matmul, compute)

    def wrong(first: Any, second: Any) -> Any:
        numbers = np.array(right(first, second))
        numbers[-1, 0] += 1
        return numbers

    monkeypatch.setattr(matmul, compute, wrong)
    failed = {finding.what: finding for finding in check_arithmetic()}
    assert all(finding.failed and finding.remedy for finding in failed.values())
    assert {"arithmetic, float16 products", "arithmetic, int8 products"} <= failed.keys()
    text = failed["arithmetic, int8 products"].found
    assert text.startswith("numkong ")
    assert "1 of 600" in text or "of 4800 values differ" in text
    assert not diagnosis.examine_machine().passed


def test_a_search_that_misses_a_row_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    search, most = search_compressed, 4000  # of 4800, and the best are behind

    def blind(queries: Any, _: Any, references: Any, top: int) -> Any:
        return search(queries, compress(references[:most], "int8"), references[:most], top)

    monkeypatch.setattr(self_check, "search_compressed", blind)
    (finding,) = check_arithmetic()
    assert (finding.what, finding.failed) == ("arithmetic, int8 search", True)


def test_an_engine_library_that_saturates_or_crashes_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    class Saturating:
        def __init__(self, *_: object, **__: object) -> None:
            pass

        def run(self, _: object, given: dict[str, Any]) -> list[Any]:
            pairs = given["a"].astype(np.int64)[:, :, None] * given["b"].astype(np.int64)
            halves = np.clip(pairs[:, ::2] + pairs[:, 1::2], -(2**15), 2**15 - 1)
            return [halves.sum(axis=1)]

    monkeypatch.setattr(self_check, "cpu_dialect", lambda: "cpu-8bit")
    monkeypatch.setattr(self_check, "_products", lambda *_: None)
    monkeypatch.setattr(self_check, "_compressed_products", lambda *_: None)
    monkeypatch.setattr(self_check, "_search", lambda *_: None)
    monkeypatch.setattr(onnxruntime, "InferenceSession", Saturating)
    (finding,) = check_arithmetic()
    assert (finding.what, "values differ" in finding.found) == ("arithmetic, int8 engines", True)
    monkeypatch.setattr(self_check, "cpu_dialect", lambda: "cpu-7bit")
    (finding,) = check_arithmetic()
    assert not finding.failed, "7-bit weights fit into 16 bits"
    monkeypatch.setattr(onnxruntime, "InferenceSession", None)
    (finding,) = check_arithmetic()
    assert "TypeError" in finding.found
