"""Run an ONNX file with ONNX Runtime."""

import json
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import redirect_stdout
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

import numpy as np

from geodtr.runtime.build_command import rebuild_command, recompile_bundle
from geodtr.runtime.engines.base import (
    DEFAULT_OPTIONS,
    EngineFiles,
    EngineOptions,
    LayerTime,
    Port,
    as_descriptors,
    check_images,
    check_ports,
    explained,
    longest_first,
)
from geodtr.runtime.errors import BundleError, MissingDependency
from geodtr.runtime.installation import install_hint, pip
from geodtr.runtime.machine import this_cpu
from geodtr.runtime.manifest import BackendEntry, Manifest
from geodtr.runtime.names import BRANCHES, Precision, Provider
from geodtr.runtime.preflight import Finding, check_cpu_dialect, find_gpu, looked_at
from geodtr.runtime.spec import INPUT, BranchSpec, Descriptors, Embedder, Images

_BUILDS = ("onnxruntime", "onnxruntime-gpu")
PROVIDERS: dict[Provider, str] = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
}

Optimisation = Literal["all", "basic", "none"]
_LEVELS: dict[Optimisation, str] = {"all": "ORT_ENABLE_ALL", "basic": "ORT_ENABLE_BASIC", "none": "ORT_DISABLE_ALL"}

_WRONG = ["WeightBiasQuantization"]
"""It converts the float biases of convolutions between Q/DQ nodes to 32-bit integers and reads them back in the type of
the scales: half precision loses values beyond 65,504 steps (onnxruntime 1.32, CPU). A file that needs integer biases
already contains them."""


def optimisation_of(precision: Precision) -> Optimisation:
    """The highest safe optimisation level for `precision`. The rewriting of Q/DQ pairs confuses FP8 with INT8: a
    convolution followed by an addition gives wrong numbers (onnxruntime 1.32, CPU).
    """
    return "basic" if precision == "fp8" else "all"


class OnnxRuntimeEmbedder:
    """One branch's graph in an ONNX Runtime session."""

    def __init__(self, session: Any, spec: BranchSpec, name: Path) -> None:
        self.spec = spec
        self._session = session
        self._name = name
        check_ports(_ports(session.get_inputs()), _ports(session.get_outputs()), spec, name)

    def embed(self, images: Images) -> Descriptors:
        """[B, H, W, 3] -> [B, D], unit rows."""
        check_images(images, self.spec)
        with explained("ONNX Runtime", self._name):
            (rows,) = self._session.run(None, {INPUT: np.ascontiguousarray(images)})
        return as_descriptors(rows, images, self.spec, self._name)


_TYPES = {"tensor(uint8)": "uint8", "tensor(float)": "float32"}


def _ports(entries: Sequence[Any]) -> list[Port]:
    """Sizes that a graph leaves open have a name, or None."""
    return [
        Port(
            entry.name,
            _TYPES.get(entry.type, entry.type),
            tuple(side if isinstance(side, int) else None for side in entry.shape),
        )
        for entry in entries
    ]


def installed() -> Finding:
    """The installed ONNX Runtime; failed where two builds conflict."""
    if not any(map(_installed_version, _BUILDS)):
        return Finding(what="onnxruntime", found="not installed", remedy=install_hint("cpu"))
    return looked_at("onnxruntime", lambda: f"{check_installation()}, providers: {', '.join(_providers())}")


def check(bundle: Path, manifest: Manifest) -> Iterator[Finding]:
    """Another version or processor than at build time only costs time: the graph is optimised again."""
    backend = manifest.backend
    there = looked_at("onnxruntime", check_installation)
    yield there
    if there.failed:
        return
    yield looked_at("provider", lambda: check_provider(backend.provider))
    if backend.provider == "cpu":
        integers = manifest.precision != "fp8"
        dialect = manifest.quantisation.dialect if manifest.quantisation is not None and integers else None
        yield check_cpu_dialect(dialect, lambda: rebuild_command(bundle, manifest, changes={"--dialect": None}))
    else:
        yield find_gpu(needed=True)
    if any(manifest.engine(branch).compiled for branch in BRANCHES):
        yield _check_compiled(bundle, manifest)


def _check_compiled(bundle: Path, manifest: Manifest) -> Finding:
    backend = manifest.backend
    if _made_here(backend):
        return Finding(what="compiled", found="optimised for this version and processor")
    target = "another processor" if backend.machine != this_cpu() else f"ONNX Runtime {backend.version}"
    return Finding(
        what="compiled",
        found=f"optimised for {target}: not used here; the graph is optimised again at each opening, which is slower",
        remedy=recompile_bundle(bundle, manifest),
    )


def _made_here(backend: BackendEntry) -> bool:
    return backend.machine == this_cpu() and backend.version == check_installation()


def open_embedders(engines: Sequence[EngineFiles], backend: BackendEntry, options: EngineOptions) -> list[Embedder]:
    """Open each engine in its own session: the optimised graph if it was built with this machine and version,
    otherwise the original graph, which the session optimises.
    """
    return [OnnxRuntimeEmbedder(_open(engine, backend, options), engine.spec, engine.graph) for engine in engines]


def layer_times(
    engine: EngineFiles, backend: BackendEntry, options: EngineOptions, images: Images, calls: int
) -> list[LayerTime]:
    """Layer times from ONNX Runtime's profiler, after one warm-up call; the layers of the optimised graph."""
    with tempfile.TemporaryDirectory() as folder:
        session = _open(engine, backend, options, profile=Path(folder) / "layers")
        with explained("ONNX Runtime", engine.graph):
            for _ in range(calls + 1):
                session.run(None, {INPUT: images})
        events = json.loads(Path(session.end_profiling()).read_bytes())
    taken: dict[tuple[str, str], list[float]] = {}
    for event in events:
        name, is_kernel, _ = event["name"].rpartition("_kernel_time")
        if event["cat"] == "Node" and is_kernel:
            taken.setdefault((name, event["args"]["op_name"]), []).append(event["dur"] / 1e3)
    return longest_first(taken)


def _open(engine: EngineFiles, backend: BackendEntry, options: EngineOptions, profile: Path | None = None) -> Any:
    if engine.compiled is not None and _made_here(backend):
        return open_session(engine.compiled, backend.provider, options, optimisation="none", profile=profile)
    optimisation = optimisation_of(engine.precision)
    return open_session(engine.graph, backend.provider, options, optimisation=optimisation, profile=profile)


def open_session(
    model: Path | bytes,
    provider: Provider = "cpu",
    options: EngineOptions = DEFAULT_OPTIONS,
    *,
    optimisation: Optimisation = "all",
    save_optimised: Path | None = None,
    profile: Path | None = None,
    weights: Mapping[str, Any] | None = None,
) -> Any:
    """An `InferenceSession` for a file or a serialised model, on `provider`; the CPU runs operators that it lacks.

    Open a model that `save_optimised` wrote with the optimisation "none". `profile`: prefix of the file that the
    profiler writes. `weights`: an `OrtValue` for each initialiser that the model names as external data; sessions may
    share them.
    Raises MissingDependency when the build has no such provider, BundleError when ONNX Runtime refuses the model.
    """
    check_provider(provider)
    import onnxruntime

    session = onnxruntime.SessionOptions()
    session.log_severity_level = 3
    # As the graph lists them. By default, what is only looked at (calibration's extremes) is computed last, and all
    # tensors wait for it in memory.
    session.execution_order = onnxruntime.ExecutionOrder.PRIORITY_BASED
    if options.threads is not None:
        session.intra_op_num_threads = options.threads
    if not options.spin:
        session.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, _LEVELS[optimisation])
    if save_optimised is not None:
        session.optimized_model_filepath = str(save_optimised)
    if profile is not None:
        session.enable_profiling = True
        session.profile_file_prefix = str(profile)
    if weights:
        session.add_external_initializers(list(weights), list(weights.values()))
    source, name = (model, "the model") if isinstance(model, bytes) else (str(model), str(model))
    providers: list[str | tuple[str, dict[str, str]]] = [PROVIDERS["cpu"]]
    if provider != "cpu":
        # No TF32, CUDA's default from Ampere on: the graph alone determines the precision.
        providers.insert(0, (PROVIDERS[provider], {"use_tf32": "0"}) if provider == "cuda" else PROVIDERS[provider])
        if hasattr(onnxruntime, "preload_dlls"):  # from 1.21 on: CUDA's libraries may be in separate packages
            with redirect_stdout(sys.stderr):  # it prints the libraries that it does not find
                onnxruntime.preload_dlls()
    try:
        opened = onnxruntime.InferenceSession(source, session, providers=providers, disabled_optimizers=_WRONG)
    except Exception as error:  # ONNX Runtime's exceptions share no base class of their own
        raise BundleError(f"ONNX Runtime {onnxruntime.__version__} refuses {name}: {error}") from error
    # ONNX Runtime only warns when a provider fails to start.
    if opened.get_providers()[0] != PROVIDERS[provider]:
        raise MissingDependency(
            f"ONNX Runtime could not start its {provider} provider and would have run {name} on the CPU. Is the GPU's "
            "driver installed? Otherwise build for this machine: geodtr-export build-engine ... --provider cpu"
        )
    return opened


def check_provider(provider: Provider) -> str:
    """The provider's full name. Raises MissingDependency unless the installed build of ONNX Runtime has it."""
    check_installation()
    there = _providers()
    if provider not in there:
        raise MissingDependency(
            f"The installed ONNX Runtime has no {provider} provider (it has: {', '.join(there)}). For a GPU: "
            f"{pip('uninstall')} -y onnxruntime && {install_hint('gpu')}"
        )
    return PROVIDERS[provider]


def check_installation() -> str:
    """The installed build's version. Raises MissingDependency when none is installed, or two builds conflict."""
    versions = [build for build in map(_installed_version, _BUILDS) if build is not None]
    if not versions:
        raise MissingDependency(f"ONNX Runtime is not installed: {install_hint('cpu')}.")
    if len(versions) > 1:
        raise MissingDependency(
            "onnxruntime and onnxruntime-gpu are both installed; they share one module and conflict. Keep one: "
            f"{pip('uninstall')} -y onnxruntime onnxruntime-gpu && {install_hint('cpu')}"
        )
    return versions[0]


def _installed_version(build: str) -> str | None:
    try:
        return version(build)
    except PackageNotFoundError:
        return None


def _providers() -> list[Provider]:
    """The supported providers that the installed build has."""
    import onnxruntime

    there = onnxruntime.get_available_providers()
    return [name for name, long in PROVIDERS.items() if long in there]
