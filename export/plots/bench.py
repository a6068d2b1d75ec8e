"""A picture of what `bench` measured: images per second of every model, a panel a branch and batch size."""

from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from geodtr.export.bench.measure import BenchReport
from geodtr.export.timing import rounded
from geodtr.runtime.names import BRANCHES

_BAR, _BASE = "#0b6fb8", "#8a99a6"


def save_bench(report: BenchReport, path: Path) -> None:
    """Write a PNG file: bars medians over rounds, whiskers the slowest and fastest round, the first model grey."""
    batches = sorted({row.batch for row in report.rows})
    models = list(dict.fromkeys(row.model for row in report.rows))
    height = len(batches) * (0.9 + 0.4 * len(models))
    figure = Figure(figsize=(10, height), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(len(batches), len(BRANCHES), squeeze=False)
    for across, branch in enumerate(BRANCHES):
        for down, batch in enumerate(batches):
            axes = panels[down][across]
            rows = [row for row in report.rows if (row.branch, row.batch) == (branch, batch)]
            speeds = [row.speed for row in rows]
            axes.barh(
                range(len(rows)),
                [speed.median for speed in speeds],
                xerr=[
                    [speed.median - speed.slowest for speed in speeds],
                    [speed.fastest - speed.median for speed in speeds],
                ],
                color=[_BASE, *[_BAR] * (len(rows) - 1)],
                error_kw={"ecolor": "#333333", "elinewidth": 1, "capsize": 2},
            )
            for place, row in enumerate(rows):
                axes.text(
                    row.speed.fastest,
                    place,
                    f"  {rounded(row.speed.median)}, {row.ratio.median:.2f} x",
                    va="center",
                    fontsize=8,
                )
            axes.set_yticks(range(len(rows)), [row.model for row in rows], fontsize=8)
            axes.invert_yaxis()
            axes.set_xlim(0, 1.35 * max(speed.fastest for speed in speeds))
            axes.spines[["top", "right"]].set_visible(False)
            axes.tick_params(axis="x", labelsize=8)
            axes.set_title(f"{branch}, batch {batch}", loc="left", fontsize=10)
    figure.supxlabel("images per second; median and range of interleaved rounds", fontsize=9)
    figure.savefig(path, format="png")
