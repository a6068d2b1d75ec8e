"""From a backend's options to its builder. The only file that knows all backends."""

from collections.abc import Callable

from geodtr.export.backends.base import Builder, ignore_warning
from geodtr.export.backends.options import (
    BackendOptions,
    OnnxRuntimeOptions,
    OpenVinoOptions,
    TensorRtOptions,
    TensorRtRtxOptions,
)
from geodtr.runtime.names import Dialect


def make_builder(
    options: BackendOptions, dialect: Dialect | None = None, *, notice: Callable[[str], None] = ignore_warning
) -> Builder:
    """The builder of a backend. `dialect`: of quantised graphs, None for this machine's own. `notice` is called with
    what the user should know of a build and need not mend.

    Raises ConfigError when the backend runs no graphs of the dialect.
    """
    if isinstance(options, TensorRtOptions):
        from geodtr.export.backends.tensorrt.builder import TensorRtBuilder

        return TensorRtBuilder(options, dialect, notice)
    if isinstance(options, TensorRtRtxOptions):
        from geodtr.export.backends.tensorrt.rtx import RtxBuilder

        return RtxBuilder(options, dialect, notice)
    if isinstance(options, OnnxRuntimeOptions):
        from geodtr.export.backends.onnxruntime import OnnxRuntimeBuilder

        return OnnxRuntimeBuilder(options, dialect)
    assert isinstance(options, OpenVinoOptions)
    from geodtr.export.backends.openvino import OpenVinoBuilder

    return OpenVinoBuilder(dialect)
