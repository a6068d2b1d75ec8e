"""Running an ONNX file with ONNX Runtime."""

from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

import numpy as np

from geodtr.runtime.engines.opening import AS_IT_LIKES, EngineFiles, EngineOptions
from geodtr.runtime.errors import BundleError, MissingDependency
from geodtr.runtime.machine import this_cpu
from geodtr.runtime.manifest import BackendEntry
from geodtr.runtime.names import Precision, Provider
from geodtr.runtime.spec import INPUT, OUTPUT, BranchSpec, Descriptors, Embedder, Images

_BUILDS = ("onnxruntime", "onnxruntime-gpu")
PROVIDERS: dict[Provider, str] = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
}

Optimisation = Literal["all", "basic", "none"]
_LEVELS: dict[Optimisation, str] = {"all": "ORT_ENABLE_ALL", "basic": "ORT_ENABLE_BASIC", "none": "ORT_DISABLE_ALL"}


def optimisation_of(precision: Precision) -> Optimisation:
    """How far graphs of `precision` may be rewritten. The rewriting of Q/DQ pairs takes FP8 for INT8: a convolution
    followed by an addition gives other numbers then (onnxruntime 1.32, CPU).
    """
    return "basic" if precision == "fp8" else "all"


class OnnxRuntimeEmbedder:
    """One branch's graph in an ONNX Runtime session."""

    def __init__(self, session: Any, spec: BranchSpec, name: Path) -> None:
        self._spec = spec
        self._session = session
        size = (spec.preprocessing.height, spec.preprocessing.width)
        takes, gives = self._session.get_inputs(), self._session.get_outputs()
        if [entry.name for entry in (*takes, *gives)] != [INPUT, OUTPUT] or tuple(takes[0].shape[1:3]) != size:
            raise BundleError(
                f"{name} does not take uint8 images of {size[0]}x{size[1]} pixels. Build the bundle again."
            )
        if gives[0].shape[-1] != spec.descriptor_size:
            raise BundleError(f"{name} does not give descriptors of {spec.descriptor_size}. Build the bundle again.")

    @property
    def spec(self) -> BranchSpec:
        return self._spec

    def embed(self, images: Images) -> Descriptors:
        """[B, H, W, 3] -> [B, D], unit rows."""
        (descriptors,) = self._session.run(None, {INPUT: np.ascontiguousarray(images)})
        return np.asarray(descriptors, dtype=np.float32)


def open_embedders(engines: Sequence[EngineFiles], backend: BackendEntry, options: EngineOptions) -> list[Embedder]:
    """Open each engine in a session of its own: the optimised graph where it was made for this very machine and
    version, else the graph itself, which the session optimises.
    """
    made_here = backend.machine == this_cpu() and backend.version == check_installation()
    opened: list[Embedder] = []
    for engine in engines:
        if engine.compiled is not None and made_here:
            session = open_session(engine.compiled, backend.provider, options, optimisation="none")
        else:
            optimisation = optimisation_of(engine.precision)
            session = open_session(engine.graph, backend.provider, options, optimisation=optimisation)
        opened.append(OnnxRuntimeEmbedder(session, engine.spec, engine.graph))
    return opened


def open_session(
    model: Path | bytes,
    provider: Provider = "cpu",
    options: EngineOptions = AS_IT_LIKES,
    *,
    optimisation: Optimisation = "all",
    save_optimised: Path | None = None,
) -> Any:
    """An `InferenceSession` of a file or a serialised model, on `provider` and, for what it does not take, the CPU.

    A model that was written by `save_optimised` is taken as it is, with the optimisation "none".
    Raises MissingDependency when the build has no such provider, BundleError when ONNX Runtime refuses the model.
    """
    check_provider(provider)
    import onnxruntime

    session = onnxruntime.SessionOptions()
    session.log_severity_level = 3
    if options.threads is not None:
        session.intra_op_num_threads = options.threads
    session.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, _LEVELS[optimisation])
    if save_optimised is not None:
        session.optimized_model_filepath = str(save_optimised)
    source, name = (model, "the model") if isinstance(model, bytes) else (str(model), str(model))
    asked = [PROVIDERS[provider]] + [PROVIDERS["cpu"]] * (provider != "cpu")
    try:
        opened = onnxruntime.InferenceSession(source, session, providers=asked)
    except Exception as error:  # ONNX Runtime's exceptions share no base class of their own
        raise BundleError(f"ONNX Runtime {onnxruntime.__version__} refuses {name}: {error}") from error
    # A provider that fails to start is left out with a mere warning.
    if opened.get_providers()[0] != PROVIDERS[provider]:
        raise MissingDependency(
            f"ONNX Runtime could not start its {provider} provider and would have run {name} on the CPU. Is the GPU's "
            "driver there? Otherwise build for this machine: geodtr-export build-engine ... --provider cpu"
        )
    return opened


def check_provider(provider: Provider) -> None:
    """Raise MissingDependency unless the installed build of ONNX Runtime has `provider`."""
    check_installation()
    import onnxruntime

    there = onnxruntime.get_available_providers()
    if PROVIDERS[provider] not in there:
        known = ", ".join(name for name, long in PROVIDERS.items() if long in there)
        raise MissingDependency(
            f"The installed ONNX Runtime has no {provider} provider (it has: {known}). For a GPU: pip uninstall -y "
            "onnxruntime && pip install 'geodtr-export[gpu]'"
        )


def check_installation() -> str:
    """The installed build's version. Raises MissingDependency when none is installed, or two that break each other."""
    installed = {}
    for name in _BUILDS:
        try:
            installed[name] = version(name)
        except PackageNotFoundError:
            continue
    if not installed:
        raise MissingDependency("ONNX Runtime is not installed: pip install 'geodtr-export[cpu]'.")
    if len(installed) > 1:
        raise MissingDependency(
            "onnxruntime and onnxruntime-gpu are both installed; they share one module and break each other. Keep one: "
            "pip uninstall -y onnxruntime onnxruntime-gpu && pip install 'geodtr-export[cpu]'"
        )
    return next(iter(installed.values()))
