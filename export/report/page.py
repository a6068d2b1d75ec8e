"""The page: what the template shows, put together from a result."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from importlib.resources import files

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from geodtr.export.parity.measurements import PAIRINGS, LayerAgreement
from geodtr.export.parity.result import Candidate, ParityResult
from geodtr.export.plots import numbers
from geodtr.export.plots.colours import REFERENCE, Series, css_variables, series
from geodtr.export.plots.parity import (
    change_plot,
    cosine_plot,
    layer_plot,
    rank_plot,
    recall_change_plot,
    recall_plot,
    size_of,
    sizes,
)
from geodtr.export.report import words
from geodtr.export.report.pictures import changed_queries
from geodtr.runtime.files.foreign_text import escape_controls
from geodtr.runtime.names import BRANCHES, Branch

_PICTURED = 12
"""Changed queries that are shown: about 80 kB each where images are as large as CVUSA's."""
_WORST_LAYERS = 12
_FILTERS = (
    numbers.percent,
    numbers.points,
    numbers.cosine,
    numbers.times,
    numbers.megabytes,
    numbers.counted,
    numbers.listed,
    numbers.digits,
)


@dataclass(frozen=True, slots=True)
class Layers:
    """One branch's nodes: the plot of all, and those that lost most by their own doing, in the graph's order."""

    name: Branch
    plot: Markup
    count: int
    worst: tuple[LayerAgreement, ...]


def page(result: ParityResult) -> str:
    """The whole HTML file."""
    templates = files(__package__)
    environment = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: escape_controls(value) if type(value) is str else value,
    )
    environment.filters.update({each.__name__: each for each in _FILTERS})
    evidence, candidates = result.evidence, result.candidates
    queries, changed = changed_queries(result, _PICTURED)
    return environment.from_string((templates / "page.html").read_text("utf-8")).render(
        style=Markup(css_variables() + (templates / "style.css").read_text("utf-8")),
        written=datetime.now(timezone.utc),
        figures=result.figures,
        reference=result.figures.reference,
        candidates=candidates,
        branches=BRANCHES,
        pairings=PAIRINGS,
        stages=words.STAGES,
        checks=words.CHECKS,
        series=series,
        reference_series=REFERENCE,
        headline=words.headline(result),
        sureness=words.sureness(result),
        doubts=words.doubts(result),
        summary=words.summary,
        loss=words.loss,
        in_order=words.in_order,
        further=words.further,
        change_plot=Markup(change_plot(candidates)),
        recall_plots=tuple(Markup(plot(result)) for plot in (recall_plot, recall_change_plot)),
        cosine_plots={branch: Markup(cosine_plot(result, branch)) for branch in BRANCHES},
        rank_plots=tuple(
            Markup(rank_plot(evidence.reference, each.rankings["own"], candidate.name))
            for candidate, each in zip(candidates, evidence.candidates, strict=True)
        ),
        sizes=[(size, size_of(size)) for size in sizes(result.figures.pairs)],
        layers=[
            (candidate.name, tuple(_layers(candidate, series(number))))
            for number, candidate in enumerate(candidates)
            if candidate.layers
        ],
        queries=queries,
        changed=changed,
    )


def _layers(candidate: Candidate, look: Series) -> Iterator[Layers]:
    for branch in BRANCHES:
        nodes = [layer for layer in candidate.layers if layer.branch == branch]
        if nodes:
            worst = sorted(nodes, key=lambda layer: layer.turn)[-_WORST_LAYERS:]
            shown = tuple(layer for layer in nodes if layer in worst)
            yield Layers(branch, Markup(layer_plot(nodes, branch, look, candidate.name)), len(nodes), shown)
