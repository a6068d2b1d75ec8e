"""NVIDIA's own ONNX parser and builder in the place of TensorRT: those of TensorRT-RTX, which need no GPU.

Both are of TensorRT's family (the parser is the same one), so what this project's own code asks of TensorRT is asked of
the vendor's objects. Only running a plan takes a GPU.
"""

import ctypes
import sys
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

import pytest

from geodtr.export.build.builder import BuildOptions, unheard
from geodtr.export.build.tensorrt import TensorRtBuilder
from geodtr.export.build.tensorrt_options import TensorRtOptions
from geodtr.export.build.timing_cache import TimingCache
from geodtr.runtime.engines.cuda import Cuda
from geodtr.runtime.engines.tensorrt_plan import open_log
from geodtr.runtime.machine import Machine
from geodtr.runtime.manifest import TensorRtEntry
from geodtr.runtime.progress import Track, untracked
from geodtr.runtime.spec import BranchSpec

LIBRARIES = ("libtensorrt_rtx.so.1", "libtensorrt_onnxparser_rtx.so.1")


@pytest.fixture
def nvidia(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The vendor's module, under the name by which the builder imports it."""
    found = find_spec("tensorrt_rtx_libs")
    if found is None or not found.submodule_search_locations:
        pytest.skip("tensorrt-rtx-cu12-libs is not installed: NVIDIA has no wheel of it for this platform")
    for name in LIBRARIES:
        ctypes.CDLL(str(Path(found.submodule_search_locations[0]) / name), mode=ctypes.RTLD_GLOBAL)
    trt = pytest.importorskip("tensorrt_rtx_bindings")
    monkeypatch.setitem(sys.modules, "tensorrt", trt)
    return trt


@dataclass(frozen=True)
class NoGpu:
    """What a build asks of the device where nothing is run on one."""

    def active(self) -> AbstractContextManager[None]:
        return nullcontext()


def build_plan(
    graph: Path,
    spec: BranchSpec,
    options: TensorRtOptions,
    *,
    track: Track = untracked,
) -> bytes:
    """A plan of the ONNX file `graph`, by this project's own builder. Raises BuildError as that does."""
    least, usual, most = options.batches
    how = TensorRtEntry(
        min_batch=least,
        opt_batch=usual,
        max_batch=most,
        stripped=options.strip,
        refittable=options.refittable,
        version_compatible=options.version_compatible,
        workspace=options.workspace,
        optimisation_level=options.optimisation_level,
    )
    machine = Machine(architecture="x86_64", gpu="none", compute_capability="0.0", driver="0")
    builder = TensorRtBuilder(BuildOptions(tensorrt=options), unheard)
    cache = TimingCache(graph.parent, machine, "test")
    return builder._built(graph, spec, how, cache, cast(Cuda, NoGpu()), open_log(), track)
