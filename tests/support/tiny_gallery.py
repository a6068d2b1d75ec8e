"""A real embedder without a network, tiles generated when they are read, and galleries built from both."""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geodtr.runtime.errors import ImageError
from geodtr.runtime.gallery.build import build_gallery
from geodtr.runtime.gallery.folder.writer import FolderWriter
from geodtr.runtime.gallery.manifest import GalleryManifest, MadeBy
from geodtr.runtime.images.decode import Decoded
from geodtr.runtime.names import Storage
from geodtr.runtime.sources.tile import Tile
from geodtr.runtime.spec import BranchSpec, Descriptors, Images, Preprocessing

SIDE, SIZE = 4, 16
MADE_BY = MadeBy(embedding_id="0123456789abcdef", precision="fp32", backend="tests 1.0")


class TinyEmbedder:
    """A fixed random projection of the pixels, at unit length; `seen` counts the images."""

    def __init__(self) -> None:
        self.spec = BranchSpec(
            branch="aerial", preprocessing=Preprocessing(height=SIDE, width=SIDE), descriptor_size=SIZE
        )
        self._projection = np.random.default_rng(0).normal(size=(SIDE * SIDE * 3, SIZE)).astype(np.float32)
        self.seen = 0

    def embed(self, images: Images) -> Descriptors:
        self.seen += len(images)
        # Row by row: an image gives the same bytes in a batch of any size.
        return np.stack([self._embed(image) for image in images])

    def _embed(self, image: Images) -> NDArray[np.float32]:
        row = (image.reshape(-1).astype(np.float32) - 127.5) @ self._projection
        return np.asarray(row / np.linalg.norm(row), np.float32)


@dataclass
class MadeTiles:
    """Tiles with pixels derived from their ids; the ones in `broken` cannot be read."""

    tiles: Sequence[Tile]
    name: str = "made"
    broken: set[str] = field(default_factory=set)

    def read(self, tile: Tile) -> Decoded:
        if tile.id in self.broken:
            raise ImageError(f"{tile.file} cannot be decoded: truncated or corrupt.")
        return Decoded.of(pixels_of(tile.id))


@contextmanager
def in_memory() -> Iterator[Path]:
    """A folder, gone afterwards, in memory where the system has such a place: each writer would wait for its disk."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        yield Path(folder)


def pixels_of(name: str) -> Images:
    seed = int.from_bytes(sha256(name.encode(errors="replace")).digest()[:8], "little")
    return np.random.default_rng(seed).integers(0, 256, (SIDE, SIDE, 3), np.uint8)


def descriptors_of(names: Sequence[str]) -> Descriptors:
    """TinyEmbedder's descriptors of the tiles with these ids."""
    if not names:
        return np.empty((0, SIZE), np.float32)
    return TinyEmbedder().embed(np.stack([pixels_of(name) for name in names]))


def made_tiles(count: int, **changes: Any) -> MadeTiles:
    """Tiles 000, 001, ... on a line to the north, 11.1 m apart."""
    tiles = [Tile(f"{n:03}", f"tiles/{n:03}.png", 48 + n * 1e-4, 8.0) for n in range(count)]
    return MadeTiles(tiles, **changes)


def build(out: Path, source: MadeTiles, storage: Storage = "float32") -> Path:
    build_gallery(out, source, TinyEmbedder(), MADE_BY, storage=storage)
    return out


def fill(out: Path, tiles: Sequence[Tile], descriptors: Descriptors, storage: Storage = "float32") -> Path:
    """A finished gallery of these descriptors."""
    manifest = GalleryManifest(descriptor_size=descriptors.shape[1], storage=storage, source="made", made_by=MADE_BY)
    with FolderWriter.create(out, manifest) as writer:
        writer.add(tiles, descriptors)
        writer.finish()
    return out


def unit_rows(count: int, size: int, seed: int) -> Descriptors:
    rows = np.random.default_rng(seed).normal(size=(count, size)).astype(np.float32)
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)
