"""Evaluation: recall of a model, whatever runs it, on a set of pairs. Knows embedders only, so it needs no torch."""

from dataclasses import dataclass

from geodtr.runtime.pipeline import BATCH_SIZE, embed_files
from geodtr.runtime.progress import Track, untracked
from geodtr.runtime.recall import Recall, rank, recall
from geodtr.runtime.spec import Descriptors, EmbedderPair
from geodtr.training.data.pair_set import PairSet


@dataclass(frozen=True, slots=True)
class DescriptorPair:
    """Descriptors of a pair set, float32 [N, D] each, row i for pair i."""

    ground: Descriptors
    aerial: Descriptors


def embed_pairs(
    embedders: EmbedderPair, pair_set: PairSet, *, batch_size: int = BATCH_SIZE, track: Track = untracked
) -> DescriptorPair:
    """Embed both images of every pair. Raises ImageError, naming the bad file."""
    ground = embed_files(
        embedders.ground, pair_set.paths("ground"), batch_size=batch_size, description="Ground images", track=track
    )
    aerial = embed_files(
        embedders.aerial, pair_set.paths("aerial"), batch_size=batch_size, description="Aerial images", track=track
    )
    return DescriptorPair(ground, aerial)


def evaluate(embedders: EmbedderPair, pair_set: PairSet, *, track: Track = untracked) -> Recall:
    """Recall of ground queries among the set's aerial tiles."""
    descriptors = embed_pairs(embedders, pair_set, track=track)
    return recall(rank(descriptors.ground, descriptors.aerial))
