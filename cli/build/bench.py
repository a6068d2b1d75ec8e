"""The command that measures speed."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from geodtr.cli.build.backend_tables import show_choice
from geodtr.cli.console import megabytes, messages, output, report_skipped, show_json, times, track, warn
from geodtr.cli.options import SPEC_HELP, AsJson, Threads, argument, flag, whole_number
from geodtr.cli.tables import table
from geodtr.runtime.names import BACKENDS

if TYPE_CHECKING:
    from geodtr.export.bench.measure import BenchReport

_AGAINST = ("torch", *BACKENDS)
_LAYERS_SHOWN = 12
_EXPENDABLE = ("p95", "p99", "open s", "MB", "x first (range)", "by", "img/s")


def bench(
    models: Annotated[
        list[Path],
        argument(
            "MODEL...", "Bundles, or checkpoints and runs, which run in PyTorch. Ratios are relative to the first."
        ),
    ],
    batch: Annotated[str, flag("--batch N,N", "Batch sizes.")] = "1,8",
    against: Annotated[
        str | None,
        flag(
            "--against NAME,NAME",
            f"Also measure float32 by these: {', '.join(_AGAINST)}. Engines are built in passing from the first "
            "checkpoint or fp32 bundle among the MODELs; torch needs a checkpoint among them.",
        ),
    ] = None,
    threads: Threads = None,
    data: Annotated[
        str | None, flag("--data SPEC", f"Images to embed, {SPEC_HELP}", show_default="seeded noise")
    ] = None,
    rounds: Annotated[int, flag("--rounds", "Number of interleaved rounds.", min=2)] = 10,
    openings: Annotated[
        int, flag("--openings", "Fresh processes that open each model, a branch and batch size.", min=0)
    ] = 1,
    layers: Annotated[
        bool, flag("--layers", "Also the time of each engine's layers, at the first batch size.")
    ] = False,
    require_faster: Annotated[
        bool,
        flag("--require-faster", "Exit 1 when an fp16 or int8 engine is not faster than the fp32 one of its backend."),
    ] = False,
    out: Annotated[Path | None, flag("--out FILE.png", "Draw the measurements.")] = None,
    as_json: AsJson = False,
) -> None:
    """Measure models side by side on this machine: latency, images/s, time to open, memory; by branch and batch size.

    Rounds are interleaved, after a warm-up: a neighbour's load falls on all alike, and ratios are taken within a round.
    p95 and p99 are over all calls. Opening is measured in fresh processes, from nothing to the first descriptor; MB is
    their memory beyond an empty Python process. For a bundle built with --backend auto, also the table of backends that
    was measured then.
    """
    from geodtr.export.bench.measure import check_gate, run_bench, with_float32
    from geodtr.export.model import open_model
    from geodtr.export.plots.files import check_pictures
    from geodtr.runtime.engines.base import EngineOptions
    from geodtr.training.data.spec import read_test_set

    check_pictures(out)
    batches = _numbers(batch)
    images = read_test_set(data) if data else None
    if images is not None:
        report_skipped(images.name, images.skipped)
    options = EngineOptions(threads=threads)
    with with_float32(models, [name.strip() for name in against.split(",")] if against else [], track=track) as paths:
        opened = [open_model(path, options) for path in paths]
        if require_faster:
            check_gate(opened)
        report = run_bench(
            opened,
            batches=batches,
            rounds=rounds,
            options=options,
            data=images,
            openings=openings,
            layers=layers,
            track=track,
        )
    if out is not None:
        from geodtr.export.plots.bench import bench_plot
        from geodtr.export.plots.files import save_picture

        save_picture(bench_plot(report), out)
        messages.print(f"Wrote {out}")
    if as_json:
        show_json(report)
    else:
        _show(report)
    too_slow = [row for row in report.rows if require_faster and row.not_faster_than_fp32]
    for row in report.rows:
        if row.times_fp32 is not None and (row.slower_than_fp32 or row in too_slow):
            what = "not faster" if row in too_slow else "slower"
            warn(f"{row.model}, {row.branch}, batch {row.batch}: {what} than fp32, {times(row.times_fp32)}.")
    raise typer.Exit(1 if too_slow else 0)


def _numbers(text: str) -> list[int]:
    numbers = [whole_number(number) for number in text.split(",")]
    if None in numbers:
        raise typer.BadParameter(f"--batch {text!r} is not a list of batch sizes, for example 1,8.")
    return [number for number in numbers if number is not None]


def _show(report: "BenchReport") -> None:
    from geodtr.export.timing import rounded

    columns = ("", "by", "ms", "p95", "p99", "img/s", "x first (range)", "open s", "MB")
    for branch, batch in dict.fromkeys((row.branch, row.batch) for row in report.rows):
        rows = table(f"{branch}, batch {batch}", columns, _EXPENDABLE)
        for row in report.rows:
            if (row.branch, row.batch) == (branch, batch):
                rows.add_row(
                    row.model,
                    row.runs_by,
                    *(rounded(value) for value in (row.latency, row.latency_p95, row.latency_p99, row.speed.median)),
                    times(row.ratio),
                    "" if row.seconds_to_open is None else f"{row.seconds_to_open:.2f}",
                    "" if row.memory is None else megabytes(row.memory),
                )
        output.print(rows)
    for selection in report.chosen:
        show_choice(
            selection.choice, selection.kept, f"{selection.model}: backends, timed when it was built", selection.today
        )
        if not selection.today:
            output.print(f"Today's speed beside it: --batch {selection.choice.batch}", style="dim")
        if selection.finding.remedy is not None:
            output.print(f"{selection.finding.found}: {selection.finding.remedy}", soft_wrap=True)
    for entry in report.layers:
        whole = sum(layer.milliseconds for layer in entry.layers)
        what = f"{entry.model}, {entry.branch}, batch {entry.batch}, under the profiler"
        rows = table(f"{what}: {rounded(whole)} ms in {len(entry.layers)} layers", ("layer", "", "ms", "%"))
        for layer in entry.layers[:_LAYERS_SHOWN]:
            share = 100 * layer.milliseconds / whole
            rows.add_row(layer.name, layer.kind, rounded(layer.milliseconds), f"{share:.1f}")
        output.print(rows)
    threads = "as many threads as each backend likes" if report.threads is None else f"{report.threads} threads"
    packages = ", ".join(f"{name} {version}" for name, version in report.packages.items())
    flags = ", ".join(report.machine.cpu_flags)
    output.print(
        f"{report.rounds} interleaved rounds of {report.images}, {threads}; {report.machine.architecture} ({flags}); "
        f"{packages}",
        style="dim",
    )
