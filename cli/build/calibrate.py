"""The command that calibrates, and the options it shares with those that build."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from geodtr.cli.console import messages, report_skipped, track
from geodtr.cli.options import out_option
from geodtr.runtime.names import Choice, Method

if TYPE_CHECKING:
    from geodtr.calibration.select import Pool

Images = Annotated[int, typer.Option("--images", min=1, help="How many of the images are used.")]
Seed = Annotated[int, typer.Option("--seed", min=0, help="Of the draw, where --select draws.")]
Select = Annotated[Choice, typer.Option("--select", help="Which: spread over regions or folders, or over descriptors.")]
MethodOption = Annotated[Method, typer.Option("--method", help="How a tensor's values make its range.")]
Percentile = Annotated[
    float, typer.Option("--percentile", min=50, max=100, help="Share of the values that its method keeps.")
]


def calibrate(
    source: Annotated[
        Path, typer.Argument(metavar="CKPT|BUNDLE", help="A checkpoint, or an exported bundle.", show_default=False)
    ],
    data: Annotated[
        str,
        typer.Option(
            "--data",
            metavar="SPEC|FOLDER",
            help="A data set, or a folder with ground/ and aerial/.",
            show_default=False,
        ),
    ],
    out: Annotated[Path, out_option("Ranges file: reused when all of it matches, else measured anew.")],
    images: Images = 200,
    select: Select = "random",
    seed: Seed = 0,
    method: MethodOption = "minmax",
    percentile: Percentile = 99.99,
) -> None:
    """Measure the ranges that activations take on images, for `build-engine --ranges`."""
    from geodtr.export.model import check_source

    check_source(source)
    pool = open_pool(data)
    from geodtr.calibration.ranges import RangeOptions
    from geodtr.calibration.ranges import calibrate as measure
    from geodtr.export.build.engine import float32_bundle

    options = RangeOptions(images=images, choice=select, seed=seed, method=method, percentile=percentile)
    with float32_bundle(source, track) as exported:
        made = measure(exported, pool, options, out, track=track)
    if made.why_anew is None:
        messages.print(f"{out} holds just these ranges: nothing to do.")
    else:
        messages.print(
            f"Wrote {out}: {len(made.ranges.ground.ranges)} tensors of ground, "
            f"{len(made.ranges.aerial.ranges)} of aerial, because {made.why_anew}.",
            soft_wrap=True,
        )


def open_pool(named: str) -> "Pool":
    """What --calibration names, as a pool; says which files of a set cannot be used."""
    from geodtr.export.calibration_pool import read_pool

    pool, pair_set = read_pool(named)
    if pair_set is not None:
        report_skipped(pair_set.name, pair_set.skipped)
    return pool


def add_to(app: typer.Typer) -> None:
    app.command()(calibrate)
