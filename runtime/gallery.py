"""A gallery: aerial references with their descriptors and positions, in a folder that belongs to one embedding space.

gallery.json         what it is: embedding id, sizes, the SHA-256 of the other files
descriptors.npy      float32 [N, D], unit rows, memory-mapped when opened
references.sqlite    table `reference`: row, file, lat, lon (degrees, WGS 84; NULL where unknown)
"""

import errno
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import msgspec
import numpy as np

from geodtr.runtime.errors import EmbeddingSpaceMismatch, GalleryError
from geodtr.runtime.files import check_new_folder, new_folder, sha256, write_bytes
from geodtr.runtime.pipeline import embed_files
from geodtr.runtime.progress import Track, untracked
from geodtr.runtime.spec import Descriptors, Embedder

_INFO, _DESCRIPTORS, _REFERENCES = "gallery.json", "descriptors.npy", "references.sqlite"


class GalleryInfo(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a gallery says of itself. `source` is the SPEC or folder that it was built from."""

    schema: Literal[1] = 1
    embedding_id: str
    references: int
    descriptor_size: int
    positioned: int
    source: str
    descriptors_sha256: str
    references_sha256: str


@dataclass(frozen=True, slots=True)
class Reference:
    """An aerial tile before it is embedded: its file, and where its centre lies if that is known."""

    image: Path
    lat: float | None = None
    lon: float | None = None


@dataclass(frozen=True, slots=True)
class Place:
    """A reference as a gallery keeps it: its file as it was given, and its position if that is known."""

    file: str
    lat: float | None
    lon: float | None


@dataclass(frozen=True, slots=True)
class Gallery:
    """A gallery opened for reading. `descriptors` is a memory map: it costs no memory until it is searched."""

    path: Path
    info: GalleryInfo
    descriptors: Descriptors
    places: tuple[Place, ...]

    def require_space(self, embedding_id: str) -> None:
        """Raise EmbeddingSpaceMismatch when queries of `embedding_id` would be compared with another model's tiles."""
        if embedding_id != self.info.embedding_id:
            raise EmbeddingSpaceMismatch(
                f"{self.path} was built by a model with embedding id {self.info.embedding_id}, the bundle's is "
                f"{embedding_id}: their descriptors cannot be compared. Build a gallery with this bundle: "
                f"geodtr-export gallery build BUNDLE {self.info.source} --out GALLERY"
            )


def build_gallery(
    out: Path,
    references: Sequence[Reference],
    embedder: Embedder,
    embedding_id: str,
    source: str,
    *,
    track: Track = untracked,
) -> Gallery:
    """Embed `references` with the aerial branch and write the gallery folder `out`, whole or not at all.

    Raises OutputExists when `out` holds anything, ImageError naming an image that cannot be read.
    """
    check_new_folder(out)
    paths = [reference.image for reference in references]
    descriptors = embed_files(embedder, paths, description="Embedding tiles", track=track)
    with new_folder(out) as folder:
        np.save(folder / _DESCRIPTORS, descriptors)
        _write_places(folder / _REFERENCES, references)
        info = GalleryInfo(
            embedding_id=embedding_id,
            references=len(references),
            descriptor_size=descriptors.shape[1],
            positioned=sum(reference.lat is not None for reference in references),
            source=source,
            descriptors_sha256=sha256(folder / _DESCRIPTORS),
            references_sha256=sha256(folder / _REFERENCES),
        )
        write_bytes(folder / _INFO, msgspec.json.format(msgspec.json.encode(info), indent=2) + b"\n")
    return open_gallery(out)


def open_gallery(path: Path) -> Gallery:
    """Open the gallery folder `path`. Raises GalleryError when it is missing, altered, or its parts do not fit."""
    info = _read_info(path)
    for name, expected in ((_DESCRIPTORS, info.descriptors_sha256), (_REFERENCES, info.references_sha256)):
        file = path / name
        if not file.is_file():
            raise GalleryError(f"{file} is missing. Copy the gallery again, or build it again.")
        if sha256(file) != expected:
            raise GalleryError(f"{file} was altered after the gallery was built. Copy it again, or build it again.")
    descriptors = np.load(path / _DESCRIPTORS, mmap_mode="r", allow_pickle=False)
    places = _read_places(path / _REFERENCES)
    if descriptors.shape != (info.references, info.descriptor_size) or len(places) != info.references:
        raise GalleryError(f"{path}: descriptors, positions and {_INFO} differ in number. Build it again.")
    return Gallery(path, info, descriptors, places)


def _read_info(path: Path) -> GalleryInfo:
    file = path / _INFO
    try:
        return msgspec.json.decode(file.read_bytes(), type=GalleryInfo)
    except (FileNotFoundError, NotADirectoryError):
        raise GalleryError(
            f"{path} is not a gallery: it holds no {_INFO}. "
            f"Build one: geodtr-export gallery build BUNDLE SPEC --out {path}"
        ) from None
    except msgspec.DecodeError as error:
        raise GalleryError(f"{file} is not valid: {error}. Build the gallery again.") from None


def _write_places(path: Path, references: Sequence[Reference]) -> None:
    try:
        _fill(path, references)
    except sqlite3.OperationalError as error:
        raise OSError(errno.ENOSPC, str(error), str(path)) from error


def _fill(path: Path, references: Sequence[Reference]) -> None:
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("CREATE TABLE reference (row INTEGER PRIMARY KEY, file TEXT NOT NULL, lat REAL, lon REAL)")
        database.executemany(
            "INSERT INTO reference VALUES (?, ?, ?, ?)",
            ((row, str(entry.image), entry.lat, entry.lon) for row, entry in enumerate(references)),
        )


def _read_places(path: Path) -> tuple[Place, ...]:
    with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro&immutable=1", uri=True)) as database:
        return tuple(Place(*row) for row in database.execute("SELECT file, lat, lon FROM reference ORDER BY row"))
