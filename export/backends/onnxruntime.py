"""Engines for ONNX Runtime: the typed graph, and the form it optimises that to on this machine."""

import errno
import os
import shutil
from pathlib import Path

from geodtr.export.backends.base import Builder, Compiled
from geodtr.export.backends.options import OnnxRuntimeOptions, backend_words
from geodtr.runtime.engines.onnxruntime import check_installation, check_provider, open_session, optimisation_of
from geodtr.runtime.errors import BundleError, ConfigError
from geodtr.runtime.machine import cpu_dialect, this_cpu
from geodtr.runtime.manifest import BackendEntry
from geodtr.runtime.names import QUANTISED, Dialect, Precision
from geodtr.runtime.preflight import check_cpu_dialect
from geodtr.runtime.progress import Track
from geodtr.runtime.spec import BranchSpec


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
        return Compiled(file, {})
