"""Evaluation of one model on several data sets: recall, the area, and what papers report on the same."""

from collections.abc import Sequence
from dataclasses import dataclass

from geodtr.export.model import Model
from geodtr.export.plots.sheets.retrieval import SheetRow, retrieved
from geodtr.runtime.progress import Track, untracked
from geodtr.runtime.recall import Ranking, Recall, recall
from geodtr.training.data.pair_set import PairSet, Skipped
from geodtr.training.data.spec import read_test_set
from geodtr.training.data.views import ALL, Views
from geodtr.training.evaluation.evaluate import NEAR, embed_pairs
from geodtr.training.evaluation.published import Published, published
from geodtr.training.evaluation.transfer import Area, DataName, area

OWN_TILE, ANY_NEAR_TILE = "own tile", f"any tile within {NEAR:.0f} m"
"""What counts as found. CVACT_test is published both ways."""
_SHEET_TILES = 5


@dataclass(frozen=True, slots=True)
class Result:
    """One model on one data set: a ranking by each way of counting, and the rows of papers on the same data.

    `label` names the data for a table, `data` in full; `skipped` are its files that could not be used. `sheet` holds
    some queries with what was found, where they were asked for.
    """

    data: str
    label: str
    area: Area
    rankings: dict[str, Ranking]
    published: tuple[Published, ...]
    skipped: tuple[Skipped, ...]
    sheet: tuple[SheetRow, ...]

    @property
    def recalls(self) -> dict[str, Recall]:
        """Recall by each way of counting."""
        return {counting: recall(ranking) for counting, ranking in self.rankings.items()}


def evaluate_on(
    model: Model,
    specs: Sequence[str],
    *,
    trained_on: str | None = None,
    limit: int | None = None,
    views: Views = ALL,
    sheet_queries: int = 0,
    track: Track = untracked,
) -> list[Result]:
    """Evaluate `model` on each data set in turn, its descriptors in memory for no longer than that.

    `trained_on` replaces the model's own record; `views` are what the model gets of full panoramas; `sheet_queries` are
    divided among the data sets. Every SPEC is read before the first image. Raises DataError when one of them is
    invalid, ConfigError where the model cannot take such views.
    """
    pair_sets = [read_test_set(spec, limit).seen(views) for spec in specs]
    known = trained_on or model.trained_on
    shown = -(-sheet_queries // len(specs))
    results = []
    for pair_set in pair_sets:
        where = area(known, pair_set.source, stated=trained_on is not None)
        results.append(_evaluate(model, pair_set, known, where, shown, track))
    return results


def _evaluate(
    model: Model, pair_set: PairSet, trained_on: str | None, where: Area, queries: int, track: Track
) -> Result:
    descriptors = embed_pairs(model.embedders, pair_set, track=track)
    own, near = descriptors.ranking(), descriptors.ranking_within(NEAR)
    name = DataName.of(pair_set.source)
    polar = model.embedders.aerial.spec.preprocessing.polar
    # Papers' rows are of full, aligned panoramas.
    compared = trained_on if pair_set.views.as_they_are else None
    return Result(
        data=pair_set.name,
        label=name.label,
        area=where,
        rankings={OWN_TILE: own} if near is None else {OWN_TILE: own, ANY_NEAR_TILE: near},
        published=published(DataName.of(compared).kind, name.kind, name.split, polar=polar) if compared else (),
        skipped=descriptors.pair_set.skipped,
        sheet=tuple(retrieved(descriptors, own, name.label, queries, _SHEET_TILES)) if queries else (),
    )
