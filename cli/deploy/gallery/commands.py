"""Commands over galleries, from build to export. They need the lean runtime only."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from geodtr.cli.console import megabytes, messages, output, show_json, track, verdict, warn
from geodtr.cli.deploy.gallery.calibrate import calibrate
from geodtr.cli.deploy.gallery.regions import merge, split
from geodtr.cli.deploy.gallery.sources import Source, open_given, preview, takes_source_options, warn_of_ground_size
from geodtr.cli.options import (
    GALLERY_HELP,
    AsJson,
    BundlePath,
    GalleryPlace,
    IndexAsked,
    OnError,
    Threads,
    argument,
    flag,
    out_option,
    path_or_url,
    stop,
)
from geodtr.runtime.errors import ImageError
from geodtr.runtime.gallery.location import GalleryLocation
from geodtr.runtime.names import Storage

if TYPE_CHECKING:
    from geodtr.runtime.bundle import Bundle
    from geodtr.runtime.gallery.build import Added
    from geodtr.runtime.sources.tile import Tile, TileSource

_SHOWN = 20

gallery = typer.Typer(no_args_is_help=True, help="Build, change and inspect galleries of aerial tiles.")
gallery.command()(preview)


@gallery.command("build")
@takes_source_options
def gallery_build(
    bundle: BundlePath,
    source: Source,
    out: Annotated[
        GalleryLocation,
        flag(
            "--out GALLERY", f"Where to build: {GALLERY_HELP}; new, or one whose build was stopped.", parser=path_or_url
        ),
    ],
    *,
    given: Mapping[str, Any],
    storage: Annotated[
        Storage, flag("--storage", "Storage to search; the best are rescored with float32 rows.")
    ] = "float32",
    index: IndexAsked = "flat",
    on_error: OnError = "stop",
    threads: Threads = None,
    as_json: AsJson = False,
) -> None:
    """Embed aerial tiles into a gallery, a folder or in Milvus; the same command goes on where a build was stopped."""
    from geodtr.runtime.bundle import open_bundle
    from geodtr.runtime.gallery.build import build_gallery
    from geodtr.runtime.gallery.manifest import made_by

    opened = open_bundle(bundle)
    build = partial(build_gallery, out, made_by=made_by(opened.manifest), storage=storage, index=index)
    _embed(build, out, opened, open_given(source, given), on_error, threads, as_json)


@gallery.command("add")
@takes_source_options
def gallery_add(
    bundle: BundlePath,
    place: GalleryPlace,
    source: Source,
    *,
    given: Mapping[str, Any],
    on_error: OnError = "stop",
    threads: Threads = None,
    as_json: AsJson = False,
) -> None:
    """Embed those tiles of a source that a gallery does not hold yet, and add them."""
    from geodtr.runtime.bundle import open_bundle
    from geodtr.runtime.gallery.build import add_to_gallery

    opened = open_bundle(bundle)
    add = partial(add_to_gallery, place, embedding_id=opened.manifest.embedding_id)
    _embed(add, place, opened, open_given(source, given), on_error, threads, as_json)


@gallery.command("remove")
def gallery_remove(
    place: GalleryPlace,
    ids: Annotated[list[str], argument("ID...", "Ids, or globs of them: 'north/*'.")],
    as_json: AsJson = False,
) -> None:
    """Remove references from a gallery, all that are named or none."""
    from geodtr.runtime.gallery.registry import change_gallery

    with change_gallery(place) as writer:
        removed, left = writer.remove(ids), len(writer)
    if as_json:
        show_json({"removed": removed, "references": left})
    else:
        output.print(f"{place}: {removed} tiles removed, {left} left", soft_wrap=True)


@gallery.command("compact")
def gallery_compact(place: GalleryPlace, as_json: AsJson = False) -> None:
    """Free the space of removed references; readers are not disturbed. The disk must hold both copies meanwhile."""
    from geodtr.runtime.gallery.registry import change_gallery

    with change_gallery(place) as writer:
        compacted = writer.compact()
    if as_json:
        show_json(compacted)
    else:
        output.print(
            f"{place}: {compacted.references} tiles; the space of {compacted.freed} removed ones is free",
            soft_wrap=True,
        )


@gallery.command("info")
def gallery_info(place: GalleryPlace, as_json: AsJson = False) -> None:
    """Show what a gallery holds, and what made it."""
    from geodtr.runtime.gallery.registry import open_gallery

    with open_gallery(place) as opened:
        info = opened.info
    if as_json:
        show_json(info)
        return
    empty = " (empty: nothing can be found in it)" if not info.references else ""
    output.print(f"{place}: {info.references} tiles, {info.positioned} with a position{empty}", soft_wrap=True)
    kept = f", {megabytes(info.bytes)} MB in all" if info.bytes is not None else ""
    removed = f", {info.removed} rows of removed tiles (gallery compact frees them)" if info.removed else ""
    output.print(
        f"descriptors {info.storage} of {info.descriptor_size}: {megabytes(info.searched_bytes)} MB searched"
        f"{kept}{removed}; index {info.index}"
    )
    by = info.made_by
    output.print(
        f"embedding id {by.embedding_id}, by {by.backend} in {by.precision}, from {info.source}", soft_wrap=True
    )
    if not info.finished:
        output.print("not finished: repeat the gallery build that began it")


@gallery.command("verify")
def gallery_verify(place: GalleryPlace, as_json: AsJson = False) -> None:
    """Read all of a gallery and name every row and file that is not as it was written; exits with 1 if any is."""
    from geodtr.runtime.gallery.registry import verify_gallery

    verified = verify_gallery(place, track=track)
    faults, recall = verified.faults, verified.recall
    if as_json:
        show_json({"passed": not faults, "faults": faults, "recall": recall})
    else:
        for fault in faults[:_SHOWN]:
            output.print(fault.what if fault.id is None else f"{fault.id}: {fault.what}", soft_wrap=True)
        if len(faults) > _SHOWN:
            output.print(f"and {len(faults) - _SHOWN} more; --json lists them all")
        if any(fault.id is not None for fault in faults):
            output.print("Remove the references that are named and add them again.")
        if recall is not None:
            output.print(
                f"index {recall.index}: {100 * recall.found:.2f} % of the {recall.top} nearest tiles found, over "
                f"{recall.queries} queries between tiles"
            )
        output.print(f"{place}:", verdict(not faults), soft_wrap=True)
    raise typer.Exit(1 if faults else 0)


for function in (calibrate, split, merge):
    gallery.command()(function)


@gallery.command("export")
def gallery_export(
    place: GalleryPlace,
    out: Annotated[Path, out_option("File to write: .csv, .geojson, or .parquet (with descriptors).")],
) -> None:
    """Write a gallery's references for other programs."""
    from geodtr.runtime.gallery.export import export_gallery
    from geodtr.runtime.gallery.registry import open_gallery

    with open_gallery(place) as opened:
        export_gallery(opened, out)
        messages.print(f"Wrote {out}: {len(opened)} tiles")


def _embed(
    write: Callable[..., "Added"],
    place: GalleryLocation,
    bundle: "Bundle",
    source: "TileSource",
    on_error: OnError,
    threads: Threads,
    as_json: bool,
) -> None:
    """Embed the tiles of a source by `write`, into `place`, and report what came of it."""
    from geodtr.runtime.engines.base import EngineOptions

    warn_of_ground_size(bundle, source)
    left_out = list[str]()

    def leave_out(tile: "Tile", error: "ImageError") -> None:
        del tile
        left_out.append(str(error))

    added = write(
        source=source,
        embedder=bundle.embedder("aerial", EngineOptions(threads=threads)),
        on_bad_tile=stop if on_error == "stop" else leave_out,
        track=track,
    )
    if as_json:
        show_json({"embedded": added.embedded, "held": added.held, "left_out": left_out})
        return
    for text in left_out[:_SHOWN]:
        warn(f"left out: {text}")
    if len(left_out) > _SHOWN:
        warn(f"and {len(left_out) - _SHOWN} more tiles are left out; --json lists them all")
    held = f", {added.held} were there" if added.held else ""
    messages.print(f"Wrote {place}: {added.embedded} tiles embedded{held}")
