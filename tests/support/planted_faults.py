"""Known faults of engines, planted in real bundles: each edits the ONNX files and updates the manifest.

Each function changes the bundle in a folder, so that only a comparison or an inspection of the graph detects the fault.
"""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from geodtr.runtime.files import sha256
from geodtr.runtime.manifest import EngineEntry, Manifest, read_manifest, write_manifest
from geodtr.runtime.names import BRANCHES, Branch
from geodtr.runtime.spec import INPUT, OUTPUT

Fault = Callable[[Path], object]


class Edited:
    """One branch's graph of a bundle; leaving the `with` block writes it back and updates the manifest."""

    def __init__(self, bundle: Path, branch: Branch) -> None:
        self._bundle, self._branch = bundle, branch
        self._file = bundle / f"{branch}.onnx"
        self.model: Any = onnx.load(str(self._file))
        self.graph: Any = self.model.graph

    def __enter__(self) -> "Edited":
        return self

    def __exit__(self, *error: object) -> None:
        if error[0] is None:
            onnx.save(self.model, str(self._file))
            update_manifest(self._bundle, self._branch)

    def first(self, kind: str) -> Any:
        return next(node for node in self.graph.node if node.op_type == kind)

    def constant(self, name: str, value: NDArray[Any]) -> str:
        self.graph.initializer.append(numpy_helper.from_array(value, name))
        return name

    def value(self, name: str) -> NDArray[Any]:
        return np.asarray(numpy_helper.to_array(self._stored(name)))

    def replace(self, name: str, value: NDArray[Any]) -> None:
        self._stored(name).CopyFrom(numpy_helper.from_array(np.ascontiguousarray(value), name))

    def insert_after(self, tensor: str, *nodes: Any) -> None:
        """Insert `nodes` after `tensor`: its readers then read the last of `nodes`."""
        for node in self.graph.node:
            for index, name in enumerate(node.input):
                if name == tensor:
                    node.input[index] = nodes[-1].output[0]
        at = next((i + 1 for i, node in enumerate(self.graph.node) if tensor in node.output), 0)
        for offset, node in enumerate(nodes):
            self.graph.node.insert(at + offset, node)

    def _stored(self, name: str) -> Any:
        return next(entry for entry in self.graph.initializer if entry.name == name)


def update_manifest(bundle: Path, branch: Branch) -> None:
    """Make the manifest match the file, and run the graph itself as the engine."""
    file, manifest = bundle / f"{branch}.onnx", read_manifest(bundle)
    entry = msgspec.structs.replace(
        manifest.engine(branch), sha256=sha256(file), bytes=file.stat().st_size, compiled=None
    )
    write_manifest(bundle, _with_engine(manifest, branch, entry))


def _with_engine(manifest: Manifest, branch: Branch, entry: EngineEntry) -> Manifest:
    changed = {"ground": entry} if branch == "ground" else {"aerial": entry}
    return msgspec.structs.replace(manifest, **changed)


def old_pixel_order(bundle: Path) -> None:
    """Both graphs as they were exported before TensorRT's rule on uint8 was known."""
    for branch in BRANCHES:
        with Edited(bundle, branch) as edited:
            transposed_pixels(edited.model)


def transposed_pixels(model: Any) -> None:
    """Put Transpose before Cast, an order that TensorRT refuses."""
    graph = model.graph
    cast = next(node for node in graph.node if INPUT in node.input)
    transpose = next(node for node in graph.node if cast.output[0] in node.input)
    assert (cast.op_type, transpose.op_type) == ("Cast", "Transpose")
    given, between, last = cast.input[0], cast.output[0], transpose.output[0]
    transpose.input[0], transpose.output[0] = given, between
    cast.input[0], cast.output[0] = between, last
    graph.node.remove(transpose)
    graph.node.insert(0, helper.make_node("Transpose", [given], [between], perm=[0, 3, 1, 2]))
    # The inferred type of the tensor between them is no longer correct.
    kept = [entry for entry in graph.value_info if entry.name != between]
    del graph.value_info[:]
    graph.value_info.extend(kept)


def swapped_channels(bundle: Path) -> None:
    """Red and green are swapped in the ground branch."""
    with Edited(bundle, "ground") as edited:
        _channels(edited, [1, 0, 2])


def bgr(bundle: Path) -> None:
    """Both branches read blue, green, red, the order in which OpenCV decodes."""
    for branch in BRANCHES:
        with Edited(bundle, branch) as edited:
            _channels(edited, [2, 1, 0])


def _channels(edited: Edited, order: list[int]) -> None:
    rows = edited.constant("order", np.array(order, np.int64))
    edited.insert_after(INPUT, helper.make_node("Gather", [INPUT, rows], ["reordered"], axis=3))


def missing_normalisation(bundle: Path) -> None:
    """Pixels reach the ground network as 0 to 1: mean and deviation are not applied."""
    with Edited(bundle, "ground") as edited:
        subtracted = edited.first("Sub")
        scaled = next(node for node in edited.graph.node if subtracted.output[0] in node.input)
        for node in edited.graph.node:
            for index, name in enumerate(node.input):
                if name == scaled.output[0]:
                    node.input[index] = subtracted.input[0]


def quantised_arg_max(bundle: Path) -> None:
    """The saliency's arg-max reads values rounded to 8 bits, in the ground branch."""
    with Edited(bundle, "ground") as edited:
        read = edited.first("ArgMax").input[0]
        scale = edited.constant("arg-max scale", np.array(0.05, np.float32))
        zero = edited.constant("arg-max zero", np.array(0, np.uint8))
        edited.insert_after(
            read,
            helper.make_node("QuantizeLinear", [read, scale, zero], ["rounded"]),
            helper.make_node("DequantizeLinear", ["rounded", scale, zero], ["read back"]),
        )


def half_l2_norm(bundle: Path) -> None:
    """The descriptor's length is computed in half precision, where the sum of squares can overflow."""
    for branch in BRANCHES:
        with Edited(bundle, branch) as edited:
            norm = edited.first("ReduceL2")
            read, written = norm.input[0], norm.output[0]
            at = list(edited.graph.node).index(norm)
            edited.graph.node.insert(at, helper.make_node("Cast", [read], ["half"], to=TensorProto.FLOAT16))
            norm.input[0], norm.output[0] = "half", "half norm"
            edited.graph.node.insert(at + 2, helper.make_node("Cast", ["half norm"], [written], to=TensorProto.FLOAT))


def permuted_rows(bundle: Path) -> None:
    """Each row of a batch is returned one index later; a batch of one is correct."""
    for branch in BRANCHES:
        with Edited(bundle, branch) as edited:
            last = next(node for node in edited.graph.node if OUTPUT in node.output)
            last.output[0] = "correct rows"
            _roll(edited, "correct rows", OUTPUT, axis=0)


def column_off(bundle: Path) -> None:
    """The polar-transformed tile is rotated by one column."""
    with Edited(bundle, "aerial") as edited:
        edited.insert_after(INPUT, *_rolled(edited, INPUT, "rotated", axis=2))


def column_off_in_graph(bundle: Path) -> None:
    """The polar transform in the aerial graph samples one column later."""
    with Edited(bundle, "aerial") as edited:
        grid = _grid(edited)
        edited.replace(grid, np.roll(edited.value(grid), 1, axis=2))


def other_interpolation(bundle: Path) -> None:
    """The polar transform in the aerial graph takes the nearest pixel instead of interpolating between four."""
    with Edited(bundle, "aerial") as edited:
        sample = edited.first("GridSample")
        (mode,) = (attribute for attribute in sample.attribute if attribute.name == "mode")
        mode.s = b"nearest"


def wrong_scale(bundle: Path, number: int = 0, factor: float = 0.5, branch: Branch = "ground") -> str:
    """One activation's range is wrong by `factor`: its values are clipped, or rounded to coarser steps."""
    with Edited(bundle, branch) as edited:
        scale = _activation_scales(edited)[number]
        edited.replace(scale, edited.value(scale) * np.float32(factor))
    return scale


def wrong_dequantisation_scale(bundle: Path) -> None:
    """One activation is quantised by its scale and dequantised by another."""
    with Edited(bundle, "ground") as edited:
        scale = _activation_scales(edited)[0]
        other = edited.constant("other scale", edited.value(scale) * np.float32(1.05))
        read_back = next(
            node for node in edited.graph.node if node.op_type == "DequantizeLinear" and node.input[1] == scale
        )
        read_back.input[1] = other


def overflow(bundle: Path) -> None:
    """The ground branch's descriptors overflow before they are divided by their length."""
    with Edited(bundle, "ground") as edited:
        read = edited.first("ReduceL2").input[0]
        edited.insert_after(
            read,
            helper.make_node("Mul", [read, edited.constant("large", np.array(1e30, np.float32))], ["larger"]),
            helper.make_node("Mul", ["larger", "large"], ["overflown"]),
        )


def compiled_from_another(bundle: Path, fault: "Fault") -> None:
    """The typed graphs are correct, and the files that ONNX Runtime compiled contain `fault`."""
    twin = shutil.copytree(bundle, bundle.with_name("twin"))
    fault(twin)
    for branch in BRANCHES:
        manifest = read_manifest(bundle)
        entry = manifest.engine(branch)
        assert entry.compiled is not None
        file = bundle / entry.compiled.file
        shutil.copyfile(twin / entry.file, file)
        compiled = msgspec.structs.replace(entry.compiled, sha256=sha256(file), bytes=file.stat().st_size)
        write_manifest(bundle, _with_engine(manifest, branch, msgspec.structs.replace(entry, compiled=compiled)))


def activation_scales(bundle: Path, branch: Branch) -> list[str]:
    """The scales by which activations are quantised, in the graph's order."""
    return _activation_scales(Edited(bundle, branch))


def readers(bundle: Path, scale: str) -> set[str]:
    """The nodes of the ground graph that read the tensor quantised by `scale`."""
    nodes = Edited(bundle, "ground").graph.node
    read_back = {node.output[0] for node in nodes if node.op_type == "DequantizeLinear" and node.input[1] == scale}
    return {node.name for node in nodes if read_back & set(node.input)}


def _activation_scales(edited: Edited) -> list[str]:
    return list(dict.fromkeys(node.input[1] for node in edited.graph.node if node.op_type == "QuantizeLinear"))


def _grid(edited: Edited) -> str:
    """The constant with the sampling positions of the polar transform."""
    producer = {name: node for node in edited.graph.node for name in node.output}
    name = edited.first("GridSample").input[1]
    while name in producer:
        name = producer[name].input[0]
    return str(name)


def _roll(edited: Edited, tensor: str, into: str, axis: int) -> None:
    edited.graph.node.extend(_rolled(edited, tensor, into, axis))


def _rolled(edited: Edited, tensor: str, into: str, axis: int) -> list[Any]:
    """Nodes that put the last entry along `axis` before the others."""
    bounds = {"first": 0, "last": -1, "end": np.iinfo(np.int64).max, "axis": axis}
    names = {key: edited.constant(f"{into} {key}", np.array([value], np.int64)) for key, value in bounds.items()}
    return [
        helper.make_node("Slice", [tensor, names["last"], names["end"], names["axis"]], [f"{into} tail"]),
        helper.make_node("Slice", [tensor, names["first"], names["last"], names["axis"]], [f"{into} head"]),
        helper.make_node("Concat", [f"{into} tail", f"{into} head"], [into], axis=axis),
    ]
