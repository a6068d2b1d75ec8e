"""A projection at the end of a float32 graph, and read back from any typed one.

Its nodes stay float32 in every precision, as the norms before and behind it do: it is little work beside the network's,
and a whitened direction multiplies what rounding leaves in it.
"""

from copy import deepcopy
from typing import Any

import numpy as np

from geodtr.calibration.operators import PROJECTION
from geodtr.export.graph.structure import GraphError
from geodtr.export.projection import SHORTEST, Projection
from geodtr.runtime.bundle import Bundle
from geodtr.runtime.names import BRANCHES, Branch
from geodtr.runtime.spec import OUTPUT

FULL = f"{PROJECTION}/full"
"""The tensor that holds the network's own descriptors."""
_WEIGHTS, _BIAS, _SHORTEST, _AXES = (f"{PROJECTION}/{name}" for name in ("weights", "bias", "shortest", "axes"))


def with_projection(graph: Any, projection: Projection, branch: Branch) -> Any:
    """A copy of a float32 `ModelProto`, whose descriptors are those that `projection` makes of its own."""
    from onnx import helper, numpy_helper

    longer = deepcopy(graph)
    for node in longer.graph.node:
        node.input[:] = [FULL if name == OUTPUT else name for name in node.input]
        node.output[:] = [FULL if name == OUTPUT else name for name in node.output]
    constants = {
        _WEIGHTS: projection.weights,
        _BIAS: projection.bias[branch],
        _SHORTEST: np.float32(SHORTEST),
        _AXES: np.array([1], np.int64),
    }
    longer.graph.initializer.extend(
        numpy_helper.from_array(np.ascontiguousarray(values), name) for name, values in constants.items()
    )
    products, moved, length, divisor = (f"{PROJECTION}/{name}" for name in ("products", "moved", "length", "divisor"))
    longer.graph.node.extend(
        helper.make_node(kind, inputs, [output], name=f"{PROJECTION}/{kind}")
        for kind, inputs, output in (
            ("MatMul", [FULL, _WEIGHTS], products),
            ("Add", [products, _BIAS], moved),
            ("ReduceL2", [moved, _AXES], length),
            ("Clip", [length, _SHORTEST], divisor),
            ("Div", [moved, divisor], OUTPUT),
        )
    )
    (output,) = longer.graph.output
    output.type.tensor_type.shape.dim[1].dim_value = projection.size
    return longer


def read_projection(bundle: Bundle) -> Projection:
    """The projection in the graphs of a bundle whose manifest names one. Raises GraphError when they hold none."""
    import onnx
    from onnx import numpy_helper

    bias = {}
    for branch in BRANCHES:
        file = bundle.path / bundle.manifest.engine(branch).file
        stored = {entry.name: entry for entry in onnx.load(str(file)).graph.initializer}
        if not {_WEIGHTS, _BIAS} <= stored.keys():
            raise GraphError(
                f"{file} holds no projection, and its manifest names one: the bundle is not as it was built."
            )
        weights, bias[branch] = (numpy_helper.to_array(stored[name]) for name in (_WEIGHTS, _BIAS))
    return Projection(weights, bias)
