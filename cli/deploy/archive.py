"""The commands `bundle ...`: a bundle and its gallery as one signed file, and the device that such files update."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from geodtr.cli.console import messages, output, show_json, track
from geodtr.cli.options import GALLERY_HELP, AsJson, BundlePath, Headings, argument, flag, out_option, path_or_url
from geodtr.runtime.gallery.location import GalleryLocation

if TYPE_CHECKING:
    from geodtr.runtime.archive.versions import Version

bundle = typer.Typer(
    no_args_is_help=True,
    help="Pack a bundle and its gallery into one signed file, and install it; or serve them by Triton.",
)
Folder = Annotated[Path, argument("FOLDER", "The folder on the device that holds the versions.")]


@bundle.command()
def key(
    path: Annotated[Path, argument("KEY", "File of the private key to write.")],
) -> None:
    """Write a new Ed25519 key: KEY signs archives and stays with you, KEY.pub goes to the devices."""
    from geodtr.runtime.archive.keys import new_key

    public = new_key(path)
    messages.print(f"Wrote {path}, which signs and which only you can read, and {public}, which devices trust")


@bundle.command()
def pack(
    bundle: BundlePath,
    key: Annotated[Path, flag("--key KEY", "Private key that signs.")],
    out: Annotated[Path, out_option("File to write: a tar file, usually named .tar.")],
    gallery: Annotated[
        Path | None, flag("--gallery FOLDER", "A gallery folder of the same model, with its calibration.")
    ] = None,
    note: Annotated[str, flag("--note TEXT", "Text for people who look at it.")] = "",
) -> None:
    """Pack a bundle, and a gallery if given, into one signed archive."""
    from geodtr.runtime.archive.pack import pack as write

    index = write(bundle, gallery, key, out, note=note, track=track)
    messages.print(f"Wrote {out}: {len(index.files)} files, {index.size / 1e6:.1f} MB, made at {index.created}")


@bundle.command()
def unpack(
    archive: Annotated[Path, argument("ARCHIVE", "File of `bundle pack`.")],
    folder: Folder,
    trust: Annotated[
        list[Path] | None,
        flag(
            "--trust KEY.pub",
            "Accept archives signed by this key, now and later. Repeat for several.",
            show_default="the keys that FOLDER trusts already",
        ),
    ] = None,
    allow_older: Annotated[
        bool, flag("--allow-older", "Accept an archive that was made before the last one installed.")
    ] = False,
    elsewhere: Annotated[bool, flag("--elsewhere", "Accept a bundle that does not run on this machine.")] = False,
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
        flag(
            "--gallery GALLERY",
            f"Answer images too, from a gallery of the same model: {GALLERY_HELP}.",
            parser=path_or_url,
        ),
    ] = None,
    max_batch: Annotated[int, flag("--max-batch N", "Images of a batch at most.", min=1)] = 32,
    delay: Annotated[int, flag("--delay MICROSECONDS", "Time that a request waits for others.", min=0)] = 2000,
    top: Annotated[int, flag("--top", "Number of tiles per image.", min=1)] = 5,
    headings: Headings = 1,
) -> None:
    """Write a model repository for Triton Inference Server: a model for each branch, and one that answers images."""
    from geodtr.runtime.triton.repository import TritonOptions, write_repository

    options = TritonOptions(max_batch, delay, top, headings)
    models = write_repository(bundle, gallery, out, options, track=track)
    messages.print(f"Wrote {out}: {', '.join(models)}")


def _show(version: "Version", folder: Path, as_json: bool) -> None:
    from geodtr.runtime.files.own_kinds import CURRENT

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
