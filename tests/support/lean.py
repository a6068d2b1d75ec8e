"""Tests in an installation without the packages of some extras, as on a vehicle: what needs one of them is skipped.

Knows the packages that `pyproject.toml` has extras for; a package that is missing otherwise is still an error.
"""

from collections.abc import Generator
from importlib.util import find_spec

import pytest

_OF_EXTRAS = (
    "cuda", "matplotlib", "onnx_ir", "onnxscript", "onnxslim", "openvino", "pyarrow", "pymilvus", "pypdfium2", "ray",
    "safetensors", "schemathesis", "scipy", "tensorrt", "tomli_w", "torch", "torchvision",
)  # fmt: skip
LACKING = frozenset(name for name in _OF_EXTRAS if find_spec(name) is None)

Wrapper = Generator[None, object, object]


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Skip a file that imports such a package."""
    report = yield
    excinfo = report.call.excinfo if report.outcome == "failed" and report.call is not None else None
    lacking = None if excinfo is None else _lacking(excinfo.value)
    if lacking is not None:
        report.outcome, report.longrepr = "skipped", (str(collector.path), 0, f"Skipped: needs {lacking}")
    return report


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup() -> Wrapper:
    return (yield from _skipping())


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call() -> Wrapper:
    return (yield from _skipping())


def _skipping() -> Wrapper:
    try:
        return (yield)
    except Exception as error:
        lacking = _lacking(error)
        if lacking is None:
            raise
        pytest.skip(f"needs {lacking}")


def _lacking(error: BaseException | None) -> str | None:
    """The package without which this error came about; None where it has another cause."""
    while error is not None:
        if isinstance(error, ModuleNotFoundError) and (error.name or "").split(".")[0] in LACKING:
            return error.name
        error = error.__cause__ or error.__context__
    return None
