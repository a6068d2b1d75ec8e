"""Write the graphs that ONNX Runtime multiplies descriptors by (runtime/search/*.onnx): python tools/search_graphs.py

They are committed because the lean runtime has no onnx package to make them with.
"""

from pathlib import Path

import onnx
from onnx import TensorProto, helper

FOLDER = Path(__file__).resolve().parents[1] / "runtime" / "search"


def graphs() -> dict[str, bytes]:
    """File name and content of each: `scores` is `a` times `b`, by Gemm `a` times `b` transposed; any float32 sizes."""
    a, b, scores = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [None, None]) for name in ("a", "b", "scores")
    )
    made = {}
    for operator, attributes in (("MatMul", {}), ("Gemm", {"transB": 1})):
        node = helper.make_node(operator, ["a", "b"], ["scores"])
        node.attribute.extend(helper.make_attribute(name, value) for name, value in attributes.items())
        graph = helper.make_graph([node], "product", [a, b], [scores])
        # Old enough for every ONNX Runtime that the runtime runs with.
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
        onnx.checker.check_model(model)
        made[f"{operator.lower()}.onnx"] = model.SerializeToString(deterministic=True)
    return made


if __name__ == "__main__":
    for name, content in graphs().items():
        (FOLDER / name).write_bytes(content)
