"""A bundle's folder: groups of wheels, each group cut into parts that travel one by one, and a manifest of them all.

A group's parts, one behind the other, are its wheels, one behind the other. A group is whole or it is not used.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

MANIFEST = "manifest.json"
BASE = "base"
"""The group that everything needs."""
_BLOCK = 1 << 20


class BundleFault(Exception):
    """A bundle that is not what its manifest says."""


@dataclass(frozen=True)
class File:
    """A file by its name, its length, and the SHA-256 of its bytes."""

    name: str
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Group:
    """Wheels that are installed together, and the parts that carry them, both in order."""

    name: str
    wheels: tuple[File, ...]
    parts: tuple[File, ...]

    def missing(self, bundle: Path) -> list[str]:
        """The parts that are not in the folder `bundle`."""
        return [part.name for part in self.parts if not (bundle / part.name).is_file()]


@dataclass(frozen=True)
class Contents:
    """A bundle. `python`: the version that it is for. `presumed`: what it needs of packages that are there already."""

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
            f"{bundle} holds no bundle ({error}). Make it on a machine with a network: make gpu-bundle"
        ) from None


def cut(name: str, wheels: Sequence[Path], bundle: Path, most: int) -> Group:
    """Write the parts of a group, none longer than `most` bytes, into the folder `bundle`."""
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
    """Put the wheels of `group` together again in the folder `out`. Raises BundleFault when a byte differs."""
    content = (block for part in group.parts for block in _blocks(bundle / part.name))
    waiting, wheels = b"", list[Path]()
    for wheel in group.wheels:
        path, left = out / wheel.name, wheel.bytes
        with path.open("wb") as file:
            while left:
                waiting = waiting or next(content, b"")
                if not waiting:
                    raise BundleFault(f"{group.name} ends within {wheel.name}. Carry the bundle again.")
                taken, waiting = waiting[:left], waiting[left:]
                left -= file.write(taken)
        if described(path) != wheel:
            raise BundleFault(f"{wheel.name} did not arrive as it was sent. Carry the bundle again.")
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
