"""A compiler with a fault: its engine computes something other than its graph."""

from pathlib import Path

import onnx

from geodtr import OnnxRuntimeOptions
from geodtr.export.backends.base import Builder, Compiled
from geodtr.export.backends.registry import make_builder
from geodtr.runtime.manifest import BackendEntry
from geodtr.runtime.names import Precision
from geodtr.runtime.progress import Track
from geodtr.runtime.spec import BranchSpec

ONNXRUNTIME = make_builder(OnnxRuntimeOptions())


class Faulty:
    """Compiles a changed copy of the aerial graph and leaves the graph itself unchanged."""

    def __init__(self, real: Builder = ONNXRUNTIME) -> None:
        self._real = real
        self.dialect = real.dialect

    def check(self, precision: Precision) -> BackendEntry:
        return self._real.check(precision)

    def compile(
        self, graph: Path, spec: BranchSpec, precision: Precision, out: Path, *, track: Track
    ) -> Compiled | None:
        if spec.branch == "ground":
            return self._real.compile(graph, spec, precision, out, track=track)
        model = onnx.load(str(graph))
        kernel = next(entry for entry in model.graph.initializer if len(entry.dims) == 4)
        kernel.CopyFrom(onnx.numpy_helper.from_array(-onnx.numpy_helper.to_array(kernel), kernel.name))
        (out / "elsewhere").mkdir()
        onnx.save(model, str(out / "elsewhere" / graph.name))
        return self._real.compile(out / "elsewhere" / graph.name, spec, precision, out, track=track)

    def another_way(self, fault: str) -> Builder | None:
        return self._real.another_way(fault)
