"""Where a gallery is, read once from what a user types: a folder, a Milvus Lite file, or a collection of a server.

Light: the command line reads locations before anything is loaded. What is done there: gallery/registry.py.
"""

import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from geodtr.runtime.arguments import check_argument
from geodtr.runtime.errors import ConfigError, GalleryError

TOKEN = "MILVUS_TOKEN"
"""The environment variable with a server's token: an API key, or USER:PASSWORD."""

_LITE = ".db"
_IN_A_FILE = "gallery"
_SCHEMES = {"milvus": "http", "milvus+https": "https"}
_PORTS = {"http": 19530, "https": 443}
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,254}")


def command(*words: object) -> str:
    """The command line of `geodtr-export gallery` with these words, as a shell takes it."""
    return f"geodtr-export gallery {shlex.join(map(str, words))}"


def closed(name: object) -> GalleryError:
    """The error for using a gallery after `close`."""
    return GalleryError(f"{name} was closed. Open it again: geodtr.open_gallery({str(name)!r})")


class GalleryLocation:
    """Where a gallery is, or will be: one of the two kinds below. `str` gives what its user typed."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class FolderLocation(GalleryLocation):
    """A folder that a person can look into."""

    path: Path

    def __str__(self) -> str:
        return str(self.path)


@dataclass(frozen=True, slots=True)
class MilvusLocation(GalleryLocation):
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


def as_location(place: GalleryLocation | Path | str) -> FolderLocation | MilvusLocation:
    """Read a location: `milvus://HOST[:PORT]/[DATABASE/]COLLECTION` (or `milvus+https://`, for TLS), a file that is
    named in .db, anything else a folder. Raises ConfigError saying what of an address is wrong.
    """
    check_argument("gallery", place, GalleryLocation | Path)
    if isinstance(place, FolderLocation | MilvusLocation):
        return place
    text = str(place)
    if "://" in text:
        return _server(text)
    if text.endswith(_LITE):
        return MilvusLocation(text, text, "", _IN_A_FILE)
    return FolderLocation(Path(text))


def _server(text: str) -> MilvusLocation:
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
    return MilvusLocation(text, f"{web}://{bracketed}:{port or _PORTS[web]}", "".join(database), collection)
