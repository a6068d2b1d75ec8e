"""How often a typed graph's saliency wins in another channel than the float32 graph's: information, not a verdict.

Two channels are often closer than one INT8 step, and a flip turns the descriptor by little or by much: recall decides.
"""

from typing import Any

import numpy as np

from geodtr.runtime.engines.onnxruntime import Optimisation, open_session
from geodtr.runtime.spec import INPUT, Images


def argmax_flips(exact: Any, typed: Any, images: Images, optimisation: Optimisation = "all") -> float | None:
    """Share of positions whose arg-max differs between two `ModelProto`s of one network on preprocessed `images`.

    None where the network has no arg-max.
    """
    before, after = _winners(exact, images, "all"), _winners(typed, images, optimisation)
    return None if before is None or after is None else float(np.mean(before != after))


def _winners(graph: Any, images: Images, optimisation: Optimisation) -> Any:
    from onnx import TensorProto, helper

    names = [node.output[0] for node in graph.graph.node if node.op_type == "ArgMax"]
    if not names:
        return None
    copied = type(graph)()
    copied.CopyFrom(graph)
    copied.graph.output.append(helper.make_tensor_value_info(names[0], TensorProto.INT64, None))
    (winners,) = open_session(copied.SerializeToString(), optimisation=optimisation).run(names[:1], {INPUT: images})
    return winners
