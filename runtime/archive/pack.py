"""Pack a bundle and a gallery that was built with it, with the gallery's calibration, into one signed archive."""

from contextlib import ExitStack
from datetime import datetime, timezone
from pathlib import Path

from geodtr import __version__
from geodtr.runtime.archive.format import FORMAT, FileEntry, Index, encode_index, write_archive
from geodtr.runtime.archive.keys import read_private
from geodtr.runtime.bundle import open_bundle
from geodtr.runtime.files import check_apart, check_new_file, new_file, sha256
from geodtr.runtime.gallery.folder.access import held_to_copy
from geodtr.runtime.gallery.folder.reader import open_folder
from geodtr.runtime.gallery.manifest import require_space
from geodtr.runtime.manifest import FILE_NAME
from geodtr.runtime.progress import Track, untracked


def pack(
    bundle: Path, gallery: Path | None, key: Path, out: Path, *, note: str = "", track: Track = untracked
) -> Index:
    """Write the archive `out` of `bundle` and, if given, `gallery`, signed by the private key in the file `key`.

    The gallery is held against writers meanwhile, and may be read-only.
    Raises OutputExists when `out` exists, BundleError and GalleryError when a folder is damaged or in use,
    EmbeddingSpaceMismatch when the gallery was built with another model, ArchiveError when a file's name is too long.
    """
    check_apart(out, *(each for each in (bundle, gallery) if each is not None))
    check_new_file(out)
    signer = read_private(key)
    manifest = open_bundle(bundle).manifest
    with ExitStack() as held:
        sources = [(f"bundle/{name}", bundle / name) for name in (FILE_NAME, *(each.file for each in manifest.files))]
        if gallery is not None:
            with open_folder(gallery) as opened:
                require_space(opened.name, opened.manifest, manifest.embedding_id, manifest.ground.spec.scorer)
            files = held.enter_context(held_to_copy(gallery))
            sources += [(f"gallery/{name}", source) for name, source in files.items()]
        entries = [
            (FileEntry(name, source.stat().st_size, sha256(source)), source)
            for name, source in track(sources, "Hashing files", len(sources))
        ]
        index = Index(
            format=FORMAT,
            toolkit=__version__,
            created=datetime.now(timezone.utc).strftime("%Y%m%dT%H%M%SZ"),
            embedding_id=manifest.embedding_id,
            note=note,
            files=tuple(entry for entry, _ in entries),
        )
        content = encode_index(index)
        with new_file(out, replace=False) as temporary:
            with temporary.open("wb") as file:
                write_archive(file, content, signer.sign(content), list(track(entries, "Packing files", len(entries))))
            held.close()  # raises where the gallery was written meanwhile
    return index
