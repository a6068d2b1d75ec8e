"""Error by layer: each node's output in the typed graph, compared with the float32 graph's node of the same name.

ONNX Runtime computes both node by node, on the same images, each graph from its own inputs: a node's error contains the
error of its inputs, so the worst cosine of its inputs is reported beside it.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geodtr.calibration.activations import open_giving
from geodtr.calibration.operators import operators
from geodtr.export.cosines import cosines
from geodtr.export.parity.measurements import LayerAgreement
from geodtr.export.parity.measures.audit import precisions
from geodtr.runtime.bundle import Bundle
from geodtr.runtime.errors import ConfigError
from geodtr.runtime.names import BRANCHES, Branch
from geodtr.runtime.progress import Track, untracked
from geodtr.runtime.spec import INPUT, Images, Preprocessing
from geodtr.training.data.pair_set import PairSet
from geodtr.training.evaluation.evaluate import load_first

Values = NDArray[np.float32]

_IMAGES, _AT_ONCE = 8, 8
_MOVES = frozenset({"Reshape", "Transpose", "Squeeze", "Unsqueeze", "Gather", "Cast", "Identity", "Flatten", "Expand"})
"""Operators that change no value: their error is another's."""


def layer_agreements(
    exact: Bundle, typed: Bundle, pair_set: PairSet, *, track: Track = untracked
) -> tuple[LayerAgreement, ...]:
    """Every node that computes floating-point values and stands in both bundles' graphs, ground first, in the float32
    graph's order. The two take the same images: see check_layers.
    """
    return tuple(each for branch in BRANCHES for each in _branch(exact, typed, branch, pair_set, track))


def check_layers(exact: Bundle | None, typed: Bundle) -> None:
    """Raise ConfigError unless the layers of `typed` can be compared with `exact`, float32 graphs, if there are any."""
    if exact is None:
        why = "the reference has no float32 graph"
    else:
        other = [branch for branch in BRANCHES if _takes(exact, branch) != _takes(typed, branch)]
        if not other:
            return
        why = f"its {other[0]} branch takes other images than the reference"
    raise ConfigError(
        f"The layers of {typed.path} cannot be compared: {why}. Leave --layers out, or name the checkpoint as "
        "REFERENCE."
    )


def _takes(bundle: Bundle, branch: Branch) -> Preprocessing:
    return bundle.manifest.engine(branch).spec.preprocessing


def _branch(exact: Bundle, typed: Bundle, branch: Branch, pair_set: PairSet, track: Track) -> Iterator[LayerAgreement]:
    import onnx

    entries = [bundle.manifest.engine(branch) for bundle in (exact, typed)]
    images = load_first(pair_set, _IMAGES, typed.manifest.engine(branch).spec)
    before, after = (
        onnx.load(str(bundle.path / entry.file)) for bundle, entry in zip((exact, typed), entries, strict=True)
    )
    by_output = precisions(after)
    blocks = {operator.name: operator.block for operator in operators(before)}
    outputs = {(node.name, node.op_type): node.output[0] for node in after.graph.node}
    common = [
        (node, outputs[node.name, node.op_type])
        for node in before.graph.node
        if node.op_type not in _MOVES and (node.name, node.op_type) in outputs
    ]
    compared = _compare(before, after, [(node.output[0], there) for node, there in common], images, branch, track)
    worst = _worst_inputs(before, {name: cosine for name, (cosine, _) in compared.items()})
    for node, there in common:
        if node.output[0] in compared:
            cosine, error = compared[node.output[0]]
            block = blocks.get(node.name, "")
            yield LayerAgreement(
                branch, node.name, node.op_type, block, by_output[there], cosine, worst[node.output[0]], error
            )


def _compare(
    before: Any, after: Any, tensors: Sequence[tuple[str, str]], images: Images, branch: Branch, track: Track
) -> dict[str, tuple[float, float]]:
    """Smallest cosine and mean relative error of each floating-point tensor, by its name in `before`."""
    one = open_giving(before, [name for name, _ in tensors], "none")
    other = open_giving(after, [name for _, name in tensors], "none")
    agreements = {}
    starts = range(0, len(tensors), _AT_ONCE)
    for start in track(starts, f"Layers, {branch}", len(starts)):
        # Few at a time: the maps of all of them would fill the memory.
        some = tensors[start : start + _AT_ONCE]
        expected = one.run([name for name, _ in some], {INPUT: images})
        got = other.run([name for _, name in some], {INPUT: images})
        for (name, _), values, others in zip(some, expected, got, strict=True):
            if values.dtype.kind == others.dtype.kind == "f" and values.shape == others.shape:
                agreements[name] = _agreement(*(_rows(each, len(images)) for each in (values, others)))
    return agreements


def _agreement(expected: Values, got: Values) -> tuple[float, float]:
    length = np.linalg.norm(expected, axis=1)
    difference = np.linalg.norm(got - expected, axis=1)
    cosine = np.where(difference == 0, 1, cosines(expected, got))
    error = np.divide(difference, length, out=np.zeros_like(length), where=length > 0)
    return float(cosine.min()), float(error.mean())


def _rows(values: NDArray[Any], images: int) -> Values:
    """A row an image, where images are the first axis; else all of them as one."""
    rows = images if values.ndim and values.shape[0] == images else 1
    return values.reshape(rows, -1).astype(np.float32)


def _worst_inputs(graph: Any, cosine: dict[str, float]) -> dict[str, float]:
    """Of each node, by its output, the smallest cosine among what it reads: nodes that were not compared pass theirs
    on, constants and the images have 1.
    """
    worst, passed = dict[str, float](), dict[str, float]()
    for node in graph.graph.node:
        read = min((passed.get(name, 1.0) for name in node.input), default=1.0)
        for name in node.output:
            worst[name] = read
            passed[name] = cosine.get(name, read)
    return worst
