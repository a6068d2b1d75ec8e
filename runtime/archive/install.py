"""Install archives on a device, return to the version before, and verify the one in use. versions.py has the folder."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from geodtr.runtime.archive.format import INDEX, SIGNATURE, ArchiveReader, Index, Signed, decode_index
from geodtr.runtime.archive.keys import as_pem, is_signed, read_public, read_trusted
from geodtr.runtime.archive.versions import (
    PREVIOUS,
    TRUSTED,
    Version,
    accept_from,
    accepted_from,
    changing,
    free_place,
    id_of,
    link,
    linked,
    make_current,
    remove_others,
    verified,
    whole,
)
from geodtr.runtime.doctor.diagnosis import examine_bundle
from geodtr.runtime.errors import ArchiveError, VersionDamaged
from geodtr.runtime.files import make_folder, new_folder, open_to_read, readable, write_bytes
from geodtr.runtime.files.foreign_text import escape_controls
from geodtr.runtime.files.own_kinds import CURRENT
from geodtr.runtime.progress import Track, untracked

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey


def unpack(
    archive: Path,
    folder: Path,
    trust: Sequence[Path] = (),
    *,
    allow_older: bool = False,
    elsewhere: bool = False,
    track: Track = untracked,
) -> Version:
    """Install `archive` in `folder` and make it the current version. Of a version that is there, damage is repaired.

    `trust` names files of public keys; they are kept in the folder, so that an update needs none. `allow_older` accepts
    an archive that was made before the last one that was installed, `elsewhere` a bundle that does not run on this
    machine. Raises ArchiveError when the archive is not signed by a trusted key, is damaged, is older, or does not run
    here. The current version then is the one before.
    """
    named = [key for path in trust for key in read_public(path)]
    with readable(ArchiveError):
        file = open_to_read(archive, sys.maxsize)
    with file:
        reader = ArchiveReader(file, str(archive))
        signed = reader.read_signed()
        _require_trusted(archive, signed, folder, named)
        index = decode_index(signed.content, str(archive))
        arrived = _Arrived(archive, reader, signed, index)
        make_folder(folder)
        with changing(folder):
            since = "" if allow_older else _require_newer(arrived, folder)
            path = whole(folder, arrived.id, signed, index)
            if path is None:
                path = free_place(folder, arrived.id)
                _extract(arrived, path, elsewhere, track)
            # Again, and into what is in the file now: a key may have been withdrawn, or added, since.
            _require_trusted(archive, signed, folder, named)
            _add_trusted(folder, named)
            # Before the link: killed in between, it accepts no older archive than it would have.
            accept_from(folder, max(since, index.created))
            make_current(folder, path)
            remove_others(folder)
    return Version(arrived.id, path, index)


def rollback(folder: Path) -> Version:
    """Make the previous version the current one, which may be damaged. Raises ArchiveError when there is none before,
    or it is not what a trusted key signed.
    """
    if linked(folder, CURRENT) is None:
        raise _nothing(folder)
    with changing(folder):
        now, before = linked(folder, CURRENT), linked(folder, PREVIOUS)
        if now is None or before is None or not before.is_dir() or id_of(before) == id_of(now):
            raise ArchiveError(f"{folder} holds no version before the current one: there is nothing to return to.")
        try:
            version = verified(before, folder)
        except VersionDamaged as error:
            raise ArchiveError(f"The version before cannot be returned to: {error}") from None
        link(folder, CURRENT, before)
        link(folder, PREVIOUS, now)
    return version


def current(folder: Path) -> Path | None:
    """The folder of the version in use, None where nothing is installed."""
    path = linked(folder, CURRENT)
    return path if path is not None and path.is_dir() else None


def verify(folder: Path) -> Version:
    """Read every file of the current version. Raises VersionDamaged naming what differs from the signed index."""
    now = linked(folder, CURRENT)
    if now is None:
        raise _nothing(folder)
    return verified(now, folder)


def _nothing(folder: Path) -> ArchiveError:
    archive, place = ("ARCHIVE", folder) if folder.is_dir() or not folder.exists() else (folder, "FOLDER")
    return ArchiveError(f"{folder} holds no version. To install one: geodtr-export bundle unpack {archive} {place}")


@dataclass(frozen=True, slots=True)
class _Arrived:
    """An archive whose signature is verified, open at its first file."""

    path: Path
    reader: ArchiveReader
    signed: Signed
    index: Index

    @property
    def id(self) -> str:
        return f"{self.index.created}-{self.signed.check}"


def _require_trusted(archive: Path, signed: Signed, folder: Path, named: Sequence["Ed25519PublicKey"]) -> None:
    keys = [*named, *read_trusted(folder / TRUSTED)]
    if not keys:
        raise ArchiveError(
            f"{folder} trusts no key. Name the public key of those who sign its archives: --trust KEY.pub"
        )
    if not is_signed(*signed, keys):
        raise ArchiveError(
            f"{archive} is not signed by a key that {folder} trusts, or was altered: nothing was installed. If you "
            "trust the key of those who made it, name it: --trust KEY.pub"
        )


def _add_trusted(folder: Path, named: Sequence["Ed25519PublicKey"]) -> None:
    held = read_trusted(folder / TRUSTED)
    keys = as_pem([*held, *named])
    if keys != as_pem(held):
        write_bytes(folder / TRUSTED, keys)


def _require_newer(arrived: _Arrived, folder: Path) -> str:
    """The time that archives must not be older than. The version in use can be repaired though it is older."""
    since, now = accepted_from(folder), linked(folder, CURRENT)
    if arrived.index.created < since and (now is None or id_of(now) != arrived.id):
        raise ArchiveError(
            f"{arrived.path} was made at {arrived.index.created}, before the last archive that was installed here "
            f"({since}). To install it all the same: --allow-older"
        )
    return since


def _extract(arrived: _Arrived, path: Path, elsewhere: bool, track: Track) -> None:
    files = arrived.index.files
    with new_folder(path) as unfinished:
        for _ in track(arrived.reader.extract(files, unfinished), "Unpacking files", len(files)):
            pass
        (unfinished / INDEX).write_bytes(arrived.signed.content)
        (unfinished / SIGNATURE).write_bytes(arrived.signed.signature)
        if not elsewhere:
            _require_it_runs(unfinished / "bundle", arrived.path)


def _require_it_runs(bundle: Path, archive: Path) -> None:
    failed = [finding for finding in examine_bundle(bundle).findings if finding.failed]
    if failed:
        reasons = "; ".join(f"{each.what}: {escape_controls(each.found)}. {each.remedy}" for each in failed)
        raise ArchiveError(
            f"The bundle in {archive} does not run on this machine: nothing was installed. {reasons} To install it for "
            "another machine: --elsewhere"
        )
