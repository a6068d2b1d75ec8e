"""Build a gallery from tiles: threads read and preprocess ahead while the engine embeds; each batch is stored at once.

A repeated call continues an interrupted one: it does not embed a tile that the gallery already contains.
"""

from collections.abc import Callable, Generator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import msgspec

from geodtr.runtime.embed.pipeline import batches_ahead, stop
from geodtr.runtime.errors import GalleryError, ImageError, OutputExists
from geodtr.runtime.gallery.base import GalleryWriter
from geodtr.runtime.gallery.location import GalleryLocation, command
from geodtr.runtime.gallery.manifest import GalleryManifest, MadeBy, require_space
from geodtr.runtime.gallery.registry import change_gallery, create_gallery, holds_gallery
from geodtr.runtime.images.preprocess import as_input
from geodtr.runtime.names import Index, Storage
from geodtr.runtime.progress import Track, untracked
from geodtr.runtime.sources.tile import Tile, TileSource, check_tiles
from geodtr.runtime.spec import Descriptors, Embedder, Images, Preprocessing

OnBadTile = Callable[[Tile, ImageError], None]
"""Called for a tile that cannot be read: raises to stop, all tiles before it stored, or returns to skip it."""


@dataclass(frozen=True, slots=True)
class Added:
    """Numbers of tiles: embedded now, already in the gallery, and skipped because they cannot be read."""

    embedded: int
    held: int
    left_out: int


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

    The same call continues an interrupted one; one that stored no reference leaves nothing.
    Raises OutputExists when `out` contains anything else or a finished gallery, GalleryError when it was begun with
    another source, bundle or options, ConfigError when `out` does not support the options, DataError naming a tile with
    impossible values, ImageError naming one that cannot be read.
    """
    check_tiles(source.name, source.tiles)
    manifest = GalleryManifest(
        descriptor_size=embedder.spec.descriptor_size,
        storage=storage,
        index=index,
        source=source.name,
        made_by=made_by,
        scorer=embedder.spec.scorer,
    )
    with begin_gallery(out, manifest) as writer:
        try:
            added = _embed(writer, source, embedder, on_bad_tile, track)
            writer.finish()
        except BaseException:
            with suppress(GalleryError):  # the error being raised already reports a lost server
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
    """Embed the tiles of `source` that `gallery` does not contain yet, and add them.

    Raises EmbeddingSpaceMismatch when another model built it, GalleryError when its build is not finished or it holds
    a tile with the same id and other values; otherwise as build_gallery.
    """
    check_tiles(source.name, source.tiles)
    with change_gallery(gallery) as writer:
        require_space(writer.name, writer.manifest, embedding_id, embedder.spec.scorer)
        if not writer.finished:
            raise GalleryError(
                f"{gallery} is not finished. Finish it first: "
                f"{command('build', 'BUNDLE', writer.manifest.source, '--out', gallery)}"
            )
        return _embed(writer, source, embedder, on_bad_tile, track)


def begin_gallery(out: GalleryLocation | Path | str, manifest: GalleryManifest) -> GalleryWriter:
    """The writer of a new gallery, or of an unfinished one with the same manifest; for callers that embed themselves.

    Raises as build_gallery.
    """
    if not holds_gallery(out):
        return create_gallery(out, manifest)
    writer = change_gallery(out)
    try:
        if writer.finished:
            raise OutputExists(
                f"{out} exists and is finished. Add to it ({command('add', 'BUNDLE', out, 'SOURCE')}), or name another "
                "output."
            )
        for name in ("source", "storage", "index", "made_by", "descriptor_size", "scorer"):
            before, now = getattr(writer.manifest, name), getattr(manifest, name)
            if before != now:
                raise GalleryError(
                    f"{out} was begun with {name} {_text(before)}; now it is {_text(now)}. Repeat the command that "
                    "began it, name another output, or remove this one yourself."
                )
    except BaseException:
        writer.close()
        raise
    return writer


def _text(value: object) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def describe_tiles(
    source: TileSource,
    tiles: Sequence[Tile],
    embedder: Embedder,
    *,
    on_bad_tile: OnBadTile = stop,
    track: Track = untracked,
) -> Generator[tuple[list[Tile], Descriptors], None, None]:
    """Embed `tiles` of the source and yield batches of BATCH_SIZE tiles with descriptors [N, D], in order; only the
    last batch may be short. Raises ImageError if `on_bad_tile` does.
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
