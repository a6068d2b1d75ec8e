"""Open, create, change and verify galleries: the only file that knows the kinds of location."""

from pathlib import Path

from geodtr.runtime.errors import ConfigError
from geodtr.runtime.gallery.base import Gallery, GalleryWriter, Verified
from geodtr.runtime.gallery.location import FolderLocation, GalleryLocation, as_location
from geodtr.runtime.gallery.manifest import GalleryManifest
from geodtr.runtime.progress import Track, untracked
from geodtr.runtime.spec import scorer_name


def open_gallery(location: GalleryLocation | Path | str) -> Gallery:
    """Open a gallery for reading.

    Parameters
    ----------
    location
        A folder, a Milvus Lite file (`map.db`), or `milvus://HOST:PORT/COLLECTION`.

    Returns
    -------
    Gallery
        A context manager. `search(descriptors, top)` returns rows and cosines, `tiles(rows)` their tiles.

    Raises
    ------
    GalleryError
        It is missing, of another schema, or cannot be reached. `verify_gallery` finds damaged rows.

    Examples
    --------
    >>> from geodtr import embed, open_gallery
    >>> with open_gallery("map") as gallery:
    ...     hits = gallery.search(embed("bundle", ["street.png"]), top=3)
    >>> hits.rows.shape, bool(hits.scores[0, 0] >= hits.scores[0, 1])
    ((1, 3), True)
    """
    kind = as_location(location)
    if isinstance(kind, FolderLocation):
        from geodtr.runtime.gallery.folder.reader import open_folder

        return open_folder(kind.path)
    from geodtr.runtime.gallery.milvus.reader import open_milvus

    return open_milvus(kind)


def verify_gallery(location: GalleryLocation | Path | str, *, track: Track = untracked) -> Verified:
    """Read all of a gallery and report every fault, and measure the recall of its index.

    Raises GalleryError when it is no gallery.
    """
    kind = as_location(location)
    if isinstance(kind, FolderLocation):
        from geodtr.runtime.gallery.folder.verify import verify as verify_folder

        return Verified(verify_folder(kind.path, track=track), None)
    from geodtr.runtime.gallery.milvus.verify import verify as verify_milvus

    return verify_milvus(kind, track=track)


def holds_gallery(location: GalleryLocation | Path | str) -> bool:
    """Whether a gallery exists or was begun there. Raises OutputExists when anything else is there, UserError when the
    location cannot hold one.
    """
    kind = as_location(location)
    if isinstance(kind, FolderLocation):
        from geodtr.runtime.gallery.folder.reader import is_begun

        return is_begun(kind.path)
    from geodtr.runtime.gallery.milvus.writer import is_begun as is_begun_in_milvus

    return is_begun_in_milvus(kind)


def create_gallery(location: GalleryLocation | Path | str, manifest: GalleryManifest) -> GalleryWriter:
    """Create an unfinished gallery without references and open it for writing.

    Raises OutputExists when the location is taken, ConfigError when it does not support the manifest's options.
    """
    kind = as_location(location)
    if manifest.scorer is not None and (manifest.storage != "float32" or not isinstance(kind, FolderLocation)):
        raise ConfigError(
            f"The model's scorer is the {scorer_name(manifest.scorer)}, which needs a folder and the storage float32; "
            f"{kind} and {manifest.storage} are asked for."
        )
    if isinstance(kind, FolderLocation):
        from geodtr.runtime.gallery.folder.writer import FolderWriter

        return FolderWriter.create(kind.path, manifest)
    from geodtr.runtime.gallery.milvus.writer import MilvusWriter

    return MilvusWriter.create(kind, manifest)


def change_gallery(location: GalleryLocation | Path | str) -> GalleryWriter:
    """Open an existing gallery for writing. Raises GalleryError when another writer has it, or it is read-only."""
    kind = as_location(location)
    if isinstance(kind, FolderLocation):
        from geodtr.runtime.gallery.folder.writer import FolderWriter

        return FolderWriter(kind.path)
    from geodtr.runtime.gallery.milvus.writer import MilvusWriter

    return MilvusWriter.open(kind)
