"""The manifest's entries for the engines: files, compiler and its options, and the source checkpoint."""

from typing import Literal

import msgspec

from geodtr.runtime.machine import Machine
from geodtr.runtime.names import Backend, Hardware, Provider
from geodtr.runtime.spec import BranchSpec


class FileEntry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A file of the bundle, with its size in bytes and its SHA-256."""

    file: str
    bytes: int
    sha256: str


class CompiledEntry(FileEntry, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A graph that a backend compiled for one kind of machine.

    `layers` counts the layers by the precision that the backend reports for them; it is empty where it reports none.
    `wider` names the operators that the backend computes in a wider type than the graph requests.
    """

    layers: dict[str, int] = {}
    wider: tuple[str, ...] = ()


class EngineEntry(FileEntry, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One branch's engine: its boundary, its typed ONNX graph, and the form that the backend compiled it to, if any.

    `weights`: the file beside the graph that holds the tensors of both branches, where one network serves both.
    """

    spec: BranchSpec
    weights: FileEntry | None = None
    compiled: CompiledEntry | None = None

    @property
    def graph_files(self) -> tuple[FileEntry, ...]:
        """All of the typed graph."""
        return (self,) if self.weights is None else (self, self.weights)

    @property
    def files(self) -> tuple[FileEntry, ...]:
        return self.graph_files if self.compiled is None else (*self.graph_files, self.compiled)


class TensorRtEntry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a loader of TensorRT plans must know before it touches one.

    Batches: of the optimisation profile; fewer rows are padded, more are cut. `hardware`: the GPUs that the plan may
    run on. `dla_core`: the accelerator that runs what it can. `stripped`: the plan holds no weights, the graph beside
    it does. `refittable`: it takes another model's. `workspace` (in MiB) and `optimisation_level` serve to build it
    again. `expose_reductions`: reductions are outputs of the network, to keep TensorRT from fusing across them.
    `compute_capabilities`: of the GPUs that a plan of TensorRT-RTX is for, like "8.9".
    """

    min_batch: int
    opt_batch: int
    max_batch: int
    version_compatible: bool = False
    hardware: Hardware = "same-gpu"
    dla_core: int | None = None
    stripped: bool = False
    refittable: bool = False
    workspace: int | None = None
    optimisation_level: int | None = None
    expose_reductions: bool = False
    compute_capabilities: tuple[str, ...] = ()


def runs_by(backend: Backend, provider: Provider) -> str:
    """The library, and its provider where it is not the CPU's."""
    return backend if provider == "cpu" else f"{backend} {provider}"


class BackendEntry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Who made the engine files, and the version that did. `onnx`: exported graphs that no backend has compiled yet,
    which ONNX Runtime runs as they are. `machine` is the kind that compiled files are for; `tensorrt` how plans were.
    `executed`: the engines ran where they were built, and passed their checks; else the graphs alone did. `options`: of
    `build-engine`, as they are typed, that ask for this backend in the same way.
    """

    name: Backend | Literal["onnx"]
    version: str
    provider: Provider = "cpu"
    machine: Machine | None = None
    tensorrt: TensorRtEntry | None = None
    executed: bool = True
    options: tuple[str, ...] = ()

    @property
    def runs_by(self) -> str:
        """What computes, in words: the library, and its provider where it is not the CPU's."""
        return runs_by("onnxruntime" if self.name == "onnx" else self.name, self.provider)

    @property
    def targets(self) -> str | None:
        """The GPUs that engines of TensorRT-RTX are for, in words, and whether they have run."""
        if self.tensorrt is None or not self.tensorrt.compute_capabilities:
            return None
        gpus = f"for GPUs of compute capability {', '.join(self.tensorrt.compute_capabilities)}"
        if self.executed:
            return gpus
        return f"{gpus}; built, not executed: without such a GPU at hand its graphs alone were checked"


class WhiteningTrial(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A strength of whitening, and the hits at rank 1 that projections have with it on the pairs held out."""

    whitening: float
    hits: int


class ProjectionEntry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The projection at the end of both graphs, which makes the model's descriptors of `full_size` numbers shorter.

    `of`: the embedding id of the model without it. `data`: the SPEC of the `pairs` that it was fitted to, whose images
    `data_sha256` covers. `variance`: the share that it keeps, of 1. `whitening`, from 0 to 1, is one of `trials`,
    chosen by the hits on `queries` pairs, each held out once; `full_hits`: of the model's own on the same pairs;
    `layer_hits`: of a linear layer that was trained from there on, None before schema 6. `is_trained`: whether that is
    the projection.
    """

    of: str
    full_size: int
    data: str
    data_sha256: str
    pairs: int
    variance: float
    whitening: float
    queries: int
    full_hits: int
    trials: tuple[WhiteningTrial, ...]
    layer_hits: int | None = None
    is_trained: bool = False

    def __post_init__(self) -> None:
        if (self.layer_hits is None and self.is_trained) or self.whitening not in self._by_strength:
            raise ValueError("the projection that was chosen is none of its trials")

    @property
    def hits(self) -> int:
        """Of the projection that was chosen, on the pairs held out."""
        of_layer = self.layer_hits if self.is_trained else None
        return self._by_strength[self.whitening] if of_layer is None else of_layer

    @property
    def _by_strength(self) -> dict[float, int]:
        return {trial.whitening: trial.hits for trial in self.trials}


class SourceEntry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The checkpoint that the engines were built from: its file's SHA-256, its origin in words, and its training data.

    `raw_tiles`: side in pixels of the square tiles that the aerial graph polar-transforms itself; None if it does not.
    """

    sha256: str
    origin: str
    trained_on: str | None = None
    raw_tiles: int | None = None
