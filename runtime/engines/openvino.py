"""Running an ONNX file with OpenVINO, on the CPU.

Float is float32: on CPUs with bfloat16 or half-precision units OpenVINO would take those unasked, and quantise the
activations of large products on the fly.
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
from geodtr.runtime.engines.base import DEFAULT_OPTIONS, EngineFiles, EngineOptions, LayerTime, longest_first
from geodtr.runtime.errors import BundleError, MissingDependency
from geodtr.runtime.installation import install_hint
from geodtr.runtime.machine import Machine, this_cpu
from geodtr.runtime.manifest import BackendEntry, Manifest
from geodtr.runtime.names import Precision
from geodtr.runtime.preflight import Finding, check_cpu_dialect, looked_at
from geodtr.runtime.spec import INPUT, OUTPUT, BranchSpec, Descriptors, Embedder, Images

PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16", "int8", "mixed")
"""What graphs it runs. Those of fp16 it computes in float32: the file is half as large, and no faster."""

_DEVICE = "CPU"
_AS_THE_FILE_SAYS = {"INFERENCE_PRECISION_HINT": "f32", "DYNAMIC_QUANTIZATION_GROUP_SIZE": "0"}


class OpenVinoEmbedder:
    """One branch's compiled model. Each thread has an infer request of its own, which no other may use meanwhile."""

    def __init__(self, compiled: Any, spec: BranchSpec, name: Path) -> None:
        self._spec = spec
        self._compiled = compiled
        self._requests = threading.local()
        takes, gives = compiled.inputs, compiled.outputs
        size = (spec.preprocessing.height, spec.preprocessing.width)
        if (
            [port.any_name for port in (*takes, *gives)] != [INPUT, OUTPUT]
            or takes[0].element_type.to_string() != "u8"
            or [str(side) for side in takes[0].partial_shape][1:] != [str(side) for side in (*size, 3)]
        ):
            raise BundleError(
                f"{name} does not take uint8 images of {size[0]}x{size[1]} pixels. Build the bundle again."
            )
        if str(gives[0].partial_shape[1]) != str(spec.descriptor_size):
            raise BundleError(f"{name} does not give descriptors of {spec.descriptor_size}. Build the bundle again.")

    @property
    def spec(self) -> BranchSpec:
        return self._spec

    def embed(self, images: Images) -> Descriptors:
        """[B, H, W, 3] -> [B, D], unit rows."""
        if not hasattr(self._requests, "own"):
            self._requests.own = self._compiled.create_infer_request()
        descriptors = self._requests.own.infer({INPUT: np.ascontiguousarray(images)})[0]
        return np.array(descriptors, dtype=np.float32)


def check(bundle: Path, manifest: Manifest) -> Iterator[Finding]:
    """Quantised graphs run only where they were built: what OpenVINO makes of them differs between processors and
    versions, has been wrong, and is checked when it is built. Others are compiled again elsewhere, which costs time.
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
            f"{manifest.backend.version} on {_told(manifest.backend.machine)}; this is OpenVINO {there.found} on "
            f"{_told(this_cpu())}.",
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


def _told(machine: Machine | None) -> str:
    return "no known machine" if machine is None else f"{machine.architecture} ({', '.join(machine.cpu_flags)})"


def _made_here(backend: BackendEntry) -> bool:
    return backend.machine == this_cpu() and backend.version == check_installation()


def open_embedders(engines: Sequence[EngineFiles], backend: BackendEntry, options: EngineOptions) -> list[Embedder]:
    """Open each engine: the compiled model where it was made for this very machine and version, else the graph, which
    is compiled now.
    """
    return [
        OpenVinoEmbedder(open_model(_source(engine, backend), options), engine.spec, engine.graph) for engine in engines
    ]


def layer_times(
    engine: EngineFiles, backend: BackendEntry, options: EngineOptions, images: Images, calls: int
) -> list[LayerTime]:
    """By OpenVINO's own counters, after one call that is not counted; those that take no time of their own left out."""
    request = open_model(_source(engine, backend), options, count_time=True).create_infer_request()
    taken: dict[tuple[str, str], list[float]] = {}
    for _ in range(calls + 1):
        request.infer({INPUT: images})
        for layer in request.profiling_info:
            if layer.status == layer.Status.EXECUTED:
                milliseconds = layer.real_time.total_seconds() * 1e3
                taken.setdefault((layer.node_name, layer.node_type), []).append(milliseconds)
    return longest_first(taken)


def _source(engine: EngineFiles, backend: BackendEntry) -> Path:
    return engine.compiled if engine.compiled is not None and _made_here(backend) else engine.graph


def open_model(model: Path | bytes, options: EngineOptions = DEFAULT_OPTIONS, *, count_time: bool = False) -> Any:
    """A `CompiledModel`, of an ONNX file, a serialised one, or of a file that `export_model` wrote; with `count_time`,
    its requests tell what each layer takes.

    Raises MissingDependency, or BundleError when OpenVINO refuses the file, or would not compute in float32.
    """
    check_installation()
    openvino = _import()
    properties = dict(_AS_THE_FILE_SAYS)
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
    for name, wanted in _AS_THE_FILE_SAYS.items():
        got = compiled.get_property(name)
        if (got.to_string() if isinstance(got, openvino.Type) else str(got)) != wanted:
            raise BundleError(f"OpenVINO {version('openvino')} was asked for {name} {wanted} and took {got}.")
    return compiled


@cache
def _core() -> Any:
    """The process's one `Core`, which keeps the CPU plugin loaded.

    The plugin gives the thread that loads it a stack to handle signals on, and unmaps that when it is unloaded, which
    any thread may cause by dropping the last engine: the next signal, a Ctrl-C, would then be a segmentation fault
    (OpenVINO 2026.4).
    """
    return _import().Core()


def _import() -> Any:
    """The module, without its telemetry.

    Its import writes a client id below the home folder and reports to Google Analytics. Where openvino-telemetry
    cannot be imported it takes a stub of its own instead.
    """
    telemetry = "openvino_telemetry"
    if "openvino" in sys.modules or telemetry in sys.modules:
        return import_module("openvino")
    sys.modules[telemetry] = None  # type: ignore[assignment]
    try:
        return import_module("openvino")
    finally:
        del sys.modules[telemetry]


def layers(compiled: Any) -> dict[str, int]:
    """Of a `CompiledModel`, how many convolutions and products are computed in which precision."""
    found: dict[str, int] = {}
    for node in compiled.get_runtime_model().get_ordered_ops():
        told = node.get_rt_info()
        if told["layerType"].astype(str) in _COMPUTING:
            name = told["runtimePrecision"].astype(str)
            precision = _CALLED.get(name, name)
            found[precision] = found.get(precision, 0) + 1
    return found


_COMPUTING = frozenset({"Convolution", "FullyConnected", "MatMul"})
_CALLED = {"f32": "fp32", "f16": "fp16", "u8": "int8", "i8": "int8"}


def check_installation() -> str:
    """The installed version. Raises MissingDependency when there is none, or its libraries cannot be loaded."""
    try:
        found = version("openvino")
        _import()
    except PackageNotFoundError:
        raise MissingDependency(f"OpenVINO is not installed: {install_hint('openvino')}.") from None
    except ImportError as error:
        raise MissingDependency(f"OpenVINO cannot be used here ({error}): {install_hint('openvino')}.") from None
    return found
