"""TensorRT as its Python bindings show it, computing with ONNX Runtime on the fake device's memory.

A plan is a line of JSON, then the graph; a stripped one has no graph. Only what is used here is there, and
`make check-tensorrt` finds whatever the real module of some version has not, or takes otherwise.
"""

import ctypes
import json
from collections.abc import Callable
from enum import IntEnum
from pathlib import Path
from typing import Any

import fake_cuda
import numpy as np
import onnx

from geodtr.runtime.engines.base import EngineOptions
from geodtr.runtime.engines.onnxruntime import open_session

__version__ = "10.3.0"


class FakeWishes:
    """What a test wants of TensorRT: what it does wrong, and what it is told meanwhile."""

    def __init__(self) -> None:
        self.dla_cores = 0
        self.split_types = False  # the inspector's form of version 11
        self.without_low_precision = False  # every layer silently computes in float32
        self.in_float = 0  # so many convolutions and products, the first ones, silently compute in float32
        self.without_metadata = False  # layers list the graph's nodes in their own names alone
        self.without_names = False  # nor there
        self.build_fails = False
        self.always_wrong = False
        self.fuses_wrongly = False  # descriptors are garbage unless every reduction is an output
        self.on_step: Callable[[], None] = lambda: None
        self.caches_used = list[bytes]()
        self.configs = list["IBuilderConfig"]()
        self.contexts = 0


fake_wishes = FakeWishes()


def fake_reset(version: str) -> FakeWishes:
    """TensorRT of another version, with the names that came after 10.3 or without."""
    global fake_wishes, __version__
    fake_wishes, __version__ = FakeWishes(), version
    globals().update(
        HardwareCompatibilityLevel=IntEnum(
            "HardwareCompatibilityLevel", _LEVELS if version.startswith("10.3") else _MORE_LEVELS
        ),
        OnnxParserFlag=IntEnum("OnnxParserFlag", _PARSER_FLAGS if version.startswith("10.3") else _MORE_PARSER_FLAGS),
    )
    return fake_wishes


_LEVELS = {"NONE": 0, "AMPERE_PLUS": 1}
_MORE_LEVELS = {**_LEVELS, "SAME_COMPUTE_CAPABILITY": 2}
_PARSER_FLAGS = {"NATIVE_INSTANCENORM": 0}
_MORE_PARSER_FLAGS = {**_PARSER_FLAGS, "ADJUST_FOR_DLA": 4}


class BuilderFlag(IntEnum):
    GPU_FALLBACK = 3
    REFIT = 4
    TF32 = 7
    VERSION_COMPATIBLE = 14
    STRIP_PLAN = 20
    REFIT_IDENTICAL = 21


class NetworkDefinitionCreationFlag(IntEnum):
    STRONGLY_TYPED = 1


class MemoryPoolType(IntEnum):
    WORKSPACE = 0


class ProfilingVerbosity(IntEnum):
    LAYER_NAMES_ONLY = 0
    DETAILED = 2


class LayerType(IntEnum):
    CONVOLUTION = 0
    REDUCE = 13
    TOPK = 16


class DeviceType(IntEnum):
    GPU = 0
    DLA = 1


class LayerInformationFormat(IntEnum):
    JSON = 1


class ExecutionContextAllocationStrategy(IntEnum):
    STATIC = 0
    USER_MANAGED = 2


class ILogger:
    class Severity(IntEnum):
        INTERNAL_ERROR = 0
        ERROR = 1
        WARNING = 2

    def log(self, severity: "ILogger.Severity", msg: str) -> None:
        raise NotImplementedError


class IProfiler:
    def __init__(self) -> None: ...

    def report_layer_time(self, layer_name: str, ms: float) -> None: ...


class IProgressMonitor:
    def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
        raise NotImplementedError

    def step_complete(self, phase_name: str, step: int) -> bool:
        raise NotImplementedError

    def phase_finish(self, phase_name: str) -> None:
        raise NotImplementedError


class ITimingCache:
    def __init__(self, _content: bytes) -> None:
        self._content = _content

    def serialize(self) -> bytes:
        return self._content + b"timed "


class IOptimizationProfile:
    def set_shape(self, input: str, min: tuple[int, ...], opt: tuple[int, ...], max: tuple[int, ...]) -> None:
        assert input == "images"
        self._shapes = [list(min), list(opt), list(max)]


class IBuilderConfig:
    def __init__(self) -> None:
        self._flags = {BuilderFlag.TF32}
        self._pools = dict[int, int]()
        self._cache: ITimingCache | None = None
        self._profile: IOptimizationProfile | None = None
        self.profiling_verbosity = ProfilingVerbosity.LAYER_NAMES_ONLY
        self.hardware_compatibility_level = 0
        self.builder_optimization_level = 3
        self.progress_monitor: IProgressMonitor | None = None
        self.default_device_type = DeviceType.GPU
        self.DLA_core = -1

    def set_flag(self, flag: BuilderFlag) -> None:
        self._flags.add(flag)

    def clear_flag(self, flag: BuilderFlag) -> None:
        self._flags.discard(flag)

    def set_memory_pool_limit(self, pool: MemoryPoolType, pool_size: int) -> None:
        self._pools[pool] = pool_size

    def get_memory_pool_limit(self, pool: MemoryPoolType) -> int:
        return self._pools.get(pool, 8 << 30)

    def create_timing_cache(self, serialized_timing_cache: bytes) -> ITimingCache:
        return ITimingCache(serialized_timing_cache)

    def set_timing_cache(self, cache: ITimingCache, ignore_mismatch: bool) -> bool:
        assert not ignore_mismatch
        self._cache = cache
        fake_wishes.caches_used.append(cache._content)
        return True

    def get_timing_cache(self) -> ITimingCache | None:
        return self._cache

    def add_optimization_profile(self, profile: IOptimizationProfile) -> int:
        self._profile = profile
        return 0


class ITensor:
    is_network_output = False

    def __init__(self, _name: str) -> None:
        self.name = _name


class ILayer:
    num_outputs = 1

    def __init__(self, _node: onnx.NodeProto) -> None:
        self.type = {"ReduceMax": LayerType.REDUCE, "ArgMax": LayerType.TOPK}.get(_node.op_type, LayerType.CONVOLUTION)
        self._output = ITensor(_node.output[0])

    def get_output(self, index: int) -> ITensor:
        assert index == 0
        return self._output


class INetworkDefinition:
    _graph = b""

    def __init__(self) -> None:
        self._exposed = list[str]()

    @property
    def num_layers(self) -> int:
        return len(onnx.load_from_string(self._graph).graph.node)

    def get_layer(self, index: int) -> ILayer:
        return ILayer(onnx.load_from_string(self._graph).graph.node[index])

    def mark_output(self, tensor: ITensor) -> None:
        self._exposed.append(tensor.name)


class OnnxParser:
    """Takes every graph: what NVIDIA's own refuses is seen in test_nvidia_parser.py."""

    def __init__(self, network: INetworkDefinition, logger: ILogger) -> None:
        self._network = network
        del logger

    def set_flag(self, flag: int) -> None:
        del flag

    def parse_from_file(self, model: str) -> bool:
        self._network._graph = Path(model).read_bytes()
        return True


class Builder:
    def __init__(self, logger: ILogger) -> None:
        self._logger = logger

    @property
    def num_DLA_cores(self) -> int:
        return fake_wishes.dla_cores

    def create_network(self, flags: int = 0) -> INetworkDefinition:
        del flags
        return INetworkDefinition()

    def create_builder_config(self) -> IBuilderConfig:
        return IBuilderConfig()

    def create_optimization_profile(self) -> IOptimizationProfile:
        return IOptimizationProfile()

    def build_serialized_network(self, network: INetworkDefinition, config: IBuilderConfig) -> bytes | None:
        fake_wishes.configs.append(config)
        if not _tell(config.progress_monitor):
            return None
        if fake_wishes.build_fails:
            self._logger.log(ILogger.Severity.ERROR, "Error Code 10: Could not find any implementation for node Conv_7")
            self._logger.log(ILogger.Severity.WARNING, "nobody needs to know")
            return None
        assert config._profile is not None
        about = {
            "profile": config._profile._shapes,
            "detailed": config.profiling_verbosity == ProfilingVerbosity.DETAILED,
            "refittable": bool(config._flags & {BuilderFlag.REFIT, BuilderFlag.REFIT_IDENTICAL}),
            "host_code": BuilderFlag.VERSION_COMPATIBLE in config._flags,
            "initializers": _initializers(network._graph),
            "exposed": network._exposed,
        }
        stripped = BuilderFlag.STRIP_PLAN in config._flags
        return json.dumps(about).encode() + b"\n" + (b"" if stripped else network._graph)


def _tell(monitor: IProgressMonitor | None) -> bool:
    """Report a build of two nested phases; False when the monitor ends it."""
    if monitor is None:
        return True
    monitor.phase_start("Building engine", None, 2)
    for outer in range(2):
        name = f"Timing tactics {outer}"
        monitor.phase_start(name, "Building engine", 5)
        for step in range(5):
            fake_wishes.on_step()
            if not monitor.step_complete(name, step):
                return False
        monitor.phase_finish(name)
        if not monitor.step_complete("Building engine", outer):
            return False
    monitor.phase_finish("Building engine")
    return True


def _initializers(graph: bytes) -> list[str]:
    return sorted(entry.name for entry in onnx.load_from_string(graph).graph.initializer)


class Runtime:
    def __init__(self, logger: ILogger) -> None:
        self._logger = logger
        self.engine_host_code_allowed = False
        self.DLA_core = -1

    def deserialize_cuda_engine(self, serialized_engine: bytes) -> "ICudaEngine | None":
        about, _, graph = serialized_engine.partition(b"\n")
        held = json.loads(about)
        if held["host_code"] and not self.engine_host_code_allowed:
            self._logger.log(ILogger.Severity.ERROR, "host code is not allowed")
            return None
        return ICudaEngine(held, graph)


class Refitter:
    def __init__(self, engine: "ICudaEngine", logger: ILogger) -> None:
        self._engine, self._logger = engine, logger
        self._graph = b""

    def refit_cuda_engine(self) -> bool:
        self._engine._take(self._graph)
        return True


class OnnxParserRefitter:
    def __init__(self, refitter: Refitter, logger: ILogger) -> None:
        self._refitter, self._logger = refitter, logger

    def refit_from_file(self, model: str) -> bool:
        graph = Path(model).read_bytes()
        about = self._refitter._engine._about
        if not about["refittable"] or about["initializers"] != _initializers(graph):
            self._logger.log(ILogger.Severity.ERROR, "the weights do not fit")
            return False
        self._refitter._graph = graph
        return True


class ICudaEngine:
    device_memory_size_v2 = 4096

    def __init__(self, _about: dict[str, Any], _graph: bytes) -> None:
        self._about = _about
        self._graph = b""
        if _graph:
            self._take(_graph)

    def _take(self, graph: bytes) -> None:
        self._graph = graph
        self._session = open_session(graph, options=EngineOptions(threads=1))

    @property
    def num_io_tensors(self) -> int:
        return 2 + len(self._about["exposed"])

    def get_tensor_name(self, index: int) -> str:
        return str(("images", "descriptors", *self._about["exposed"])[index])

    def get_tensor_shape(self, name: str) -> list[int]:
        if name == "images":
            return [-1, *self._about["profile"][0][1:]]
        return [-1, self._session.get_outputs()[0].shape[-1]]

    def get_tensor_profile_shape(self, name: str, profile_index: int) -> list[list[int]]:
        assert (name, profile_index) == ("images", 0)
        shapes: list[list[int]] = self._about["profile"]
        return shapes

    def create_execution_context(self, strategy: ExecutionContextAllocationStrategy) -> "IExecutionContext":
        assert strategy == ExecutionContextAllocationStrategy.USER_MANAGED
        fake_wishes.contexts += 1
        return IExecutionContext(self)

    def create_engine_inspector(self) -> "EngineInspector":
        return EngineInspector(self)

    def serialize(self) -> bytes:
        return json.dumps(self._about).encode() + b"\n" + self._graph


class IExecutionContext:
    def __init__(self, _engine: ICudaEngine) -> None:
        self._engine = _engine
        self._shape = tuple[int, ...]()
        self._addresses = dict[str, int]()
        self._scratch = (0, 0)
        self.profiler: IProfiler | None = None

    def set_device_memory(self, memory: int, size: int) -> None:
        assert size >= self._engine.device_memory_size_v2
        self._scratch = (memory, size)

    def set_optimization_profile_async(self, profile_index: int, stream_handle: int) -> bool:
        return profile_index == 0 and stream_handle in fake_cuda.fake_gpu.streams

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        least, _, most = self._engine._about["profile"]
        self._shape = tuple(shape)
        return name == "images" and least[0] <= shape[0] <= most[0] and list(shape[1:]) == least[1:]

    def get_max_output_size(self, name: str) -> int:
        return 64 * self._shape[0] if name in self._engine._about["exposed"] else -1

    def set_tensor_address(self, name: str, memory: int) -> bool:
        self._addresses[name] = memory
        return True

    def execute_async_v3(self, stream_handle: int) -> bool:
        gpu = fake_cuda.fake_gpu
        shape, takes, gives = self._shape, self._addresses["images"], self._addresses["descriptors"]
        size, width = int(np.prod(shape)), self._engine.get_tensor_shape("descriptors")[1]
        exposed = [self._addresses.get(name, 0) for name in self._engine._about["exposed"]]
        if not all(gpu.holds(address, 64 * shape[0]) for address in exposed):
            return False
        if not (gpu.holds(takes, size) and gpu.holds(gives, 4 * shape[0] * width) and gpu.holds(*self._scratch)):
            return False

        def run() -> None:
            assert (shape, takes, gives) == (self._shape, self._addresses["images"], self._addresses["descriptors"])
            ctypes.memset(self._scratch[0], 0xAA, self._scratch[1])
            images = np.frombuffer(ctypes.string_at(takes, size), np.uint8).reshape(shape)
            (rows,) = self._engine._session.run(None, {"images": images})
            if fake_wishes.always_wrong or (fake_wishes.fuses_wrongly and not exposed):
                rows = np.roll(rows, 1, axis=1)
            for address in exposed:
                ctypes.memset(address, 0xAA, 64 * shape[0])
            ctypes.memmove(gives, np.ascontiguousarray(rows).ctypes.data, rows.nbytes)

        gpu.enqueue(stream_handle, run)
        if self.profiler is not None:
            for number, node in enumerate(onnx.load_from_string(self._engine._graph).graph.node):
                self.profiler.report_layer_time(node.name, 1e-3 * (number + 1))
        return True


class EngineInspector:
    def __init__(self, _engine: ICudaEngine) -> None:
        self._engine = _engine
        self.execution_context: IExecutionContext | None = None

    def get_engine_information(self, format: LayerInformationFormat) -> str:
        assert format == LayerInformationFormat.JSON
        graph = onnx.shape_inference.infer_shapes(onnx.load_from_string(self._engine._graph)).graph
        if not self._engine._about["detailed"]:
            return json.dumps({"Layers": [node.name for node in graph.node]})
        types = {entry.name: entry.type.tensor_type.elem_type for entry in (*graph.value_info, *graph.output)}
        types |= {entry.name: entry.data_type for entry in graph.initializer}
        dequantised = {node.output[0]: node.input[0] for node in graph.node if node.op_type == "DequantizeLinear"}
        known = self.execution_context is not None and bool(self.execution_context._shape)

        def tensor(name: str, kind: str) -> dict[str, str]:
            if not known:
                return {"Name": name, "Format/Datatype": "N/A due to dynamic shapes"}
            if fake_wishes.split_types:
                return {"Name": name, "Format": "Row major linear format (kLINEAR)", "DataType": kind}
            return {"Name": name, "Format/Datatype": f"Row major linear {kind} format"}

        products = [node.name for node in graph.node if node.op_type in ("Conv", "MatMul", "Gemm")]
        in_float = set(products if fake_wishes.without_low_precision else products[: fake_wishes.in_float])

        def kind(node: onnx.NodeProto, name: str) -> str:
            if node.name in in_float or fake_wishes.without_low_precision:
                return "Float"
            words = {1: "Float", 2: "UInt8", 3: "Int8", 10: "Half", 17: "FP8"}
            # A product of one quantised factor is none of integers: its DequantizeLinear stands alone.
            fused = node.name not in products or dequantised.keys() >= set(node.input[:2])
            return words.get(types.get(dequantised.get(name, name) if fused else name, 0), "Int32")

        def takes(node: onnx.NodeProto) -> list[str]:
            """Scales and zero points are no inputs of a layer."""
            return [name for name in node.input[: 1 if node.op_type == "QuantizeLinear" else None] if name]

        layers = list[dict[str, Any]]()
        for number, node in enumerate(graph.node):
            if node.op_type in ("Constant", "DequantizeLinear"):
                continue
            if node.op_type == "Relu" and layers:  # fused with what is before it, as TensorRT does
                layers[-1]["Name"] += f" + {node.name}"
                layers[-1]["Metadata"] += f"\x1f[ONNX Layer: {node.name}]"
                continue
            layers.append(
                {
                    "Name": node.name,
                    "LayerType": "CaskConvolution" if node.name in products else "kgen",
                    "Inputs": [tensor(name, kind(node, name)) for name in takes(node)],
                    "Outputs": [tensor(name, kind(node, name)) for name in node.output],
                    "Metadata": f"[ONNX Layer: {node.name}]",
                }
            )
            if fake_wishes.without_names:
                layers[-1]["Name"] = f"__myl_layer_{number}"
        for layer in layers:
            if fake_wishes.without_metadata or fake_wishes.without_names:
                del layer["Metadata"]
        return json.dumps({"Layers": layers, "Bindings": ["images", "descriptors"]})


fake_reset(__version__)
