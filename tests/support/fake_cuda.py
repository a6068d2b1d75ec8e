"""The CUDA runtime API of cuda-bindings, in host memory: a stream executes its work only when it is synchronised.

A missing synchronisation, a too small allocation, or a thread without a device therefore fails a test. `make
check-tensorrt` compares every function with the real one.
"""

import ctypes
import threading
from collections import Counter
from collections.abc import Callable
from enum import IntEnum
from itertools import count
from types import SimpleNamespace

Work = Callable[[], None]


class cudaError_t(IntEnum):
    cudaSuccess = 0
    cudaErrorInvalidValue = 1
    cudaErrorMemoryAllocation = 2
    cudaErrorInsufficientDriver = 35
    cudaErrorNoDevice = 100
    cudaErrorIllegalAddress = 700
    cudaErrorStreamCaptureInvalidated = 901


class cudaMemcpyKind(IntEnum):
    cudaMemcpyHostToDevice = 1
    cudaMemcpyDeviceToHost = 2


class cudaStreamCaptureMode(IntEnum):
    cudaStreamCaptureModeThreadLocal = 1


cudaStreamNonBlocking = 1
_OK = cudaError_t.cudaSuccess


class FakeGpu:
    """The state of the device, which tests may read and change."""

    def __init__(self) -> None:
        self.name, self.capability, self.driver = b"Fake GPU", (8, 7), 12060
        self.error = _OK  # the result of every device query
        self.free_bytes = 1 << 40
        self.fault = _OK  # the result of waiting for work
        self.refuses_capture = False
        self.memory = dict[int, ctypes.Array[ctypes.c_uint8]]()  # never reused: an address is one allocation
        self.freed = set[int]()
        self.streams = dict[int, list[Work]]()
        self.capturing = dict[int, list[Work]]()
        self.graphs = dict[int, list[Work]]()
        self.calls = Counter[str]()
        self.handles = count(1)
        self.current = threading.local()

    def enqueue(self, stream: int, work: Work) -> cudaError_t:
        """Execute `work` when the stream reaches it."""
        if not getattr(self.current, "device", False):
            raise AssertionError("this thread has selected no device")
        (self.capturing.get(stream, self.streams[stream])).append(work)
        return _OK

    def holds(self, address: int, size: int) -> bool:
        """Whether `size` bytes from `address` are within one allocation."""
        return any(
            start <= address and address + size <= start + len(held) and start not in self.freed
            for start, held in self.memory.items()
        )


fake_gpu = FakeGpu()
_earlier = list[FakeGpu]()


def fake_reset() -> FakeGpu:
    """Replace the device by a new one."""
    global fake_gpu
    _earlier.append(fake_gpu)
    fake_gpu = FakeGpu()
    return fake_gpu


def cudaGetDeviceCount() -> tuple[cudaError_t, int]:
    return fake_gpu.error, 0 if fake_gpu.error else 1


def cudaSetDevice(device: int) -> tuple[cudaError_t]:
    fake_gpu.current.device = device == 0
    return (_OK,)


def cudaGetDeviceProperties(device: int) -> tuple[cudaError_t, SimpleNamespace]:
    del device
    major, minor = fake_gpu.capability
    return _OK, SimpleNamespace(name=fake_gpu.name + b"\0" * 8, major=major, minor=minor)


def cudaDriverGetVersion() -> tuple[cudaError_t, int]:
    return _OK, fake_gpu.driver


def cudaGetErrorName(error: cudaError_t) -> tuple[cudaError_t, bytes]:
    return _OK, cudaError_t(error).name.encode()


def cudaGetLastError() -> tuple[cudaError_t]:
    return (_OK,)


def cudaMalloc(size: int) -> tuple[cudaError_t, int]:
    if size > fake_gpu.free_bytes:
        return cudaError_t.cudaErrorMemoryAllocation, 0
    fake_gpu.calls["malloc"] += 1
    held = (ctypes.c_uint8 * size)()
    fake_gpu.memory[ctypes.addressof(held)] = held
    return _OK, ctypes.addressof(held)


def cudaFree(devPtr: int) -> tuple[cudaError_t]:
    fake_gpu.freed.add(devPtr)
    return (_OK,)


cudaMallocHost, cudaFreeHost = cudaMalloc, cudaFree


def cudaStreamCreateWithFlags(flags: int) -> tuple[cudaError_t, int]:
    del flags
    fake_gpu.calls["stream"] += 1
    handle = next(fake_gpu.handles)
    fake_gpu.streams[handle] = []
    return _OK, handle


def cudaStreamDestroy(stream: int) -> tuple[cudaError_t]:
    fake_gpu.streams.pop(stream, None)
    return (_OK,)


def cudaStreamSynchronize(stream: int) -> tuple[cudaError_t]:
    work, fake_gpu.streams[stream] = fake_gpu.streams[stream], []
    for item in work:
        item()
    return (fake_gpu.fault,)


def cudaMemcpyAsync(dst: int, src: int, count: int, kind: cudaMemcpyKind, stream: int) -> tuple[cudaError_t]:
    del kind
    if not (fake_gpu.holds(dst, count) and fake_gpu.holds(src, count)):
        return (cudaError_t.cudaErrorInvalidValue,)

    def copy() -> None:
        ctypes.memmove(dst, src, count)

    return (fake_gpu.enqueue(stream, copy),)


def cudaStreamBeginCapture(stream: int, mode: cudaStreamCaptureMode) -> tuple[cudaError_t]:
    del mode
    fake_gpu.capturing[stream] = []
    return (_OK,)


def cudaStreamEndCapture(stream: int) -> tuple[cudaError_t, int]:
    work = fake_gpu.capturing.pop(stream)
    if fake_gpu.refuses_capture:
        return cudaError_t.cudaErrorStreamCaptureInvalidated, 0
    handle = next(fake_gpu.handles)
    fake_gpu.graphs[handle] = work
    return _OK, handle


def cudaGraphInstantiate(graph: int, flags: int) -> tuple[cudaError_t, int]:
    del flags
    fake_gpu.calls["graph"] += 1
    handle = next(fake_gpu.handles)
    fake_gpu.graphs[handle] = fake_gpu.graphs[graph]
    return _OK, handle


def cudaGraphDestroy(graph: int) -> tuple[cudaError_t]:
    del fake_gpu.graphs[graph]
    return (_OK,)


def cudaGraphExecDestroy(graphExec: int) -> tuple[cudaError_t]:
    fake_gpu.graphs.pop(graphExec, None)
    return (_OK,)


def cudaGraphLaunch(graphExec: int, stream: int) -> tuple[cudaError_t]:
    fake_gpu.calls["launch"] += 1
    for work in fake_gpu.graphs[graphExec]:
        fake_gpu.enqueue(stream, work)
    return (_OK,)
