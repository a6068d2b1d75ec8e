"""One GPU, its memory and its streams, from Python: by cuda-bindings where it works, else by pycuda.

Nothing else imports either. Both use the device's primary context, the one that TensorRT works in. The device is the
first that CUDA_VISIBLE_DEVICES leaves. Knows nothing of engines.
Names and argument counts are checked against both packages (`make check-tensorrt`); none of it has run on a GPU yet.
"""

import ctypes
import weakref
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from importlib import import_module
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from geodtr.runtime.errors import MissingDependency, UserError
from geodtr.runtime.installation import install_hint
from geodtr.runtime.machine import Machine, this_gpu, with_gpu

_DEVICE = 0
_OUT_OF_MEMORY = 2
_NO_DRIVER = 35
"""cudaErrorMemoryAllocation and cudaErrorInsufficientDriver: the latter also where there is no driver at all."""


class Memory(Protocol):
    """Memory on the device, freed with this object; `size` in bytes."""

    address: int
    size: int


class Stream(Protocol):
    """Work for the device, done in order. `handle` is its cudaStream_t."""

    handle: int

    def to_device(self, target: Memory, source: NDArray[Any]) -> None:
        """Copy a contiguous pinned array to the start of `target`; both must live until the stream is synchronised."""
        ...

    def to_host(self, target: NDArray[Any], source: Memory) -> None:
        """Fill a contiguous pinned array from the start of `source`; both must live until then as well."""
        ...

    def synchronise(self) -> None:
        """Wait until everything asked for is done."""
        ...

    def capture(self, work: Callable[[], None]) -> Callable[[], None] | None:
        """The operations that `work` enqueues on this stream, captured as one graph; a call enqueues them again.

        Nothing runs during the capture. None if it cannot be captured; call `work` itself then. All memory that `work`
        uses must outlive the graph.
        """
        ...


class Cuda(Protocol):
    """The device. Every call, and every use of what it gives, is made inside `active`, in any thread."""

    machine: Machine

    def active(self) -> AbstractContextManager[None]:
        """Make the device this thread's own for a while."""
        ...

    def stream(self) -> Stream: ...

    def memory(self, size: int) -> Memory:
        """Raises UserError when the device has none left."""
        ...

    def pinned(self, size: int) -> NDArray[np.uint8]:
        """Host memory of `size` bytes that the device reads and writes directly; freed with the array."""
        ...


def find_cuda() -> Cuda | None:
    """The device; None where there is no driver, or no GPU. Raises MissingDependency when there is one that neither
    package reaches.
    """
    try:
        return open_cuda()
    except MissingDependency:
        if this_gpu() is None:
            return None
        raise


def open_cuda() -> Cuda:
    """The device, by the first provider that works. Raises MissingDependency naming why none does."""
    reasons = []
    for provider, name in ((_Runtime, "cuda-bindings"), (_PyCuda, "pycuda")):
        try:
            return provider()
        except ModuleNotFoundError:
            reasons.append(f"{name} is not installed")
        except (ImportError, RuntimeError, _Refused) as error:
            # Both packages import without a driver, and fail at the first call, each in its own way.
            reasons.append(f"{name}: {error}")
    raise MissingDependency(
        f"No NVIDIA GPU can be used ({'; '.join(reasons)}). This needs a GPU with its driver, and one of the two "
        "packages, made for a CUDA that the driver serves (nvidia-smi names it): "
        f"{install_hint('tensorrt')}, or [pycuda] instead. "
        "To run without a GPU: geodtr-export build-engine ... --backend onnxruntime"
    )


class _Refused(Exception):
    """A provider that is there cannot reach a device."""


def out_of_memory(size: int = 0) -> UserError:
    """The GPU's memory is used up; `size` in bytes is what was asked for, 0 where that is unknown."""
    wanted = f"{size / 1e6:.0f} MB of " if size else ""
    return UserError(
        f"The GPU has no {wanted}memory left. End what else uses it, or build for smaller batches: "
        "geodtr-export build-engine ... --max-batch N"
    )


def _version(number: int) -> str:
    """As in: 12060 is 12.6."""
    return f"{number // 1000}.{number % 1000 // 10}"


class _Runtime:
    """The CUDA runtime, by cuda-bindings."""

    def __init__(self) -> None:
        # Not `from cuda.bindings`: the tests put a fake in this module's place.
        self.cudart = cudart = import_module("cuda.bindings.runtime")
        error, count = cudart.cudaGetDeviceCount()
        if int(error) == _NO_DRIVER:
            raise _Refused("there is no driver, or it is older than this package")
        if int(error) or not count:
            raise _Refused(f"it sees no device ({_name(cudart, error)})")
        self.ask(cudart.cudaSetDevice(_DEVICE))
        properties = self.ask(cudart.cudaGetDeviceProperties(_DEVICE))
        self.machine = with_gpu(
            properties.name.decode().rstrip("\0"),
            f"{properties.major}.{properties.minor}",
            _version(self.ask(cudart.cudaDriverGetVersion())),
        )

    def active(self) -> AbstractContextManager[None]:
        self.ask(self.cudart.cudaSetDevice(_DEVICE))
        return nullcontext()

    def stream(self) -> Stream:
        return _RuntimeStream(self)

    def memory(self, size: int) -> Memory:
        return _RuntimeMemory(self, size)

    def pinned(self, size: int) -> NDArray[np.uint8]:
        address = self.ask(self.cudart.cudaMallocHost(size), size)
        raw = (ctypes.c_uint8 * size).from_address(address)
        weakref.finalize(raw, self.cudart.cudaFreeHost, address)
        return np.ctypeslib.as_array(raw)

    def ask(self, result: tuple[Any, ...], size: int = 0) -> Any:
        """The value that a call gave. Raises UserError when the memory was too little, RuntimeError otherwise."""
        error, *values = result
        if int(error) == _OUT_OF_MEMORY:
            raise out_of_memory(size)
        if int(error):
            raise RuntimeError(f"CUDA: {_name(self.cudart, error)}")
        return values[0] if values else None


def _name(cudart: Any, error: Any) -> str:
    _, name = cudart.cudaGetErrorName(error)
    return name.decode() if isinstance(name, bytes) else str(name)


class _RuntimeMemory:
    def __init__(self, cuda: _Runtime, size: int) -> None:
        self.address = int(cuda.ask(cuda.cudart.cudaMalloc(size), size))
        self.size = size
        weakref.finalize(self, cuda.cudart.cudaFree, self.address)


class _RuntimeStream:
    def __init__(self, cuda: _Runtime) -> None:
        self._cuda, self._cudart = cuda, cuda.cudart
        self._stream = cuda.ask(self._cudart.cudaStreamCreateWithFlags(self._cudart.cudaStreamNonBlocking))
        self.handle = int(self._stream)
        weakref.finalize(self, self._cudart.cudaStreamDestroy, self._stream)

    def to_device(self, target: Memory, source: NDArray[Any]) -> None:
        kind = self._cudart.cudaMemcpyKind.cudaMemcpyHostToDevice
        self._copy(target.address, source.ctypes.data, source.nbytes, kind)

    def to_host(self, target: NDArray[Any], source: Memory) -> None:
        kind = self._cudart.cudaMemcpyKind.cudaMemcpyDeviceToHost
        self._copy(target.ctypes.data, source.address, target.nbytes, kind)

    def synchronise(self) -> None:
        self._cuda.ask(self._cudart.cudaStreamSynchronize(self._stream))

    def capture(self, work: Callable[[], None]) -> Callable[[], None] | None:
        # Thread-local: what other threads do meanwhile is none of this graph's business.
        mode = self._cudart.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        self._cuda.ask(self._cudart.cudaStreamBeginCapture(self._stream, mode))
        try:
            work()
        except (RuntimeError, UserError):
            captured = False
        else:
            captured = True
        error, graph = self._cudart.cudaStreamEndCapture(self._stream)
        if int(error) or not captured:
            self._cudart.cudaGetLastError()  # forgets it: TensorRT would take it for its own
            return None
        executable = self._cuda.ask(self._cudart.cudaGraphInstantiate(graph, 0))
        self._cuda.ask(self._cudart.cudaGraphDestroy(graph))

        def launch() -> None:
            self._cuda.ask(self._cudart.cudaGraphLaunch(executable, self._stream))

        weakref.finalize(launch, self._cudart.cudaGraphExecDestroy, executable)
        return launch

    def _copy(self, target: int, source: int, size: int, kind: Any) -> None:
        self._cuda.ask(self._cudart.cudaMemcpyAsync(target, source, size, kind, self._stream))


class _PyCuda:
    """The CUDA driver, by pycuda, which knows no graphs."""

    def __init__(self) -> None:
        self.driver = driver = import_module("pycuda.driver")
        try:
            driver.init()
            device = driver.Device(_DEVICE)
        except driver.Error as error:
            raise _Refused(str(error)) from None
        self._context = device.retain_primary_context()
        major, minor = device.compute_capability()
        self.machine = with_gpu(device.name(), f"{major}.{minor}", _version(driver.get_driver_version()))

    @contextmanager
    def active(self) -> Iterator[None]:
        # Pushed and popped around every use: pycuda aborts the process when a thread ends with a context on its stack.
        self._context.push()
        try:
            yield
        finally:
            self.driver.Context.pop()

    def stream(self) -> Stream:
        return _PyCudaStream(self.driver)

    def memory(self, size: int) -> Memory:
        return _PyCudaMemory(self.driver, size)

    def pinned(self, size: int) -> NDArray[np.uint8]:
        try:
            array: NDArray[np.uint8] = self.driver.pagelocked_empty(size, np.uint8)
        except self.driver.MemoryError:
            raise out_of_memory(size) from None
        return array


class _PyCudaMemory:
    def __init__(self, driver: Any, size: int) -> None:
        try:
            self._owner = driver.mem_alloc(size)
        except driver.MemoryError:
            raise out_of_memory(size) from None
        self.address, self.size = int(self._owner), size


class _PyCudaStream:
    def __init__(self, driver: Any) -> None:
        self._driver = driver
        self._stream = driver.Stream()
        self.handle = int(self._stream.handle)

    def to_device(self, target: Memory, source: NDArray[Any]) -> None:
        self._driver.memcpy_htod_async(target.address, source, self._stream)

    def to_host(self, target: NDArray[Any], source: Memory) -> None:
        self._driver.memcpy_dtoh_async(target, source.address, self._stream)

    def synchronise(self) -> None:
        self._stream.synchronize()

    def capture(self, work: Callable[[], None]) -> Callable[[], None] | None:
        del work
        return None
