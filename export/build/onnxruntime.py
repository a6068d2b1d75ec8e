"""Building ONNX Runtime engines: the engine is the typed ONNX file itself, optimised as it is loaded."""

from pathlib import Path

from geodtr.calibration.activations import Activations
from geodtr.export.fp16 import to_fp16
from geodtr.export.graph_checks import check_fp16, check_int8
from geodtr.export.int8 import Int8Graph, to_int8
from geodtr.runtime.engines.onnxruntime import check_installation
from geodtr.runtime.manifest import BackendEntry
from geodtr.runtime.names import Precision


def backend_entry() -> BackendEntry:
    """This backend with its installed version. Raises MissingDependency when it is not installed."""
    return BackendEntry(name="onnxruntime", version=check_installation())


def build_typed(graph_file: Path, precision: Precision, out: Path) -> None:
    """Write one branch's float32 or FP16 engine file `out` from its float32 ONNX file."""
    import onnx

    graph = onnx.load(str(graph_file))
    if precision == "fp16":
        graph = to_fp16(graph)
        check_fp16(graph)
    onnx.save(graph, str(out))


def build_int8(graph_file: Path, activations: Activations, keep_cosine: float, out: Path) -> Int8Graph:
    """Write one branch's INT8 engine file `out`; returns what it wrote."""
    import onnx

    quantised = to_int8(onnx.load(str(graph_file)), activations, keep_cosine)
    check_int8(quantised.graph, quantised.kept_float)
    onnx.save(quantised.graph, str(out))
    return quantised
