"""Hard negatives are Sample4Geo's: the lists of neighbours and the batches of the official code."""

import json
import random
from typing import Any

import numpy as np
import official
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from official import FIGURES

from geodtr.training.negatives.neighbours import (
    Neighbours,
    fill_batches,
    most_similar,
    nearest_in_space,
    nearest_on_earth,
)


@pytest.fixture(scope="module")
def figures() -> dict[str, Any]:
    content: dict[str, Any] = json.loads((FIGURES / "sample4geo" / "samplers.json").read_text())
    return content


def _lists(official_lists: dict[str, list[int]]) -> list[list[int]]:
    """From ids, which count from 1, to rows."""
    return [[each - 1 for each in official_lists[str(row + 1)]] for row in range(len(official_lists))]


def _unit(rows: NDArray[np.float64]) -> NDArray[np.float32]:
    single = rows.astype(np.float32)
    return np.asarray(single / np.linalg.norm(single, axis=1, keepdims=True), np.float32)


def _descriptors() -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    queries = official.seeded("sample4geo-q").standard_normal((40, 16))
    return _unit(queries), _unit(queries + 0.8 * official.seeded("sample4geo-d").standard_normal((40, 16)))


def test_neighbours_on_the_map_are_the_true_ones(figures: dict[str, Any]) -> None:
    neighbours = nearest_on_earth(np.array(figures["lat"]), np.array(figures["lon"]), figures["gps_k"])
    assert neighbours.tolist() == _lists(figures["gps_lists_true_haversine"])


def test_neighbours_in_descriptor_space_are_the_official_ones(figures: dict[str, Any]) -> None:
    neighbours = most_similar(*_descriptors(), np.arange(40), figures["similarity_range"])
    assert neighbours.tolist() == _lists(figures["similarity_lists"])


def test_of_several_panoramas_of_a_tile_the_last_decides(figures: dict[str, Any]) -> None:
    queries, references = _descriptors()
    neighbours = most_similar(queries, references, np.array(figures["vigor_query_aerial"]), 8)
    for tile, expected in figures["vigor_similarity_lists"].items():
        assert neighbours[int(tile)].tolist() == expected


@pytest.mark.parametrize(
    ("case", "lists"),
    [("similarity", "similarity_lists"), ("gps", "gps_lists_official_degrees"), ("none", None)],
)
def test_batches_are_the_official_ones(figures: dict[str, Any], case: str, lists: str | None) -> None:
    expected = figures["batches"][case]
    neighbours = None if lists is None else np.array(_lists(figures[lists]))[:, : expected.get("neighbour_range", 8)]
    batches = fill_batches(
        range(40),
        neighbours,
        expected["batch"],
        expected.get("neighbour_select", 0),
        random.Random(expected["python_random_seed"]),
    )
    assert [pair + 1 for batch in batches for pair in batch] == expected["samples"]


@given(st.lists(st.integers(0, 9), min_size=1, max_size=60), st.integers(2, 5), st.integers(0, 8), st.integers(0, 99))
def test_no_pair_comes_twice_and_no_tile_twice_in_a_batch(
    tiles: list[int], batch_size: int, select: int, seed: int
) -> None:
    neighbours: Neighbours = nearest_in_space(np.random.default_rng(seed).normal(size=(10, 2)), 6)
    batches = fill_batches(tiles, neighbours, batch_size, select, random.Random(seed))
    pairs = [pair for batch in batches for pair in batch]
    assert len(set(pairs)) == len(pairs)
    for batch in batches:
        assert len({tiles[pair] for pair in batch}) == len(batch) == batch_size


def test_places_that_coincide_are_neighbours_and_never_their_own() -> None:
    neighbours = nearest_in_space(np.zeros((5, 2)), 3)
    assert neighbours.shape == (5, 3)
    assert all(row not in others for row, others in enumerate(neighbours.tolist()))
