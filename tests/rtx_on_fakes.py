"""TensorRT-RTX with NVIDIA's own parser and builder, and fakes of what runs a plan: that alone takes a GPU.

When the vendor's builder has made a plan, its place is taken by one that fake_tensorrt.py runs.
"""

import gc
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import fake_cuda
import fake_tensorrt
import pytest
from fake_cuda import FakeGpu
from fake_tensorrt import FakeWishes

KERNELS = b"kernels of this GPU"


class RuntimeCache:
    """What was compiled when plans were loaded."""

    content = b""

    def deserialize(self, blob: bytes) -> bool:
        if bytes(blob) != KERNELS:
            return False
        self.content = bytes(blob)
        return True

    def serialize(self) -> bytes:
        return self.content


class RuntimeConfig:
    cache: RuntimeCache | None = None
    strategy: Any = None
    dynamic_shapes_kernel_specialization_strategy: Any = None

    def set_execution_context_allocation_strategy(self, strategy: Any) -> None:
        self.strategy = strategy

    def create_runtime_cache(self) -> RuntimeCache:
        return RuntimeCache()

    def set_runtime_cache(self, cache: RuntimeCache) -> bool:
        self.cache = cache
        return True


class Engine(fake_tensorrt.ICudaEngine):
    compiled = 0

    def create_runtime_config(self) -> RuntimeConfig:
        return RuntimeConfig()

    def create_execution_context(self, config: Any) -> fake_tensorrt.IExecutionContext:
        if isinstance(config, RuntimeConfig):
            assert config.cache is not None
            if config.cache.content != KERNELS:
                Engine.compiled += 1
                config.cache.content = KERNELS
            config = config.strategy
        return super().create_execution_context(config)


class Runtime(fake_tensorrt.Runtime):
    def deserialize_cuda_engine(self, serialized_engine: bytes) -> Engine:
        about, _, graph = serialized_engine.partition(b"\n")
        return Engine(json.loads(about), graph)


def with_fake_execution(real: Any) -> ModuleType:
    """The vendor's module, but for what runs plans."""
    graphs = dict[int, bytes]()

    class OnnxParser(real.OnnxParser):  # type: ignore[misc] # TensorRT ships no types
        def __init__(self, network: Any, logger: Any) -> None:
            super().__init__(network, logger)
            self._of = id(network)

        def parse_from_file(self, model: str) -> bool:
            graphs[self._of] = Path(model).read_bytes()
            return bool(super().parse_from_file(model))

    class Builder(real.Builder):  # type: ignore[misc]
        def create_optimization_profile(self) -> Any:
            self._profile = super().create_optimization_profile()
            return self._profile

        def build_serialized_network(self, network: Any, config: Any) -> bytes | None:
            if super().build_serialized_network(network, config) is None:
                return None
            gives = [network.get_output(index).name for index in range(network.num_outputs)]
            about = {
                "profile": [list(shape) for shape in self._profile.get_shape("images")],
                "detailed": config.profiling_verbosity == real.ProfilingVerbosity.DETAILED,
                "refittable": False,
                "host_code": False,
                "initializers": [],
                "exposed": [name for name in gives if name != "descriptors"],
            }
            return json.dumps(about).encode() + b"\n" + graphs[id(network)]

    module = ModuleType(real.__name__)
    vars(module).update(vars(real))
    vars(module).update(
        OnnxParser=OnnxParser,
        Builder=Builder,
        Runtime=Runtime,
        LayerInformationFormat=fake_tensorrt.LayerInformationFormat,
        ExecutionContextAllocationStrategy=fake_tensorrt.ExecutionContextAllocationStrategy,
    )
    return module


@dataclass
class RtxMachine:
    """The fake GPU and what a test wants of the fakes."""

    gpu: FakeGpu
    trt: FakeWishes

    @property
    def compiled(self) -> int:
        """How often plans were compiled on loading."""
        return Engine.compiled


@pytest.fixture
def rtx_machine(nvidia: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[RtxMachine]:
    """An RTX GPU of compute capability 8.9."""
    monkeypatch.setitem(sys.modules, nvidia.__name__, with_fake_execution(nvidia))
    monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", fake_cuda)
    machine = RtxMachine(fake_cuda.fake_reset(), fake_tensorrt.fake_reset("10.3.0"))
    machine.gpu.name, machine.gpu.capability, Engine.compiled = b"NVIDIA GeForce RTX 4090", (8, 9), 0
    yield machine
    gc.collect()
