"""Commands that make data sets."""

from pathlib import Path
from typing import Annotated

import typer

from geodtr.export.cli.console import messages, track
from geodtr.export.cli.options import Seed, parse_size


def world(
    out: Annotated[Path, typer.Argument(help="Folder to write; must be new or empty.", show_default=False)],
    pairs: Annotated[int, typer.Option("--pairs", min=1, help="How many pairs.", show_default=False)],
    size: Annotated[str, typer.Option("--size", metavar="HxW", help="Panorama size; tiles are 2H x 2H.")] = "48x192",
    region: Annotated[
        str, typer.Option("--region", help="Where in the world: another region is unseen ground.")
    ] = "valley",
    seed: Seed = 0,
) -> None:
    """Render a generated cross-view world as a `pairs:` data set, with coordinates."""
    from geodtr.training.world.dataset import WorldSet, write_world

    height, width = parse_size(size)
    write_world(out, WorldSet(pairs=pairs, height=height, width=width, region=region, seed=seed), track=track)
    messages.print(f"Wrote {pairs} pairs. Use them as: --data pairs:{out}")


def add_to(app: typer.Typer) -> None:
    app.command()(world)
