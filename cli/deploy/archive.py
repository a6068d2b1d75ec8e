"""The commands `bundle ...`: a bundle and its gallery as one signed file, and the device that such files update."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from geodtr.cli.console import messages, output, show_json, track
from geodtr.cli.options import GALLERY_HELP, AsJson, BundlePath, Headings, out_option, path_or_url
from geodtr.runtime.gallery.location import GalleryLocation

if TYPE_CHECKING:
    from geodtr.runtime.archive.versions import Version

bundle = typer.Typer(
    no_args_is_help=True,
    help="Pack a bundle and its gallery into one signed file, and install it; or serve them by Triton.",
)
Folder = Annotated[
    Path, typer.Argument(metavar="FOLDER", help="The folder on the device that holds the versions.", show_default=False)
]


@bundle.command()
def key(
    path: Annotated[Path, typer.Argument(metavar="KEY", help="File of the private key to write.", show_default=False)],
) -> None:
    """Write a new Ed25519 key: KEY signs archives and stays with you, KEY.pub goes to the devices."""
    from geodtr.runtime.archive.keys import new_key

    public = new_key(path)
    messages.print(f"Wrote {path}, which signs and which only you can read, and {public}, which devices trust")


@bundle.command()
def pack(
    bundle: BundlePath,
    key: Annotated[Path, typer.Option("--key", metavar="KEY", help="Private key that signs.", show_default=False)],
    out: Annotated[Path, out_option("File to write: a tar file, usually named .tar.")],
    gallery: Annotated[
        Path | None,
        typer.Option("--gallery", metavar="FOLDER", help="A gallery folder of the same model, with its calibration."),
    ] = None,
    note: Annotated[str, typer.Option("--note", metavar="TEXT", help="Text for people who look at it.")] = "",
) -> None:
    """Pack a bundle, and a gallery if given, into one signed archive."""
    from geodtr.runtime.archive.pack import pack as write

    index = write(bundle, gallery, key, out, note=note, track=track)
    messages.print(f"Wrote {out}: {len(index.files)} files, {index.size / 1e6:.1f} MB, made at {index.created}")


@bundle.command()
def unpack(
    archive: Annotated[Path, typer.Argument(metavar="ARCHIVE", help="File of `bundle pack`.", show_default=False)],
    folder: Folder,
    trust: Annotated[
        list[Path] | None,
        typer.Option(
            "--trust",
            metavar="KEY.pub",
            help="Accept archives signed by this key, now and later. Repeat for several.",
            show_default="the keys that FOLDER trusts already",
        ),
    ] = None,
    allow_older: Annotated[
        bool, typer.Option("--allow-older", help="Accept an archive that was made before the last one installed.")
    ] = False,
    elsewhere: Annotated[
        bool, typer.Option("--elsewhere", help="Accept a bundle that does not run on this machine.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Install an archive: FOLDER/current/bundle and FOLDER/current/gallery are its version from then on.

    Whenever this is killed, they are the old version or the new one. The archive of the current version repairs it.
    """
    from geodtr.runtime.archive.install import unpack as install

    _show(
        install(archive, folder, trust or (), allow_older=allow_older, elsewhere=elsewhere, track=track),
        folder,
        as_json,
    )


@bundle.command()
def rollback(folder: Folder, as_json: AsJson = False) -> None:
    """Return to the version before, even from a damaged one. A second time returns to the newer one."""
    from geodtr.runtime.archive.install import rollback as go_back

    _show(go_back(folder), folder, as_json)


@bundle.command()
def verify(folder: Folder, as_json: AsJson = False) -> None:
    """Read every file of the current version and compare it with what was signed; exits with 1 if one differs."""
    from geodtr.runtime.archive.install import verify as read_all

    _show(read_all(folder), folder, as_json)


@bundle.command()
def triton(
    bundle: BundlePath,
    out: Annotated[Path, out_option("Folder to write: a model repository.")],
    gallery: Annotated[
        GalleryLocation | None,
        typer.Option(
            "--gallery",
            metavar="GALLERY",
            help=f"Answer images too, from a gallery of the same model: {GALLERY_HELP}.",
            parser=path_or_url,
            show_default=False,
        ),
    ] = None,
    max_batch: Annotated[int, typer.Option("--max-batch", min=1, metavar="N", help="Images of a batch at most.")] = 32,
    delay: Annotated[
        int, typer.Option("--delay", min=0, metavar="MICROSECONDS", help="Time that a request waits for others.")
    ] = 2000,
    top: Annotated[int, typer.Option("--top", min=1, help="Number of tiles per image.")] = 5,
    headings: Headings = 1,
) -> None:
    """Write a model repository for Triton Inference Server: a model for each branch, and one that answers images."""
    from geodtr.runtime.triton.repository import TritonOptions, write_repository

    options = TritonOptions(max_batch, delay, top, headings)
    models = write_repository(bundle, gallery, out, options, track=track)
    messages.print(f"Wrote {out}: {', '.join(models)}")


def _show(version: "Version", folder: Path, as_json: bool) -> None:
    from geodtr.runtime.archive.versions import CURRENT

    if as_json:
        show_json(version)
        return
    index = version.index
    output.print(f"version    {version.id}", soft_wrap=True)
    output.print(f"made       {index.created} by geodtr-export {index.toolkit}", soft_wrap=True)
    output.print(f"files      {len(index.files)}, {index.size / 1e6:.1f} MB", soft_wrap=True)
    if index.note:
        output.print(f"note       {index.note}", soft_wrap=True)
    output.print(f"bundle     {folder / CURRENT / 'bundle'}", soft_wrap=True)
    if index.has_gallery:
        output.print(f"gallery    {folder / CURRENT / 'gallery'}", soft_wrap=True)


def add_to(app: typer.Typer) -> None:
    app.add_typer(bundle, name="bundle")
