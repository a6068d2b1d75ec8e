"""Projections of descriptors: principal directions, their whitening, and the pairs that are too few for one."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from geodtr.export.projection import Projection
from geodtr.export.projection.fitting import WHITENING, Fitting, Principal, first_unbeaten
from geodtr.export.projection.layer import train_layer
from geodtr.runtime.errors import ConfigError, DataError
from geodtr.runtime.matches import Matches
from geodtr.runtime.names import BRANCHES
from geodtr.runtime.recall import rank
from geodtr.training.data.pair_set import Pair, PairSet
from geodtr.training.evaluation.evaluate import DescriptorPair

seeds = st.integers(0, 2**31)


def unit(rows: NDArray[np.float64]) -> NDArray[np.float32]:
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)


def described(ground: NDArray[np.float32], aerial: NDArray[np.float32]) -> DescriptorPair:
    """Row i of one belongs to row i of the other."""
    pairs = tuple(Pair(Path(f"g{row}"), Path(f"a{row}")) for row in range(len(ground)))
    return DescriptorPair(PairSet("pairs:made", pairs), ground, aerial, None, frozenset())


def noisy_pairs(pairs: int, size: int, seed: int, *, shared: float = 0.0, noise: float = 0.5) -> DescriptorPair:
    """A place is a random direction. `shared`: how far images of both branches lie apart along one direction that does
    not depend on the place.
    """
    random = np.random.default_rng(seed)
    places = random.normal(size=(pairs, size))
    disturbance = random.normal(size=size)
    ground, aerial = (
        places + noise * random.normal(size=places.shape) + shared * random.normal(size=(pairs, 1)) * disturbance
        for _ in BRANCHES
    )
    return described(unit(ground + 1), unit(aerial - 2))


def principal(pairs: DescriptorPair) -> Principal:
    return Principal.of({branch: pairs[branch] for branch in BRANCHES})


@settings(deadline=None, max_examples=25)
@given(seed=seeds, size=st.integers(2, 24), kept=st.integers(1, 23))
def test_an_unwhitened_projection_has_orthonormal_directions_that_keep_the_most_variance(
    seed: int, size: int, kept: int
) -> None:
    kept = min(kept, size - 1)
    pairs = noisy_pairs(40, size, seed)
    projection = principal(pairs).project_to(kept, 0.0)
    weights = projection.weights.astype(np.float64)
    np.testing.assert_allclose(weights.T @ weights, np.eye(kept), atol=1e-5)

    def variance(directions: NDArray[np.float64]) -> float:
        return sum(float((pairs[branch] @ directions).var(axis=0).sum()) for branch in BRANCHES)

    other = np.linalg.qr(np.random.default_rng(seed + 1).normal(size=(size, kept)))[0]
    assert variance(weights) >= variance(other) - 1e-5


@settings(deadline=None, max_examples=25)
@given(seed=seeds, size=st.integers(2, 24))
def test_full_whitening_gives_all_directions_the_same_variance(seed: int, size: int) -> None:
    pairs = noisy_pairs(60, size, seed)
    weights = principal(pairs).project_to(size - 1, 1.0).weights.astype(np.float64)
    covariance = sum(np.cov((pairs[branch] @ weights).T, bias=True) for branch in BRANCHES)
    covariance = np.atleast_2d(covariance)
    np.testing.assert_allclose(covariance / covariance[0, 0], np.eye(size - 1), atol=1e-3)


@settings(deadline=None, max_examples=25)
@given(seed=seeds, whitening=st.sampled_from(WHITENING))
def test_projected_rows_are_of_unit_length_and_about_the_mean_of_their_branch(seed: int, whitening: float) -> None:
    pairs = noisy_pairs(50, 12, seed)
    projection = principal(pairs).project_to(5, whitening)
    for branch in BRANCHES:
        rows = projection.project(branch, pairs[branch])
        assert rows.dtype == np.float32
        np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-6)
        centred = pairs[branch].astype(np.float64) @ projection.weights + projection.bias[branch]
        np.testing.assert_allclose(centred.mean(axis=0), 0, atol=1e-6)


def test_rows_fewer_than_numbers_have_the_directions_of_their_covariance() -> None:
    pairs = noisy_pairs(10, 32, 0)
    few = principal(pairs)
    assert few.rank == 18  # of 20 rows about two means
    covariance = sum(np.cov(pairs[branch].T.astype(np.float64), bias=True) for branch in BRANCHES)
    variances, vectors = np.linalg.eigh(covariance)
    np.testing.assert_allclose(few.variances, variances[::-1][:18], rtol=1e-6)
    np.testing.assert_allclose(np.abs(few.vectors.T @ vectors[:, ::-1][:, :18]), np.eye(18), atol=1e-5)


def test_the_signs_of_directions_do_not_depend_on_the_signs_that_the_library_gives(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pairs = noisy_pairs(50, 12, 0)
    expected = principal(pairs).project_to(6, 0.5)
    solve = np.linalg.eigh

    def turned(covariance: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        variances, vectors = solve(covariance)
        return variances, vectors * np.where(np.arange(len(variances)) % 2, 1.0, -1.0)

    monkeypatch.setattr(np.linalg, "eigh", turned)
    assert np.array_equal(principal(pairs).project_to(6, 0.5).weights, expected.weights)


def test_directions_are_whitened_where_that_finds_more_of_the_pairs_held_out() -> None:
    fitted = Fitting(noisy_pairs(400, 32, 0, shared=3.0, noise=0.9)).to(16)
    hits = {trial.whitening: trial.hits for trial in fitted.trials}
    assert tuple(hits) == WHITENING
    assert fitted.queries == 400
    assert fitted.whitening > 0
    assert hits[fitted.whitening] > hits[0.0] + 20


@pytest.mark.parametrize(("more", "taken"), [(5, 0.0), (6, 1.0)])
def test_a_stronger_whitening_is_taken_for_more_hits_than_chance_gives(more: int, taken: float) -> None:
    weak = np.zeros(100, np.bool_)
    strong = weak.copy()
    strong[:more] = True  # one of 2^(more - 1) chances
    assert first_unbeaten({0.0: weak, 1.0: strong}) == taken
    assert first_unbeaten({0.0: strong, 1.0: weak}) == 0.0


def test_of_equally_good_strengths_the_weakest_is_taken() -> None:
    fitted = Fitting(noisy_pairs(60, 16, 0, noise=0.01)).to(14)
    assert {trial.hits for trial in fitted.trials} == {60}
    assert fitted.whitening == 0


def disturbed_pairs(pairs: int, seed: int) -> DescriptorPair:
    """Places are in half of the directions. In the others an image has as much that it does not share with its pair."""
    random = np.random.default_rng(seed)
    places = random.normal(size=(pairs, 24))
    ground, aerial = (
        unit(np.concatenate([places + 0.5 * random.normal(size=places.shape), random.normal(size=places.shape)], 1))
        for _ in BRANCHES
    )
    return described(ground, aerial)


def at_1(pairs: DescriptorPair) -> int:
    return int(np.sum(rank(pairs.ground, pairs.aerial, pairs.pair_set.truth).rank == 0))


def test_a_layer_is_trained_where_it_finds_more_of_the_pairs_held_out() -> None:
    """Variance alone does not tell which directions are of places."""
    pairs, unseen = disturbed_pairs(1500, 0), disturbed_pairs(500, 1)
    fitting = Fitting(pairs)
    fitted = fitting.to(24)
    hits = {trial.whitening: trial.hits for trial in fitted.trials}
    assert fitted.is_trained
    assert fitted.layer_hits > hits[fitted.whitening] + 20
    untrained = fitting.directions.project_to(24, fitted.whitening)
    assert at_1(fitted.projection.project_pairs(unseen)) > at_1(untrained.project_pairs(unseen)) + 20
    assert np.array_equal(fitting.to(24).projection.weights, fitted.projection.weights)


def test_no_layer_is_taken_where_it_finds_no_more() -> None:
    pairs = noisy_pairs(60, 16, 0, noise=0.01)
    fitting = Fitting(pairs)
    fitted = fitting.to(14)
    assert (fitted.is_trained, fitted.layer_hits) == (False, 60)
    assert np.array_equal(fitted.projection.weights, fitting.directions.project_to(14, 0.0).weights)


@pytest.mark.parametrize("right", ["shared", "left out"])
def test_training_holds_no_tile_against_an_image_that_it_is_right_for(right: str) -> None:
    """Two tiles, of which none is wrong for any image: nothing is to be learned."""
    pairs = noisy_pairs(8, 16, 0)
    own = np.zeros(8, np.int64) if right == "shared" else np.arange(8) % 2
    of_each = np.array([0]) if right == "shared" else np.array([0, 1])
    matches = Matches(np.repeat(np.arange(8), len(of_each)), np.tile(of_each, 8))
    start = principal(pairs).project_to(4, 0.0)
    trained = train_layer(start, {"ground": pairs.ground, "aerial": pairs.aerial[: len(of_each)]}, own, matches)
    assert np.array_equal(trained.weights, start.weights)
    one_to_one = Matches.one_to_one(8)
    changed = train_layer(start, {branch: pairs[branch] for branch in BRANCHES}, np.arange(8), one_to_one)
    assert not np.array_equal(changed.weights, start.weights)


def test_pairs_that_share_a_tile_are_held_out_together() -> None:
    pairs = noisy_pairs(60, 16, 0, noise=0.01)
    twice = tuple(Pair(Path(f"again{row}"), pair.aerial) for row, pair in enumerate(pairs.pair_set.pairs))
    both = PairSet("pairs:made", pairs.pair_set.pairs + twice)
    fitted = Fitting(replace(pairs, pair_set=both, ground=np.concatenate([pairs.ground] * 2))).to(8)
    assert fitted.queries == 120
    assert {trial.hits for trial in fitted.trials} == {120}


def test_what_evaluation_leaves_out_does_not_count_against_a_pair_that_is_held_out() -> None:
    """The nearest tile is the partner's: a semi-positive, as right, or on another map."""
    aerial = unit(np.random.default_rng(0).normal(size=(60, 128)))
    partner = np.arange(60) ^ 2  # of the same half
    pairs = described(unit(aerial + 1.5 * aerial[partner].astype(np.float64)), aerial)
    plain = pairs.pair_set
    others = [(Path(f"a{other}"), Path(f"a{59 - row}")) for row, other in enumerate(partner)]  # and of the other half
    near = tuple(replace(pair, semi_positives=tiles) for pair, tiles in zip(plain.pairs, others, strict=True))
    right = tuple(replace(pair, positives=tiles) for pair, tiles in zip(plain.pairs, others, strict=True))
    maps = tuple(frozenset(Path(f"a{row}") for row in range(60) if row >> 1 & 1 == number) for number in (0, 1))
    assert Fitting(pairs).to(20).full_hits == 0
    for pair_set in (replace(plain, pairs=near), replace(plain, pairs=right), replace(plain, maps=maps)):
        assert Fitting(replace(pairs, pair_set=pair_set)).to(20).full_hits == 60


def test_too_few_pairs_are_refused_with_their_number() -> None:
    # Half of eleven tiles are five: ten images, less two means.
    for pairs in (10, 11):
        message = rf"pairs:made has {pairs} usable pairs.* at most 8 directions, and 9 are wanted.*descriptor-size 8\."
        with pytest.raises(DataError, match=message):
            Fitting(noisy_pairs(pairs, 32, 0)).to(9)
    assert Fitting(noisy_pairs(11, 32, 0)).to(8).projection.size == 8
    with pytest.raises(DataError, match="too few for any"):
        Fitting(noisy_pairs(3, 32, 0)).to(2)


def test_descriptors_that_differ_in_too_few_directions_are_refused_with_their_number() -> None:
    random = np.random.default_rng(0)
    few = random.normal(size=(7, 32))
    ground, aerial = (unit(random.normal(size=(60, 7)) @ few) for _ in BRANCHES)
    pairs = described(ground, aerial)
    assert principal(pairs).rank == 7
    assert Fitting(pairs).to(7).projection.size == 7
    with pytest.raises(DataError, match=r"differ in 7 directions.*at most --descriptor-size 7\."):
        Fitting(pairs).to(8)


@pytest.mark.parametrize("size", [32, 40])
def test_a_size_that_is_not_below_the_models_is_refused(size: int) -> None:
    with pytest.raises(ConfigError, match=rf"descriptor_size is {size}, .* 32 numbers fewer; allowed are 1 to 31\."):
        Fitting(noisy_pairs(60, 32, 0)).to(size)


@settings(deadline=None, max_examples=25)
@given(seed=seeds, change=st.sampled_from(["weights", "ground", "aerial"]), of=st.sampled_from(["model", "other"]))
def test_each_projection_of_each_model_has_an_identifier_of_its_own(seed: int, change: str, of: str) -> None:
    random = np.random.default_rng(seed)
    numbers = {"weights": random.normal(size=(6, 3)), "ground": random.normal(size=3), "aerial": random.normal(size=3)}

    def identifier(model: str) -> str:
        weights, ground, aerial = (numbers[name].astype(np.float32) for name in ("weights", "ground", "aerial"))
        return Projection(weights, {"ground": ground, "aerial": aerial}).embedding_id(model)

    before = identifier("model")
    assert identifier("model") == before != identifier("other")
    numbers[change] += 1e-3
    assert identifier(of) != before
