"""What a backend is to the engine builder, and which backends there are."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from geodtr.export.backends.tensorrt.options import TensorRtOptions
from geodtr.runtime.errors import ConfigError
from geodtr.runtime.manifest import BackendEntry
from geodtr.runtime.names import Backend, Dialect, Precision, Provider
from geodtr.runtime.progress import Track
from geodtr.runtime.spec import BranchSpec


@dataclass(frozen=True, slots=True)
class Compiled:
    """A file that a backend made of a typed graph; `layers` counts them by the precision they got, where it tells, and
    `wider` names the operators that did not get the graph's.
    """

    file: Path
    layers: dict[str, int]
    wider: tuple[str, ...] = ()


class Builder(Protocol):
    """One backend with its options: compiles what it is given, and never changes a precision."""

    @property
    def dialect(self) -> Dialect:
        """How it wants quantised graphs."""
        ...

    def check(self, precision: Precision) -> BackendEntry:
        """This backend as it is installed. Raises MissingDependency when it is not, ConfigError when it cannot run
        `precision`: before any work is done.
        """
        ...

    def compile(
        self, graph: Path, spec: BranchSpec, precision: Precision, out: Path, *, track: Track
    ) -> Compiled | None:
        """Compile the typed ONNX file `graph` into a file of its own in the folder `out`; None where the graph itself
        is all that is run. Raises BuildError when a layer did not get the precision that the graph says.
        """
        ...

    def another_way(self, fault: str) -> "Builder | None":
        """What may build an engine that computes what its graph says where this one's did not (`fault`: in words); None
        where there is nothing else to try.
        """
        ...


@dataclass(frozen=True, slots=True)
class BuildOptions:
    """What a user may ask of a backend; each takes what concerns it.

    `provider`: what ONNX Runtime computes with. `dialect`: of quantised graphs, None for this machine's own.
    `tensorrt`: what was asked of TensorRT or TensorRT-RTX, None for nothing.
    """

    provider: Provider = "cpu"
    dialect: Dialect | None = None
    tensorrt: TensorRtOptions | None = None


def unheard(text: str) -> None:
    """The default: what a build has to say beside its result is told to nobody."""
    del text


def make_builder(backend: Backend, options: BuildOptions, *, notice: Callable[[str], None] = unheard) -> Builder:
    """The builder of `backend`; `notice` hears what the user should know of a build and need not mend.

    Raises ConfigError when an option is not for it.
    """
    if backend not in ("tensorrt", "tensorrt-rtx") and options.tensorrt is not None:
        raise ConfigError(
            f"{', '.join(options.tensorrt.asked)}: for --backend tensorrt or tensorrt-rtx, not {backend}. Leave out "
            "what is not for it."
        )
    if backend != "onnxruntime" and options.provider != "cpu":
        raise ConfigError(f"--provider is for --backend onnxruntime, not {backend}: leave it out.")
    if backend == "tensorrt":
        from geodtr.export.backends.tensorrt.builder import TensorRtBuilder

        return TensorRtBuilder(options, notice)
    if backend == "tensorrt-rtx":
        from geodtr.export.backends.tensorrt.rtx import RtxBuilder

        return RtxBuilder(options, notice)
    if backend == "onnxruntime":
        from geodtr.export.backends.onnxruntime import OnnxRuntimeBuilder

        return OnnxRuntimeBuilder(options)
    if backend == "openvino":
        from geodtr.export.backends.openvino import OpenVinoBuilder

        return OpenVinoBuilder(options)
    raise AssertionError(backend)
