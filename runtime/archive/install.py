"""The folder on a device that archives are installed into, one version beside the other.

    current             the version in use: current/bundle and current/gallery are what commands are given
    previous            the one before it, to which `rollback` returns
    versions/ID/        bundle/, gallery/, index.json and signature as they came
    trusted.pem         public keys of those whose archives are accepted

A version is a new folder that is synced and renamed when it is whole, and `current` is a symbolic link that is replaced
in one step. So current/bundle is the old version or the new one, whenever a process is killed.
"""

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from hashlib import sha256 as hash_of
from pathlib import Path

from geodtr.runtime.archive.format import INDEX, SIGNATURE, ArchiveReader, Index, decode_index
from geodtr.runtime.archive.keys import as_pem, is_signed, read_public
from geodtr.runtime.doctor import examine_bundle
from geodtr.runtime.errors import ArchiveError
from geodtr.runtime.files import locked, make_folder, new_folder, readable, sha256, sync, write_bytes
from geodtr.runtime.files.foreign_text import escape_controls
from geodtr.runtime.progress import Track, untracked

CURRENT, PREVIOUS, VERSIONS, TRUSTED = "current", "previous", "versions", "trusted.pem"
_NOTHING = "{folder} holds no version. To install one: geodtr-export bundle unpack ARCHIVE {folder}"


@dataclass(frozen=True, slots=True)
class Version:
    """An installed version: its id, its folder, and its index."""

    id: str
    path: Path
    index: Index


def unpack(
    archive: Path,
    folder: Path,
    trust: Sequence[Path] = (),
    *,
    allow_older: bool = False,
    elsewhere: bool = False,
    track: Track = untracked,
) -> Version:
    """Install `archive` in `folder` and make it the current version.

    `trust` names files of public keys; they are kept in the folder, so that an update needs none. `allow_older` accepts
    an archive that was made before the current version, `elsewhere` a bundle that does not run on this machine.
    Raises ArchiveError when the archive is not signed by a trusted key, is damaged, is older, or does not run here. The
    current version then is the one before.
    """
    with readable(ArchiveError):
        file = archive.open("rb")
    with file:
        keys = read_public([*trust, *([folder / TRUSTED] if (folder / TRUSTED).exists() else [])])
        if not keys:
            raise ArchiveError(
                f"{folder} trusts no key yet. Name the public key of those who sign its archives: --trust KEY.pub"
            )
        reader = ArchiveReader(file, str(archive))
        content, signature = reader.read_signed()
        if not is_signed(content, signature, keys):
            raise ArchiveError(
                f"{archive} is not signed by a key that {folder} trusts, or was altered: nothing was installed. If "
                "you trust the key of those who made it, name it: --trust KEY.pub"
            )
        index = decode_index(content, str(archive))
        id = f"{index.created}-{hash_of(content).hexdigest()[:8]}"
        make_folder(folder)
        with _changing(folder):
            now = current(folder)
            if now is not None and index.created < now.index.created and not allow_older:
                raise ArchiveError(
                    f"{archive} was made at {index.created}, before the current version ({now.index.created}). To "
                    "install it all the same: --allow-older"
                )
            path = folder / VERSIONS / id
            if not path.exists():
                with new_folder(path) as unfinished:
                    for _ in track(reader.extract(index.files, unfinished), "Unpacking files", len(index.files)):
                        pass
                    (unfinished / INDEX).write_bytes(content)
                    (unfinished / SIGNATURE).write_bytes(signature)
                    if not elsewhere:
                        _require_it_runs(unfinished / "bundle", archive)
            _require_whole(path, index)
            write_bytes(folder / TRUSTED, as_pem(keys))
            if now is None or now.id != id:
                # In this order: killed in between, it has the old version, and only the way back is lost.
                if now is not None:
                    _link(folder, PREVIOUS, now.id)
                _link(folder, CURRENT, id)
            _remove_others(folder)
    return Version(id, path, index)


def rollback(folder: Path) -> Version:
    """Make the previous version the current one. Raises ArchiveError when there is none or it is damaged."""
    if current(folder) is None:
        raise ArchiveError(_NOTHING.format(folder=folder))
    with _changing(folder):
        now, before = current(folder), _version(folder, PREVIOUS)
        if now is None or before is None or before.id == now.id:
            raise ArchiveError(f"{folder} holds no version before the current one: there is nothing to return to.")
        _require_whole(before.path, before.index)
        _link(folder, CURRENT, before.id)
        _link(folder, PREVIOUS, now.id)
    return before


def current(folder: Path) -> Version | None:
    """The version in use, None where nothing is installed yet. Raises ArchiveError when its index cannot be read."""
    return _version(folder, CURRENT)


def verify(folder: Path) -> Version:
    """Read every file of the current version. Raises ArchiveError naming what differs from the signed index."""
    now = current(folder)
    if now is None:
        raise ArchiveError(f"{folder} holds no version. To install one: geodtr-export bundle unpack ARCHIVE {folder}")
    keys = read_public([folder / TRUSTED])
    with readable(ArchiveError):
        signed = is_signed((now.path / INDEX).read_bytes(), (now.path / SIGNATURE).read_bytes(), keys)
    if not signed:
        raise ArchiveError(f"{now.path / INDEX} is not what was signed. Install the archive again.")
    _require_whole(now.path, now.index)
    return now


@contextmanager
def _changing(folder: Path) -> Iterator[None]:
    with locked(folder) as lock:
        if lock == "another's":
            raise ArchiveError(f"Another process installs in {folder} now. Repeat when it has ended.")
        yield


def _version(folder: Path, link: str) -> Version | None:
    place = folder / link
    if not place.is_symlink():
        if place.exists():
            raise ArchiveError(f"{place} is not a link that `bundle unpack` makes. Move it elsewhere.")
        return None
    path = folder / place.readlink()
    if not path.is_dir():
        return None
    with readable(ArchiveError):
        content = (path / INDEX).read_bytes()
    return Version(path.name, path, decode_index(content, str(path)))


def _link(folder: Path, name: str, id: str) -> None:
    unfinished = folder / f".{name}.unfinished"
    unfinished.unlink(missing_ok=True)
    unfinished.symlink_to(Path(VERSIONS) / id)
    unfinished.replace(folder / name)
    sync(folder)


def _remove_others(folder: Path) -> None:
    """Remove versions to which no link leads, unfinished ones too. A process that has a file of one open keeps it."""
    kept = {(folder / name).readlink().name for name in (CURRENT, PREVIOUS) if (folder / name).is_symlink()}
    for path in (folder / VERSIONS).iterdir():
        if path.name not in kept:
            shutil.rmtree(path, ignore_errors=True)


def _require_whole(path: Path, index: Index) -> None:
    for entry in index.files:
        file, digest = path / entry.path, None
        with suppress(OSError):
            digest = sha256(file) if file.stat().st_size == entry.bytes else None
        if digest != entry.sha256:
            raise ArchiveError(f"{file} is missing or damaged. Remove {path} and install its archive again.")


def _require_it_runs(bundle: Path, archive: Path) -> None:
    failed = [finding for finding in examine_bundle(bundle).findings if finding.failed]
    if failed:
        reasons = "; ".join(f"{each.what}: {escape_controls(each.found)}. {each.remedy}" for each in failed)
        raise ArchiveError(
            f"The bundle in {archive} does not run on this machine: nothing was installed. {reasons} To install it for "
            "another machine: --elsewhere"
        )
