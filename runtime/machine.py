"""What of a machine an engine depends on: its processor's instructions, its GPU.

Knows how to ask the operating system; knows nothing of engines.
"""

import platform
from functools import cache
from pathlib import Path

import msgspec

from geodtr.runtime.names import Dialect

_CPU_INFO = Path("/proc/cpuinfo")
_VNNI = frozenset({"avx_vnni", "avx512_vnni", "asimddp"})
_TOLD = _VNNI | {"avx2", "avx512f", "amx_int8", "i8mm"}


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
    def vnni(self) -> bool:
        """Whether it adds products of bytes in 32 bits (VNNI, or ARM's dot product): 8-bit weights are safe then."""
        return bool(_VNNI & set(self.cpu_flags))


@cache
def this_cpu() -> Machine:
    """The processor at hand. Where the operating system does not tell its instructions, none are assumed."""
    told = frozenset[str]()
    if _CPU_INFO.is_file():
        for line in _CPU_INFO.read_text().splitlines():
            key, _, value = line.partition(":")
            if key.strip() in ("flags", "Features"):
                told = _TOLD & set(value.split())
                break
    return Machine(architecture=platform.machine(), cpu_flags=tuple(sorted(told)))


def with_gpu(name: str, compute_capability: str, driver: str) -> Machine:
    """The processor at hand with a GPU beside it."""
    return msgspec.structs.replace(this_cpu(), gpu=name, compute_capability=compute_capability, driver=driver)


def cpu_dialect() -> Dialect:
    """How the processor at hand wants INT8 graphs."""
    return "cpu-8bit" if this_cpu().vnni else "cpu-7bit"
