"""Execution contexts of TensorRT-RTX, which compiles for the very GPU when a plan is loaded, and what keeps that.

What stands above the calls is tested through fakes; none of it has run on a GPU yet.
"""

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from geodtr.runtime.engines.tensorrt.machine_cache import MachineCache
from geodtr.runtime.errors import UserError


class RtxContexts:
    """Makes the contexts of several engines; each engine has a cache of what was compiled for it, kept in its file
    where it has one.

    A cache that is damaged, or that the library refuses, is replaced: that costs the time of the first call. Where the
    cache cannot be written, each start takes that time.
    """

    def __init__(self, trt: Any, engines: Sequence[Any], files: Sequence[MachineCache | None]) -> None:
        self._engines, self._files = engines, files
        self._configs, self._caches, self._kept = list[Any](), list[Any](), list[bytes]()
        for engine, file in zip(engines, files, strict=True):
            config = engine.create_runtime_config()
            config.set_execution_context_allocation_strategy(trt.ExecutionContextAllocationStrategy.USER_MANAGED)
            # A kernel that is replaced behind one's back is not the one that was captured in a CUDA graph.
            config.dynamic_shapes_kernel_specialization_strategy = trt.DynamicShapesKernelSpecializationStrategy.EAGER
            cache = config.create_runtime_cache()
            content = b"" if file is None else file.read()
            known = bool(content) and cache.deserialize(content)
            config.set_runtime_cache(cache)
            self._configs.append(config)
            self._caches.append(cache)
            self._kept.append(content if known and content else b"")

    def create(self, index: int) -> Any:
        """A new context of an engine; None when the library refuses."""
        return self._engines[index].create_execution_context(self._configs[index])

    def keep(self, index: int) -> None:
        """Write what was compiled for an engine since."""
        file = self._files[index]
        if file is None:
            return
        content = bytes(self._caches[index].serialize())
        if content != self._kept[index]:
            self._kept[index] = content
            with suppress(UserError, OSError):
                file.write(content)
