"""The schema of a gallery in a collection of Milvus: its fields, its properties, and the key of a reference.

An entity is a reference: its row, checksum, and float32 descriptor. Its key, the row number, is a hash of its id, so
that a tile added twice, even from several machines, is stored once. The collection's properties hold the content of a
folder's gallery.json and the gallery's attachments.
"""

from collections.abc import Sequence
from hashlib import sha256

import numpy as np

from geodtr.runtime.errors import GalleryError
from geodtr.runtime.gallery.location import command
from geodtr.runtime.gallery.manifest import GalleryManifest, decode_manifest
from geodtr.runtime.gallery.milvus.client import VECTOR, Collection, Entity, Field
from geodtr.runtime.gallery.row import ROW, Row
from geodtr.runtime.spec import Descriptors

MANIFEST, FINISHED, ATTACHED = "geodtr.gallery", "geodtr.finished", "geodtr.attached."
"""Properties of a collection that is a gallery."""

CHECKSUM = "checksum"
FIELDS = (
    *(Field(name, "text" if name in ("id", "file", "more") else "number") for name in ROW),
    Field(CHECKSUM, "whole"),
)


def row_of(tile_id: str) -> int:
    """The row of the reference with this id: 63 bits of its SHA-256, which two of ten million share once in 180,000."""
    return int.from_bytes(sha256(tile_id.encode()).digest()[:8], "big") >> 1


def row_values(entity: Entity) -> Row:
    """The entity's values as a Row."""
    return tuple(entity[name] for name in ROW)


def vectors_of(entities: Sequence[Entity]) -> Descriptors:
    """The descriptors of entities that include them, [N, D]."""
    return np.array([entity[VECTOR] for entity in entities], np.float32)


def read_manifest(collection: Collection) -> tuple[GalleryManifest, bool]:
    """The collection's gallery manifest, and whether the gallery is finished.

    Raises GalleryError when it does not exist, is no gallery, or has another schema.
    """
    place = collection.place
    if not collection.exists():
        held = ", ".join(collection.others()[:10]) or "none"
        raise GalleryError(
            f"{place} does not exist: the database has no collection {place.collection!r} (it has: {held}). Build it: "
            f"{command('build', 'BUNDLE', 'SOURCE', '--out', place)}"
        )
    properties = collection.properties()
    if MANIFEST not in properties:
        raise GalleryError(
            f"{place} is a collection, but no gallery: geodtr-export did not make it. Name another collection."
        )
    manifest = decode_manifest(properties[MANIFEST].encode(), f"{place}, property {MANIFEST},")
    if collection.vector_size() != manifest.descriptor_size:
        raise GalleryError(
            f"{place} was changed: its vectors have size {collection.vector_size()}, and descriptors "
            f"{manifest.descriptor_size}. Build the gallery again."
        )
    return manifest, properties.get(FINISHED) == "true"
