"""Commands that make data sets, check them, show them and prepare them."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from geodtr.cli.console import messages, output, report_skipped, show_json, track, verdict, warn
from geodtr.cli.dataclass_options import with_options
from geodtr.cli.options import AsJson, Limit, Seed, argument, flag, out_option, parse_size
from geodtr.cli.tables import table
from geodtr.cli.view_options import PANEL, ViewOptions, views_of
from geodtr.runtime.errors import DataError, ImageError

if TYPE_CHECKING:
    from geodtr.training.data.check import CheckedSet
    from geodtr.training.data.pair_set import Skipped

WorldView = Literal["ground", "nadir"]
Strength = Literal["strong", "weak", "any-angle", "none"]
_SHOWN = 3
"""How many offenders of a kind are named; more hide the other kinds."""


def world(
    out: Annotated[Path, typer.Argument(help="Folder to write; must be new or empty.", show_default=False)],
    pairs: Annotated[int, flag("--pairs", "Number of pairs.", min=1)],
    view: Annotated[WorldView, flag("--view", "Panoramas on roads, or frames that look down anywhere.")] = "ground",
    size: Annotated[
        str | None,
        flag(
            "--size HxW",
            "Panorama size, whose tiles are 2H x 2H; or size of nadir frames and tiles.",
            show_default="48x192, nadir 64x64",
        ),
    ] = None,
    region: Annotated[str, flag("--region", "Where in the world: another region is unseen ground.")] = "valley",
    seed: Seed = 0,
) -> None:
    """Render a generated cross-view world as a `pairs:` data set, with coordinates."""
    from geodtr.training.world.dataset import WorldSet, write_world

    height, width = parse_size(size or ("48x192" if view == "ground" else "64x64"))
    options = WorldSet(pairs=pairs, height=height, width=width, region=region, seed=seed, view=view)
    write_world(out, options, track=track)
    messages.print(f"Wrote {pairs} pairs. Use them as: --data pairs:{out}")


def flight(
    out: Annotated[Path, typer.Argument(help="Folder to write; must be new or empty.", show_default=False)],
    frames: Annotated[int, flag("--frames", "Number of nadir frames.", min=1)],
    side: Annotated[float, flag("--side METRES", "Side of the map.")] = 600.0,
    stride: Annotated[float, flag("--stride METRES", "Distance between tiles, which are 60 m wide.")] = 30.0,
    tilt: Annotated[float, flag("--tilt DEGREES", "Largest tilt of the camera.")] = 10.0,
    region: Annotated[str, flag("--region", "Where in the world: another region is unseen ground.")] = "coast",
    seed: Seed = 0,
) -> None:
    """Render a generated map as tiles, and nadir frames of it in other light and season, with the truth about each."""
    from geodtr.training.world.flight import FlightSet, write_flight

    options = FlightSet(frames=frames, side=side, stride=stride, tilt=tilt, region=region, seed=seed)
    table = write_flight(out, options, track=track)
    messages.print(f"Wrote {out / 'tiles'}, a source of tiles, and {_count(frames, 'frame')} with {table}")


data = typer.Typer(no_args_is_help=True, help="Check, show and prepare data sets for training.")
Specs = Annotated[
    list[str],
    argument(
        "SPEC", "Data sets, KIND:PATH or KIND:PATH#SPLIT; without a split: train and test, of SUES-200 at each height."
    ),
]
TrainingSpec = Annotated[str, argument("SPEC", "Data set, KIND:PATH or KIND:PATH#SPLIT; without a split: train.")]
Jobs = Annotated[int | None, flag("--jobs", "Number of threads.", min=1, show_default="by the cores")]


@data.command("check")
def data_check(specs: Specs, limit: Limit = None, jobs: Jobs = None, as_json: AsJson = False) -> None:
    """Find what is missing, unreadable, of a wrong size, double, or in two of the sets; exits with 1 if anything is."""
    from geodtr.training.data.check import check

    checked = check(specs, limit, jobs=jobs, track=track)
    problems = checked.problems
    if as_json:
        show_json({"passed": not problems, "problems": problems, "sets": checked.sets, "shared": checked.shared})
    else:
        for each in checked.sets:
            _show_set(each)
        for shared in checked.shared:
            images = [str(one) if one == other else f"{one} and {other}" for one, other in shared.images]
            count = _count(len(images), f"{shared.branch} image")
            _show_first(f"{count} of {shared.second} in {shared.first} too", images)
        counts = ", ".join(f"{count} {kind}" for kind, count in problems.items())
        output.print(verdict(not problems), *([f"({counts})"] if counts else []), soft_wrap=True)
    if problems:
        raise typer.Exit(1)


@data.command("prepare")
@with_options({PANEL: (ViewOptions,)})
def data_prepare(
    spec: TrainingSpec,
    out: Annotated[Path, out_option("Folder to write, or to resume.")],
    preset: Annotated[
        str | None,
        flag("--preset NAME|FILE", "What to prepare for: a preset of train.", show_default="the data set's own"),
    ] = None,
    camera: Annotated[
        str | None,
        flag(
            "--undistort FILE",
            "Undistort ground images by a calibration of OpenCV, ROS or Kalibr (FILE#cam1), as localize does.",
        ),
    ] = None,
    limit: Limit = None,
    jobs: Jobs = None,
    *,
    given: Mapping[str, Any],
) -> None:
    """Preprocess every image once (polar transform, crop, resize) and keep it as a `prepared:` data set.

    The same command goes on where an earlier one was interrupted. --fov and --heading keep what is seen of full
    panoramas, to calibrate or measure a model for them.
    """
    from time import perf_counter

    from geodtr.runtime.images.camera_model import read_camera_model
    from geodtr.training.data.prepare import prepare
    from geodtr.training.data.spec import find_preset, parse_spec, read_training_set
    from geodtr.training.presets import read_preset

    parse_spec(spec)
    preset = preset or find_preset(spec)
    read_preset(preset)
    from geodtr.training.models.registry import outline
    from geodtr.training.presets.load import load_preset

    config = load_preset(preset)
    model = None if camera is None else read_camera_model(camera)
    pair_set = read_training_set(spec, limit).seen(views_of(given))
    scorer = outline(config.model, config.ground, config.aerial).specs["ground"].scorer
    start = perf_counter()
    try:
        prepared = prepare(
            out,
            pair_set,
            {"ground": config.ground, "aerial": config.aerial},
            camera=model,
            scorer=scorer,
            jobs=jobs,
            track=track,
        )
    except SystemExit:
        messages.print(f"{out} is not finished: the same command goes on from here.")
        raise
    rate = f" ({prepared.written / (perf_counter() - start):.0f} images/s)" if prepared.written else ""
    report_skipped(spec, prepared.pair_set.skipped)
    messages.print(
        f"Wrote {out}: {_count(len(prepared.pair_set), 'pair')} of {pair_set.name}; "
        f"{_count(prepared.written, 'image')} written{rate}, {prepared.reused} reused. Use them as: "
        f"--data prepared:{out}",
    )


@data.command("show")
def data_show(
    spec: TrainingSpec,
    out: Annotated[Path, out_option("PNG file to write.")],
    augment: Annotated[
        Strength | None,
        flag(
            "--augment",
            "Layout simulation and semantic augmentation; any-angle: with strong semantics.",
            show_default="strong, or weak where images look ahead",
        ),
    ] = None,
    preset: Annotated[
        str | None,
        flag("--preset NAME|FILE", "Whose input sizes: a preset of train.", show_default="the data set's own"),
    ] = None,
    pairs: Annotated[int, flag("--pairs", "Number of pairs, spread over the set.", min=1, max=50)] = 4,
    variants: Annotated[int, flag("--variants", "How many of each pair.", min=1, max=8)] = 3,
    seed: Seed = 0,
) -> None:
    """Draw a sheet of pairs as training sees them: each as it is, beside it what augmentation may make of it."""
    import numpy as np

    from geodtr.export.plots.files import check_pictures, save_picture
    from geodtr.export.plots.sheets.sheet import spread
    from geodtr.runtime.images.preprocess import load_image, parts
    from geodtr.training.data.spec import find_preset, parse_spec, read_training_set
    from geodtr.training.presets import read_preset

    check_pictures(out, plotted=False)
    parse_spec(spec)
    preset = preset or find_preset(spec)
    read_preset(preset)
    from geodtr.export.plots.sheets.pairs import augmented_rows, draw_pairs
    from geodtr.training.presets.load import load_preset

    config = load_preset(preset)
    pair_set = read_training_set(spec)
    report_skipped(spec, pair_set.skipped)
    sample = [pair_set.pairs[row] for row in spread(len(pair_set), pairs)]
    ground, aerial = [], []
    for pair in sample:
        try:
            views = load_image(pair.ground, config.ground), load_image(pair.aerial, config.aerial)
        except ImageError as error:
            warn(f"a pair is left out: {error}")
        else:
            ground.append(views[0])
            aerial.append(parts(views[1], config.aerial)[0])
    if not ground:
        raise DataError(
            f"None of the {len(sample)} chosen pairs of {spec} can be drawn: geodtr-export data check {spec}"
        )
    narrow = config.ground.imagery.is_narrow
    augment = augment or ("weak" if narrow else "strong")
    if augment == "any-angle" and not config.aerial.polar:
        raise DataError("any-angle needs a polar aerial branch, and the preset's is square: --augment strong.")
    if narrow and augment in ("strong", "any-angle"):
        raise DataError(f"{augment} rotates pairs, and the preset's ground images are no full turns: --augment weak.")
    semantic = "strong" if augment == "any-angle" else augment
    rows = augmented_rows(
        {"ground": np.stack(ground), "aerial": np.stack(aerial)},
        {"ground": config.ground, "aerial": config.aerial},
        augment,
        semantic,
        variants,
        seed,
    )
    save_picture(draw_pairs(rows, f"{pair_set.name}: augmentation {augment}"), out)
    messages.print(f"Wrote {out}: {_count(len(rows), 'pair')}")


def _show_set(checked: "CheckedSet") -> None:
    """A set's figures, its sizes, and the first offenders."""
    rows = table(
        f"{checked.name}: {_count(checked.pairs, 'pair')}, {_count(len(checked.missing), 'file')} missing",
        ("", "images", "unreadable", "wrong size", "double"),
    )
    for name, branch in checked.branches.items():
        double = sum(len(group) - 1 for group in branch.duplicates)
        rows.add_row(name, str(branch.images), str(len(branch.unreadable)), str(len(branch.wrong_size)), str(double))
    output.print(rows)
    for name, branch in checked.branches.items():
        sizes = [f"{count} of {size}" for size, count in branch.sizes.items()]
        output.print(f"{name} sizes: {_few(sizes)}", soft_wrap=True)
    for count in checked.counts:
        output.print(f"{count.what}: {count.found:,}; the published set has {count.published:,}", soft_wrap=True)
    _show_first("missing", [_missing(entry) for entry in checked.missing])
    for branch in checked.branches.values():
        _show_first("unreadable", [entry.reason for entry in branch.unreadable])
        _show_first("wrong size", [f"{entry.path} ({entry.reason})" for entry in branch.wrong_size])
        _show_first("same pixels", [_few([str(path) for path in group]) for group in branch.duplicates])
    output.print()


def _show_first(label: str, entries: list[str]) -> None:
    """The first few of a list, one a line, and how many more there are."""
    if not entries:
        return
    output.print(f"{label}:", soft_wrap=True)
    for entry in entries[:_SHOWN]:
        output.print(f"    {entry}", soft_wrap=True)
    if len(entries) > _SHOWN:
        output.print(f"    and {len(entries) - _SHOWN} more; --json lists all")


def _missing(entry: "Skipped") -> str:
    """A prepared data set also lists files of its source that could not be read, with a reason that names them."""
    named = str(entry.path) in entry.reason
    return str(entry.path) if entry.reason == "missing" else entry.reason if named else f"{entry.path} {entry.reason}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _few(entries: list[str]) -> str:
    shown = ", ".join(entries[:_SHOWN])
    return f"{shown} and {len(entries) - _SHOWN} more" if len(entries) > _SHOWN else shown
