"""Engines whose manifest someone else wrote, hash included: what they take and give is compared when they are opened,
and what fails in them while they run is one message.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from tiny_bundle import SIDE, SIZE, write_bundle_of, write_pairs

from geodtr import open_bundle
from geodtr.runtime.errors import BundleError
from geodtr.runtime.machine import this_cpu
from geodtr.runtime.manifest import read_manifest, write_manifest
from geodtr.runtime.names import Branch
from geodtr.runtime.spec import INPUT, OUTPUT, Preprocessing

BACKENDS = ("onnx", "openvino")
IMAGES = ["B", SIDE, SIDE, 3]
ROWS = ["B", SIZE]

OTHER_BOUNDARIES: dict[str, tuple[tuple[int, list[Any]], tuple[int, list[Any]]]] = {
    "float images": ((TensorProto.FLOAT, IMAGES), (TensorProto.FLOAT, ROWS)),
    "a fixed batch": ((TensorProto.UINT8, [1, SIDE, SIDE, 3]), (TensorProto.FLOAT, [1, SIZE])),
    "four channels": ((TensorProto.UINT8, ["B", SIDE, SIDE, 4]), (TensorProto.FLOAT, ROWS)),
    "other sides": ((TensorProto.UINT8, ["B", SIDE, 2 * SIDE, 3]), (TensorProto.FLOAT, ROWS)),
    "float16 rows": ((TensorProto.UINT8, IMAGES), (TensorProto.FLOAT16, ROWS)),
    "float64 rows": ((TensorProto.UINT8, IMAGES), (TensorProto.DOUBLE, ROWS)),
    "whole numbers": ((TensorProto.UINT8, IMAGES), (TensorProto.INT32, ROWS)),
    "longer rows": ((TensorProto.UINT8, IMAGES), (TensorProto.FLOAT, ["B", 2 * SIZE])),
    "rows of rows": ((TensorProto.UINT8, IMAGES), (TensorProto.FLOAT, ["B", 1, SIZE])),
}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("case", OTHER_BOUNDARIES)
def test_an_engine_that_takes_or_gives_something_else_is_not_opened(tmp_path: Path, case: str, backend: str) -> None:
    bundle = _write(tmp_path / "bundle", _projection(*OTHER_BOUNDARIES[case]), backend)
    with pytest.raises(BundleError, match=r"ground\.onnx takes images: .* Build the bundle again"):
        open_bundle(bundle).embedder("ground")


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_engine_with_another_output_is_not_opened(tmp_path: Path, backend: str) -> None:
    graph = _projection((TensorProto.UINT8, IMAGES), (TensorProto.FLOAT, ROWS))
    graph.graph.output.append(helper.make_tensor_value_info("flat", TensorProto.FLOAT, ["B", SIDE * SIDE * 3]))
    with pytest.raises(BundleError, match=r"flat: float32"):
        open_bundle(_write(tmp_path / "bundle", graph, backend)).embedder("ground")


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("case", ["out of bounds", "of another shape"])
def test_what_fails_while_an_engine_runs_is_one_message(
    tmp_path: Path, refused: Callable[..., str], case: str, backend: str
) -> None:
    graph = _gather() if case == "out of bounds" else _without_black()
    bundle = _write(tmp_path / "bundle", graph, backend)
    embedder = open_bundle(bundle).embedder("ground")
    images = np.full((2, SIDE, SIDE, 3), 255, np.uint8)
    images[0] = 0
    if case == "out of bounds" and backend == "openvino":  # reads zeros there
        assert embedder.embed(images).shape == (2, SIZE)
        return
    with pytest.raises(BundleError, match=r"ground\.onnx"):
        embedder.embed(images)
    if case == "of another shape":  # of one image it is right
        assert embedder.embed(images[1:]).shape == (1, SIZE)
        return
    image = write_pairs(tmp_path / "pairs", 2) / "ground0.png"
    message = refused("embed", bundle, image, "--branch", "ground", "--out", tmp_path / "d.npy")
    assert "ground.onnx" in message
    assert len(message.splitlines()) == 2, "one for the progress, one for the error"


def _write(path: Path, graph: onnx.ModelProto, backend: str) -> Path:
    how: dict[Branch, Preprocessing] = dict.fromkeys(("ground", "aerial"), Preprocessing(height=SIDE, width=SIDE))
    write_bundle_of(path, graph, how, SIZE, "0" * 16)
    if backend == "openvino":
        pytest.importorskip("openvino")
        manifest = read_manifest(path)
        entry = msgspec.structs.replace(manifest.backend, name="openvino", version="0", machine=this_cpu())
        write_manifest(path, msgspec.structs.replace(manifest, backend=entry))
    return path


def _model(nodes: list[Any], takes: tuple[int, list[Any]], gives: tuple[int, list[Any]], **constants: Any) -> Any:
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info(INPUT, *takes)],
        [helper.make_tensor_value_info(OUTPUT, *gives)],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def _projection(takes: tuple[int, list[Any]], gives: tuple[int, list[Any]]) -> Any:
    """Images to rows of unit length by a fixed matrix."""
    inner, shape = int(np.prod(takes[1][1:])), [-1, *gives[1][1:]]
    nodes = [
        helper.make_node("Cast", [INPUT], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("Reshape", ["pixels", "inner"], ["flat"]),
        helper.make_node("MatMul", ["flat", "projection"], ["projected"]),
        helper.make_node("LpNormalization", ["projected"], ["unit"], axis=1, p=2),
        helper.make_node("Reshape", ["unit", "outer"], ["rows"]),
        helper.make_node("Cast", ["rows"], [OUTPUT], to=gives[0]),
    ]
    projection = np.random.default_rng(0).normal(size=(inner, gives[1][-1])).astype(np.float32)
    sizes = {"inner": np.array([-1, inner], np.int64), "outer": np.array(shape, np.int64)}
    return _model(nodes, takes, gives, projection=projection, **sizes)


def _gather() -> Any:
    """The pixels are taken for row numbers of a matrix with two rows."""
    nodes = [
        helper.make_node("Cast", [INPUT], ["numbers"], to=TensorProto.INT64),
        helper.make_node("ReduceMax", ["numbers"], ["largest"], axes=[1, 2, 3], keepdims=0),
        helper.make_node("Gather", ["rows", "largest"], [OUTPUT], axis=0),
    ]
    rows = np.ones((2, SIZE), np.float32) / np.float32(np.sqrt(SIZE))
    return _model(nodes, (TensorProto.UINT8, IMAGES), (TensorProto.FLOAT, ROWS), rows=rows)


def _without_black() -> Any:
    """Black images get no row, which nothing shows before they come."""
    nodes = [
        helper.make_node("Cast", [INPUT], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMax", ["pixels"], ["largest"], axes=[1, 2, 3], keepdims=0),
        helper.make_node("Cast", ["largest"], ["bright"], to=TensorProto.BOOL),
        helper.make_node("Reshape", ["pixels", "flat"], ["rows"]),
        helper.make_node("Slice", ["rows", "zero", "size", "one"], ["short"]),
        helper.make_node("Compress", ["short", "bright"], [OUTPUT], axis=0),
    ]
    constants = {
        "flat": np.array([-1, SIDE * SIDE * 3], np.int64),
        "zero": np.array([0], np.int64),
        "one": np.array([1], np.int64),
        "size": np.array([SIZE], np.int64),
    }
    return _model(nodes, (TensorProto.UINT8, IMAGES), (TensorProto.FLOAT, ROWS), **constants)
