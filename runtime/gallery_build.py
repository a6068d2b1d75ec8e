"""From tiles to a gallery: threads read and preprocess ahead while the engine embeds, and each batch is kept at once.

What was interrupted goes on where it was: a tile that the gallery holds is not embedded again.
"""

import shutil
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

import msgspec

from geodtr.runtime.errors import GalleryError, ImageError, OutputExists
from geodtr.runtime.files import check_new_folder
from geodtr.runtime.gallery_manifest import FILE_NAME, GalleryManifest, MadeBy, require_space
from geodtr.runtime.gallery_writer import GalleryWriter
from geodtr.runtime.names import Storage
from geodtr.runtime.pipeline import batches_ahead
from geodtr.runtime.preprocess import as_input
from geodtr.runtime.progress import Track, untracked
from geodtr.runtime.spec import Embedder, Images, Preprocessing
from geodtr.runtime.tile import Tile, TileSource, check_tiles


class OnBadTile(Protocol):
    """What becomes of a tile that cannot be read: raise to stop, or return to leave it out."""

    def __call__(self, tile: Tile, error: ImageError) -> None: ...


@dataclass(frozen=True, slots=True)
class Added:
    """What came of embedding a source: tiles embedded now, held already, and left out because they are bad."""

    embedded: int
    held: int
    left_out: int


def stop(tile: Tile, error: ImageError) -> None:
    """The default: a bad tile stops the run; what was embedded before it is kept."""
    del tile
    raise error


def build_gallery(
    out: Path,
    source: TileSource,
    embedder: Embedder,
    made_by: MadeBy,
    *,
    storage: Storage = "float32",
    on_bad_tile: OnBadTile = stop,
    track: Track = untracked,
) -> Added:
    """Embed the tiles of `source` with the aerial branch into the gallery folder `out`.

    Where an earlier call was stopped, the same call goes on; one that kept nothing leaves nothing.
    Raises OutputExists when `out` holds anything else or a finished gallery, GalleryError when it was begun from
    another source, by another bundle or with another storage, DataError naming a tile that says what cannot be,
    ImageError naming one that cannot be read.
    """
    check_tiles(source.name, source.tiles)
    manifest = GalleryManifest(
        descriptor_size=embedder.spec.descriptor_size, storage=storage, source=source.name, made_by=made_by
    )
    with _begin(out, manifest) as writer:
        try:
            added = _embed(writer, source, embedder, on_bad_tile, track)
            writer.finish()
        except BaseException:
            if not len(writer):
                shutil.rmtree(out, ignore_errors=True)
            raise
    return added


def add_to_gallery(
    gallery: Path,
    source: TileSource,
    embedder: Embedder,
    embedding_id: str,
    *,
    on_bad_tile: OnBadTile = stop,
    track: Track = untracked,
) -> Added:
    """Embed those tiles of `source` that `gallery` does not hold yet, and add them.

    Raises EmbeddingSpaceMismatch when another model built it, GalleryError when its build is not finished or it holds
    a tile's id with anything else said of it; otherwise as build_gallery.
    """
    check_tiles(source.name, source.tiles)
    with GalleryWriter(gallery) as writer:
        require_space(gallery, writer.manifest, embedding_id)
        if not writer.state.finished:
            raise GalleryError(
                f"{gallery} is not finished. Finish it first: "
                f"geodtr-export gallery build BUNDLE {writer.manifest.source} --out {gallery}"
            )
        return _embed(writer, source, embedder, on_bad_tile, track)


def _begin(out: Path, manifest: GalleryManifest) -> GalleryWriter:
    """A new gallery's writer, or that of an unfinished one that was begun likewise."""
    if not (out / FILE_NAME).is_file():
        check_new_folder(out)
        return GalleryWriter.create(out, manifest)
    writer = GalleryWriter(out)
    try:
        if writer.state.finished:
            raise OutputExists(
                f"{out} exists and is finished. Add to it (geodtr-export gallery add {out} BUNDLE SOURCE), or name "
                "another output folder."
            )
        for name in ("source", "storage", "made_by", "descriptor_size"):
            begun, asked = getattr(writer.manifest, name), getattr(manifest, name)
            if begun != asked:
                raise GalleryError(
                    f"{out} was begun with {name} {_said(begun)}; now it is {_said(asked)}. Repeat the command that "
                    "began it, name another output folder, or remove this one yourself."
                )
    except BaseException:
        writer.close()
        raise
    return writer


def _said(value: object) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def _embed(
    writer: GalleryWriter, source: TileSource, embedder: Embedder, on_bad_tile: OnBadTile, track: Track
) -> Added:
    missing = writer.missing(source.tiles)
    embedded = 0
    load = partial(_load, source, embedder.spec.preprocessing)
    loaded = batches_ahead(
        missing, load, count=len(missing), description="Embedding tiles", on_error=on_bad_tile, track=track
    )
    with closing(loaded):
        for tiles, images in loaded:
            writer.add(tiles, embedder.embed(images))
            embedded += len(tiles)
    return Added(embedded, len(source.tiles) - len(missing), len(missing) - embedded)


def _load(source: TileSource, how: Preprocessing, tile: Tile) -> Images:
    image = source.read(tile)
    try:
        return as_input(image, how)
    except ImageError as error:
        raise ImageError(f"{tile.file}: {error}") from None
