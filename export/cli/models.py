"""Commands that make models: train, import."""

from pathlib import Path
from typing import Annotated

import typer

from geodtr.export.cli.console import messages, report_skipped, track, training_bar, warn
from geodtr.export.cli.options import Limit, Spec, out_option
from geodtr.runtime.names import BRANCHES


def train(
    data: Spec,
    out: Annotated[Path, out_option("Folder of the run; must be new or empty.")],
    preset: Annotated[str, typer.Option("--preset", help="world-demo, world-tiny or geodtr-cvusa.")] = "world-demo",
    epochs: Annotated[
        int | None, typer.Option("--epochs", min=1, help="Instead of the preset's.", show_default=False)
    ] = None,
    seed: Annotated[
        int | None, typer.Option("--seed", min=0, max=2**32 - 1, help="Instead of the preset's.", show_default=False)
    ] = None,
    limit: Limit = None,
) -> None:
    """Train a model on pairs; leaves OUT/last.safetensors."""
    from geodtr.runtime.files import refuse_existing
    from geodtr.training.config import load_preset
    from geodtr.training.data.spec import read_training_set
    from geodtr.training.loop import train as run_training

    refuse_existing(out)
    changes = {name: value for name, value in (("epochs", epochs), ("seed", seed)) if value is not None}
    config = load_preset(preset, **changes)
    pair_set = read_training_set(data, limit)
    report_skipped(pair_set.name, pair_set.skipped)
    with training_bar() as on_step:
        checkpoint = run_training(config, pair_set, out, track=track, on_step=on_step)
    messages.print(f"Wrote {checkpoint}")


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
    app.command()(train)
    app.command("import-checkpoint")(import_checkpoint)
