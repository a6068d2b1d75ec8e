"""Write the ONNX graphs of the products in search and doctor (runtime/search/*.onnx): python tools/search_graphs.py

The graphs are committed, because the lean runtime has no onnx package to build them.
"""

from pathlib import Path

import onnx
from onnx import TensorProto, helper

FOLDER = Path(__file__).resolve().parents[1] / "runtime" / "search"


def graphs() -> dict[str, bytes]:
    """File name and content of each graph: MatMul gives a @ b, Gemm gives a @ b.T, float32; MatMulInteger gives a @ b
    in int32 of uint8 and int8; any size.
    """
    floats = (TensorProto.FLOAT,) * 3
    contents = {}
    for operator, attributes, types in (
        ("MatMul", {}, floats),
        ("Gemm", {"transB": 1}, floats),
        ("MatMulInteger", {}, (TensorProto.UINT8, TensorProto.INT8, TensorProto.INT32)),
    ):
        a, b, scores = (
            helper.make_tensor_value_info(name, kind, [None, None])
            for name, kind in zip(("a", "b", "scores"), types, strict=True)
        )
        node = helper.make_node(operator, ["a", "b"], ["scores"])
        node.attribute.extend(helper.make_attribute(name, value) for name, value in attributes.items())
        graph = helper.make_graph([node], "product", [a, b], [scores])
        # Supported by all ONNX Runtime versions that the runtime supports.
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
        onnx.checker.check_model(model)
        contents[f"{operator.lower()}.onnx"] = model.SerializeToString(deterministic=True)
    return contents


if __name__ == "__main__":
    for name, content in graphs().items():
        (FOLDER / name).write_bytes(content)
