"""Whose queries find what in whose gallery, and what of it changed: recall of the same queries, before and after."""

from dataclasses import replace

import numpy as np

from geodtr.export.cosines import finite_rows
from geodtr.export.parity.measurements import Change, Pairing, PairingName
from geodtr.export.parity.result import first_tiles
from geodtr.export.statistics import mcnemar, paired_drop
from geodtr.runtime.recall import Ranking, one_percent, rank, recall
from geodtr.runtime.spec import Correlation, Descriptors
from geodtr.training.data.pair_set import PairSet
from geodtr.training.evaluation.evaluate import DescriptorPair


def ranking(
    pair_set: PairSet, queries: Descriptors, gallery: Descriptors, scorer: Correlation | None = None
) -> Ranking:
    """The rank of each query's nearest right tile in `gallery`, among all but `pair_set.left_out`.

    A query whose descriptor is not finite counts as a miss with the last rank. A tile whose descriptor is not finite
    has cosine 0 with every query.
    """
    usable, there = finite_rows(queries), finite_rows(gallery)
    if usable.all() and there.all():
        return rank(queries, gallery, pair_set.truth, pair_set.left_out, scorer)
    ranked = rank(
        np.where(usable[:, None], queries, np.float32(0)),
        np.where(there[:, None], gallery, np.float32(0)),
        pair_set.truth,
        pair_set.left_out,
        scorer,
    )
    able = usable & there[pair_set.tiles]
    return replace(
        ranked,
        rank=np.where(able, ranked.rank, ranked.references - 1),
        ties=np.where(able, ranked.ties, 0),
        margin=np.where(able, ranked.margin, np.float32(-1)),
    )


def own_ranking(of: DescriptorPair) -> Ranking:
    """How a model's own queries rank its own gallery."""
    return ranking(of.pair_set, of.ground, of.aerial, of.scorer)


def pairing(name: PairingName, before: Ranking, after: Ranking) -> Pairing:
    """`after` held against `before`, the reference's."""
    return Pairing(
        name=name,
        recall=recall(after),
        changes=changes(before, after),
        moved=int(np.count_nonzero(before.rank != after.rank)),
        other_answer=int(np.count_nonzero(first_tiles(before) != first_tiles(after))),
        median_margin=median_margin(after),
    )


def changes(before: Ranking, after: Ranking) -> tuple[Change, ...]:
    """Of R@1, R@5, R@10 and R@1%, in this order."""
    ks = {"R@1": 1, "R@5": 5, "R@10": 10, "R@1%": one_percent(after.references)}
    return tuple(change(name, k, before, after) for name, k in ks.items())


def change(name: str, k: int, before: Ranking, after: Ranking) -> Change:
    """Of the share of queries whose own tile is among the nearest `k`."""
    hit, still = before.rank < k, after.rank < k
    drop = paired_drop(hit, still)
    return Change(
        name=name,
        k=k,
        before=float(hit.mean()),
        after=float(still.mean()),
        lost=drop.lost,
        gained=drop.gained,
        change=(drop.gained - drop.lost) / drop.queries,
        low=-drop.high,
        high=-drop.low,
        p_value=mcnemar(drop.lost, drop.gained),
    )


def median_margin(of: Ranking) -> float:
    """How much closer the right tile is than the nearest wrong one, for the middle query."""
    return float(np.median(of.margin))
