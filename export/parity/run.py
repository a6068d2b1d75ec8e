"""What every candidate of a run is held against: the reference described and ranked, and its float32 ONNX files."""

from collections.abc import Mapping
from dataclasses import dataclass

from geodtr.export.cosines import finite_rows
from geodtr.export.model import Model
from geodtr.export.parity.measures.describing import describe
from geodtr.export.parity.measures.pairings import own_ranking
from geodtr.export.parity.measures.stages import RUNS_BY, Described, as_written, described
from geodtr.export.projection import Projection
from geodtr.runtime.bundle import Bundle
from geodtr.runtime.errors import DataError, DescriptorError
from geodtr.runtime.names import BRANCHES
from geodtr.runtime.progress import Track
from geodtr.runtime.recall import Ranking
from geodtr.training.data.counting import check_ground_queries
from geodtr.training.data.pair_set import PairSet
from geodtr.training.evaluation.evaluate import DescriptorPair


@dataclass(frozen=True, slots=True)
class Run:
    """The reference, what it found, and the stage behind it: `onnx` by the side of raw tiles, empty where not run."""

    reference: Model
    descriptors: DescriptorPair
    ranking: Ranking
    onnx: Mapping[int | None, Described]

    @property
    def pair_set(self) -> PairSet:
        """What could be read of the set."""
        return self.descriptors.pair_set

    def projected(self, projection: Projection) -> "Run":
        """The same with all descriptors projected, in float64."""
        descriptors = projection.project_pairs(self.descriptors)
        onnx = {
            side: described(stage.name, stage.runs_by, projection.project_pairs(stage.descriptors))
            for side, stage in self.onnx.items()
        }
        return Run(self.reference, descriptors, own_ranking(descriptors), onnx)


def begin(reference: Model, graphs: Mapping[int | None, Bundle], pair_set: PairSet, *, track: Track) -> Run:
    """Describe the set by the reference, and by its float32 ONNX files in `graphs`, each image decoded once.

    Raises DataError when fewer than two pairs can be read, DescriptorError when the reference's descriptors are not
    finite.
    """
    models = [reference.embedders, *map(as_written, graphs.values())]
    descriptors, *of_graphs = describe(models, pair_set, reference.name, track=track)
    left = descriptors.pair_set
    check_pairs(left)
    for branch in BRANCHES:
        bad = int((~finite_rows(descriptors[branch])).sum())
        if bad:
            raise DescriptorError(
                f"{bad} {branch} descriptors of {reference.name}, the reference, are not finite: nothing can be held "
                "against them. Is the checkpoint one of a run that failed?"
            )
    onnx = {side: described("onnx", RUNS_BY, rows) for side, rows in zip(graphs, of_graphs, strict=True)}
    return Run(reference, descriptors, own_ranking(descriptors), onnx)


def check_pairs(pair_set: PairSet) -> None:
    """Raise DataError when the set has tiles to look up, when there are fewer than two pairs, or all share one tile."""
    check_ground_queries(pair_set, "parity")
    if len(pair_set) < 2:
        raise DataError(
            f"{pair_set.name} has one pair that can be used; recall needs at least two. What is wrong with the others, "
            f"where there are more: geodtr-export data check {pair_set.name}"
        )
    if len(pair_set.references) < 2:
        raise DataError(
            f"All {len(pair_set)} pairs of {pair_set.name} share the tile {pair_set.references[0]}; recall needs at "
            "least two to choose from."
        )
