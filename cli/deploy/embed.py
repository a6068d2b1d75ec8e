"""The command that embeds images. It needs the lean runtime only."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from geodtr.cli.console import messages, naming_files, track, warn
from geodtr.cli.dataclass_options import with_options
from geodtr.cli.deploy.image_options import PANEL, ImageOptions, intake_of
from geodtr.cli.options import (
    IMAGES_HELP,
    BundlePath,
    Every,
    FirstImages,
    OnError,
    Threads,
    argument,
    flag,
    out_option,
    stop,
)
from geodtr.runtime.names import Branch


@with_options({PANEL: (ImageOptions,)})
def embed(
    bundle: BundlePath,
    places: Annotated[list[str], argument("IMAGES...", IMAGES_HELP)],
    branch: Annotated[Branch, flag("--branch", "View of the images.")],
    out: Annotated[Path, out_option("File to write: float32 [N, D] as .npy; a .csv beside it names each row's image.")],
    on_error: OnError = "stop",
    every: Every = 1,
    limit: FirstImages = None,
    batch: Annotated[int | None, flag("--batch N", "Batch size.", min=1, show_default="32")] = None,
    latency_budget: Annotated[
        float | None,
        flag("--latency-budget MS", "Use the largest batch size whose measured latency is at most MS milliseconds."),
    ] = None,
    threads: Threads = None,
    *,
    given: Mapping[str, Any],
) -> None:
    """Embed images into descriptors, in the order given. A folder means its images, sorted by name."""
    from geodtr.runtime.bundle import open_bundle
    from geodtr.runtime.embed.batch_size import largest_batch
    from geodtr.runtime.embed.npy import check_out, embed_to, table_of
    from geodtr.runtime.embed.pipeline import BATCH_SIZE
    from geodtr.runtime.engines.base import EngineOptions
    from geodtr.runtime.images.frames import open_frames

    if batch is not None and latency_budget is not None:
        raise typer.BadParameter("--batch and --latency-budget both decide the batch size: give one of them.")
    check_out(out)
    intake, doubts = intake_of(given), list[str]()
    frames = open_frames(places, every=every, limit=limit)
    embedder = open_bundle(bundle).embedder(branch, EngineOptions(threads=threads))
    if latency_budget is not None:
        batch = largest_batch(embedder, latency_budget)
        messages.print(f"Batch size {batch}: latency is at most {latency_budget:g} ms")
    with naming_files(out, table_of(out)):
        written = embed_to(
            out,
            embedder,
            frames,
            batch_size=batch or BATCH_SIZE,
            on_error=stop if on_error == "stop" else lambda *_: None,  # the table lists it
            intake=intake,
            on_doubt=lambda frame, doubt: doubts.append(f"{frame.called}: {doubt}"),
            track=track,
        )
    if doubts:
        more = f", and {len(doubts) - 1} more" if len(doubts) > 1 else ""
        warn(f"The model was not trained on such images: {doubts[0]}{more}.")
    if written.left_out:
        warn(f"{written.left_out} images are left out; {table_of(out)} lists them with the reasons.")
    messages.print(f"Wrote {out}: {written.rows} descriptors, and {table_of(out)}, which names the image of each")
