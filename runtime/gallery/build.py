"""From tiles to a gallery: threads read and preprocess ahead while the engine embeds, and each batch is kept at once.

What was interrupted goes on where it was: a tile that the gallery holds is not embedded again.
"""

from collections.abc import Generator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

import msgspec

from geodtr.runtime.embed.pipeline import batches_ahead
from geodtr.runtime.errors import GalleryError, ImageError, OutputExists
from geodtr.runtime.gallery.base import GalleryWriter
from geodtr.runtime.gallery.location import GalleryLocation
from geodtr.runtime.gallery.manifest import GalleryManifest, MadeBy, require_space
from geodtr.runtime.gallery.registry import change_gallery, create_gallery, holds_gallery
from geodtr.runtime.images.preprocess import as_input
from geodtr.runtime.names import Index, Storage
from geodtr.runtime.progress import Track, untracked
from geodtr.runtime.sources.tile import Tile, TileSource, check_tiles
from geodtr.runtime.spec import Descriptors, Embedder, Images, Preprocessing


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
    out: GalleryLocation | Path | str,
    source: TileSource,
    embedder: Embedder,
    made_by: MadeBy,
    *,
    storage: Storage = "float32",
    index: Index = "flat",
    on_bad_tile: OnBadTile = stop,
    track: Track = untracked,
) -> Added:
    """Embed the tiles of `source` with the aerial branch into the gallery `out`, a folder or in Milvus.

    Where an earlier call was stopped, the same call goes on; one that kept nothing leaves nothing.
    Raises OutputExists when `out` holds anything else or a finished gallery, GalleryError when it was begun from
    another source, by another bundle or with other options, ConfigError when the place cannot keep it so,
    DataError naming a tile that says what cannot be, ImageError naming one that cannot be read.
    """
    check_tiles(source.name, source.tiles)
    manifest = GalleryManifest(
        descriptor_size=embedder.spec.descriptor_size,
        storage=storage,
        index=index,
        source=source.name,
        made_by=made_by,
    )
    with begin_gallery(out, manifest) as writer:
        try:
            added = _embed(writer, source, embedder, on_bad_tile, track)
            writer.finish()
        except BaseException:
            with suppress(GalleryError):  # a server that is gone was said to be already
                if not len(writer):
                    writer.discard()
            raise
    return added


def add_to_gallery(
    gallery: GalleryLocation | Path | str,
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
    with change_gallery(gallery) as writer:
        require_space(writer.name, writer.manifest, embedding_id)
        if not writer.finished:
            raise GalleryError(
                f"{gallery} is not finished. Finish it first: "
                f"geodtr-export gallery build BUNDLE {writer.manifest.source} --out {gallery}"
            )
        return _embed(writer, source, embedder, on_bad_tile, track)


def begin_gallery(out: GalleryLocation | Path | str, manifest: GalleryManifest) -> GalleryWriter:
    """A new gallery's writer, or that of an unfinished one that was begun likewise; for who embeds in another way.

    Raises as build_gallery.
    """
    if not holds_gallery(out):
        return create_gallery(out, manifest)
    writer = change_gallery(out)
    try:
        if writer.finished:
            raise OutputExists(
                f"{out} exists and is finished. Add to it (geodtr-export gallery add BUNDLE {out} SOURCE), or name "
                "another output."
            )
        for name in ("source", "storage", "index", "made_by", "descriptor_size"):
            begun, asked = getattr(writer.manifest, name), getattr(manifest, name)
            if begun != asked:
                raise GalleryError(
                    f"{out} was begun with {name} {_said(begun)}; now it is {_said(asked)}. Repeat the command that "
                    "began it, name another output, or remove this one yourself."
                )
    except BaseException:
        writer.close()
        raise
    return writer


def _said(value: object) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def describe_tiles(
    source: TileSource,
    tiles: Sequence[Tile],
    embedder: Embedder,
    *,
    on_bad_tile: OnBadTile = stop,
    track: Track = untracked,
) -> Generator[tuple[list[Tile], Descriptors], None, None]:
    """Some of the source's tiles with their descriptors [N, D], in order and by the batch of BATCH_SIZE, as they are
    done; only the last batch may be short. Raises ImageError as `on_bad_tile` does.
    """
    load = partial(_load, source, embedder.spec.preprocessing)
    loaded = batches_ahead(
        tiles, load, count=len(tiles), description="Embedding tiles", on_error=on_bad_tile, track=track
    )
    with closing(loaded):
        for batch, images in loaded:
            yield batch, embedder.embed(images)


def _embed(
    writer: GalleryWriter, source: TileSource, embedder: Embedder, on_bad_tile: OnBadTile, track: Track
) -> Added:
    missing = writer.missing(source.tiles)
    embedded = 0
    with closing(describe_tiles(source, missing, embedder, on_bad_tile=on_bad_tile, track=track)) as described:
        for tiles, descriptors in described:
            writer.add(tiles, descriptors)
            embedded += len(tiles)
    return Added(embedded, len(source.tiles) - len(missing), len(missing) - embedded)


def _load(source: TileSource, how: Preprocessing, tile: Tile) -> Images:
    image = source.read(tile)
    try:
        return as_input(image, how)
    except ImageError as error:
        raise ImageError(f"{tile.file}: {error}") from None
