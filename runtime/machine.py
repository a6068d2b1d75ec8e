"""What of a machine an engine depends on: its processor's instructions, its GPU.

Knows how to ask the operating system; knows nothing of engines.
"""

import ctypes
import os
import platform
import sys
from functools import cache
from pathlib import Path

import msgspec

from geodtr.runtime.errors import ArgumentError
from geodtr.runtime.names import Dialect

_CPU_INFO = Path("/proc/cpuinfo")
_FLAGS = {"x86_64": "flags", "aarch64": "Features"}
"""The line of that file with the instructions. An emulator may show its host's file, which has another line."""
_CONTAINER = Path("/sys/fs/cgroup/memory.max")
_JETSON = Path("/etc/nv_tegra_release")
_VNNI = frozenset({"avx_vnni", "avx512_vnni", "asimddp"})
_CUDA = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
_CAPABILITY_MAJOR, _CAPABILITY_MINOR = 75, 76
_RECORDED_FLAGS = _VNNI | {"avx2", "avx512f", "amx_int8", "i8mm"}


THREADS_A_CORE = 4
"""More threads than so many for each core only wait for each other, and many thousands stop the machine."""


def check_threads(name: str, threads: int | None) -> None:
    """Raise ArgumentError for a number of threads that this machine has no use for."""
    cores = os.cpu_count() or 1
    if threads is not None and not 1 <= threads <= THREADS_A_CORE * cores:
        raise ArgumentError(
            name,
            f"is {threads}; allowed: 1 to {THREADS_A_CORE * cores}, {THREADS_A_CORE} for each of this machine's "
            f"{cores} cores.",
        )


class Machine(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A processor and, where an engine runs on one, a GPU. `cpu_flags` are those that decide how engines compute.

    `compute_capability` like "8.7"; `driver` is the version of CUDA that the driver serves, like "12.6".
    """

    architecture: str
    cpu_flags: tuple[str, ...] = ()
    gpu: str | None = None
    compute_capability: str | None = None
    driver: str | None = None

    @property
    def exact_8bit(self) -> bool:
        """Whether sums of products with 8-bit weights are exact: VNNI and ARM's dot product add in 32 bits. ARM's older
        processors add pairs in 16 bits, but of signed bytes: with weights from -127 to 127, two products fit.
        """
        return self.architecture == "aarch64" or bool(_VNNI & set(self.cpu_flags))


@cache
def this_cpu() -> Machine:
    """The processor of this machine. `cpu_flags` is empty where the operating system does not list them."""
    flags = frozenset[str]()
    if _CPU_INFO.is_file():
        for line in _CPU_INFO.read_text().splitlines():
            key, _, value = line.partition(":")
            if key.strip() == _FLAGS.get(platform.machine()):
                flags = _RECORDED_FLAGS & set(value.split())
                break
    return Machine(architecture=platform.machine(), cpu_flags=tuple(sorted(flags)))


def memory_bytes() -> int:
    """The memory that this process may use: the machine's, or its container's if that is less."""
    there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = _CONTAINER.read_text().strip() if _CONTAINER.is_file() else "max"
    return there if limit == "max" else min(there, int(limit))


def with_gpu(name: str, compute_capability: str, driver: str) -> Machine:
    """The processor at hand with a GPU beside it."""
    return msgspec.structs.replace(this_cpu(), gpu=name, compute_capability=compute_capability, driver=driver)


def is_jetson() -> bool:
    """Whether this is one of NVIDIA's modules with a Tegra processor, recognised by a file of JetPack's Linux."""
    return _JETSON.exists()


@cache
def this_gpu() -> Machine | None:
    """The processor with the first GPU that CUDA shows; None where there is no driver, or no GPU.

    Asks the driver's own library, so that no package is needed. Source: CUDA driver API, cuDeviceGetAttribute.
    """
    try:
        cuda = ctypes.CDLL(_CUDA)
    except OSError:
        return None
    device, version, major, minor = (ctypes.c_int() for _ in range(4))
    name = ctypes.create_string_buffer(256)
    if cuda.cuInit(0) != 0 or cuda.cuDeviceGet(ctypes.byref(device), 0) != 0:
        return None
    cuda.cuDriverGetVersion(ctypes.byref(version))
    cuda.cuDeviceGetName(name, len(name), device)
    cuda.cuDeviceGetAttribute(ctypes.byref(major), _CAPABILITY_MAJOR, device)
    cuda.cuDeviceGetAttribute(ctypes.byref(minor), _CAPABILITY_MINOR, device)
    driver = f"{version.value // 1000}.{version.value % 1000 // 10}"
    return with_gpu(name.value.decode(), f"{major.value}.{minor.value}", driver)


def cpu_dialect() -> Dialect:
    """How the processor at hand wants INT8 graphs."""
    return "cpu-8bit" if this_cpu().exact_8bit else "cpu-7bit"
