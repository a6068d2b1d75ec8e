"""The command that proves an engine: parity."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from geodtr.cli.build.parity_tables import show_parity
from geodtr.cli.console import EXIT_CODES, messages, report_skipped, show_json, track, warn, warn_of_doubt
from geodtr.cli.dataclass_options import with_options
from geodtr.cli.options import AsJson, Limit, Spec, argument, flag
from geodtr.cli.view_options import PANEL, ViewOptions, views_of
from geodtr.runtime.errors import ConfigError
from geodtr.runtime.names import PRECISIONS, Precision, asked_as


@with_options({PANEL: (ViewOptions,)})
def parity(
    reference: Annotated[Path, argument("REFERENCE", "A checkpoint or a bundle.")],
    candidates: Annotated[list[Path], argument("CANDIDATE...", "Bundles to judge, of any backend.")],
    data: Spec,
    limit: Limit = None,
    max_drop: Annotated[
        list[str] | None,
        flag(
            "--max-drop PRECISION=POINTS,...",
            "Allowed drop in R@1, for example fp16=0.2,int8=1.",
            show_default="fp32=0, fp16=0.1, int8=0.5, fp8=0.5; auto: its search's tolerance",
        ),
    ] = None,
    min_cosine: Annotated[
        list[str] | None,
        flag(
            "--min-cosine PRECISION=COSINE,...",
            "Smallest cosine of a descriptor with the reference's.",
            show_default="fp32=0.99999, fp16=0.999, int8=0.98, fp8=0.95, auto=0.95",
        ),
    ] = None,
    max_compact_drop: Annotated[
        float,
        flag(
            "--max-compact-drop POINTS",
            "Allowed drop in R@1 of an engine with --descriptor-size, against descriptors that are not projected.",
            min=0,
            max=100,
        ),
    ] = 0.5,
    require_certain: Annotated[
        bool, flag("--require-certain", "A typed graph that could not be read is undecided as well: exit 3.")
    ] = False,
    accept_undecided: Annotated[
        bool,
        flag(
            "--accept-undecided",
            "For few pairs: undecided recall passes where the measured drop is within the allowed one.",
        ),
    ] = False,
    stages: Annotated[
        bool,
        flag(
            "--stages/--no-stages",
            "Run the ONNX files between REFERENCE and engine as well, to see which step lost what.",
        ),
    ] = True,
    layers: Annotated[bool, flag("--layers", "Compare the ONNX files layer by layer as well.")] = False,
    report: Annotated[
        Path | None, flag("--report FILE.html", "Write one HTML report: tables, plots, queries with rank changes.")
    ] = None,
    *,
    given: Mapping[str, Any],
    as_json: AsJson = False,
) -> None:
    """Prove that engines find what the reference model finds: exit 0 passed, 1 one does not, 3 undecided.

    All embed the same pairs. R@1 is compared in the engine's own gallery and in both mixtures with
    the reference's. Recall passes when the whole 95 % interval of the drop is within what the
    precision allows, fails when the whole interval is beyond it, and is undecided otherwise: the
    report then gives the number of pairs that would decide. Where no drop is allowed (fp32), the
    cosine of every image decides instead.

    An engine that projects its descriptors is held against the reference's in the same projection.
    Its R@1 is compared with the reference's before the projection as well (--max-compact-drop).

    Besides, no single descriptor may turn too far, rows must not depend on their batch, and the graph
    must have the precision that it claims. Each verdict is written into its bundle's manifest, if the
    bundle can be written; one that is not passed ends with the command to run next. docs/parity.md
    explains the statistics.
    """
    from geodtr.export.model import open_model
    from geodtr.export.parity import Gates, compare, record
    from geodtr.export.report import check_report, write_report
    from geodtr.runtime.bundle import open_bundle
    from geodtr.training.data.spec import read_test_set

    gates = Gates(
        _by_precision(max_drop, "points", 100, example=0.5),
        _by_precision(min_cosine, "a cosine", 1, example=0.98),
        require_certain,
        accept_undecided,
        max_compact_drop,
    )
    if report is not None:
        check_report(report)
    pair_set = read_test_set(data, limit).seen(views_of(given))
    bundles = [open_bundle(path) for path in candidates]
    models = [open_model(bundle.path) for bundle in bundles]
    result = compare(open_model(reference), models, pair_set, gates=gates, stages=stages, layers=layers, track=track)
    report_skipped(result.figures.data, result.figures.skipped)
    warn_of_doubt(result.figures.data, result.figures.doubt)
    if as_json:
        show_json(result.figures)
    else:
        show_parity(result.figures)
    for fault in record(result.figures):
        warn(f"A verdict is printed and not recorded: {fault}")
    if report is not None:
        write_report(result, report)
        messages.print(f"Wrote {report}")
    raise typer.Exit(EXIT_CODES[result.verdict])


def _by_precision(texts: Sequence[str] | None, unit: str, largest: float, example: float) -> dict[Precision, float]:
    """fp16=0.2,int8=1 -> a number by precision. Raises ConfigError naming what cannot be understood."""
    names: dict[str, Precision] = {asked_as(precision): precision for precision in PRECISIONS}
    cosines = dict[Precision, float]()
    for part in map(str.strip, ",".join(texts or ()).split(",")):
        name, _, number = part.partition("=")
        try:
            value = float(number)
        except ValueError:
            value = float("nan")
        if part and not (name in names and 0 <= value <= largest):
            raise ConfigError(
                f"{part!r} is not PRECISION=NUMBER: the precision is one of {', '.join(names)}, the number {unit} from "
                f"0 to {largest:g}, for example int8={example:g}."
            )
        if part:
            cosines[names[name]] = value
    return cosines
