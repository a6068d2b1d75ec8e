"""The folder of a bundle: groups of wheels, each split into parts that can be copied one by one, and a manifest.

The concatenated parts of a group are its concatenated wheels. An incomplete group is not used.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

MANIFEST = "manifest.json"
BASE = "base"
"""The required group."""
_BLOCK = 1 << 20


class BundleFault(Exception):
    """A bundle that does not match its manifest."""


@dataclass(frozen=True)
class File:
    """Name, length and SHA-256 of a file."""

    name: str
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Group:
    """Wheels that are installed together, and their parts, both in order."""

    name: str
    wheels: tuple[File, ...]
    parts: tuple[File, ...]

    def missing(self, bundle: Path) -> list[str]:
        """The names of parts that are not in the folder `bundle`."""
        return [part.name for part in self.parts if not (bundle / part.name).is_file()]


@dataclass(frozen=True)
class Contents:
    """A bundle. `python`: its Python version. `presumed`: dependencies that the machine must have."""

    python: str
    presumed: tuple[str, ...]
    groups: tuple[Group, ...]


def write_contents(bundle: Path, contents: Contents) -> None:
    (bundle / MANIFEST).write_text(json.dumps(asdict(contents), indent=1) + "\n")


def read_contents(bundle: Path) -> Contents:
    """Raises BundleFault when the folder holds no manifest."""
    try:
        values = json.loads((bundle / MANIFEST).read_text())
        groups = tuple(
            Group(each["name"], *(tuple(File(**file) for file in each[key]) for key in ("wheels", "parts")))
            for each in values["groups"]
        )
        return Contents(values["python"], tuple(values["presumed"]), groups)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BundleFault(
            f"{bundle} holds no bundle ({error}). Build one on a machine with a network: make gpu-bundle"
        ) from None


def cut(name: str, wheels: Sequence[Path], bundle: Path, most: int) -> Group:
    """Write the parts of a group, each at most `most` bytes, into the folder `bundle`."""
    parts = list[File]()
    blocks = (block for wheel in wheels for block in _blocks(wheel))
    waiting = next(blocks, b"")
    while waiting:
        part = bundle / f"{name}.{len(parts) + 1}"
        left = most
        with part.open("wb") as file:
            while waiting and left:
                taken, waiting = waiting[:left], waiting[left:]
                left -= file.write(taken)
                waiting = waiting or next(blocks, b"")
        parts.append(described(part))
    return Group(name, tuple(map(described, wheels)), tuple(parts))


def join(group: Group, bundle: Path, out: Path) -> list[Path]:
    """Reassemble the wheels of `group` in the folder `out`. Raises BundleFault when a byte differs."""
    content = (block for part in group.parts for block in _blocks(bundle / part.name))
    waiting, wheels = b"", list[Path]()
    for wheel in group.wheels:
        path, left = out / wheel.name, wheel.bytes
        with path.open("wb") as file:
            while left:
                waiting = waiting or next(content, b"")
                if not waiting:
                    raise BundleFault(f"{group.name} ends within {wheel.name}. Copy the bundle again.")
                taken, waiting = waiting[:left], waiting[left:]
                left -= file.write(taken)
        if described(path) != wheel:
            raise BundleFault(f"{wheel.name} is corrupted. Copy the bundle again.")
        wheels.append(path)
    return wheels


def described(path: Path) -> File:
    digest = hashlib.sha256()
    for block in _blocks(path):
        digest.update(block)
    return File(path.name, path.stat().st_size, digest.hexdigest())


def _blocks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            yield block
