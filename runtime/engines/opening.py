"""From a bundle's files to embedders: which backend runs them, and how.

A backend is one module with `open_embedders`; a new one is its file, its name, and its line here.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from geodtr.runtime.manifest import BackendEntry
from geodtr.runtime.names import Precision
from geodtr.runtime.spec import BranchSpec, Embedder


@dataclass(frozen=True, slots=True)
class EngineFiles:
    """One branch's engine on disk, hashes verified: its typed ONNX graph, and what the backend compiled it to."""

    spec: BranchSpec
    precision: Precision
    graph: Path
    compiled: Path | None = None


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """How engines are run. `threads`: of the processor, for one embedder; None leaves the number to the backend.
    `trust_host_code`: version-compatible TensorRT plans may run the program code that they carry.
    """

    threads: int | None = None
    trust_host_code: bool = False


AS_IT_LIKES = EngineOptions()
"""All left to the backend."""


def open_embedders(engines: Sequence[EngineFiles], backend: BackendEntry, options: EngineOptions) -> list[Embedder]:
    """Open the engines of one bundle together. Raises MissingDependency, or BundleError when they cannot run here."""
    if backend.name in ("onnx", "onnxruntime"):
        from geodtr.runtime.engines.onnxruntime import open_embedders as open_onnxruntime

        return open_onnxruntime(engines, backend, options)
    if backend.name == "openvino":
        from geodtr.runtime.engines.openvino import open_embedders as open_openvino

        return open_openvino(engines, backend, options)
    if backend.name == "tensorrt":
        from geodtr.runtime.engines.tensorrt import open_embedders as open_tensorrt

        return open_tensorrt(engines, backend, options)
    raise AssertionError(backend.name)
