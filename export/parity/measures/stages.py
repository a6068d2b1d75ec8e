"""The stages between the reference model and an engine, each runnable and comparable.

PyTorch -> its float32 ONNX file -> the candidate's typed ONNX file -> the engine. ONNX Runtime computes the files node
by node, without fusion, so that the file and the backend's engine are separate stages.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

from geodtr.export.build.source import export_checkpoint
from geodtr.export.graph.discrete import argmax_flips, compare_patches
from geodtr.export.model import Model
from geodtr.export.parity.measurements import Discrete, Stage, StageName
from geodtr.export.parity.measures.agreement import agreements
from geodtr.export.parity.measures.pairings import change, own_ranking
from geodtr.runtime.bundle import Bundle
from geodtr.runtime.engines.onnxruntime import OnnxRuntimeEmbedder, open_session
from geodtr.runtime.names import BRANCHES, Branch
from geodtr.runtime.progress import Track, untracked
from geodtr.runtime.recall import Ranking, recall
from geodtr.runtime.spec import EmbedderPair
from geodtr.training.data.pair_set import PairSet
from geodtr.training.evaluation.evaluate import DescriptorPair, load_first

_SAMPLE = 16
RUNS_BY = "onnxruntime, nothing fused"


@dataclass(frozen=True, slots=True)
class Described:
    """One stage with its descriptors, and how its own queries rank its own gallery."""

    name: StageName
    runs_by: str
    descriptors: DescriptorPair
    ranking: Ranking


def described(name: StageName, runs_by: str, descriptors: DescriptorPair) -> Described:
    """A stage from its descriptors."""
    return Described(name, runs_by, descriptors, own_ranking(descriptors))


@contextmanager
def float32_graphs(
    reference: Model, candidates: Iterable[Bundle], *, track: Track = untracked
) -> Iterator[Mapping[int | None, Bundle]]:
    """The reference's float32 ONNX files: new exports of a checkpoint, a float32 bundle's own, none of another bundle.

    The key is the side of the raw tiles that a candidate's graph polar-transforms, None for other candidates.
    """
    sides = {candidate.manifest.source.raw_tiles for candidate in candidates}
    if reference.bundle is not None:
        own = reference.bundle
        yield dict.fromkeys(sides, own) if own.manifest.precision == "fp32" else {}
        return
    with TemporaryDirectory() as folder:
        yield {
            side: export_checkpoint(reference.path, Path(folder) / f"tiles-{side}", raw_tiles=side, track=track)
            for side in sorted(sides, key=str)
        }


def as_written(bundle: Bundle) -> EmbedderPair:
    """The bundle's typed graphs computed node by node."""
    ground, aerial = (
        OnnxRuntimeEmbedder(open_session(_graph(bundle, branch), optimisation="none"), entry.spec, Path(entry.file))
        for branch, entry in ((branch, bundle.manifest.engine(branch)) for branch in BRANCHES)
    )
    return EmbedderPair(ground, aerial)


def same_graphs(one: Bundle, other: Bundle) -> bool:
    """Whether two bundles hold the same ONNX files, byte for byte."""
    return all(one.manifest.engine(branch).sha256 == other.manifest.engine(branch).sha256 for branch in BRANCHES)


def discrete_steps(exact: Bundle, typed: Bundle, pair_set: PairSet) -> dict[Branch, Discrete]:
    """By branch, how the arg-max or the choice of patches agrees with the float32 graph's on the set's first images;
    None where the two take other images, there is no such step, or onnx is not installed.
    """
    steps: dict[Branch, Discrete] = dict.fromkeys(BRANCHES)
    if find_spec("onnx") is None:
        return steps
    import onnx

    for branch in BRANCHES:
        spec = typed.manifest.engine(branch).spec
        if exact.manifest.engine(branch).spec.preprocessing == spec.preprocessing:
            images = load_first(pair_set, _SAMPLE, spec)
            before, after = (onnx.load(str(_graph(bundle, branch))) for bundle in (exact, typed))
            patches = compare_patches(before, after, images, "none")
            steps[branch] = argmax_flips(before, after, images, "none") if patches is None else patches
    return steps


def chain(
    reference: DescriptorPair,
    before: Ranking,
    described: Sequence[Described],
    typed_steps: Mapping[Branch, Discrete],
) -> tuple[Stage, ...]:
    """Each stage held against the reference, which ranks as `before`, and against the stage before it."""
    stages = list[Stage]()
    previous, previous_ranking = reference, before
    for each in described:
        own_steps = typed_steps if each.name == "typed" else {}
        stages.append(
            Stage(
                name=each.name,
                runs_by=each.runs_by,
                recall=recall(each.ranking),
                from_reference=agreements(reference, each.descriptors, {}),
                from_previous=agreements(previous, each.descriptors, own_steps),
                change=change("R@1", 1, before, each.ranking),
                step=change("R@1", 1, previous_ranking, each.ranking),
            )
        )
        previous, previous_ranking = each.descriptors, each.ranking
    return tuple(stages)


def _graph(bundle: Bundle, branch: Branch) -> Path:
    return bundle.path / bundle.manifest.engine(branch).file
