"""Commands that look at what a model does: evaluate, visualize."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from geodtr.cli.console import (
    RECALL_COLUMNS,
    messages,
    output,
    percent,
    recall_cells,
    report_skipped,
    show_json,
    track,
    warn,
    warn_of_collapse,
    warn_of_doubt,
)
from geodtr.cli.dataclass_options import with_options
from geodtr.cli.options import SPEC_HELP, AsJson, Limit, ModelPath, Spec, argument, flag, out_option
from geodtr.cli.tables import table
from geodtr.cli.view_options import PANEL, ViewOptions, views_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from geodtr.export.evaluation import Result
    from geodtr.training.data.views import Views
    from geodtr.training.evaluation.published import Published

_SHEET_QUERIES = 8
_EXPENDABLE = ("area", "references", "queries", "R@10", "R@1%", "R@5")


@with_options({PANEL: (ViewOptions,)})
def evaluate(
    model: ModelPath,
    data: Annotated[list[str], flag("--data SPEC", f"Data set, {SPEC_HELP} May be repeated.")],
    trained_on: Annotated[
        str | None,
        flag(
            "--trained-on SPEC",
            "Training data of the model, to distinguish same area from cross area; only pairs: and prepared: "
            "need a path. Everything outside a pairs: folder named here counts as another area.",
            show_default="the model's record",
        ),
    ] = None,
    curve: Annotated[Path | None, flag("--curve FILE.png", "Draw recall at every K.")] = None,
    sheet: Annotated[Path | None, flag("--sheet FILE.png", "Draw queries and their retrieved tiles.")] = None,
    limit: Limit = None,
    *,
    given: Mapping[str, Any],
    as_json: AsJson = False,
) -> None:
    """Measure the recall of a checkpoint or a bundle, beside what papers report on the same data.

    A set that gives positions in metres (CVACT) is counted a second time with every tile within 5 m as right, and one
    with semi-positives (VIGOR) without these, which makes R@1 the hit rate. AP is as papers on the data average it.
    --fov and --heading cut and roll full panoramas, as a camera or a flight without a compass would see them.
    """
    from geodtr.export.evaluation import evaluate_on
    from geodtr.export.model import open_model
    from geodtr.export.plots.files import check_pictures
    from geodtr.training.data.spec import parse_spec

    check_pictures(curve, sheet, plotted=curve is not None)
    views = views_of(given)
    for spec in data:
        parse_spec(spec)
    opened = open_model(model)
    queries = 0 if sheet is None else _SHEET_QUERIES
    results = evaluate_on(
        opened, data, trained_on=trained_on, limit=limit, views=views, sheet_queries=queries, track=track
    )
    for result in results:
        report_skipped(result.data, result.skipped)
        warn_of_doubt(result.data, result.doubt)
    if curve is not None:
        _draw_curve(results, model.resolve().name, curve)
    if sheet is not None:
        _draw_sheet(results, model.resolve().name, sheet)
    known = trained_on or opened.trained_on
    if as_json:
        show_json(
            {
                "model": str(model),
                "trained_on": known,
                "views": views,
                "results": [_document(result) for result in results],
            }
        )
    else:
        _show(results, str(model), known, views)
    for result in results:
        for counting, measured in result.recalls.items():
            warn_of_collapse(f"{result.data}, {counting}", measured)


def _document(result: "Result") -> dict[str, object]:
    return {
        "data": result.data,
        "area": result.area,
        "skipped": len(result.skipped),
        "doubt": result.doubt,
        "kind": result.name.kind,
        "split": result.name.split,
        "recall": {counting: asdict(measured) for counting, measured in result.recalls.items()},
        "average_precision": {way: asdict(measured) for way, measured in result.average_precision.items()},
        "distance": None if result.distance is None else asdict(result.distance),
        "published": [asdict(row) for row in result.published],
    }


def _show(results: "Sequence[Result]", model: str, trained_on: str | None, views: "Views") -> None:
    """The paper's table: a row a data set and way of counting, what papers report on the same below it."""
    from geodtr.training.evaluation.transfer import DataName

    trained = DataName.of_training(trained_on).data_set if trained_on else "?"
    of = f"Recall of {model}" if views.as_they_are else f"Recall of {model}, {views}"
    papers = [row for result in results for row in result.published]
    precise = any(result.reported_precision for result in results)
    more = ["AP"] * precise
    rows = table(of, ("trained -> tested", "area", "queries", "references", *RECALL_COLUMNS, *more), _EXPENDABLE)
    for result in results:
        for number, (counting, measured) in enumerate(result.recalls.items()):
            name = f"  {counting}" if number else f"{trained} -> {result.label}"
            area = "" if number else result.area
            precision = result.reported_precision.get(counting)
            last = ["" if precision is None else percent(precision)] * precise
            sizes = f"{measured.queries:,}", f"{measured.references:,}"
            rows.add_row(name, area, *sizes, *recall_cells(measured), *last)
        for row in result.published:
            rows.add_row(*_published_cells(row, precise=precise), style="dim")
    output.print(rows)
    for result in results:
        if result.distance is not None:
            cells = [f"SDM@{k} {percent(share)}" for k, share in result.distance.sdm.items()]
            if result.distance.metres_at_1 is not None:
                cells.append(f"Dis@1 {result.distance.metres_at_1:.1f} m")
            output.print(f"{result.label}: {', '.join(cells)}")
    sources = {row.source for row in papers}
    if sources:
        output.print(
            f"dim: as published ({'; '.join(sorted(sources))}); LS: trained with layout simulation", style="dim"
        )
    messages.print("R@1%: K = int(0.01 N), the usual convention; --json has int(0.01 N) + 1 as well.", style="dim")
    if trained_on is None:
        messages.print("The model does not record its training data: --trained-on SPEC separates same from cross area.")


def _published_cells(row: "Published", *, precise: bool) -> list[str]:
    name = f"  {row.model}{' polar' if row.polar else ''}{' + LS' if row.layout_simulation else ''}"
    figures = [row.at_1, row.at_5, row.at_10, row.at_1_percent, *[row.average_precision] * precise]
    sizes = ("" if count is None else f"{count:,}" for count in row.counts.ranked)
    return [name, "", *sizes, *("" if value is None else f"{value:.2f}" for value in figures)]


def _draw_curve(results: "Sequence[Result]", model: str, path: Path) -> None:
    from geodtr.export.plots.colours import Series, series
    from geodtr.export.plots.files import save_picture
    from geodtr.export.plots.recall import Line, recall_curve

    # Another way of counting the same set has the set's colour, and dashes.
    lines = [
        Line(
            f"{result.label}, {counting}" if len(result.rankings) > 1 else result.label,
            ranking,
            Series(series(number).name, (5, 3) if way else ()),
        )
        for number, result in enumerate(results)
        for way, (counting, ranking) in enumerate(result.rankings.items())
    ]
    save_picture(recall_curve(lines, f"Recall of {model}, bands of 95 %"), path)
    messages.print(f"Wrote {path}")


def _draw_sheet(results: "Sequence[Result]", model: str, path: Path) -> None:
    from geodtr.export.plots.files import save_picture
    from geodtr.export.plots.sheets.retrieval import draw_sheet

    rows = [row for result in results for row in result.sheet]
    names = ", ".join(result.label for result in results)
    save_picture(draw_sheet(rows, f"{model} on {names}: queries, their nearest tiles, the right one framed"), path)
    messages.print(f"Wrote {path}")


def visualize(
    model: Annotated[Path, argument("MODEL", "A checkpoint; bundles keep no weights.")],
    data: Spec,
    out: Annotated[Path, out_option("PNG file to write.")],
    pairs: Annotated[int, flag("--pairs", "Number of pairs, spread over the set.", min=1)] = 4,
) -> None:
    """Draw what a checkpoint looks at: saliency and layout descriptors over panorama and tile."""
    from geodtr.export.model import check_source
    from geodtr.export.plots.files import check_pictures, save_picture
    from geodtr.training.data.spec import read_test_set

    check_pictures(out)
    check_source(model)
    pair_set = read_test_set(data)
    from geodtr.export.plots.sheets.layouts import draw_layouts, explain_pairs

    report_skipped(pair_set.name, pair_set.skipped)
    explained, bad = explain_pairs(model, pair_set, pairs)
    for skipped in bad:
        warn(f"a pair is left out: {skipped.reason}")
    title = f"{model} on {len(explained)} of {len(pair_set)} pairs of {pair_set.name}"
    save_picture(draw_layouts(explained, title), out)
    messages.print(f"Wrote {out}")
