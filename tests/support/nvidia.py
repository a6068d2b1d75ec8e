"""NVIDIA's own ONNX parser and builder: those of TensorRT-RTX, which need no GPU.

Both are of TensorRT's family (the parser is the same one), so what this project's own code asks of TensorRT is asked of
the vendor's objects. Only running a plan takes a GPU.
"""

from pathlib import Path
from typing import Any

import pytest

from geodtr.export.backends.base import ignore_warning
from geodtr.export.backends.options import TensorRtOptions
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
    """A plan of the ONNX file `graph`, by this project's own builder. Raises BuildError as that does."""
    return tensorrt_network.build_plan(
        graph, spec, options.entry, open_log(RTX), cuda=None, cache=None, notice=ignore_warning, track=track
    )
