"""A gallery's manifest, written once when it is created, validated when read: a folder's gallery.json, or a property of
a Milvus collection.
"""

from pathlib import Path
from typing import Annotated, Literal

import msgspec

from geodtr import __version__
from geodtr.runtime.arguments import check_argument
from geodtr.runtime.errors import EmbeddingSpaceMismatch, GalleryError
from geodtr.runtime.files import check_regular, write_bytes
from geodtr.runtime.files.documents import decode_json, read_document
from geodtr.runtime.files.own_kinds import CURRENT, GALLERY, own_kind
from geodtr.runtime.gallery.location import command
from geodtr.runtime.manifest import Manifest
from geodtr.runtime.names import Index, Storage
from geodtr.runtime.spec import Correlation, EmbeddingId, scorer_name

FILE_NAME = GALLERY
SCHEMA = 2


class MadeBy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The bundle that embedded a gallery's tiles: its embedding id, precision, and backend with version."""

    embedding_id: EmbeddingId
    precision: str
    backend: str


class GalleryManifest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A gallery's description. `source` is the SPEC, folder or map that it was built from, as the user named it.

    `storage` is the type of the searched descriptors, `index` the search method, `toolkit` the version of
    geodtr-export that created it. `scorer`: what compares queries with them, None for the cosine.
    Raises ConfigError for a storage or an index that there is none of, ValueError when the descriptors are none that
    the scorer takes.
    """

    schema: Literal[2] = 2
    descriptor_size: Annotated[int, msgspec.Meta(ge=1, le=1 << 20)]
    storage: Storage
    index: Index = "flat"
    source: str
    made_by: MadeBy
    toolkit: str = msgspec.field(default_factory=lambda: __version__)
    scorer: Correlation | None = None

    def __post_init__(self) -> None:
        check_argument("storage", self.storage, Storage)
        check_argument("index", self.index, Index)
        if self.scorer is not None and self.descriptor_size != self.scorer.reference_size:
            raise ValueError(f"the scorer takes {self.scorer.reference_size} values, not {self.descriptor_size}")

    @property
    def query_size(self) -> int:
        """Values of a query's descriptor."""
        return self.descriptor_size if self.scorer is None else self.scorer.query_size


def made_by(bundle: Manifest) -> MadeBy:
    """A gallery's record of the bundle that embeds its tiles."""
    backend = f"{bundle.backend.runs_by} {bundle.backend.version}"
    return MadeBy(embedding_id=bundle.embedding_id, precision=bundle.precision, backend=backend)


def read_gallery_manifest(gallery: Path) -> GalleryManifest:
    """Read and validate `gallery`/gallery.json. Raises GalleryError naming the fault."""
    path = gallery / FILE_NAME
    check_regular(path, GalleryError)
    try:
        return decode_manifest(read_document(path), str(path))
    except (FileNotFoundError, NotADirectoryError):
        raise GalleryError(f"{gallery} is not a gallery: it holds no {FILE_NAME}. {_remedy(gallery)}") from None
    except OSError as error:
        raise GalleryError(f"{path} cannot be read ({error.strerror}).") from None


def _remedy(path: Path) -> str:
    """What to do where `path` is no gallery."""
    kind = own_kind(path)
    if kind == "bundle":
        return f"It is a bundle, with which one is built: {command('build', path, 'SPEC', '--out', 'GALLERY')}"
    if kind == "installation":
        return f"Archives are installed there: name {path / CURRENT / 'gallery'}"
    return f"Build one: {command('build', 'BUNDLE', 'SPEC', '--out', path)}"


def decode_manifest(content: bytes, where: str) -> GalleryManifest:
    """Validate a manifest's JSON; `where` names its location. Raises GalleryError naming the fault."""
    try:
        schema = decode_json(content, dict[str, object]).get("schema")
        if schema != SCHEMA:
            raise GalleryError(f"{where} has schema {schema}; this version reads {SCHEMA}. Build the gallery again.")
        return decode_json(content, GalleryManifest)
    except msgspec.DecodeError as error:
        raise GalleryError(f"{where} is not valid: {error}. Build the gallery again.") from None


def write_gallery_manifest(gallery: Path, manifest: GalleryManifest) -> None:
    """Write `gallery`/gallery.json durably, indented for people."""
    write_bytes(gallery / FILE_NAME, msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n")


def require_space(gallery: str, manifest: GalleryManifest, embedding_id: str, scorer: Correlation | None) -> None:
    """Raise EmbeddingSpaceMismatch when the bundle's `scorer` or `embedding_id` differ from the gallery's."""
    if scorer != manifest.scorer:
        raise EmbeddingSpaceMismatch(
            f"{gallery} was built for the scorer {_described(manifest.scorer)}, and the bundle's is "
            f"{_described(scorer)}. Build a gallery with this bundle: "
            f"{command('build', 'BUNDLE', manifest.source, '--out', 'GALLERY')}"
        )

    if embedding_id != manifest.made_by.embedding_id:
        raise EmbeddingSpaceMismatch(
            f"{gallery} was built by a model with embedding id {manifest.made_by.embedding_id}, the bundle's is "
            f"{embedding_id}: their descriptors cannot be compared. Build a gallery with this bundle: "
            f"{command('build', 'BUNDLE', manifest.source, '--out', 'GALLERY')}"
        )


def _described(scorer: Correlation | None) -> str:
    if scorer is None:
        return scorer_name(scorer)
    return f"{scorer_name(scorer)} ({scorer.seen} of {scorer.columns} columns, {scorer.values} values each)"
