"""TensorRT without a GPU: NVIDIA's own parser, network, configuration, flags and callbacks from TensorRT-RTX, and fakes
of the rest.

Two kinds of things are fake. Operations that need a GPU: compiling, loading, running, refitting and inspecting plans;
ONNX Runtime computes them in the fake device's memory. Features that TensorRT-RTX lacks: DLAs, levels of hardware
compatibility, and timing caches. A plan is a line of JSON, then the graph; a stripped plan has no graph. `make
check-tensorrt` reports every fake that is missing from a real version's module or has another signature there.
"""

import ctypes
import json
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import fake_cuda
import numpy as np
import onnx

from geodtr.runtime.engines.base import EngineOptions
from geodtr.runtime.engines.onnxruntime import open_session


class FakeSettings:
    """How TensorRT behaves in a test: its faults, and a record of the calls."""

    def __init__(self) -> None:
        self.dla_cores = 0
        self.split_types = False  # the inspector's format of version 11
        self.without_low_precision = False  # every layer silently computes in float32
        self.in_float = 0  # number of convolutions and products, from the first, that silently compute in float32
        self.without_metadata = False  # layers list the graph's nodes only in their names
        self.without_names = False  # layer names do not list them either
        self.build_fails = False
        self.load_fails = self.run_fails = ""  # the error that the library logs
        self.logger: Any = None
        self.always_wrong = False
        self.fuses_wrongly = ""  # graphs with this operator give wrong descriptors unless reductions are outputs
        self.caches_used = list[bytes]()
        self.configs = list[Any]()  # the vendor's objects, one for each build


fake_settings = FakeSettings()


def fake_reset() -> FakeSettings:
    global fake_settings
    fake_settings = FakeSettings()
    return fake_settings


def fake_fails(complaint: str) -> bool:
    """Log the error, if there is one."""
    if complaint:
        fake_settings.logger.log(fake_settings.logger.Severity.ERROR, complaint)
    return bool(complaint)


def fake_library(real: Any, version: str, *, compiles: bool = False) -> ModuleType:
    """The vendor's module `real` as TensorRT of a `version`; 10.3 lacks the names that were added later.

    `compiles`: the vendor's builder builds each plan first, and a fake plan then replaces it.
    """

    class OnnxParser(real.OnnxParser):  # type: ignore[misc] # TensorRT ships no types
        def __init__(self, network: Any, logger: Any) -> None:
            super().__init__(network, logger)
            self._network = network

        def parse_from_file(self, model: str) -> bool:
            self._network.name = model
            return bool(super().parse_from_file(model))

    class Builder(real.Builder):  # type: ignore[misc]
        @property
        def num_DLA_cores(self) -> int:
            return fake_settings.dla_cores

        def create_builder_config(self) -> IBuilderConfig:
            return IBuilderConfig(super().create_builder_config())

        def create_optimization_profile(self) -> Any:
            self._profile = super().create_optimization_profile()
            return self._profile

        def build_serialized_network(self, network: Any, config: IBuilderConfig) -> bytes | None:
            fake_settings.configs.append(config)
            if fake_settings.build_fails:
                severity = self.logger.Severity
                self.logger.log(severity.ERROR, "Error Code 10: Could not find any implementation for node Conv_7")
                self.logger.log(severity.WARNING, "an irrelevant warning")
                return None
            if compiles and super().build_serialized_network(network, config._real) is None:
                return None
            flag, graph = real.BuilderFlag, Path(network.name).read_bytes()
            gives = [network.get_output(index).name for index in range(network.num_outputs)]
            about = {
                "profile": [list(shape) for shape in self._profile.get_shape("images")],
                "detailed": config.profiling_verbosity == real.ProfilingVerbosity.DETAILED,
                "refittable": config.get_flag(flag.REFIT) or config.get_flag(flag.REFIT_IDENTICAL),
                "host_code": config.get_flag(flag.VERSION_COMPATIBLE),
                "initializers": _initializers(graph),
                "exposed": [name for name in gives if name != "descriptors"],
            }
            return json.dumps(about).encode() + b"\n" + (b"" if config.get_flag(flag.STRIP_PLAN) else graph)

    module = ModuleType(real.__name__)
    vars(module).update(vars(real))
    vars(module).update(
        __version__=version,
        OnnxParser=OnnxParser,
        Builder=Builder,
        Runtime=Runtime,
        Refitter=Refitter,
        OnnxParserRefitter=OnnxParserRefitter,
    )
    if version.startswith("10.3"):
        levels = real.HardwareCompatibilityLevel
        vars(module).update(
            HardwareCompatibilityLevel=SimpleNamespace(NONE=levels.NONE, AMPERE_PLUS=levels.AMPERE_PLUS),
            OnnxParserFlag=SimpleNamespace(),
        )
    return module


class ITimingCache:
    def __init__(self, _content: bytes) -> None:
        self._content = _content

    def serialize(self) -> bytes:
        return self._content + b"timed "


class IBuilderConfig:
    """The vendor's object, except for attributes that TensorRT-RTX accepts and ignores."""

    def __init__(self, _real: Any) -> None:
        own = {"_real": _real, "_cache": None, "DLA_core": -1, "hardware_compatibility_level": None}
        vars(self).update(own)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name in vars(self):
            vars(self)[name] = value
        else:
            setattr(self._real, name, value)

    def create_timing_cache(self, serialized_timing_cache: bytes) -> ITimingCache:
        return ITimingCache(serialized_timing_cache)

    def set_timing_cache(self, cache: ITimingCache, ignore_mismatch: bool) -> bool:
        assert not ignore_mismatch
        self._cache = cache
        fake_settings.caches_used.append(cache._content)
        return True

    def get_timing_cache(self) -> ITimingCache | None:
        return self._cache


def _initializers(graph: bytes) -> list[str]:
    return sorted(entry.name for entry in onnx.load_from_string(graph).graph.initializer)


class Runtime:
    def __init__(self, logger: Any) -> None:
        self._logger = fake_settings.logger = logger
        self.engine_host_code_allowed = False
        self.DLA_core = -1

    def deserialize_cuda_engine(self, serialized_engine: bytes) -> "ICudaEngine | None":
        if fake_fails(fake_settings.load_fails):
            return None
        about, _, graph = serialized_engine.partition(b"\n")
        held = json.loads(about)
        if held["host_code"] and not self.engine_host_code_allowed:
            self._logger.log(self._logger.Severity.ERROR, "host code is not allowed")
            return None
        return ICudaEngine(held, graph)


class Refitter:
    def __init__(self, engine: "ICudaEngine", logger: Any) -> None:
        self._engine, self._logger = engine, logger
        self._graph = b""

    def refit_cuda_engine(self) -> bool:
        self._engine._take(self._graph)
        return True


class OnnxParserRefitter:
    def __init__(self, refitter: Refitter, logger: Any) -> None:
        self._refitter, self._logger = refitter, logger

    def refit_from_file(self, model: str) -> bool:
        graph = Path(model).read_bytes()
        about = self._refitter._engine._about
        if not about["refittable"] or about["initializers"] != _initializers(graph):
            self._logger.log(self._logger.Severity.ERROR, "the weights do not fit")
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
    def _is_wrong(self) -> bool:
        operator = fake_settings.fuses_wrongly.encode()
        fused_wrongly = bool(operator) and operator in self._graph and not self._about["exposed"]
        return fake_settings.always_wrong or fused_wrongly

    @property
    def num_io_tensors(self) -> int:
        return 2 + len(self._about["exposed"])

    def get_tensor_name(self, index: int) -> str:
        return str(("images", "descriptors", *self._about["exposed"])[index])

    def get_tensor_shape(self, name: str) -> list[int]:
        if name == "images":
            return [-1, *self._about["profile"][0][1:]]
        return [-1, self._session.get_outputs()[0].shape[-1]]

    def get_tensor_dtype(self, name: str) -> Any:
        return SimpleNamespace(name="UINT8" if name == "images" else "FLOAT")

    def get_tensor_profile_shape(self, name: str, profile_index: int) -> list[list[int]]:
        assert (name, profile_index) == ("images", 0)
        shapes: list[list[int]] = self._about["profile"]
        return shapes

    def create_execution_context(self, strategy: Any) -> "IExecutionContext":
        assert strategy.name == "USER_MANAGED"
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
        self.profiler: Any = None

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
        if fake_fails(fake_settings.run_fails):
            return False
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
            if self._engine._is_wrong:
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

    def get_engine_information(self, format: Any) -> str:
        assert format.name == "JSON"
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
            if fake_settings.split_types:
                return {"Name": name, "Format": "Row major linear format (kLINEAR)", "DataType": kind}
            return {"Name": name, "Format/Datatype": f"Row major linear {kind} format"}

        products = [node.name for node in graph.node if node.op_type in ("Conv", "MatMul", "Gemm")]
        in_float = set(products if fake_settings.without_low_precision else products[: fake_settings.in_float])

        def kind(node: onnx.NodeProto, name: str) -> str:
            if node.name in in_float or fake_settings.without_low_precision:
                return "Float"
            words = {1: "Float", 2: "UInt8", 3: "Int8", 10: "Half", 17: "FP8"}
            # A product with one quantised factor is not an integer product: its DequantizeLinear is a layer of its own.
            fused = node.name not in products or dequantised.keys() >= set(node.input[:2])
            return words.get(types.get(dequantised.get(name, name) if fused else name, 0), "Int32")

        def takes(node: onnx.NodeProto) -> list[str]:
            """The inputs of a layer: without scales and zero points."""
            return [name for name in node.input[: 1 if node.op_type == "QuantizeLinear" else None] if name]

        layers = list[dict[str, Any]]()
        for number, node in enumerate(graph.node):
            if node.op_type in ("Constant", "DequantizeLinear"):
                continue
            if node.op_type == "Relu" and layers:  # fused with the layer before it, as TensorRT does
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
            if fake_settings.without_names:
                layers[-1]["Name"] = f"__myl_layer_{number}"
        for layer in layers:
            if fake_settings.without_metadata or fake_settings.without_names:
                del layer["Metadata"]
        return json.dumps({"Layers": layers, "Bindings": ["images", "descriptors"]})
