"""Engines for OpenVINO: the typed graph, and the compiled model of this machine."""

from pathlib import Path

from geodtr.export.backends.base import Builder, Compiled
from geodtr.export.backends.options import OpenVinoOptions, backend_words
from geodtr.runtime.engines.openvino import PRECISIONS, check_installation, layers, open_model
from geodtr.runtime.errors import BuildError, ConfigError
from geodtr.runtime.machine import cpu_dialect, this_cpu
from geodtr.runtime.manifest import BackendEntry
from geodtr.runtime.names import Dialect, Precision, asked_as
from geodtr.runtime.progress import Track
from geodtr.runtime.spec import BranchSpec


class OpenVinoBuilder(Builder):
    """OpenVINO on the CPU."""

    def __init__(self, dialect: Dialect | None) -> None:
        self.dialect = dialect or cpu_dialect()

    def check(self, precision: Precision) -> BackendEntry:
        """Raises ConfigError for a precision that OpenVINO lacks, or for 8-bit weights on a CPU that adds their
        products in 16 bits, which overflow.
        """
        if precision not in PRECISIONS:
            raise ConfigError(
                f"OpenVINO computes no {precision} on a CPU. Name one of {', '.join(map(asked_as, PRECISIONS))}, or "
                "another --backend."
            )
        if precision in ("int8", "mixed") and self.dialect != "cpu-7bit" and not this_cpu().exact_8bit:
            raise ConfigError(
                f"This CPU has no VNNI, and OpenVINO's sums of 8-bit products overflow on it: {self.dialect} would "
                "give wrong descriptors. Name --dialect cpu-7bit, or no --dialect at all."
            )
        options = tuple(backend_words(OpenVinoOptions()))
        return BackendEntry(name="openvino", version=check_installation(), machine=this_cpu(), options=options)

    def compile(self, graph: Path, spec: BranchSpec, precision: Precision, out: Path, *, track: Track) -> Compiled:
        """The compiled model, which opens faster than the graph. Raises BuildError when a layer is computed in another
        precision than float32, or, of a quantised graph, none in INT8.
        """
        (compiled,) = [open_model(each) for each in track((graph,), f"Building the {spec.branch} engine", 1)]
        got = layers(compiled)
        wanted = {"fp32", "int8"} if precision in ("int8", "mixed") else {"fp32"}
        if set(got) - wanted or (len(wanted) > 1 and "int8" not in got):
            counts = ", ".join(f"{number} {name}" for name, number in got.items())
            raise BuildError(
                f"OpenVINO computes the {spec.branch} branch's convolutions and products as {counts}; {precision} was "
                "asked for. Nothing was written. Build for --backend onnxruntime."
            )
        file = out / f"{spec.branch}.blob"
        file.write_bytes(compiled.export_model().getvalue())
        return Compiled(file, got)
