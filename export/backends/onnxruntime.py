"""Engines for ONNX Runtime: the typed graph, and the form it optimises that to on this machine."""

import errno
import os
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from geodtr.export.backends.base import Builder, Compiled
from geodtr.export.backends.options import OnnxRuntimeOptions, backend_words
from geodtr.runtime.engines.onnxruntime import check_installation, check_provider, open_session, optimisation_of
from geodtr.runtime.errors import BundleError, ConfigError
from geodtr.runtime.machine import cpu_dialect, this_cpu
from geodtr.runtime.manifest import BackendEntry
from geodtr.runtime.names import QUANTISED, Dialect, Precision
from geodtr.runtime.preflight import check_cpu_dialect
from geodtr.runtime.progress import Track
from geodtr.runtime.spec import INPUT, BranchSpec

_BIAS = 6  # its place among the inputs of MatMulIntegerToFloat


class OnnxRuntimeBuilder(Builder):
    """ONNX Runtime on the CPU, or on a GPU by its CUDA or TensorRT provider."""

    def __init__(self, options: OnnxRuntimeOptions, dialect: Dialect | None) -> None:
        self._asked = options
        self._provider = options.provider
        self.dialect = dialect or (cpu_dialect() if options.provider == "cpu" else "tensorrt")
        if self._provider != "cpu" and self.dialect != "tensorrt":
            raise ConfigError(
                f"The {self._provider} provider runs no INT8 graph of the {self.dialect} dialect: name tensorrt, or "
                "no --dialect at all."
            )

    def check(self, precision: Precision) -> BackendEntry:
        check_provider(self._provider)
        if precision in QUANTISED and precision != "fp8":
            runs = check_cpu_dialect(self.dialect)
            if runs.failed:
                raise ConfigError(f"{runs.found} Leave --dialect out, or build on the machine that it is for.")
        machine = this_cpu() if self._provider == "cpu" else None
        return BackendEntry(
            name="onnxruntime",
            version=check_installation(),
            provider=self._provider,
            machine=machine,
            options=tuple(backend_words(self._asked)),
        )

    def compile(
        self, graph: Path, spec: BranchSpec, precision: Precision, out: Path, *, track: Track
    ) -> Compiled | None:
        """On the CPU, the optimised graph: opening it takes a third of the time. GPU providers optimise on opening."""
        if self._provider != "cpu":
            return None
        file = out / f"{spec.branch}.optimised.onnx"
        try:
            for each in track((graph,), f"Building the {spec.branch} engine", 1):
                open_session(each, optimisation=optimisation_of(precision), save_optimised=file)
        except BundleError:
            # On a full disk, ONNX Runtime reports that its serialisation failed.
            if shutil.disk_usage(out).free < graph.stat().st_size:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(file)) from None
            raise
        if precision == "int8":
            _finish(file)
        return Compiled(file, {})


def _finish(file: Path) -> None:
    """Rewrite the optimised 8-bit graph `file` where ONNX Runtime (1.32) passes over values once more than it needs to,
    or slowly. What it computes stays the same.
    """
    import onnx

    model = onnx.load(str(file), load_external_data=False)
    _move_biases(model.graph)
    _repeat_pixel_constants(model.graph)
    onnx.save(model, str(file))


def _move_biases(graph: Any) -> None:
    """Let 8-bit matrix products in `graph` add the biases that follow them, where only these read the products.

    Source: ONNX Runtime's contrib operators, MatMulIntegerToFloat, whose last input is a bias. The optimiser leaves
    the bias to an addition or to BiasGelu: another pass over all values, and the latter is slower than Gelu.
    """
    shapes = {entry.name: list(entry.dims) for entry in graph.initializer}
    products = {node.output[0]: node for node in graph.node if node.op_type == "MatMulIntegerToFloat"}
    read = [name for node in graph.node for name in node.input] + [output.name for output in graph.output]
    readers = Counter(read)
    for node in list(graph.node):
        if node.op_type not in ("Add", "BiasGelu"):
            continue
        for value, bias in (node.input, reversed(node.input)):
            product = products.get(value)
            if product is None or readers[value] > 1 or len(product.input) > _BIAS:
                continue
            if len(shapes.get(bias, ())) != 1 or shapes[bias] != shapes.get(product.input[1], [])[-1:]:
                continue
            product.input.extend([""] * (_BIAS - len(product.input)) + [bias])
            if node.op_type == "Add":
                product.output[0] = node.output[0]
                graph.node.remove(node)
            else:
                node.op_type = "Gelu"
                node.input[:] = [value]
            break


def _repeat_pixel_constants(graph: Any) -> None:
    """Give mean and std in `graph` a value for each channel of each column, where pixels stay [B, H, W, 3].

    Three values at the end are repeated in steps of three, several times slower than whole rows.
    """
    from onnx import numpy_helper

    stored = {entry.name: entry for entry in graph.initializer}
    columns = graph.input[0].type.tensor_type.shape.dim[2].dim_value
    value = INPUT
    for node in graph.node:
        if value not in node.input or node.op_type not in ("Cast", "Div", "Sub"):
            continue
        for index, name in enumerate(node.input):
            if name not in stored or list(stored[name].dims) not in ([3], [1, 1, 1, 3]):
                continue
            row = np.tile(numpy_helper.to_array(stored[name]).reshape(3), (columns, 1))
            node.input[index] = f"{name}_of_each_column"
            graph.initializer.append(numpy_helper.from_array(row, node.input[index]))
        value = node.output[0]
