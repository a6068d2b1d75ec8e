"""Check that a compiled engine's descriptors match its typed graph's."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geodtr.export.cosines import cosines, counted
from geodtr.export.graph.structure import without_rounding
from geodtr.export.precision.cosine_selection import KEEP_COSINE
from geodtr.runtime.engines.onnxruntime import OnnxRuntimeEmbedder, open_session
from geodtr.runtime.errors import BuildError
from geodtr.runtime.names import Precision
from geodtr.runtime.spec import Descriptors, Embedder, Images

_FLOAT: dict[Precision, float] = {"fp32": 0.99999, "fp16": 0.999}
_LEAST = 0.97
"""A lower bound regardless of the user's minimum cosine: wrong engines had 0.95 at best."""
_ROUNDINGS = 5
"""How many times as far as by its own rounding an engine may be from its graph, in 1 - cosine."""


class EngineDisagrees(BuildError):
    """A compiled engine's descriptors do not match its graph's."""


def check_agreement(
    engine: Embedder, graph: Path, images: Images, precision: Precision, keep_cosine: float | None
) -> None:
    """Compare `engine` with ONNX Runtime computing the ONNX file `graph` node by node, without fusion, in float32.

    In a float precision all `images` must agree that count (see `counted`); in a quantised one their median must. There
    a single rounding can change the arg-max of an image and rotate its descriptor by any angle, in the engine or in the
    graph, and neither is wrong. A wrong engine is wrong on most images. Raises EngineDisagrees.
    """
    import onnx

    def embed(model: Any) -> Descriptors:
        session = open_session(model.SerializeToString(), optimisation="none")
        return OnnxRuntimeEmbedder(session, engine.spec, graph).embed(images)

    model = onnx.load(str(graph))
    as_written = embed(model)
    cosine_of = cosines(as_written, engine.embed(images))
    if precision in _FLOAT:
        name, cosine, least = "smallest", counted(cosine_of, chooses=engine.spec.chooses).min(), _FLOAT[precision]
    else:
        unrounded = np.sum(embed(without_rounding(model)) * as_written, axis=1)
        name, cosine, least = "median", np.median(cosine_of), _least_median(unrounded, keep_cosine)
    if not cosine >= least:
        raise EngineDisagrees(
            f"The compiled {engine.spec.branch} engine does not match its graph: the {name} cosine with "
            f"ONNX Runtime on the same file is {cosine:.4f}, at least {least:.4f} is right. Nothing was written. "
            "Build in another precision, or for another --backend."
        )


def _least_median(unrounded: NDArray[np.float32], keep_cosine: float | None) -> float:
    """The minimum median cosine between a quantised engine and its graph.

    To round an intermediate value, and not to, are both right. So the graph's own rounding is the measure: `unrounded`
    holds its cosines with the same graph without it. Right engines differ up to twice as much, wrong ones ten times and
    more. The minimum is never above a float16 engine's, and never below the graph's own minimum cosine with float32:
    `keep_cosine` or its default, whichever is less.
    """
    by_rounding = 1 - _ROUNDINGS * (1 - float(np.quantile(unrounded, 0.25)))
    kept = KEEP_COSINE["int8"] if keep_cosine is None else min(keep_cosine, KEEP_COSINE["int8"])
    return max(_LEAST, kept, min(by_rounding, _FLOAT["fp16"]))


def at_twice_the_angle(cosine: float) -> float:
    """The cosine of twice the angle that `cosine` belongs to."""
    return 2 * cosine**2 - 1
