"""The bundle and the gallery that are served, and how newer ones take their place: as a whole, or not at all.

Knows files and localizers; knows nothing of HTTP.
"""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event, Thread

from geodtr.runtime.bundle import open_bundle
from geodtr.runtime.errors import UserError
from geodtr.runtime.gallery.base import Gallery, GalleryInfo
from geodtr.runtime.gallery.folder.opening import LOCK
from geodtr.runtime.gallery.folder.table import FILE_NAME as TABLE
from geodtr.runtime.gallery.location import FolderLocation, GalleryLocation, as_location
from geodtr.runtime.gallery.manifest import FILE_NAME
from geodtr.runtime.gallery.registry import open_gallery
from geodtr.runtime.localization.localizer import Localizer
from geodtr.runtime.manifest import Manifest
from geodtr.runtime.manifest.document import FILE_NAME as MANIFEST
from geodtr.runtime.serve.ground import Ground

LOOK = 1.0
"""Seconds between two looks at the gallery; it is opened when two find the same."""

_Stamp = frozenset[tuple[str, int, int, int]]


class Replacing(UserError):
    """The gallery's files are being written over, so that no answer of it can be trusted."""


@dataclass(frozen=True, slots=True, eq=False)
class InUse:
    """A localizer with its gallery and its ground.

    `number` rises with each gallery. It begins with the time, so that no browser takes pictures that it keeps of
    an earlier server's gallery for the gallery in use.
    """

    number: int
    localizer: Localizer
    ground: Ground
    info: GalleryInfo
    manifest: Manifest
    _mark: tuple[Path, os.stat_result] | None = field(repr=False)

    def check(self) -> None:
        """Raise Replacing when the gallery was written over in place. One that was moved away stays whole: its open
        files are still the old ones.
        """
        if self._mark is None:
            return
        path, before = self._mark
        try:
            now = path.stat()
        except OSError:
            return
        same = (now.st_dev, now.st_ino) == (before.st_dev, before.st_ino)
        if same and (now.st_mtime_ns, now.st_size) != (before.st_mtime_ns, before.st_size):
            raise Replacing("The gallery is being replaced. Try again in a few seconds.")


class Current:
    """Opens bundle and gallery, and looks every second whether they were replaced.

    `change` describes what came last.
    """

    def __init__(
        self, bundle: Path, gallery: GalleryLocation | Path | str, open_localizer: Callable[..., Localizer]
    ) -> None:
        """`open_localizer` takes an open bundle and an open gallery. Raises what opening them does."""
        self._bundle, self._location = bundle, as_location(gallery)
        self._open_localizer = open_localizer
        self._refused: str | None = None
        self._failed: str | None = None
        self.change = ""
        self._stamp = self._seen = self._look()
        self._in_use = self._open(None)
        self._stopped = Event()
        self._thread: Thread | None = None

    def __call__(self) -> InUse:
        """What is in use at the moment."""
        return self._in_use

    @property
    def problem(self) -> str | None:
        """Why the newest bundle and gallery are not in use, or cannot be looked for; None where neither is so."""
        return self._failed or self._refused

    @property
    def health(self) -> str | None:
        """The same for those who may not know the names of files."""
        if self._failed is not None:
            return "Whether there is a newer gallery cannot be found out; the one from before is in use."
        return None if self._refused is None else "A newer gallery was refused; the one from before is in use."

    def watch(self, on_change: Callable[["Current"], None]) -> None:
        """Look for newer ones in a thread, until `close`."""
        if not isinstance(self._location, FolderLocation):
            return  # Milvus serves what it holds

        def look() -> None:
            while not self._stopped.wait(LOOK):
                changed, failed = False, None
                try:
                    changed = self.look()
                except Exception as error:  # a bug must not end the looks
                    failed = f"A look at the gallery failed ({_named(error)})."
                if failed != self._failed:
                    if not changed:
                        self.change = "Bundle and gallery can be looked for again."
                    changed, self._failed = True, failed
                if changed:
                    on_change(self)

        self._thread = Thread(target=look, name="gallery", daemon=True)
        self._thread.start()

    def look(self) -> bool:
        """Take newer ones into use, if there are; whether anything changed, `problem` included."""
        seen, self._seen = self._seen, self._look()
        if self._seen == self._stamp or self._seen != seen:
            return False  # nothing new, or still being copied
        changed = {Path(entry[0]) for entry in self._stamp ^ self._seen}
        self._stamp = self._seen
        try:
            self._in_use, self._refused = self._open(self._in_use), None
        except Exception as error:
            why = str(error) if isinstance(error, UserError) else f"The newer gallery failed ({_named(error)})."
            self._refused = f"{why} Still in use: the gallery from before."
        else:
            self.change = self._described(changed)
        return True

    def _described(self, changed: set[Path]) -> str:
        assert isinstance(self._location, FolderLocation)
        replaced = list[str]()
        of_gallery = {path.name for path in changed if path.parent == self._location.path}
        if any(name == FILE_NAME or name.startswith(TABLE) for name in of_gallery):
            replaced.append(f"The gallery was replaced: {self._in_use.info.references} tiles.")
        if self._bundle / MANIFEST in changed:
            replaced.append("The bundle was replaced.")
        if replaced:
            return " ".join(replaced)
        whose = {self._bundle: "bundle", self._location.path: "gallery"}
        names = ", ".join(sorted(f"{path.name} of the {whose.get(path.parent, 'server')}" for path in changed))
        return f"Bundle and gallery were opened again, because of {names}."

    def close(self) -> None:
        self._stopped.set()
        if self._thread is not None:
            self._thread.join()
        self._in_use.localizer.close()

    def _open(self, before: InUse | None) -> InUse:
        bundle = open_bundle(self._bundle)
        gallery = open_gallery(self._location)
        try:
            localizer: Localizer = (
                before.localizer.on(gallery)
                if before is not None and before.manifest == bundle.manifest
                else self._open_localizer(bundle, gallery)
            )
            number = int(time.time()) if before is None else before.number + 1
            return InUse(number, localizer, Ground(gallery), gallery.info, bundle.manifest, self._mark(gallery))
        except BaseException:
            gallery.close()
            raise

    def _mark(self, gallery: Gallery) -> tuple[Path, os.stat_result] | None:
        if not isinstance(self._location, FolderLocation):
            return None
        path = Path(gallery.name, FILE_NAME)
        return path, path.stat()

    def _look(self) -> _Stamp:
        """What differs between two states of the files."""
        entries = set[tuple[str, int, int, int]]()
        folders = [self._bundle]
        if isinstance(self._location, FolderLocation):
            folders.append(self._location.path)
        for folder in folders:
            try:
                with os.scandir(folder) as files:
                    for entry in files:
                        if entry.name.endswith("-shm") or entry.name == LOCK:
                            continue  # SQLite's and the writer's own; neither is content
                        held = entry.stat()
                        if entry.name.endswith("-wal") and not held.st_size:
                            continue  # a reader makes an empty one
                        entries.add((entry.path, held.st_ino, held.st_size, held.st_mtime_ns))
            except OSError as error:
                entries.add((str(folder), error.errno or 0, 0, 0))
        return frozenset(entries)


def _named(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
