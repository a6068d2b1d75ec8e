"""TensorRT plans on their way from the disk into an engine, or to a refusal that names the way out.

What stands above the calls into TensorRT is tested through fakes; none of it has run on a GPU yet.
"""

import re
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from geodtr.runtime.build_command import recompile_command
from geodtr.runtime.engines.base import EngineFiles, explained
from geodtr.runtime.engines.tensorrt.cuda import out_of_memory
from geodtr.runtime.engines.tensorrt.library import Library
from geodtr.runtime.errors import BundleError, UserError
from geodtr.runtime.manifest import BackendEntry, TensorRtEntry
from geodtr.runtime.spec import INPUT, OUTPUT

if TYPE_CHECKING:
    import tensorrt as trt


_NO_MEMORY = r"out ?of ?memory"
"""TensorRT's "Error Code 2: OutOfMemory", CUDA's "out of memory"."""


@dataclass(frozen=True, slots=True)
class Log:
    """A library's logger, which must outlive all objects created with it, and the last errors that it received."""

    library: Library
    logger: "trt.ILogger"
    complaints: deque[str]

    @property
    def why(self) -> str:
        return "; ".join(self.complaints) or "it gives no reason"

    def failed(self, what: str) -> Exception:
        """The error for what the library could not do; what it complained of is forgotten with it."""
        why = self.why
        self.complaints.clear()
        return out_of_memory() if re.search(_NO_MEMORY, why, re.IGNORECASE) else RuntimeError(f"{what}: {why}")


def open_log(library: Library) -> Log:
    """A silent logger that keeps the last errors for error messages."""
    base: Any = library.trt.ILogger
    complaints = deque[str](maxlen=3)

    class KeepErrors(base):  # type: ignore[misc] # its class is the library's, found at run time
        def __init__(self) -> None:
            base.__init__(self)

        def log(self, severity: "trt.ILogger.Severity", msg: str) -> None:
            if severity in (base.Severity.ERROR, base.Severity.INTERNAL_ERROR):
                complaints.append(msg)

    return Log(library, KeepErrors(), complaints)


def load_plan(plan: bytes, how: TensorRtEntry, log: Log, weights: Path | None) -> "trt.ICudaEngine | None":
    """The engine of a plan, refitted with the weights of the ONNX file `weights` if given; None, with the reason in
    `log`, if TensorRT refuses either.
    """
    trt = log.library.trt
    runtime = trt.Runtime(log.logger)
    # The plan's hash matches the manifest, and `open_embedders` requires the caller's consent.
    runtime.engine_host_code_allowed = how.version_compatible
    if how.dla_core is not None:
        runtime.DLA_core = how.dla_core
    engine = runtime.deserialize_cuda_engine(plan)
    if engine is None or weights is None:
        return engine
    refitter = trt.Refitter(engine, log.logger)
    parser = trt.OnnxParserRefitter(refitter, log.logger)
    return engine if parser.refit_from_file(str(weights)) and refitter.refit_cuda_engine() else None


def open_plan(engine: EngineFiles, backend: BackendEntry, how: TensorRtEntry, log: Log) -> "trt.ICudaEngine":
    """The engine of a bundle's plan. Raises BundleError when there is none, or it does not match the manifest;
    UserError when the GPU's memory is too little.
    """
    if engine.compiled is None:
        raise BundleError(refusal(engine, backend, "the bundle contains no plan"))
    with explained(log.library.name, engine.compiled):
        plan = load_plan(engine.compiled.read_bytes(), how, log, engine.graph if how.stripped else None)
    if plan is None:
        error = log.failed(f"{log.library.name} refuses it")
        raise error if isinstance(error, UserError) else BundleError(refusal(engine, backend, str(error)))
    takes_images, *gives = [plan.get_tensor_name(index) for index in range(plan.num_io_tensors)]
    size = engine.spec.preprocessing.shape
    takes = [(batch, *size) for batch in (how.min_batch, how.opt_batch, how.max_batch)]
    if (
        takes_images != INPUT
        or OUTPUT not in gives
        or (len(gives) > 1 and not how.expose_reductions)
        or [tuple(shape) for shape in plan.get_tensor_profile_shape(INPUT, 0)] != takes
        or plan.get_tensor_shape(OUTPUT)[-1] != engine.spec.descriptor_size
        or [plan.get_tensor_dtype(name).name for name in (INPUT, OUTPUT)] != ["UINT8", "FLOAT"]
    ):
        raise BundleError(refusal(engine, backend, "its input or output types or shapes differ from the manifest"))
    return plan


def exposed(plan: "trt.ICudaEngine") -> list[str]:
    """A plan's outputs other than the descriptors: nothing reads them, but they need memory."""
    names = [plan.get_tensor_name(index) for index in range(plan.num_io_tensors)]
    return [name for name in names if name not in (INPUT, OUTPUT)]


def refusal(engine: EngineFiles, backend: BackendEntry, reason: str) -> str:
    """Why a plan is not run, and the command that makes one that is."""
    return (
        f"{engine.compiled or engine.graph.parent} cannot run: {reason}. Build it here: {rebuild_here(engine, backend)}"
    )


def rebuild_here(engine: EngineFiles, backend: BackendEntry) -> str:
    """The command that compiles the bundle's graphs again on this machine."""
    return recompile_command(engine.graph.parent, backend)
