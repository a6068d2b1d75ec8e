"""What `bench` measured: images per second of every model, a panel a branch and batch size."""

from matplotlib.figure import Figure

from geodtr.export.bench.measure import BenchReport
from geodtr.export.plots.colours import LIGHT
from geodtr.export.plots.theme import themed
from geodtr.export.timing import rounded
from geodtr.runtime.names import BRANCHES


@themed
def bench_plot(report: BenchReport) -> Figure:
    """Bars are medians over rounds, whiskers the slowest and fastest round; the first model is grey."""
    batches = sorted({row.batch for row in report.rows})
    models = list(dict.fromkeys(row.model for row in report.rows))
    figure = Figure(figsize=(13, len(batches) * (1.2 + 0.5 * len(models))), layout="constrained")
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
                color=[LIGHT["faint"], *[LIGHT["s1"]] * (len(rows) - 1)],
                error_kw={"ecolor": LIGHT["ink"], "elinewidth": 1, "capsize": 3},
            )
            for place, row in enumerate(rows):
                words = f"  {rounded(row.speed.median)}, {row.ratio.median:.2f} x"
                axes.text(row.speed.fastest, place, words, va="center", fontsize="small")
            axes.set_yticks(range(len(rows)), [row.model for row in rows], fontsize="small")
            axes.set_xlim(0, 1.35 * max(speed.fastest for speed in speeds))
            axes.set_title(f"{branch}, batch {batch}")
            axes.locator_params(axis="x", nbins=5)
            axes.xaxis.set_major_formatter("{x:,g}")
            axes.invert_yaxis()
            axes.grid(visible=False, axis="y")
    figure.supxlabel("images per second; median and range of interleaved rounds", fontsize="medium")
    return figure
