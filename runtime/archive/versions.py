"""The folder on a device that holds versions, one beside the other.

    current             the version in use: current/bundle and current/gallery are what commands are given
    previous            the one before it, to which `rollback` returns
    versions/ID/        bundle/, gallery/, index.json and signature as they came; ID.1 and so on where it was repaired
    trusted.pem         public keys of those whose archives are accepted
    accepted-from       the time of the last archive that was installed: one made before is older

A version is a new folder that is synced and renamed when it is whole, and `current` is a symbolic link that is replaced
in one step. So current/bundle is the old version or the new one, whenever a process is killed. Only a link's own name
is needed to replace it: a version that is damaged, or was removed by hand, is in nobody's way.
"""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from geodtr.runtime.archive.format import CREATED, INDEX, SIGNATURE, Index, Signed, decode_index
from geodtr.runtime.archive.keys import SIGNATURE_BYTES, is_signed, read_trusted
from geodtr.runtime.errors import ArchiveError, VersionDamaged
from geodtr.runtime.files import locked, readable, sha256, write_bytes, write_link
from geodtr.runtime.files.documents import read_document
from geodtr.runtime.files.own_kinds import CURRENT

PREVIOUS, VERSIONS, TRUSTED, ACCEPTED = "previous", "versions", "trusted.pem", "accepted-from"


@dataclass(frozen=True, slots=True)
class Version:
    """An installed version: its id, its folder, and its index."""

    id: str
    path: Path
    index: Index


def id_of(path: Path) -> str:
    """The id of the version in the folder `path`, whether it is there or not: its time, and the check of its index."""
    return path.name.partition(".")[0]


@contextmanager
def changing(folder: Path) -> Iterator[None]:
    """Hold `folder` against other processes. Raises ArchiveError when one has it."""
    with locked(folder) as lock:
        if lock == "another's":
            raise ArchiveError(f"Another process installs in {folder} now. Repeat when it has ended.")
        yield


def linked(folder: Path, link: str) -> Path | None:
    """The version that `link` leads to, which may be damaged or gone; None where nothing was installed."""
    place = folder / link
    if not place.is_symlink():
        if place.exists():
            raise ArchiveError(f"{place} is not a link that `bundle unpack` makes. Move it elsewhere.")
        return None
    return folder / place.readlink()


def read_version(path: Path, folder: Path) -> Version:
    """The version in `path`. Raises VersionDamaged when its index is not what a key that `folder` trusts has signed."""
    again = f"Install its archive again: geodtr-export bundle unpack ARCHIVE {folder}"
    try:
        signed = _read_signed(path)
    except OSError as error:
        raise VersionDamaged(f"{error.filename} cannot be read ({error.strerror}). {again}") from None
    if signed.check != id_of(path).rpartition("-")[2]:
        raise VersionDamaged(f"{path / INDEX} is damaged or was altered. {again}")
    if not is_signed(*signed, read_trusted(folder / TRUSTED)):
        raise VersionDamaged(
            f"{path} is signed by no key in {folder / TRUSTED}: its key was withdrawn, or {path / SIGNATURE} is "
            f"damaged. Install an archive of a trusted key: geodtr-export bundle unpack ARCHIVE {folder}. If you trust "
            "its own key again, install its archive again with --trust KEY.pub"
        )
    return Version(id_of(path), path, decode_index(signed.content, str(path)))


def verified(path: Path, folder: Path) -> Version:
    """The version in `path`, of which every file is read. Raises VersionDamaged naming what differs from its index."""
    version = read_version(path, folder)
    if (file := _first_damaged(path, version.index)) is not None:
        raise VersionDamaged(
            f"{file} is missing or damaged. Install its archive again: geodtr-export bundle unpack ARCHIVE {folder}"
        )
    return version


def whole(folder: Path, id: str, signed: Signed, index: Index) -> Path | None:
    """The version `id` where it is installed without damage."""
    for path in sorted((folder / VERSIONS).glob(f"{id}*")):
        with suppress(OSError):
            if _read_signed(path) == signed and _first_damaged(path, index) is None:
                return path
    return None


def free_place(folder: Path, id: str) -> Path:
    """Where the version `id` can be put while a damaged copy of it is in use."""
    names = (f"{id}.{number}" if number else id for number in count())
    return next(path for name in names if not (path := folder / VERSIONS / name).exists())


def accepted_from(folder: Path) -> str:
    """The time that an archive may not be older than, "" where nothing was installed.

    It is kept beside the versions, so that removing one does not lose it. Raises ArchiveError when it is damaged.
    """
    path, kept = folder / ACCEPTED, ""
    with readable(ArchiveError), suppress(FileNotFoundError):
        kept = read_document(path).decode(errors="replace").strip()
        if not CREATED.fullmatch(kept):
            raise ArchiveError(
                f"{path} is damaged: it does not hold the time of the last archive that was installed. If you know "
                "that yours is newer: --allow-older"
            )
    now = linked(folder, CURRENT)
    named = None if now is None else CREATED.match(now.name)
    return max(kept, named[0] if named else "")


def accept_from(folder: Path, time: str) -> None:
    """Let archives that were made before `time` be older."""
    write_bytes(folder / ACCEPTED, time.encode() + b"\n")


def link(folder: Path, name: str, path: Path) -> None:
    """Let the link `name` lead to the version in `path`."""
    write_link(folder / name, Path(VERSIONS) / path.name)


def make_current(folder: Path, path: Path) -> None:
    """Let the version in `path` be the current one, and the one until now the previous, unless it is damaged."""
    now = linked(folder, CURRENT)
    # In this order: killed in between, it has the old version, and only the way back is lost.
    if now is not None and id_of(now) != id_of(path) and _is_signed(now, folder):
        link(folder, PREVIOUS, now)
    link(folder, CURRENT, path)


def remove_others(folder: Path) -> None:
    """Remove versions to which no link leads, unfinished ones too. A process that has a file of one open keeps it."""
    kept = {path.name for name in (CURRENT, PREVIOUS) if (path := linked(folder, name)) is not None}
    for path in (folder / VERSIONS).iterdir():
        if path.name not in kept:
            shutil.rmtree(path, ignore_errors=True)


def _is_signed(path: Path, folder: Path) -> bool:
    try:
        read_version(path, folder)
    except ArchiveError:
        return False
    return True


def _read_signed(path: Path) -> Signed:
    return Signed(read_document(path / INDEX), read_document(path / SIGNATURE, SIGNATURE_BYTES))


def _first_damaged(path: Path, index: Index) -> Path | None:
    for entry in index.files:
        file, digest = path / entry.path, None
        with suppress(OSError):
            digest = sha256(file) if file.stat().st_size == entry.bytes else None
        if digest != entry.sha256:
            return file
    return None
