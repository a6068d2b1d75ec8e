"""Compare OpenVINO with ONNX Runtime layer by layer: python benchmarks/openvino_layers.py BUNDLE ground|aerial SPEC

Adds one tensor at a time to the outputs of the whole graph. Prints the smallest cosine between the two libraries over
the images, the largest difference, and the smallest cosine of the descriptors in the same compilation. The graph is not
cut after the tensor, because a fault may need the following layers. An additional output can prevent a fusion: if the
descriptors are then correct, that fusion is at fault.

ONEDNN_MAX_CPU_ISA=AVX512_CORE simulates a CPU without VNNI (the results equal emulated AVX2).
"""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from geodtr import open_bundle
from geodtr.runtime.embed.pipeline import load_batches
from geodtr.runtime.engines.onnxruntime import open_session
from geodtr.runtime.engines.openvino import open_model
from geodtr.runtime.names import BRANCHES
from geodtr.runtime.spec import INPUT, OUTPUT
from geodtr.training.data.spec import read_test_set

IMAGES = 8
_SHOWN = ("Conv", "MatMul", "Gemm", "Add", "Relu")


def main(bundle: str, branch: str, spec: str) -> None:
    (name,) = [known for known in BRANCHES if known == branch]
    opened = open_bundle(Path(bundle))
    entry = opened.manifest.engine(name)
    paths = read_test_set(spec).paths(name)[:IMAGES]
    images = next(load_batches(paths, entry.spec.preprocessing, IMAGES))
    graph = onnx.load(str(opened.path / entry.file))
    print(f"{'tensor':48} {'cosine':>8} {'largest':>9}  {'descriptors':>11}")
    for tensor in [node.output[0] for node in graph.graph.node if node.op_type in _SHOWN]:
        shown = with_output(graph, tensor).SerializeToString()
        expected = open_session(shown, optimisation="none").run([tensor, OUTPUT], {INPUT: images})
        results = open_model(shown).create_infer_request().infer({INPUT: images})
        actual = [results[output] for output in (tensor, OUTPUT)]
        at_tensor, at_output = (cosine(one, other) for one, other in zip(expected, actual, strict=True))
        print(f"{tensor[:48]:48} {at_tensor:8.5f} {np.abs(expected[0] - actual[0]).max():9.4f}  {at_output:11.5f}")


def with_output(graph: Any, tensor: str) -> Any:
    """A copy of `graph` with `tensor` as an additional output."""
    copied = type(graph)()
    copied.CopyFrom(graph)
    copied.graph.output.append(onnx.helper.make_tensor_value_info(tensor, onnx.TensorProto.FLOAT, None))
    return copied


def cosine(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    """The smallest cosine over the first axis."""
    a, b = (values.reshape(len(values), -1).astype(np.float64) for values in (one, other))
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return float((np.sum(a * b, axis=1) / np.maximum(lengths, 1e-30)).min())


if __name__ == "__main__":
    main(*sys.argv[1:])
