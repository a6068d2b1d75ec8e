"""Commands that train: train, resume."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from geodtr.cli.console import messages, report_skipped, track, warn
from geodtr.cli.dataclass_options import with_options
from geodtr.cli.options import SPEC_HELP, argument, flag, out_option
from geodtr.cli.view_options import PANEL, ViewOptions
from geodtr.runtime.errors import ConfigError
from geodtr.runtime.files import check_new_folder
from geodtr.runtime.files.own_kinds import STATE
from geodtr.runtime.machine import cpu_dialect
from geodtr.runtime.names import Dialect
from geodtr.runtime.progress import Track, untracked
from geodtr.training.presets import preset_names, read_preset
from geodtr.training.run_files import BEST, LAST, check_run, find_checkpoint

if TYPE_CHECKING:
    from geodtr.training.config import DataSpecs, TrainConfig
    from geodtr.training.data.pair_set import PairSet
    from geodtr.training.listener import Listener

Data = Annotated[
    str | None, flag("--data SPEC", f"Pairs to train on: {SPEC_HELP}", show_default="the preset's, if it names any")
]
Validation = Annotated[str | None, flag("--validation SPEC", "Pairs that select the best epoch.", show_default="none")]


@with_options({PANEL: (ViewOptions,)}, leave_out=("rows", "view_seed"))
def train(
    out: Annotated[Path, out_option("Folder of the run; must be new or empty.")],
    data: Data = None,
    validation: Validation = None,
    preset: Annotated[
        str,
        flag(
            "--preset NAME|FILE",
            f"A TOML file such as a run's config.toml, or one of {', '.join(preset_names())}.",
        ),
    ] = "world-demo",
    settings: Annotated[list[str] | None, flag("--set KEY=VALUE", "Change a value of the preset.")] = None,
    epochs: Annotated[int | None, flag("--epochs", "--set recipe.epochs=", min=1)] = None,
    seed: Annotated[int | None, flag("--seed", "--set recipe.seed=", min=0, max=2**32 - 1)] = None,
    limit: Annotated[int | None, flag("--limit N", "Train on the first N pairs.", min=1, show_default="all")] = None,
    *,
    given: Mapping[str, Any],
) -> None:
    """Train a model on pairs; leaves OUT/last.safetensors and, with --validation, OUT/best.safetensors.

    Stops cleanly on Ctrl-C or SIGTERM, and survives a kill: `geodtr-export resume OUT` goes on as if nothing had been.
    Several GPUs: torchrun --nproc-per-node N -m geodtr.cli.main train ...
    """
    from msgspec.structs import replace

    from geodtr.training.data.spec import absolute

    read_preset(preset)
    _check(data, validation)
    from geodtr.training.config import DataSpecs, limit_field
    from geodtr.training.loop import train as run_training
    from geodtr.training.parallel.distributed import is_rank_zero
    from geodtr.training.presets.load import load_preset

    if is_rank_zero():
        check_new_folder(out)
    short = {
        "recipe.epochs": epochs,
        "recipe.seed": seed,
        "data.train": data,
        "data.validation": validation,
        "data.limit": limit,
    }
    config = load_preset(preset, settings or (), {key: value for key, value in short.items() if value is not None})
    config = limit_field(config, given.get("fov"), given.get("heading"))
    specs = DataSpecs(
        train=absolute(config.data.train), validation=absolute(config.data.validation), limit=config.data.limit
    )
    config = replace(config, data=specs)
    if not config.data.train:
        raise ConfigError(f"Preset {preset} names no data. Add --data SPEC, for example --data pairs:FOLDER.")
    _warn_of_unread(config, settings or ())
    pair_set, validation_set = _read(config.data)
    with _audience(out) as (bars, listener):
        checkpoint = run_training(config, pair_set, out, validation=validation_set, track=bars, listener=listener)
    _done(checkpoint)


def resume(
    run: Annotated[Path, argument("RUN", "The folder of a run.")],
    data: Annotated[
        str | None, flag("--data SPEC", "Current location of the pairs.", show_default="the recorded one")
    ] = None,
    validation: Annotated[
        str | None,
        flag("--validation SPEC", "Current location of the validation pairs.", show_default="the recorded one"),
    ] = None,
) -> None:
    """Go on with a run that was stopped or killed, exactly as it would have gone on."""
    check_run(run)
    _check(data, validation)
    from geodtr.training.config import DataSpecs
    from geodtr.training.loop import resume as go_on
    from geodtr.training.run.folder import read_run
    from geodtr.training.run.state import is_finished, load_state

    config = read_run(run)
    if is_finished(load_state(run / STATE).state):
        messages.print(f"{run} is finished.")
        _done(run / LAST)
        return
    specs = config.data
    pair_set, validation_set = _read(
        DataSpecs(train=data or specs.train, validation=validation or specs.validation, limit=specs.limit)
    )
    with _audience(run) as (bars, listener):
        checkpoint = go_on(run, pair_set, validation=validation_set, track=bars, listener=listener)
    _done(checkpoint)


def finetune(
    source: Annotated[Path, argument("RUN|CKPT", "What to go on from.")],
    data: Annotated[str, flag("--data SPEC", "Pairs to train on.")],
    out: Annotated[Path, out_option("Folder of the new run; must be new or empty.")],
    validation: Validation = None,
    preset: Annotated[
        str | None,
        flag(
            "--preset NAME|FILE",
            "How a CKPT was trained: a preset of train, or a TOML file.",
            show_default="the RUN's own",
        ),
    ] = None,
    settings: Annotated[list[str] | None, flag("--set KEY=VALUE", "Change a value of the configuration.")] = None,
    epochs: Annotated[int | None, flag("--epochs", "--set recipe.epochs=", min=1, show_default="3")] = None,
    images: Annotated[int, flag("--images", "Number of images used.", min=1)] = 200,
    dialect: Annotated[
        Dialect | None, flag("--dialect", "INT8 dialect of the engines.", show_default="this machine's own")
    ] = None,
) -> None:
    """Fine-tune briefly with quantisation-aware training, for when INT8 costs too much recall.

    Writes an ordinary checkpoint: build INT8 engines from it as from any other. Its descriptors differ from the
    original model's: rebuild the galleries.
    """
    from geodtr.training.data.spec import absolute

    find_checkpoint(source)
    _check(data, validation)
    if preset is not None:
        read_preset(preset)
    from geodtr.calibration.ranges import RangeOptions
    from geodtr.export.finetune import finetune_config
    from geodtr.training.config import DataSpecs
    from geodtr.training.loop import train as run_training

    check_new_folder(out)
    specs = DataSpecs(train=absolute(data), validation=absolute(validation or ""))
    pair_set, validation_set = _read(specs)
    changes = {"data.train": specs.train, "data.validation": specs.validation, "data.limit": 0}
    if epochs is not None:
        changes["recipe.epochs"] = epochs
    config = finetune_config(
        source,
        pair_set,
        RangeOptions(images=images),
        dialect or cpu_dialect(),
        preset,
        settings or (),
        changes,
        track=track,
    )
    _warn_of_unread(config, settings or ())
    with _audience(out) as (bars, listener):
        checkpoint = run_training(config, pair_set, out, validation=validation_set, track=bars, listener=listener)
    _done(checkpoint)


def _check(*specs: str | None) -> None:
    """Raises DataError for data sets that are not there; before PyTorch is imported, which takes seconds."""
    from geodtr.training.data.spec import parse_spec

    for spec in specs:
        if spec:
            parse_spec(spec)


def _warn_of_unread(config: "TrainConfig", settings: Sequence[str]) -> None:
    from geodtr.training.parallel.distributed import is_rank_zero
    from geodtr.training.presets.unread import unread

    for sentence in unread(config, settings) if is_rank_zero() else ():
        warn(sentence)


def _read(specs: "DataSpecs") -> "tuple[PairSet, PairSet | None]":
    from geodtr.training.data.spec import read_test_set, read_training_set
    from geodtr.training.parallel.distributed import is_rank_zero

    pair_set = read_training_set(specs.train, specs.limit or None)
    validation_set = read_test_set(specs.validation) if specs.validation else None
    for read in (pair_set, validation_set):
        if read is not None and is_rank_zero():
            report_skipped(read.name, read.skipped)
    return pair_set, validation_set


@contextmanager
def _audience(run: Path) -> "Iterator[tuple[Track, Listener]]":
    """Where training reports its progress: the terminal and TensorBoard, on rank 0 only."""
    from geodtr.cli.train.bar import LeftOut, TrainingBar
    from geodtr.export.tensorboard import TensorBoard
    from geodtr.training.listener import Listeners
    from geodtr.training.parallel.distributed import is_rank_zero

    if not is_rank_zero():
        yield untracked, LeftOut()
        return
    with TrainingBar() as bar, TensorBoard(run / "tensorboard") as board:
        yield track, Listeners((bar, board))


def _done(checkpoint: Path) -> None:
    from geodtr.training.parallel.distributed import is_rank_zero

    if is_rank_zero():
        messages.print(f"Wrote {checkpoint}")
        best = checkpoint.with_name(BEST)
        if best.exists():
            messages.print(f"Best by validation: {best}")
