"""The command that shows the whole product at work."""

from pathlib import Path
from typing import Annotated

import typer

from geodtr.cli.build.parity_tables import show_parity
from geodtr.cli.build.precision_tables import int8_share
from geodtr.cli.console import EXIT_CODES, judged, messages, output, percent, show_json, track
from geodtr.cli.options import AsJson, Seed, flag, out_option
from geodtr.cli.tables import table


def demo(
    out: Annotated[Path, out_option("Folder to work in; steps that are finished there are reused.")],
    fresh: Annotated[bool, flag("--fresh", "Remove an earlier demo in OUT and start again.")] = False,
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """Train, export, compile, localise and prove a small GeoDTR on a generated world; exit 1 if an engine is worse."""
    from geodtr.cli.train.bar import TrainingBar
    from geodtr.export.demo import REPORT, SHEET, DemoOptions, run_demo

    with TrainingBar() as bar:
        report = run_demo(
            out,
            DemoOptions(seed=seed),
            fresh=fresh,
            track=track,
            listener=bar,
            announce=lambda title: messages.print(title, style="bold"),
        )
    if as_json:
        show_json(report)
        raise typer.Exit(EXIT_CODES[report.parity.verdict])
    show_parity(report.parity, report.pixels)
    if report.quantisation is not None:
        output.print(f"int8: {int8_share(report.quantisation)}")
    error = report.position_error
    output.print()
    output.print(
        f"Position of the best tile (fp32 engine, {report.options.test_pairs} panoramas): "
        f"{percent(error.within_25_m)} % within 25 m; median {error.median:.0f} m, of the misses "
        f"{error.median_of_misses:.0f} m. A right tile counts as 0 m."
    )
    output.print()
    times = table("Time", ("step", "seconds"))
    for step, seconds in report.seconds.items():
        times.add_row(step, f"{seconds:.1f}")
    output.print(times)
    output.print("Every engine against PyTorch:", judged(report.parity.verdict))
    output.print(f"See {out / SHEET} and {out / REPORT}.")
    raise typer.Exit(EXIT_CODES[report.parity.verdict])
