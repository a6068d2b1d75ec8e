"""Where a gallery is, read once from what a user types: a folder, a Milvus Lite file, or a collection of a server.

Light: the command line reads places before anything is loaded. What is done at a place is done by its kind's own file.
"""

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol
from urllib.parse import urlsplit

from geodtr.runtime.errors import ConfigError

if TYPE_CHECKING:
    from geodtr.runtime.gallery.base import Gallery, GalleryWriter, Verified
    from geodtr.runtime.gallery.manifest import GalleryManifest
    from geodtr.runtime.progress import Track

TOKEN = "MILVUS_TOKEN"
"""The environment variable with a server's token: an API key, or USER:PASSWORD."""

_LITE = ".db"
_IN_A_FILE = "gallery"
_SCHEMES = {"milvus": "http", "milvus+https": "https"}
_PORTS = {"http": 19530, "https": 443}
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,254}")


class Place(Protocol):
    """Where a gallery is, or shall be; `str` gives what its user typed."""

    def holds_gallery(self) -> bool:
        """Whether one was begun there. Raises OutputExists when something else is, UserError when none can be."""
        ...

    def create(self, manifest: "GalleryManifest") -> "GalleryWriter":
        """Make an unfinished gallery without references and open it for writing.

        Raises OutputExists when the place is taken, ConfigError when it cannot keep what `manifest` asks for.
        """
        ...

    def open(self) -> "Gallery": ...

    def write(self) -> "GalleryWriter":
        """Take the right to change the gallery that is there."""
        ...

    def verify(self, track: "Track") -> "Verified": ...


@dataclass(frozen=True, slots=True)
class FolderPlace:
    """A folder that a person can look into."""

    path: Path

    def __str__(self) -> str:
        return str(self.path)

    def holds_gallery(self) -> bool:
        from geodtr.runtime.files import check_new_folder
        from geodtr.runtime.gallery.manifest import FILE_NAME

        if os.path.isfile(self.path / FILE_NAME):  # noqa: PTH113 (Path.is_file raises where check_new_folder explains)
            return True
        check_new_folder(self.path)
        return False

    def create(self, manifest: "GalleryManifest") -> "GalleryWriter":
        from geodtr.runtime.gallery.folder.writer import FolderWriter

        return FolderWriter.create(self.path, manifest)

    def open(self) -> "Gallery":
        from geodtr.runtime.gallery.folder.reader import open_folder

        return open_folder(self.path)

    def write(self) -> "GalleryWriter":
        from geodtr.runtime.gallery.folder.writer import FolderWriter

        return FolderWriter(self.path)

    def verify(self, track: "Track") -> "Verified":
        from geodtr.runtime.gallery.base import Verified
        from geodtr.runtime.gallery.folder.verify import verify

        return Verified(verify(self.path, track=track), None)


@dataclass(frozen=True, slots=True)
class MilvusPlace:
    """A collection of Milvus. `address` is a server's URL, or the path of a Milvus Lite database, a name in .db."""

    typed: str
    address: str
    database: str
    collection: str

    def __str__(self) -> str:
        return self.typed

    @property
    def file(self) -> Path | None:
        """The Milvus Lite database; None of a server."""
        return None if "://" in self.address else Path(self.address)

    def holds_gallery(self) -> bool:
        from geodtr.runtime.gallery.milvus.writer import holds_gallery

        return holds_gallery(self)

    def create(self, manifest: "GalleryManifest") -> "GalleryWriter":
        from geodtr.runtime.gallery.milvus.writer import MilvusWriter

        return MilvusWriter.create(self, manifest)

    def open(self) -> "Gallery":
        from geodtr.runtime.gallery.milvus.reader import open_milvus

        return open_milvus(self)

    def write(self) -> "GalleryWriter":
        from geodtr.runtime.gallery.milvus.writer import MilvusWriter

        return MilvusWriter.open(self)

    def verify(self, track: "Track") -> "Verified":
        from geodtr.runtime.gallery.milvus.verify import verify

        return verify(self, track=track)


def as_place(place: Place | Path | str) -> Place:
    """Read a place: `milvus://HOST[:PORT]/[DATABASE/]COLLECTION` (or `milvus+https://`, for TLS), a file that is named
    in .db, anything else a folder. Raises ConfigError saying what of an address is wrong.
    """
    if not isinstance(place, str | Path):
        return place
    text = str(place)
    if "://" in text:
        return _server(text)
    if text.endswith(_LITE):
        return MilvusPlace(text, text, "", _IN_A_FILE)
    return FolderPlace(Path(text))


def _server(text: str) -> MilvusPlace:
    scheme, _, rest = text.partition("://")
    shown = f"{scheme}://{rest.rpartition('@')[2]}"  # what a password stood in is never repeated
    if scheme not in _SCHEMES:
        raise ConfigError(
            f"{shown} is no gallery's place: allowed are a folder, a Milvus Lite file (map.db), "
            "milvus://HOST:PORT/COLLECTION, and milvus+https://HOST:PORT/COLLECTION for a server with TLS."
        )
    try:
        parts = urlsplit(text)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise ConfigError(f"{shown} is no address: {error}.") from None
    if "@" in parts.netloc:
        raise ConfigError(
            f"{shown} came with a name or password, which others would see in it. Leave it out, and set the "
            f"environment variable {TOKEN} to USER:PASSWORD or an API key."
        )
    names = parts.path.strip("/").split("/")
    if not host or parts.query or parts.fragment or not 1 <= len(names) <= 2 or not all(map(_NAME.fullmatch, names)):
        raise ConfigError(
            f"{shown} is not {scheme}://HOST:PORT/COLLECTION or {scheme}://HOST:PORT/DATABASE/COLLECTION. Names are "
            "letters, digits and underscores, no digit first."
        )
    web = _SCHEMES[scheme]
    bracketed = f"[{host}]" if ":" in host else host
    *database, collection = names
    return MilvusPlace(text, f"{web}://{bracketed}:{port or _PORTS[web]}", "".join(database), collection)
