"""A learned matcher's stand-in as an ONNX file: `correlating_matcher(path)` writes it."""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def correlating_matcher(path: Path) -> Path:
    """An ONNX file that slides the frame over the map, and pairs a grid of its pixels with those at the best place."""
    grid = np.array([(x, y) for x in range(4, 220, 12) for y in range(4, 220, 12)], np.int64)
    constants = {
        "grid": grid,
        "two": np.array([2]),
        "three": np.array([3]),
        "four": np.array([4]),
        "all": np.array([-1]),
    }
    nodes = [
        helper.make_node("ReduceMean", ["image0"], ["mean"]),
        helper.make_node("Sub", ["image0", "mean"], ["pattern"]),
        helper.make_node("Conv", ["image1", "pattern"], ["scores"]),
        helper.make_node("Reshape", ["scores", "all"], ["flat"]),
        helper.make_node("ArgMax", ["flat"], ["best"], axis=0),
        helper.make_node("Shape", ["scores"], ["shape"]),
        helper.make_node("Slice", ["shape", "three", "four"], ["across"]),
        helper.make_node("Div", ["best", "across"], ["row"]),
        helper.make_node("Mod", ["best", "across"], ["column"]),
        helper.make_node("Concat", ["column", "row"], ["offset"], axis=0),
        helper.make_node("Shape", ["image0"], ["size"]),
        helper.make_node("Slice", ["size", "two", "four"], ["sides"]),
        helper.make_node("Less", ["grid", "sides"], ["within"]),
        helper.make_node("Cast", ["within"], ["both"], to=TensorProto.INT64),
        helper.make_node("ReduceMin", ["both"], ["lies"], axes=[1], keepdims=0),
        helper.make_node("Cast", ["lies"], ["inside"], to=TensorProto.BOOL),
        helper.make_node("Compress", ["grid", "inside"], ["ours"], axis=0),
        helper.make_node("Add", ["ours", "offset"], ["theirs"]),
        helper.make_node("Cast", ["ours"], ["keypoints0"], to=TensorProto.FLOAT),
        helper.make_node("Cast", ["theirs"], ["keypoints1"], to=TensorProto.FLOAT),
    ]
    images = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 1, "H", "W"]) for name in ("image0", "image1")]
    points = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["M", 2]) for name in ("keypoints0", "keypoints1")]
    graph = helper.make_graph(
        nodes, "slide", images, points, [numpy_helper.from_array(value, name) for name, value in constants.items()]
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path
