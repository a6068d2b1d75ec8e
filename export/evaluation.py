"""Evaluation of one model on several data sets: recall, the area, and what papers report on the same."""

from collections.abc import Sequence
from dataclasses import dataclass

from geodtr.export.model import Model
from geodtr.export.plots.sheets.retrieval import SheetRow, retrieved
from geodtr.runtime.progress import Track, untracked
from geodtr.runtime.recall import AveragePrecision, Ranking, Recall, recall
from geodtr.training.data.counting import countings
from geodtr.training.data.pair_set import PairSet, Skipped
from geodtr.training.data.spec import KINDS, read_test_set
from geodtr.training.data.views import ALL, Views
from geodtr.training.evaluation.distance import Distance, measure_distance
from geodtr.training.evaluation.evaluate import doubt, embed_pairs
from geodtr.training.evaluation.published import Published, published
from geodtr.training.evaluation.transfer import Area, DataName, area

_SHEET_TILES = 5


@dataclass(frozen=True, slots=True)
class Result:
    """One model on one data set: a ranking by each way of counting, and the rows of papers on the same data.

    `name` is of the original data, `label` for a table, `data` in full; `skipped` are its files that could not be used.
    `doubt` is why the ground images may be none that the model was trained on.
    `average_precision` is of the ways in `rankings`, and `distance` of the first, where papers on such data report
    them. `sheet` holds some queries with what was found, where they were asked for.
    """

    data: str
    name: DataName
    area: Area
    rankings: dict[str, Ranking]
    average_precision: dict[str, AveragePrecision]
    distance: Distance | None
    published: tuple[Published, ...]
    skipped: tuple[Skipped, ...]
    doubt: str | None
    sheet: tuple[SheetRow, ...]

    @property
    def label(self) -> str:
        return self.name.label

    @property
    def reported_precision(self) -> dict[str, float]:
        """Average precision as papers on such data compute it, by way of counting; empty where they report none."""
        how = KINDS[self.name.kind].average_precision
        return {way: getattr(measured, how) for way, measured in self.average_precision.items()} if how else {}

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
    ways = countings(descriptors.pair_set)
    rankings = {way.name: descriptors.rank(way) for way in ways}
    name = DataName.of(pair_set.source)
    precise = bool(KINDS[name.kind].average_precision)
    polar = model.embedders.aerial.spec.preprocessing.polar
    # Papers' rows are of full, aligned panoramas.
    compared = DataName.of_training(trained_on).kind if trained_on and pair_set.views.full else None
    shown = (
        retrieved(descriptors, ways[0], rankings[ways[0].name], name.label, queries, _SHEET_TILES) if queries else ()
    )
    return Result(
        data=pair_set.name,
        name=name,
        area=where,
        rankings=rankings,
        average_precision={way.name: descriptors.average_precision(way) for way in ways} if precise else {},
        distance=measure_distance(descriptors, ways[0], name.kind),
        published=published(compared, name.kind, name.split, polar=polar) if compared else (),
        skipped=descriptors.pair_set.skipped,
        doubt=doubt(pair_set, model.embedders.ground.spec),
        sheet=tuple(shown),
    )
