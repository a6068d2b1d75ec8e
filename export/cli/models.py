"""Commands about models: evaluate, import."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from geodtr.export.cli.console import (
    messages,
    output,
    percent,
    report_skipped,
    show_json,
    table,
    track,
    warn,
)
from geodtr.export.cli.options import AsJson, Limit, ModelPath, Spec, out_option
from geodtr.runtime.names import BRANCHES


def evaluate(model: ModelPath, data: Spec, limit: Limit = None, as_json: AsJson = False) -> None:
    """Measure the recall of a checkpoint or a bundle on pairs."""
    from geodtr.export.model import open_model
    from geodtr.runtime.recall import recall
    from geodtr.training.data.spec import read_test_set
    from geodtr.training.evaluate import embed_pairs

    pair_set = read_test_set(data, limit)
    opened = open_model(model)
    descriptors = embed_pairs(opened.embedders, pair_set, track=track)
    report_skipped(pair_set.name, descriptors.pair_set.skipped)
    measured = recall(descriptors.ranking())
    if as_json:
        show_json({"model": str(model), "data": pair_set.name, **asdict(measured)})
        return
    rows = table(f"{opened.name} on {measured.queries} pairs of {pair_set.name}", ("", "R@1", "R@5", "R@10", "R@1%"))
    figures = (measured.at_1, measured.at_5, measured.at_10, measured.at_1_percent)
    rows.add_row(str(model), *map(percent, figures))
    output.print(rows)
    if measured.suspicious:
        warn(
            f"{percent(measured.tied)} % of the queries have another tile exactly as close as the right one; ties "
            "count as hits, so these figures flatter. The descriptors have probably collapsed."
        )


def import_checkpoint(
    file: Annotated[
        Path, typer.Argument(metavar="FILE.pth", help="A file of the official release.", show_default=False)
    ],
    out: Annotated[Path, out_option("Checkpoint file to write (.safetensors).")],
    parameters: Annotated[
        Path | None,
        typer.Option(
            "--parameters", help="The release's JSON of training options.", show_default="*parameter.json beside"
        ),
    ] = None,
) -> None:
    """Import a checkpoint of the official GeoDTR release: strictly, and without executing code in it."""
    from geodtr.runtime.files import refuse_existing_file
    from geodtr.training.checkpoint import save_checkpoint
    from geodtr.training.official import find_parameters, import_official

    refuse_existing_file(out)
    parameters = parameters or find_parameters(file)
    model = import_official(file, parameters)
    save_checkpoint(out, model, f"official release, {file.name}")
    config, ground, aerial = model.config, *(model.specs[branch].preprocessing for branch in BRANCHES)
    messages.print(
        f"Wrote {out}: K {config.descriptors}, {config.layers} layers, {config.heads} heads, feed-forward "
        f"{config.feed_forward}; ground {ground.height}x{ground.width}, aerial {aerial.height}x{aerial.width}"
        f"{' polar' if aerial.polar else ''}."
    )
    if parameters is None:
        warn(
            "no parameter file was found, and weights do not tell the number of heads: the paper's "
            f"{config.heads} were assumed. If it was trained otherwise, name the file with --parameters."
        )


def add_to(app: typer.Typer) -> None:
    app.command()(evaluate)
    app.command("import-checkpoint")(import_checkpoint)
