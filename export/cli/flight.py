"""The command that embeds images. It needs the lean runtime only."""

from pathlib import Path
from typing import Annotated

import typer

from geodtr.export.cli.console import messages, track
from geodtr.export.cli.options import BundlePath, out_option
from geodtr.runtime.names import Branch

Images = Annotated[
    list[Path], typer.Argument(metavar="IMAGES...", help="Image files, or folders of them.", show_default=False)
]


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


def expand(paths: list[Path]) -> list[Path]:
    """Files as they are, folders as the images in them."""
    from geodtr.runtime.images import list_images

    return [image for path in paths for image in (list_images(path) if path.is_dir() else [path])]


def add_to(app: typer.Typer) -> None:
    app.command()(embed)
