"""Bundles of small handwritten graphs: real engines without training."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from geodtr.runtime.files import sha256
from geodtr.runtime.manifest import BackendEntry, EngineEntry, Manifest, SourceEntry, write_manifest
from geodtr.runtime.names import BRANCHES, Branch
from geodtr.runtime.spec import INPUT, OUTPUT, BranchSpec, Correlation, Preprocessing

SIDE, SIZE = 4, 16


def write_bundle(path: Path, seed: int = 0) -> Path:
    """Both branches map 4 x 4 pixels to the same 16 numbers, so an image matches itself. Each seed is another model."""
    how = Preprocessing(height=SIDE, width=SIDE)
    return write_bundle_of(path, _graph(seed), {"ground": how, "aerial": how}, SIZE, f"{seed:016x}")


def write_bundle_of(
    path: Path,
    graph: onnx.ModelProto,
    how: Mapping[Branch, Preprocessing],
    size: int,
    embedding_id: str,
    scorer: Correlation | None = None,
) -> Path:
    """A bundle whose branches both run `graph`, with descriptors of `size` numbers, each with its own preprocessing."""
    path.mkdir()
    for branch in BRANCHES:
        onnx.save(graph, path / f"{branch}.onnx")
    ground, aerial = (
        _entry(path, BranchSpec(branch=each, preprocessing=how[each], descriptor_size=size, scorer=scorer))
        for each in BRANCHES
    )
    write_manifest(
        path,
        Manifest(
            embedding_id=embedding_id,
            precision="fp32",
            backend=BackendEntry(name="onnx", version=onnx.__version__),
            ground=ground,
            aerial=aerial,
            source=SourceEntry(sha256="0" * 64, origin="no training"),
        ),
    )
    return path


TURN = Correlation(columns=8, seen=8, values=SIDE * 3, field_of_view=360)


def write_correlating_bundle(path: Path) -> Path:
    """Both branches give the pixels of a full turn, 4 x 8, column by column, to be compared at every orientation."""
    shape = numpy_helper.from_array(np.array([-1, TURN.reference_size], np.int64), "shape")
    middle = numpy_helper.from_array(np.array(127.5, np.float32), "middle")
    nodes = [
        helper.make_node("Cast", [INPUT], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("Sub", ["pixels", "middle"], ["centred"]),
        helper.make_node("Transpose", ["centred"], ["columns"], perm=[0, 2, 1, 3]),
        helper.make_node("Reshape", ["columns", "shape"], ["flat"]),
        helper.make_node("LpNormalization", ["flat"], [OUTPUT], axis=1, p=2),
    ]
    graph = helper.make_graph(
        nodes,
        "maps",
        [helper.make_tensor_value_info(INPUT, TensorProto.UINT8, ["B", SIDE, TURN.columns, 3])],
        [helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, ["B", TURN.reference_size])],
        [shape, middle],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    how = Preprocessing(height=SIDE, width=TURN.columns)
    return write_bundle_of(path, model, {"ground": how, "aerial": how}, TURN.reference_size, "c" * 16, TURN)


def write_pairs(path: Path, pairs: int) -> Path:
    """A `pairs:` set for these bundles: noise images that match themselves."""
    path.mkdir()
    random = np.random.default_rng(0)
    for number in range(pairs):
        image = Image.fromarray(random.integers(0, 256, (SIDE, SIDE, 3), np.uint8))
        for branch in BRANCHES:
            image.save(path / f"{branch}{number}.png")
    rows = [f"ground{number}.png,aerial{number}.png\n" for number in range(pairs)]
    (path / "pairs.csv").write_text("ground,aerial\n" + "".join(rows))
    return path


def _entry(path: Path, spec: BranchSpec) -> EngineEntry:
    file = path / f"{spec.branch}.onnx"
    return EngineEntry(file=file.name, bytes=file.stat().st_size, sha256=sha256(file), spec=spec)


def _graph(seed: int) -> onnx.ModelProto:
    generator = np.random.default_rng(seed)
    constants: dict[str, NDArray[Any]] = {
        "middle": np.array(127.5, np.float32),
        "shape": np.array([-1, SIDE * SIDE * 3], np.int64),
        "projection": generator.normal(size=(SIDE * SIDE * 3, SIZE)).astype(np.float32),
    }
    nodes = [
        helper.make_node("Cast", [INPUT], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("Sub", ["pixels", "middle"], ["centred"]),
        helper.make_node("Reshape", ["centred", "shape"], ["flat"]),
        helper.make_node("MatMul", ["flat", "projection"], ["projected"]),
        helper.make_node("LpNormalization", ["projected"], [OUTPUT], axis=1, p=2),
    ]
    graph = helper.make_graph(
        nodes,
        "projection",
        [helper.make_tensor_value_info(INPUT, TensorProto.UINT8, ["B", SIDE, SIDE, 3])],
        [helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, ["B", SIZE])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
