"""Run an ONNX file with OpenVINO, on the CPU.

Float means float32 here: by default OpenVINO uses bfloat16 or half-precision units where a CPU has them, and quantises
the activations of large products on the fly.
"""

import sys
import threading
from collections.abc import Iterator, Sequence
from functools import cache
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

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
from geodtr.runtime.installation import install_hint
from geodtr.runtime.machine import Machine, this_cpu
from geodtr.runtime.manifest import BackendEntry, Manifest
from geodtr.runtime.names import Precision
from geodtr.runtime.preflight import Finding, check_cpu_dialect, looked_at
from geodtr.runtime.spec import INPUT, BranchSpec, Descriptors, Embedder, Images

PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16", "int8", "mixed")
"""The graphs it runs. It computes fp16 graphs in float32: the file is half as large, but not faster."""

_DEVICE = "CPU"
_NO_HIDDEN_PRECISION = {"INFERENCE_PRECISION_HINT": "f32", "DYNAMIC_QUANTIZATION_GROUP_SIZE": "0"}


class OpenVinoEmbedder:
    """One branch's compiled model. Each thread has its own infer request, because threads cannot share one."""

    def __init__(self, compiled: Any, spec: BranchSpec, name: Path) -> None:
        self.spec = spec
        self._compiled = compiled
        self._requests = threading.local()
        self._name = name
        check_ports(_ports(compiled.inputs), _ports(compiled.outputs), spec, name)

    def embed(self, images: Images) -> Descriptors:
        """[B, H, W, 3] -> [B, D], unit rows."""
        check_images(images, self.spec)
        if not hasattr(self._requests, "own"):
            self._requests.own = self._compiled.create_infer_request()
        with explained("OpenVINO", self._name):
            # A copy: the request's next call writes to the same memory.
            rows = self._requests.own.infer({INPUT: np.ascontiguousarray(images)})[0].copy()
        return as_descriptors(rows, images, self.spec, self._name)


_TYPES = {"u8": "uint8", "f32": "float32"}


def _ports(entries: Sequence[Any]) -> list[Port]:
    ports = []
    for entry in entries:
        name, dtype, shape = entry.any_name if entry.names else "", entry.element_type.to_string(), entry.partial_shape
        sides = () if shape.rank.is_dynamic else tuple(None if side.is_dynamic else side.get_length() for side in shape)
        ports.append(Port(name, _TYPES.get(dtype, dtype), sides))
    return ports


def check(bundle: Path, manifest: Manifest) -> Iterator[Finding]:
    """Quantised graphs run only with the processor and version of the build: OpenVINO compiles them differently
    elsewhere, sometimes wrongly, and only the build checks the result. Other graphs are compiled again, which costs
    time.
    """
    there = looked_at("openvino", check_installation)
    yield there
    if there.failed:
        return

    def remedy() -> str:
        return rebuild_command(bundle, manifest, changes={"--dialect": None})

    yield check_cpu_dialect(None if manifest.quantisation is None else manifest.quantisation.dialect, remedy)
    if _made_here(manifest.backend):
        yield Finding(what="compiled", found="for this version and processor")
    elif manifest.precision in ("int8", "mixed"):
        yield Finding(
            what="compiled",
            found=f"{bundle} holds {manifest.precision} engines that were built and checked by OpenVINO "
            f"{manifest.backend.version} on {_described(manifest.backend.machine)}; this is OpenVINO {there.found} on "
            f"{_described(this_cpu())}.",
            failed=True,
            remedy=remedy(),
        )
    else:
        yield Finding(
            what="compiled",
            found="for another version or processor: not used here; the graph is compiled at each opening, which takes "
            "longer",
            remedy=recompile_bundle(bundle, manifest),
        )


def _described(machine: Machine | None) -> str:
    return "no known machine" if machine is None else f"{machine.architecture} ({', '.join(machine.cpu_flags)})"


def _made_here(backend: BackendEntry) -> bool:
    return backend.machine == this_cpu() and backend.version == check_installation()


def open_embedders(engines: Sequence[EngineFiles], backend: BackendEntry, options: EngineOptions) -> list[Embedder]:
    """Open each engine: the compiled model if it was built with this machine and version, otherwise the graph, which
    is compiled now.
    """
    return [
        OpenVinoEmbedder(open_model(_source(engine, backend), options), engine.spec, engine.graph) for engine in engines
    ]


def layer_times(
    engine: EngineFiles, backend: BackendEntry, options: EngineOptions, images: Images, calls: int
) -> list[LayerTime]:
    """Layer times from OpenVINO's counters, after one warm-up call; without layers that do not execute."""
    request = open_model(_source(engine, backend), options, count_time=True).create_infer_request()
    taken: dict[tuple[str, str], list[float]] = {}
    for _ in range(calls + 1):
        with explained("OpenVINO", engine.graph):
            request.infer({INPUT: images})
        for layer in request.profiling_info:
            if layer.status == layer.Status.EXECUTED:
                milliseconds = layer.real_time.total_seconds() * 1e3
                taken.setdefault((layer.node_name, layer.node_type), []).append(milliseconds)
    return longest_first(taken)


def _source(engine: EngineFiles, backend: BackendEntry) -> Path:
    return engine.compiled if engine.compiled is not None and _made_here(backend) else engine.graph


def open_model(model: Path | bytes, options: EngineOptions = DEFAULT_OPTIONS, *, count_time: bool = False) -> Any:
    """A `CompiledModel` from an ONNX file, a serialised one, or a file that `export_model` wrote; with `count_time`,
    its requests record the time of each layer.

    Raises MissingDependency, or BundleError when OpenVINO refuses the file or would not compute in float32.
    """
    check_installation()
    openvino = _import()
    properties = dict(_NO_HIDDEN_PRECISION)
    if options.threads is not None:
        properties["INFERENCE_NUM_THREADS"] = str(options.threads)
    if count_time:
        properties["PERF_COUNT"] = "YES"
    core = _core()
    try:
        if isinstance(model, Path) and model.suffix != ".onnx":
            compiled = core.import_model(model.read_bytes(), _DEVICE, properties)
        else:
            graph = core.read_model(model, b"") if isinstance(model, bytes) else core.read_model(str(model))
            compiled = core.compile_model(graph, _DEVICE, properties)
    except RuntimeError as error:
        name = model if isinstance(model, Path) else "the model"
        raise BundleError(f"OpenVINO {version('openvino')} refuses {name}: {error}") from error
    for name, wanted in _NO_HIDDEN_PRECISION.items():
        got = compiled.get_property(name)
        if (got.to_string() if isinstance(got, openvino.Type) else str(got)) != wanted:
            raise BundleError(f"OpenVINO {version('openvino')} set {name} to {got} instead of {wanted}.")
    return compiled


@cache
def _core() -> Any:
    """The process's only `Core`, which keeps the CPU plugin loaded.

    The plugin sets a signal stack for the thread that loads it and unmaps it when it is unloaded, which happens in the
    thread that drops the last engine. The next signal, such as Ctrl-C, would then be a segmentation fault (OpenVINO
    2026.4).
    """
    return _import().Core()


def _import() -> Any:
    """The module, without its telemetry.

    Its import writes a client id to the home folder and reports to Google Analytics. If openvino-telemetry cannot be
    imported, OpenVINO uses its own stub.
    """
    telemetry = "openvino_telemetry"
    if "openvino" in sys.modules or telemetry in sys.modules:
        return import_module("openvino")
    sys.modules[telemetry] = None  # type: ignore[assignment] # by this, Python refuses its import
    try:
        return import_module("openvino")
    finally:
        del sys.modules[telemetry]


def layers(compiled: Any) -> dict[str, int]:
    """The number of convolutions and matrix products of a `CompiledModel` by precision."""
    counts: dict[str, int] = {}
    for node in compiled.get_runtime_model().get_ordered_ops():
        info = node.get_rt_info()
        if info["layerType"].astype(str) in _COMPUTING:
            name = info["runtimePrecision"].astype(str)
            precision = _CALLED.get(name, name)
            counts[precision] = counts.get(precision, 0) + 1
    return counts


_COMPUTING = frozenset({"Convolution", "FullyConnected", "MatMul"})
_CALLED = {"f32": "fp32", "f16": "fp16", "u8": "int8", "i8": "int8"}


def check_installation() -> str:
    """The installed version. Raises MissingDependency when there is none, or its libraries cannot be loaded."""
    try:
        installed = version("openvino")
        _import()
    except PackageNotFoundError:
        raise MissingDependency(f"OpenVINO is not installed: {install_hint('openvino')}.") from None
    except ImportError as error:
        raise MissingDependency(f"OpenVINO cannot be used here ({error}): {install_hint('openvino')}.") from None
    return installed
