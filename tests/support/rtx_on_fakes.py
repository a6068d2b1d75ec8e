"""TensorRT-RTX with NVIDIA's own parser and builder, and fakes for running a plan, which needs a GPU.

The vendor's builder builds a plan, and a plan that fake_tensorrt.py runs then replaces it.
"""

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import fake_cuda
import fake_tensorrt
import pytest
from fake_cuda import FakeGpu
from fake_tensorrt import FakeSettings
from tensorrt_on_fakes import collected

KERNELS = b"kernels of this GPU"


class RuntimeCache:
    """The kernels that were compiled when plans were loaded."""

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
    def deserialize_cuda_engine(self, serialized_engine: bytes) -> Engine | None:
        if fake_tensorrt.fake_fails(fake_tensorrt.fake_settings.load_fails):
            return None
        about, _, graph = serialized_engine.partition(b"\n")
        return Engine(json.loads(about), graph)


@dataclass
class RtxMachine:
    """The fake GPU and the settings of the fakes."""

    gpu: FakeGpu
    trt: FakeSettings

    @property
    def compiled(self) -> int:
        """Number of compilations while plans were loaded."""
        return Engine.compiled


@pytest.fixture
def rtx_machine(nvidia: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[RtxMachine]:
    """An RTX GPU of compute capability 8.9."""
    module = fake_tensorrt.fake_library(nvidia, nvidia.__version__, compiles=True)
    module.Runtime = Runtime  # type: ignore[attr-defined] # a module made here
    monkeypatch.setitem(sys.modules, nvidia.__name__, module)
    monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", fake_cuda)
    machine = RtxMachine(fake_cuda.fake_reset(), fake_tensorrt.fake_reset())
    machine.gpu.name, machine.gpu.capability, Engine.compiled = b"NVIDIA GeForce RTX 4090", (8, 9), 0
    with collected():
        yield machine
