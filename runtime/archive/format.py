"""The file format: a tar file whose first member lists the others with their hashes, and whose second signs the first.

    index.json   what the archive is, and each file's path, bytes and SHA-256
    signature    Ed25519, 64 bytes, of index.json
    bundle/...   the bundle's files
    gallery/...  the gallery's files, if there is one

`tar xf` unpacks it, `openssl pkeyutl -verify` checks the signature. The reader trusts nothing before the signature is
verified: it reads two short members of known names. Then each member must be the one that the index lists next.
"""

import hashlib
import re
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple

import msgspec
from msgspec import Struct

from geodtr.runtime.archive.keys import SIGNATURE_BYTES
from geodtr.runtime.errors import ArchiveError
from geodtr.runtime.files.documents import MAX_BYTES, decode_json, encode_json

FORMAT = 1
INDEX, SIGNATURE = "index.json", "signature"
CREATED = re.compile(r"[0-9]{8}T[0-9]{6}Z")
_PATH = re.compile(r"(bundle|gallery)(/[A-Za-z0-9_][A-Za-z0-9_.-]*)+")
_LONGEST = 100
"""Bytes of a path in one header of tar."""
_BLOCK = 512
_CHUNK = 1 << 20


class FileEntry(Struct, frozen=True, forbid_unknown_fields=True):
    """A file of the archive."""

    path: str
    bytes: int
    sha256: str


class Signed(NamedTuple):
    """The bytes of an index, and the signature of them."""

    content: bytes
    signature: bytes

    @property
    def check(self) -> str:
        """The end of a version's id, by which damage to the index is found."""
        return hashlib.sha256(self.content).hexdigest()[:8]


class Index(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What an archive is. `created`, its time in UTC as 20260131T235959Z, orders versions; `note` is free text."""

    format: int
    toolkit: str
    created: str
    embedding_id: str
    note: str
    files: tuple[FileEntry, ...]

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(entry.bytes for entry in self.files)

    @property
    def has_gallery(self) -> bool:
        return any(entry.path.startswith("gallery/") for entry in self.files)


def encode_index(index: Index) -> bytes:
    """The bytes that are signed. Raises ArchiveError for a path that an archive cannot hold."""
    for entry in index.files:
        if not can_hold(entry.path):
            raise ArchiveError(
                f"{entry.path} cannot be put into an archive: a path has at most {_LONGEST} characters, of the letters "
                "a to z, digits, and . _ -"
            )
    return encode_json(index, indent=2) + b"\n"


def decode_index(content: bytes, name: str) -> Index:
    """The index in `content`, whose signature is verified. Raises ArchiveError when a newer version wrote it."""
    try:
        index = decode_json(content, Index)
    except msgspec.DecodeError as error:
        raise ArchiveError(
            f"{INDEX} of {name} cannot be read ({error}). A newer version may have written it: update geodtr-export."
        ) from None
    paths = [entry.path for entry in index.files]
    sizes = all(entry.bytes >= 0 for entry in index.files)
    known = index.format == FORMAT and sizes and CREATED.fullmatch(index.created)
    if not known or not all(map(can_hold, paths)) or len({*paths}) < len(paths):
        raise ArchiveError(
            f"{name} is in format {index.format}, or has a time or lists files as no version known here does; this one "
            f"reads format {FORMAT}. Update geodtr-export."
        )
    return index


def can_hold(path: str) -> bool:
    """Whether `path` may be in an archive: of few characters, relative, and below bundle/ or gallery/."""
    return len(path) <= _LONGEST and _PATH.fullmatch(path) is not None


def write_archive(file: BinaryIO, index: bytes, signature: bytes, sources: Sequence[tuple[FileEntry, Path]]) -> None:
    """Write the members. Raises ArchiveError when a source is no longer what its entry lists."""
    for name, content in ((INDEX, index), (SIGNATURE, signature)):
        file.write(_header(name, len(content)) + content + _padding(len(content)))
    for entry, path in sources:
        file.write(_header(entry.path, entry.bytes))
        with path.open("rb") as source:
            hashed = _copy(source, file, entry.bytes)
            if hashed != entry.sha256 or source.read(1):
                raise ArchiveError(f"{path} changed while it was packed. Repeat when nothing writes to it.")
        file.write(_padding(entry.bytes))
    file.write(bytes(2 * _BLOCK))


class ArchiveReader:
    """Reads an archive from `file` once, from its start; `name` is what errors call it."""

    def __init__(self, file: BinaryIO, name: str) -> None:
        self._file, self._name = file, name

    def read_signed(self) -> Signed:
        """The index's bytes, which nothing vouches for yet, and the signature of them."""
        return Signed(self._small(INDEX, MAX_BYTES), self._small(SIGNATURE, SIGNATURE_BYTES))

    def extract(self, files: Sequence[FileEntry], folder: Path) -> Iterator[FileEntry]:
        """Write each listed file below `folder` and yield its entry. Raises ArchiveError at the first that differs."""
        for entry in files:
            if self._next(entry.path) != entry.bytes:
                raise self._damaged(entry.path)
            path = folder / entry.path
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("xb") as target:
                hashed = _copy(self._file, target, entry.bytes)
            self._file.read(len(_padding(entry.bytes)))
            if hashed != entry.sha256:
                raise self._damaged(entry.path)
            yield entry

    def _small(self, name: str, most: int) -> bytes:
        size = self._next(name)
        if size > most:
            raise self._other()
        content = self._file.read(size)
        self._file.read(len(_padding(size)))
        if len(content) < size:
            raise self._damaged(name)
        return content

    def _next(self, name: str) -> int:
        """The size of the next member, which must be a plain file called `name`."""
        header = self._file.read(_BLOCK)
        try:
            member = tarfile.TarInfo.frombuf(header, "ascii", "strict")
        except (tarfile.HeaderError, UnicodeDecodeError):
            raise self._other() if name == INDEX else self._damaged(name) from None
        if member.name != name or not member.isreg() or member.size < 0:
            raise self._other() if name == INDEX else self._damaged(name)
        return member.size

    def _other(self) -> ArchiveError:
        return ArchiveError(f"{self._name} is not an archive of `geodtr-export bundle pack`. Check the path.")

    def _damaged(self, member: str) -> ArchiveError:
        return ArchiveError(
            f"{self._name} is cut short or damaged at {member}: nothing was installed. Copy it here again."
        )


def _header(name: str, size: int) -> bytes:
    member = tarfile.TarInfo(name)
    member.size, member.mode = size, 0o644
    return member.tobuf(tarfile.GNU_FORMAT, "ascii", "strict")


def _padding(size: int) -> bytes:
    return bytes(-size % _BLOCK)


def _copy(source: BinaryIO, target: BinaryIO, size: int) -> str:
    """Copy up to `size` bytes; the hex SHA-256 of what was there."""
    digest = hashlib.sha256()
    while size and (chunk := source.read(min(size, _CHUNK))):
        digest.update(chunk)
        target.write(chunk)
        size -= len(chunk)
    return digest.hexdigest()
