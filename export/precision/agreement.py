"""Check that a compiled engine's descriptors match its typed graph's."""

from pathlib import Path

import numpy as np

from geodtr.export.precision.cosine_selection import KEEP_COSINE
from geodtr.runtime.engines.onnxruntime import OnnxRuntimeEmbedder, open_session
from geodtr.runtime.errors import BuildError
from geodtr.runtime.names import Precision
from geodtr.runtime.spec import Embedder, Images

_FLOAT: dict[Precision, float] = {"fp32": 0.99999, "fp16": 0.999}
_LEAST = 0.97
"""A lower bound regardless of the user's minimum cosine: wrong engines had 0.95 at best."""


class EngineDisagrees(BuildError):
    """A compiled engine's descriptors do not match its graph's."""


def check_agreement(
    engine: Embedder, graph: Path, images: Images, precision: Precision, keep_cosine: float | None
) -> None:
    """Compare `engine` with ONNX Runtime computing the ONNX file `graph` node by node, without fusion, in float32.

    In a float precision all `images` must agree; in a quantised one their median must. There a single rounding can
    change the arg-max of an image and rotate its descriptor by any angle, in the engine or in the graph, and neither is
    wrong. A wrong engine is wrong on most images. Raises EngineDisagrees.
    """
    as_written = OnnxRuntimeEmbedder(open_session(graph, optimisation="none"), engine.spec, graph)
    cosines = np.sum(engine.embed(images) * as_written.embed(images), axis=1)
    name, cosine = ("smallest", cosines.min()) if precision in _FLOAT else ("median", np.median(cosines))
    least = _agreement(precision, keep_cosine)
    if not cosine >= least:
        raise EngineDisagrees(
            f"The compiled {engine.spec.branch} engine does not match its graph: the {name} cosine with "
            f"ONNX Runtime on the same file is {cosine:.4f}, at least {least:.4f} is right. Nothing was written. "
            "Build in another precision, or for another --backend."
        )


def _agreement(precision: Precision, keep_cosine: float | None) -> float:
    """The minimum cosine between engine and graph: the graph's own minimum cosine with float32, `keep_cosine` or its
    default, whichever is less, because rounding an intermediate value or not are both right.
    """
    if precision in _FLOAT:
        return _FLOAT[precision]
    return max(_LEAST, KEEP_COSINE["int8"] if keep_cosine is None else min(keep_cosine, KEEP_COSINE["int8"]))


def at_twice_the_angle(cosine: float) -> float:
    """The cosine of twice the angle that `cosine` belongs to."""
    return 2 * cosine**2 - 1
