"""Search is exact; galleries keep their contents and refuse another model's queries."""

import json
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import pytest
from conftest import Outcome, Trained
from hypothesis import given, settings
from hypothesis import strategies as st

from geodtr import Localizer, open_gallery
from geodtr.runtime.errors import EmbeddingSpaceMismatch
from geodtr.runtime.gallery.build import build_gallery
from geodtr.runtime.gallery.manifest import made_by
from geodtr.runtime.search.exact import search
from geodtr.training.data.references import reference_tiles


@settings(max_examples=100, deadline=None)
@given(
    queries=st.integers(1, 9),
    references=st.integers(1, 60),
    size=st.integers(1, 8),
    top=st.integers(1, 70),
    seed=st.integers(0, 99),
)
def test_search_has_the_results_of_sorting_all_scores(
    queries: int, references: int, size: int, top: int, seed: int
) -> None:
    generator = np.random.default_rng(seed)
    q = generator.integers(-2, 3, (queries, size)).astype(np.float32)
    r = generator.integers(-2, 3, (references, size)).astype(np.float32)
    hits = search(q, r, top)
    scores = q @ r.T
    kept = min(top, references)
    assert hits.rows.shape == hits.scores.shape == (queries, kept)
    np.testing.assert_array_equal(hits.scores, -np.sort(-scores, axis=1)[:, :kept])
    np.testing.assert_array_equal(np.take_along_axis(scores, hits.rows, axis=1), hits.scores)


def test_asking_for_no_references_is_an_error() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        search(np.ones((1, 2), np.float32), np.ones((3, 2), np.float32), 0)


def test_the_contents_of_a_gallery_can_be_read_back(trained: Trained) -> None:
    gallery = trained.gallery
    assert gallery.info.references == len(trained.test_set) == len(gallery)
    np.testing.assert_allclose(np.linalg.norm(gallery.descriptors(np.arange(len(gallery))), axis=1), 1, atol=1e-5)
    for pair, tile in zip(trained.test_set.pairs, gallery.all_tiles(), strict=True):
        assert (tile.file, tile.lat, tile.lon) == (str(pair.aerial), pair.lat, pair.lon)


def test_panoramas_are_localised_at_the_rate_of_recall(trained: Trained) -> None:
    localizer = Localizer(trained.bundles["fp32"], trained.gallery)
    located = list(localizer.locate_frames(trained.test_set.paths("ground"), top=5))
    hits = [localisation.candidates[0].row == row for row, localisation in enumerate(located)]
    assert np.mean(hits) > 0.3
    scores = [[candidate.score for candidate in localisation.candidates] for localisation in located]
    assert all(row == sorted(row, reverse=True) for row in scores)


def test_localize_prints_positions_for_people_and_machines(trained: Trained, cli: Callable[..., Outcome]) -> None:
    image = trained.test_set.pairs[0].ground
    bundle, gallery = trained.bundles["int8"].path, trained.gallery.name
    command = ("localize", image, "--bundle", bundle, "--gallery", gallery, "--top", 3)
    assert "cosine" in cli(*command).out
    answer = json.loads(cli(*command, "--json").out)
    assert answer["image"] == str(image)
    assert len(answer["candidates"]) == 3
    assert -90 <= answer["candidates"][0]["lat"] <= 90


def test_a_gallery_of_another_model_is_refused(trained: Trained, tmp_path: Path, cli: Callable[..., Outcome]) -> None:
    fp32 = trained.bundles["fp32"]
    maker = msgspec.structs.replace(made_by(fp32.manifest), embedding_id="0" * 16)
    build_gallery(tmp_path / "other", reference_tiles(trained.test_set.first(3)), fp32.embedder("aerial"), maker)
    other = open_gallery(tmp_path / "other")
    with pytest.raises(EmbeddingSpaceMismatch, match="gallery build"):
        Localizer(trained.bundles["fp32"], other)
    image = trained.test_set.pairs[0].ground
    result = cli("localize", image, "--bundle", trained.bundles["fp32"].path, "--gallery", other.name)
    assert result.code == 2
    assert "gallery build" in result.err
