"""Running plans of TensorRT and of TensorRT-RTX.

A plan runs on the kind of machine and the version that it was built for; anything else is refused before a byte of it
is loaded. Each thread has a stream of its own, with scratch memory that all engines of a bundle share, and for every
batch size that it meets repeatedly an execution context captured in a CUDA graph; a size that it meets for the first
time runs at the next larger one that is there.
What stands above the calls into TensorRT and CUDA is tested through fakes; none of it has run on a GPU yet.
"""

import os
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any, SupportsFloat

import numpy as np

from geodtr.runtime.engines.base import (
    EngineFiles,
    EngineOptions,
    LayerTime,
    check_images,
    explained,
    longest_first,
)
from geodtr.runtime.engines.tensorrt.cuda import Cuda, open_cuda
from geodtr.runtime.engines.tensorrt.library import RTX, check_installation, library_of
from geodtr.runtime.engines.tensorrt.machine_cache import runtime_cache
from geodtr.runtime.engines.tensorrt.plan import Log, exposed, open_log, open_plan, rebuild_here, refusal
from geodtr.runtime.engines.tensorrt.rtx_contexts import RtxContexts
from geodtr.runtime.errors import BundleError
from geodtr.runtime.manifest import BackendEntry, TensorRtEntry
from geodtr.runtime.spec import INPUT, OUTPUT, BranchSpec, Descriptors, Embedder, Images

if TYPE_CHECKING:
    import tensorrt as trt

HOST_CODE = "GEODTR_TRUST_HOST_CODE"
"""The environment variable that, set to 1, lets version-compatible plans run the program code they carry."""

_KEPT = 8
"""Batch sizes, of all branches together, that a thread keeps contexts and graphs of: the last it met."""


def open_embedders(engines: Sequence[EngineFiles], backend: BackendEntry, options: EngineOptions) -> list[Embedder]:
    """Open the plans of one bundle. Raises MissingDependency, or BundleError naming the command that rebuilds them."""
    library = library_of(backend.name)
    version = check_installation(library)
    cuda, how = open_cuda(), backend.tensorrt
    if how is None:
        raise BundleError(refusal(engines[0], backend, "the manifest does not say how it was built"))
    if how.version_compatible and not (options.trust_host_code or os.environ.get(HOST_CODE) == "1"):
        raise BundleError(
            f"{engines[0].compiled} is version-compatible: it carries program code that would run on this machine's "
            f"processor. If you trust who built it, set {HOST_CODE}=1. Otherwise build it here: "
            f"{rebuild_here(engines[0], backend)}"
        )
    log = open_log(library)
    with cuda.active():
        plans = [open_plan(engine, backend, how, log) for engine in engines]
        rtx = None
        if library == RTX:
            files = [
                runtime_cache(engine.compiled, cuda.machine, version)
                if options.keep_compiled and engine.compiled
                else None
                for engine in engines
            ]
            with explained(library.name, _file(engines[0])):
                rtx = RtxContexts(library.trt, plans, files)
    shared = _Plans(cuda, plans, engines, how, log, rtx)
    return [TensorRtEmbedder(shared, index) for index in range(len(engines))]


def layer_times(
    engine: EngineFiles, backend: BackendEntry, options: EngineOptions, images: Images, calls: int
) -> list[LayerTime]:
    """Layer times from TensorRT's profiler, without CUDA graphs, after one warm-up call. `images` may be at most the
    profile's largest batch. Layers have names but no types.
    """
    (embedder,) = open_embedders([engine], backend, options)
    assert isinstance(embedder, TensorRtEmbedder)
    return embedder.layer_times(images, calls)


class TensorRtEmbedder:
    """One branch's plan. Threads may share it: each works in its own stream."""

    def __init__(self, plans: "_Plans", index: int) -> None:
        self._plans = plans
        self._index = index

    @property
    def spec(self) -> BranchSpec:
        return self._plans.specs[self._index]

    def embed(self, images: Images) -> Descriptors:
        """[B, H, W, 3] -> [B, D], unit rows. More images than the profile's largest batch are cut into several.

        Raises BundleError for what the library or CUDA cannot do, UserError when the GPU's memory is too little.
        """
        check_images(images, self.spec)
        rows = np.empty((len(images), self.spec.descriptor_size), np.float32)
        with self._plans.active(self._index):
            lane = self._plans.lane()
            for start in range(0, len(images), self._plans.how.max_batch):
                part = slice(start, start + self._plans.how.max_batch)
                rows[part] = lane.embed(self._index, images[part])
        return rows

    def layer_times(self, images: Images, calls: int) -> list[LayerTime]:
        """What each layer takes for a call with `images`, the longest first."""
        with self._plans.active(self._index):
            return longest_first(self._plans.lane().layer_times(self._index, images, calls))


class _Plans:
    """The engines of one bundle, and each thread's lane through them."""

    def __init__(
        self,
        cuda: Cuda,
        engines: Sequence["trt.ICudaEngine"],
        files: Sequence[EngineFiles],
        how: TensorRtEntry,
        log: Log,
        rtx: RtxContexts | None,
    ) -> None:
        self.cuda, self.engines, self.how, self.log, self.rtx = cuda, engines, how, log, rtx
        self.specs, self._names = [file.spec for file in files], [_file(file) for file in files]
        self.exposed = [exposed(engine) for engine in engines]
        self.making = threading.Lock()
        self._lanes = threading.local()

    @contextmanager
    def active(self, index: int) -> Iterator[None]:
        """Run an engine: on the device, and with its name in what fails."""
        with explained(self.log.library.name, self._names[index]), self.cuda.active():
            yield

    def context(self, index: int) -> "trt.IExecutionContext":
        """A new one of an engine, without scratch memory yet."""
        if self.rtx is not None:
            context: trt.IExecutionContext | None = self.rtx.create(index)
        else:
            strategy = self.log.library.trt.ExecutionContextAllocationStrategy.USER_MANAGED
            context = self.engines[index].create_execution_context(strategy)
        if context is None:
            raise self.log.failed("it gives no execution context")
        return context

    def lane(self) -> "_Lane":
        """This thread's."""
        if not hasattr(self._lanes, "lane"):
            self._lanes.lane = _Lane(self)
        lane: _Lane = self._lanes.lane
        return lane


class _Lane:
    """What one thread works with: a stream, buffers for the largest batch, and scratch memory, shared by all branches,
    whose work never overlaps within a thread.
    """

    def __init__(self, plans: _Plans) -> None:
        self.plans, cuda = plans, plans.cuda
        largest = plans.how.max_batch
        takes = max(largest * _image_bytes(spec) for spec in plans.specs)
        gives = max(largest * _row_bytes(spec) for spec in plans.specs)
        self.stream = cuda.stream()
        self.scratch = cuda.memory(max(1, *(engine.device_memory_size_v2 for engine in plans.engines)))
        self.images, self.rows = cuda.memory(takes), cuda.memory(gives)
        self.host_images, self.host_rows = cuda.pinned(takes), cuda.pinned(gives)
        self._batches = OrderedDict[tuple[int, int], _Batch]()
        self._met = set[tuple[int, int]]()

    def embed(self, index: int, images: Images) -> Descriptors:
        """Rows of at most the largest batch; they are overwritten by the next call."""
        batch = self._batch(index, self._size(index, len(images)))
        batch.images[: len(images)] = images  # rows beyond hold what was there before
        batch.launch()
        self.stream.synchronise()
        return batch.rows[: len(images)]

    def layer_times(self, index: int, images: Images, calls: int) -> dict[tuple[str, str], list[float]]:
        """Of each layer the milliseconds in each of `calls` calls, and in one before them."""
        images = images[: self.plans.how.max_batch]
        # One of its own: a context that was profiled is no longer the one that was captured.
        batch = _Batch(self, index, max(len(images), self.plans.how.min_batch))
        batch.images[: len(images)] = images
        return batch.layer_times(calls + 1)

    def _size(self, index: int, count: int) -> int:
        """The batch size at which `count` images run. A size that comes for the first time, as a last short batch does,
        is not worth a context and a graph: it runs at the next larger one that is there.
        """
        size = max(count, self.plans.how.min_batch)
        larger = [there for branch, there in self._batches if branch == index and there >= size]
        if (index, size) in self._met or not larger:
            return size
        self._met.add((index, size))
        return min(larger)

    def _batch(self, index: int, size: int) -> "_Batch":
        key = (index, size)
        if key not in self._batches:
            while len(self._batches) >= _KEPT:
                self._batches.popitem(last=False)
            self._batches[key] = _Batch(self, index, size)
        self._batches.move_to_end(key)
        return self._batches[key]


class _Batch:
    """One engine at one batch size: copy in, compute, copy out, as one CUDA graph where it can be captured.

    A context of its own, as a graph holds only as long as its context is left alone.
    Source: TensorRT's guide on CUDA graphs: one context a graph, memory shared, and one run before the capture.
    """

    def __init__(self, lane: _Lane, index: int, size: int) -> None:
        plans = lane.plans
        spec, how = plans.specs[index], plans.specs[index].preprocessing
        self.images = lane.host_images[: size * _image_bytes(spec)].reshape(size, *how.shape)
        self.rows = lane.host_rows[: size * _row_bytes(spec)].view(np.float32).reshape(size, spec.descriptor_size)
        self._lane = lane
        with plans.making:
            context = plans.context(index)
            context.set_device_memory(lane.scratch.address, lane.scratch.size)
            ready = [
                context.set_optimization_profile_async(0, lane.stream.handle),
                context.set_input_shape(INPUT, self.images.shape),
                context.set_tensor_address(INPUT, lane.images.address),
                context.set_tensor_address(OUTPUT, lane.rows.address),
            ]
            self._exposed = [
                (name, plans.cuda.memory(context.get_max_output_size(name))) for name in plans.exposed[index]
            ]
            ready += [context.set_tensor_address(name, memory.address) for name, memory in self._exposed]
            if not all(ready):
                raise plans.log.failed(f"it refuses a batch of {size}")
            self._context = context
            self._compute()
            lane.stream.synchronise()
            if plans.rtx is not None:
                plans.rtx.keep(index)
            self.launch = lane.stream.capture(self._compute) or self._compute

    def layer_times(self, calls: int) -> dict[tuple[str, str], list[float]]:
        """Of each layer, the milliseconds in each call."""
        base: Any = self._lane.plans.log.library.trt.IProfiler
        taken: dict[tuple[str, str], list[float]] = {}

        class Times(base):  # type: ignore[misc] # its class is the library's, found at run time
            def __init__(self) -> None:
                base.__init__(self)

            def report_layer_time(self, layer_name: str, ms: SupportsFloat) -> None:
                taken.setdefault((layer_name, ""), []).append(float(ms))

        times = Times()  # TensorRT holds no reference of its own
        self._context.profiler = times
        for _ in range(calls):
            self._compute()
            self._lane.stream.synchronise()
        return taken

    def _compute(self) -> None:
        self._lane.stream.to_device(self._lane.images, self.images)
        if not self._context.execute_async_v3(self._lane.stream.handle):
            raise self._lane.plans.log.failed("it could not run a batch")
        self._lane.stream.to_host(self.rows, self._lane.rows)


def _file(engine: EngineFiles) -> Path:
    return engine.compiled or engine.graph


def _image_bytes(spec: BranchSpec) -> int:
    return prod(spec.preprocessing.shape)


def _row_bytes(spec: BranchSpec) -> int:
    return 4 * spec.descriptor_size
