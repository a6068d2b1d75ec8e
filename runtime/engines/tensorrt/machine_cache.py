"""What one of NVIDIA's libraries learnt on one GPU, kept in a file beside the bundles: never part of one.

How long TensorRT's tactics took is kept between builds, what TensorRT-RTX compiled on loading between runs. Knows the
file; what is in it only the library reads.
"""

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

from geodtr.runtime.files import sha256, write_bytes
from geodtr.runtime.machine import Machine

_DIGEST_BYTES = 32


@dataclass(frozen=True, slots=True)
class MachineCache:
    """The cache of one GPU and one version of a library.

    The file begins with a SHA-256 of its key and content, so that damage and a file of another machine are found before
    the library reads a byte.
    """

    path: Path
    machine: Machine
    version: str

    def read(self) -> bytes | None:
        """What `write` was given; empty where there is no file yet, None where it is damaged or another machine's."""
        if not self.path.is_file():
            return b""
        held = self.path.read_bytes()
        digest, content = held[:_DIGEST_BYTES], held[_DIGEST_BYTES:]
        return content if digest == self._digest(content) else None

    def write(self, content: bytes) -> None:
        """Replace the file in one step."""
        write_bytes(self.path, self._digest(content) + content)

    def _digest(self, content: bytes) -> bytes:
        key = f"{self.version}\0{self.machine.gpu}\0{self.machine.compute_capability}\0{self.machine.driver}\0"
        return hashlib.sha256(key.encode() + content).digest()


def timing_cache(folder: Path, machine: Machine, version: str) -> MachineCache:
    """Of all builds in `folder`."""
    return MachineCache(folder / f"tensorrt-{_words(machine, version)}.timing", machine, version)


def runtime_cache(plan: Path, machine: Machine, version: str) -> MachineCache:
    """Of one plan, beside its bundle; named by its content, so that a bundle may be moved or built again."""
    name = f"{plan.stem}-{sha256(plan)[:12]}-{_words(machine, version)}.rtx-cache"
    return MachineCache(plan.resolve().parent.parent / name, machine, version)


def _words(machine: Machine, version: str) -> str:
    return re.sub(r"[^A-Za-z0-9.]+", "-", f"{version} {machine.gpu} {machine.compute_capability}")
