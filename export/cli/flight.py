"""Commands that fly: embed, gallery. They need the lean runtime only."""

from pathlib import Path
from typing import Annotated

import typer

from geodtr.export.cli.console import messages, output, report_skipped, show_json, track
from geodtr.export.cli.options import AsJson, BundlePath, out_option
from geodtr.runtime.names import Branch

Images = Annotated[
    list[Path], typer.Argument(metavar="IMAGES...", help="Image files, or folders of them.", show_default=False)
]
GalleryPath = Annotated[Path, typer.Argument(metavar="GALLERY", help="A gallery folder.", show_default=False)]

gallery = typer.Typer(no_args_is_help=True, help="Build and look into galleries of aerial tiles.")


def embed(
    bundle: BundlePath,
    images: Images,
    branch: Annotated[Branch, typer.Option("--branch", help="Which view the images are.", show_default=False)],
    out: Annotated[Path, out_option("File to write: float32 [N, D] as .npy, row i for image i.")],
) -> None:
    """Embed images into descriptors, in the order given; a folder stands for its images by name."""
    import numpy as np

    from geodtr.runtime.bundle import open_bundle
    from geodtr.runtime.files import check_new_file, new_file
    from geodtr.runtime.pipeline import embed_files

    check_new_file(out)
    embedder = open_bundle(bundle).embedder(branch)
    descriptors = embed_files(embedder, expand(images), track=track)
    with new_file(out) as file, file.open("wb") as stream:
        np.save(stream, descriptors)
    messages.print(f"Wrote {out}: {descriptors.shape[0]} descriptors of {descriptors.shape[1]}")


@gallery.command("build")
def gallery_build(
    bundle: BundlePath,
    source: Annotated[
        str, typer.Argument(metavar="SPEC|FOLDER", help="A data set, or a folder of tiles.", show_default=False)
    ],
    out: Annotated[Path, out_option("Gallery folder to write; must be new or empty.")],
) -> None:
    """Embed aerial tiles into a gallery; positions come with a data set that has them."""
    from geodtr.runtime.bundle import open_bundle
    from geodtr.runtime.gallery import Reference, build_gallery
    from geodtr.runtime.images import list_images
    from geodtr.training.data.spec import is_spec, read_test_set

    opened = open_bundle(bundle)
    if is_spec(source):
        pair_set = read_test_set(source)
        report_skipped(pair_set.name, pair_set.skipped)
        positions = {pair.aerial: (pair.lat, pair.lon) for pair in reversed(pair_set.pairs)}
        references = [Reference(path, *positions.get(path, (None, None))) for path in pair_set.references]
    else:
        references = [Reference(path) for path in list_images(Path(source))]
    embedder, embedding_id = opened.embedder("aerial"), opened.manifest.embedding_id
    built = build_gallery(out, references, embedder, embedding_id, source, track=track)
    messages.print(f"Wrote {out}: {built.info.references} tiles, {built.info.positioned} with a position")


@gallery.command("info")
def gallery_info(gallery_path: GalleryPath, as_json: AsJson = False) -> None:
    """Show what a gallery holds, its files' hashes verified."""
    from geodtr.runtime.gallery import open_gallery

    info = open_gallery(gallery_path).info
    if as_json:
        show_json(info)
        return
    output.print(f"{gallery_path}: {info.references} tiles, {info.positioned} with a position")
    output.print(f"descriptors float32 of {info.descriptor_size}, embedding id {info.embedding_id}")
    output.print(f"built from {info.source}")


def expand(paths: list[Path]) -> list[Path]:
    """Files as they are, folders as the images in them."""
    from geodtr.runtime.images import list_images

    return [image for path in paths for image in (list_images(path) if path.is_dir() else [path])]


def add_to(app: typer.Typer) -> None:
    app.command()(embed)
    app.add_typer(gallery, name="gallery")
