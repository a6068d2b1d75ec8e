"""Commands that bring models in."""

from pathlib import Path
from typing import Annotated

import typer

from geodtr.cli.console import messages
from geodtr.cli.options import out_option
from geodtr.runtime.names import BRANCHES


def import_checkpoint(
    file: Annotated[
        Path, typer.Argument(metavar="FILE.pth", help="A file of the official release.", show_default=False)
    ],
    out: Annotated[Path, out_option("Checkpoint file to write (.safetensors).")],
    parameters: Annotated[
        Path | None,
        typer.Option(
            "--parameters",
            help="The release's JSON of training options.",
            show_default="*parameter.json beside FILE or one folder up",
        ),
    ] = None,
) -> None:
    """Import a checkpoint of the official GeoDTR release: strictly, and without executing code in it."""
    from geodtr.runtime.errors import CheckpointError
    from geodtr.runtime.files import check_file, check_new_file

    check_file(file, CheckpointError)
    if parameters is not None:
        check_file(parameters, CheckpointError, "Check --parameters.")
    from geodtr.training.models.checkpoint import save_checkpoint
    from geodtr.training.models.official import find_parameters, import_official

    check_new_file(out)
    parameters = parameters or find_parameters(file)
    model = import_official(file, parameters)
    save_checkpoint(out, model, f"official release, {file.name}")
    config, ground, aerial = model.config, *(model.specs[branch].preprocessing for branch in BRANCHES)
    messages.print(
        f"Wrote {out}: K {config.descriptors}, {config.layers} layers, {config.heads} heads, feed-forward "
        f"{config.feed_forward}; ground {ground.height}x{ground.width}, aerial {aerial.height}x{aerial.width}"
        f"{' polar' if aerial.polar else ''}."
    )


def add_to(app: typer.Typer) -> None:
    app.command("import-checkpoint")(import_checkpoint)
