"""Whether a compiled engine computes what its typed graph says, whatever its backend made of it."""

from pathlib import Path

import numpy as np

from geodtr.export.precision.cosine_selection import KEEP_COSINE
from geodtr.runtime.engines.onnxruntime import OnnxRuntimeEmbedder, open_session
from geodtr.runtime.errors import BuildError
from geodtr.runtime.names import Precision
from geodtr.runtime.spec import Embedder, Images

_FLOAT: dict[Precision, float] = {"fp32": 0.99999, "fp16": 0.999}
_LEAST = 0.97
"""Whatever cosine a user lets go: an engine that was wrong had 0.95 at best."""


class EngineDisagrees(BuildError):
    """A compiled engine does not compute what its graph says."""


def check_agreement(
    engine: Embedder, graph: Path, images: Images, precision: Precision, keep_cosine: float | None
) -> None:
    """Compare `engine` with ONNX Runtime computing the ONNX file `graph` node by node, nothing fused, in float32.

    All `images` must agree in a float precision. In a quantised one their median must: a step that falls the other way
    can make the arg-max of one image another, which turns its descriptor by any angle, in the engine or in what it is
    compared with, and neither is wrong. A wrong engine is wrong on most. Raises EngineDisagrees.
    """
    as_written = OnnxRuntimeEmbedder(open_session(graph, optimisation="none"), engine.spec, graph)
    cosines = np.sum(engine.embed(images) * as_written.embed(images), axis=1)
    name, cosine = ("smallest", cosines.min()) if precision in _FLOAT else ("median", np.median(cosines))
    asked = _agreement(precision, keep_cosine)
    if not cosine >= asked:
        raise EngineDisagrees(
            f"The compiled {engine.spec.branch} engine does not compute what its graph says: the {name} cosine with "
            f"ONNX Runtime on the same file is {cosine:.4f}, at least {asked:.4f} is right. Nothing was written. "
            "Build in another precision, or for another --backend."
        )


def _agreement(precision: Precision, keep_cosine: float | None) -> float:
    """What cosine an engine must have with its graph: the one that the graph keeps with float32, `keep_cosine` or its
    default, whichever is less. To round an intermediate value, or not to, are both right.
    """
    if precision in _FLOAT:
        return _FLOAT[precision]
    return max(_LEAST, KEEP_COSINE["int8"] if keep_cosine is None else min(keep_cosine, KEEP_COSINE["int8"]))


def at_twice_the_angle(cosine: float) -> float:
    """The cosine of twice the angle that `cosine` belongs to."""
    return 2 * cosine**2 - 1
