"""NVIDIA's own ONNX parser and builder from TensorRT-RTX, which need no GPU.

The parser is the same as TensorRT's, and the builder has the same interface. This project's calls to TensorRT therefore
run on the vendor's objects. Only running a plan needs a GPU.
"""

from pathlib import Path
from typing import Any

import pytest

from geodtr import TensorRtOptions
from geodtr.export.backends.base import ignore_warning
from geodtr.export.backends.tensorrt import network as tensorrt_network
from geodtr.runtime.engines.tensorrt.library import RTX
from geodtr.runtime.engines.tensorrt.plan import open_log
from geodtr.runtime.progress import Track, untracked
from geodtr.runtime.spec import BranchSpec


@pytest.fixture
def nvidia() -> Any:
    """The vendor's module."""
    if not RTX.is_there:
        pytest.skip("TensorRT-RTX is not installed: NVIDIA has no wheel of it for this platform")
    return RTX.trt


def build_plan(
    graph: Path,
    spec: BranchSpec,
    options: TensorRtOptions,
    *,
    track: Track = untracked,
) -> bytes:
    """Build a plan from the ONNX file `graph` with this project's own builder. Raises BuildError."""
    return tensorrt_network.build_plan(
        graph, spec, options.entry, open_log(RTX), cuda=None, cache=None, notice=ignore_warning, track=track
    )
