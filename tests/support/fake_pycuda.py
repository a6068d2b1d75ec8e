"""pycuda's driver module on the same fake device: calls need a pushed context, and every push needs a pop."""

from typing import Any

import fake_cuda
import numpy as np
from numpy.typing import NDArray


class Error(Exception):
    pass


class MemoryError(Error):
    pass


def init() -> None:
    if fake_cuda.fake_gpu.error:
        raise Error("cuInit failed: no CUDA-capable device is detected")


def get_driver_version() -> int:
    return fake_cuda.fake_gpu.driver


class Context:
    def push(self) -> None:
        assert not getattr(fake_cuda.fake_gpu.current, "device", False)
        fake_cuda.cudaSetDevice(0)

    @staticmethod
    def pop() -> None:
        fake_cuda.cudaSetDevice(-1)


class Device:
    def __init__(self, number: int) -> None:
        assert number == 0

    def name(self) -> str:
        return fake_cuda.fake_gpu.name.decode()

    def compute_capability(self) -> tuple[int, int]:
        return fake_cuda.fake_gpu.capability

    def retain_primary_context(self) -> Context:
        return Context()


class _Allocation(int):
    pass


def mem_alloc(size: int) -> _Allocation:
    error, address = fake_cuda.cudaMalloc(size)
    if error:
        raise MemoryError("cuMemAlloc failed: out of memory")
    return _Allocation(address)


def pagelocked_empty(shape: int, dtype: type[Any]) -> NDArray[Any]:
    held = fake_cuda.fake_gpu.memory[mem_alloc(shape)]
    return np.ctypeslib.as_array(held).view(dtype)


class Stream:
    def __init__(self) -> None:
        _, self.handle = fake_cuda.cudaStreamCreateWithFlags(0)

    def synchronize(self) -> None:
        fake_cuda.cudaStreamSynchronize(self.handle)


def memcpy_htod_async(dest: int, src: NDArray[Any], stream: Stream) -> None:
    _copy(dest, src.ctypes.data, src.nbytes, stream)


def memcpy_dtoh_async(dest: NDArray[Any], src: int, stream: Stream) -> None:
    _copy(dest.ctypes.data, src, dest.nbytes, stream)


def _copy(target: int, source: int, size: int, stream: Stream) -> None:
    kind = fake_cuda.cudaMemcpyKind.cudaMemcpyHostToDevice
    assert fake_cuda.cudaMemcpyAsync(target, source, size, kind, stream.handle) == (0,)
