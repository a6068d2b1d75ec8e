"""Whether a compiled engine computes what its typed graph says, whatever its backend made of it."""

from pathlib import Path

import numpy as np

from geodtr.export.kept_cosine import KEEP_COSINE
from geodtr.runtime.engines.onnxruntime import OnnxRuntimeEmbedder, open_session
from geodtr.runtime.errors import BuildError
from geodtr.runtime.names import Precision
from geodtr.runtime.spec import Embedder, Images

_FLOAT: dict[Precision, float] = {"fp32": 0.99999, "fp16": 0.999}
_LEAST = 0.97
"""Whatever cosine a user lets go: an engine that was wrong had 0.95 at best."""


def smallest_agreement(precision: Precision, keep_cosine: float | None) -> float:
    """What cosine an engine must have with its graph.

    A quantised graph keeps descriptors within an angle of the float32 ones, whose cosine is `keep_cosine`. To round an
    intermediate value, or not to, are both right; an engine within the same angle is within twice that of the graph.
    """
    if precision in _FLOAT:
        return _FLOAT[precision]
    return max(_LEAST, at_twice_the_angle(KEEP_COSINE["int8"] if keep_cosine is None else keep_cosine))


def at_twice_the_angle(cosine: float) -> float:
    """The cosine of twice the angle that `cosine` belongs to."""
    return 2 * cosine**2 - 1


def check_agreement(engine: Embedder, graph: Path, images: Images, smallest: float) -> None:
    """Compare `engine` with ONNX Runtime computing the ONNX file `graph` node by node, nothing fused, in float32.

    Raises BuildError when a descriptor of `images` has a cosine below `smallest`.
    """
    as_written = OnnxRuntimeEmbedder(open_session(graph, optimisation="none"), engine.spec, graph)
    cosine = float(np.sum(engine.embed(images) * as_written.embed(images), axis=1).min())
    if not cosine >= smallest:
        raise BuildError(
            f"The compiled {engine.spec.branch} engine does not compute what its graph says: the smallest cosine with "
            f"ONNX Runtime on the same file is {cosine:.4f}, at least {smallest:.4f} is right. Nothing was written. "
            "Build in another precision, or for another --backend."
        )
