"""How long TensorRT's tactics took on one GPU, kept between builds in a file beside the bundles.

Knows the file; what is in it only TensorRT reads. The file is never part of a bundle.
"""

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

from geodtr.runtime.files import write_bytes
from geodtr.runtime.machine import Machine

_DIGEST_BYTES = 32


@dataclass(frozen=True, slots=True)
class TimingCache:
    """The cache of one GPU and one version of TensorRT in a folder.

    The file begins with a SHA-256 of its key and content, so that damage and a file of another machine are found before
    TensorRT reads a byte.
    """

    folder: Path
    machine: Machine
    version: str

    @property
    def path(self) -> Path:
        name = re.sub(r"[^A-Za-z0-9.]+", "-", f"{self.version} {self.machine.gpu} {self.machine.compute_capability}")
        return self.folder / f"tensorrt-{name}.timing"

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
