"""Commands that fly: embed, localize. They need the lean runtime only."""

from pathlib import Path
from typing import Annotated

import typer

from geodtr.export.cli.console import messages, output, show_json, table, track, warn
from geodtr.export.cli.options import AsJson, BundlePath, out_option
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
    descriptors = embed_files(embedder, _expand(images), track=track)
    with new_file(out) as file, file.open("wb") as stream:
        np.save(stream, descriptors)
    messages.print(f"Wrote {out}: {descriptors.shape[0]} descriptors of {descriptors.shape[1]}")


def localize(
    images: Images,
    bundle: Annotated[
        Path, typer.Option("--bundle", help="The bundle whose ground branch embeds.", show_default=False)
    ],
    gallery_path: Annotated[Path, typer.Option("--gallery", help="A gallery of the same model.", show_default=False)],
    top: Annotated[int, typer.Option("--top", min=1, help="How many tiles an image.")] = 5,
    as_json: AsJson = False,
) -> None:
    """Find the tiles where street-level images were probably taken, best first."""
    from geodtr.runtime.bundle import open_bundle
    from geodtr.runtime.gallery import open_gallery
    from geodtr.runtime.localizer import Localizer

    with open_gallery(gallery_path) as gallery:
        if not len(gallery):
            warn(f"{gallery_path} is empty: nothing can be found in it.")
        if not gallery.info.finished:
            warn(f"{gallery_path} is not finished: only {len(gallery)} tiles can be found.")
        located = Localizer(open_bundle(bundle), gallery).locate(_expand(images), top, track=track)
    if as_json:
        show_json(located)
        return
    for localisation in located:
        rows = table(str(localisation.image), ("tile", "cosine", "lat", "lon"))
        for candidate in localisation.candidates:
            place = candidate.place
            coordinates = ("" if value is None else f"{value:.6f}" for value in (place.lat, place.lon))
            rows.add_row(place.file, f"{candidate.score:.4f}", *coordinates)
        output.print(rows)


def _expand(paths: list[Path]) -> list[Path]:
    from geodtr.runtime.images import list_images

    return [image for path in paths for image in (list_images(path) if path.is_dir() else [path])]


def add_to(app: typer.Typer) -> None:
    app.command()(embed)
    app.command()(localize)
