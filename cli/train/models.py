"""Commands that bring models in."""

import os
from pathlib import Path
from typing import Annotated

from geodtr.cli.console import messages, warn
from geodtr.cli.options import argument, flag, out_option
from geodtr.runtime.errors import CheckpointError, ConfigError
from geodtr.runtime.files import check_file, check_new_file
from geodtr.runtime.names import BRANCHES


def import_checkpoint(
    files: Annotated[
        list[Path], argument("FILE.pth...", "A file of a model's official release; of FusionGAN, a file of each stage.")
    ],
    out: Annotated[Path, out_option("Checkpoint file to write (.safetensors).")],
    parameters: Annotated[
        Path | None,
        flag(
            "--parameters",
            "The release's JSON of training options.",
            show_default="*parameter.json beside FILE or one folder up",
        ),
    ] = None,
    preset: Annotated[
        str | None,
        flag(
            "--preset NAME|FILE",
            "Whose network and inputs the file has: a preset of train, or a TOML file.",
            show_default="what the file records",
        ),
    ] = None,
    settings: Annotated[list[str] | None, flag("--set KEY=VALUE", "Change a value of the preset.")] = None,
    stage_1: Annotated[
        Path | None, flag("--stage-1 FILE", "Stage 1's file, where FILE.pth is of TransGeo's stage 2.")
    ] = None,
) -> None:
    """Import an official checkpoint: strictly, and without executing code in it.

    Of GeoDTR, GeoDTR+, Sample4Geo, SAFA, L2LTR, TransGeo, CVFT, DSM, CDE or FusionGAN; of CVFT, DSM and FusionGAN,
    TensorFlow's .index files.
    """
    for file in files:
        index = f"{file}.index"  # TensorFlow's own tools take a checkpoint's name without its ending
        known = os.path.isfile(index)  # noqa: PTH113 (Path.is_file raises at a name that is too long for the disk)
        check_file(file, CheckpointError, f"Give its index: {index}" if known else "Check the path.")
    if parameters is not None:
        check_file(parameters, CheckpointError, "Check --parameters.")
    if stage_1 is not None:
        check_file(stage_1, CheckpointError, "Check --stage-1.")
    if settings and preset is None:
        raise ConfigError("--set changes a preset; name it with --preset.")
    if parameters is not None and preset is not None:
        raise ConfigError("--parameters and --preset both describe the network. Give one of them.")
    import msgspec

    from geodtr.training.models.checkpoint import save_checkpoint
    from geodtr.training.models.importers.base import Network
    from geodtr.training.models.importers.official import import_official
    from geodtr.training.presets.load import load_preset

    check_new_file(out)
    network = None
    if preset is not None:
        described = load_preset(preset, settings or ())
        network = Network(described.model, described.ground, described.aerial)
    assumed = list[str]()
    first, *more = files
    model = import_official(first, parameters, network, assumed.append, stage_1, more)
    names = ", ".join(file.name for file in files)
    save_checkpoint(out, model, f"official release, {names}", replace=False)
    config: dict[str, object] = msgspec.to_builtins(model.config)
    ground, aerial = (model.specs[branch].preprocessing for branch in BRANCHES)
    shown = ", ".join(f"{name} {value}" for name, value in config.items() if not isinstance(value, dict))
    messages.print(
        f"Wrote {out}: {shown}; ground {ground.height}x{ground.width}, aerial {aerial.height}x{aerial.width}"
        f"{' polar' if aerial.polar else ''}{f' with an overview of {aerial.overview}' if aerial.overview else ''}.",
    )
    for each in assumed:
        warn(each)
