"""The full-size network, its input pixels and its figures equal those from the official release."""

import json
from pathlib import Path

import numpy as np
import official
import pytest
import torch
from numpy.typing import NDArray
from official import FIGURES

from geodtr.runtime.errors import DescriptorError
from geodtr.runtime.images.preprocess import load_image
from geodtr.runtime.names import Branch
from geodtr.runtime.recall import one_percent, rank, recall, recall_at
from geodtr.training.data.spec import read_test_set
from geodtr.training.losses.contrastive import counterfactual, soft_margin_triplet
from geodtr.training.models.embedder import embedders, normalise
from geodtr.training.models.geodtr.geodtr import GeoDTR
from geodtr.training.models.importers.geodtr import AERIAL_POLAR, GROUND
from geodtr.training.models.importers.official import find_parameters, import_official

SIDES: list[tuple[Branch, str]] = [("aerial", "sat"), ("ground", "grd")]


@pytest.fixture(scope="module")
def release_model(tmp_path_factory: pytest.TempPathFactory) -> GeoDTR:
    weights = official.state_dict(official.polar_shapes())
    path = official.write_release_file(tmp_path_factory.mktemp("release") / "model.pth", weights)
    model = import_official(path, find_parameters(path))
    assert isinstance(model, GeoDTR)
    return model


def test_the_importer_takes_every_official_key_and_leaves_none_unfilled(release_model: GeoDTR) -> None:
    shapes = official.polar_shapes()
    assert len(release_model.state_dict()) == len(shapes)
    assert sum(parameter.numel() for parameter in release_model.parameters()) == 48_508_608


@pytest.mark.parametrize(("branch", "side"), SIDES)
def test_embeddings_are_the_official_ones(release_model: GeoDTR, branch: Branch, side: str) -> None:
    figures = np.load(FIGURES / "geodtr_polar.npz")
    images = official.network_input(f"{side}-polar")
    assert images.sum(dtype=np.float64) == pytest.approx(figures[f"{side}_sum"], rel=1e-6)
    with torch.inference_mode():
        descriptors = release_model.branch(branch)(torch.from_numpy(images)).numpy()
    np.testing.assert_allclose(descriptors, figures[f"{side}_embedding"], atol=1e-5)


def test_preprocessed_pixels_of_real_images_are_the_official_ones(conformance: Path, cvusa_sample: Path) -> None:
    figures = np.load(conformance / "cvusa_samples_polar.npz")
    pairs = read_test_set(f"cvusa:{cvusa_sample}").pairs
    for pair, polar, ground in zip(pairs, figures["polar"], figures["ground"], strict=True):
        np.testing.assert_array_equal(load_image(pair.aerial, AERIAL_POLAR), polar)
        np.testing.assert_array_equal(load_image(pair.ground, GROUND), ground)


@pytest.mark.parametrize(
    ("branch", "side", "pixels"),
    [("aerial", "sat", "polar"), pytest.param("ground", "grd", "ground", marks=pytest.mark.slow)],
)
def test_embeddings_of_real_images_are_the_official_ones(
    release_model: GeoDTR, conformance: Path, branch: Branch, side: str, pixels: str
) -> None:
    figures = np.load(conformance / "cvusa_samples_polar.npz")
    expected = figures[f"{side}_embedding"]
    descriptors = embedders(release_model)[branch].embed(figures[pixels])
    assert np.sum(descriptors * expected, axis=1).min() > 0.99999
    # These random weights nearly cancel in one layout descriptor of the first panorama, so that float32 keeps five
    # digits of it, more or fewer by the order a CPU adds in. The function itself is compared in float64.
    np.testing.assert_allclose(descriptors, expected, atol=1e-4)
    np.testing.assert_allclose(_in_float64(release_model, branch, figures[pixels]), expected, atol=1e-5)


def test_losses_are_the_official_ones() -> None:
    expected = json.loads((FIGURES / "losses_recall.json").read_text())
    aerial, ground, imagined_aerial, imagined_ground = map(
        torch.from_numpy, np.load(FIGURES / "losses_recall.npz")["vecs"]
    )
    assert soft_margin_triplet(ground, aerial).item() == pytest.approx(expected["triplet"], rel=1e-5)
    hardest = soft_margin_triplet(ground, aerial, hardest=0.1)
    assert hardest.item() == pytest.approx(expected["triplet_hard10"], rel=1e-5)
    for side, real, imagined in (("sat", aerial, imagined_aerial), ("grd", ground, imagined_ground)):
        loss = counterfactual(real, imagined).item()
        exact = torch.log(1 + torch.exp(-5 * (2 - 2 * (real.double() * imagined.double()).sum(dim=1)))).mean().item()
        assert loss == pytest.approx(exact, rel=1e-5)
        # The release takes log(1 + x) in float32, where x is about 1e-4: its own figure is good to four digits.
        assert loss == pytest.approx(expected[f"cf_{side}"], rel=1e-4)


def test_recall_figures_are_the_official_ones() -> None:
    expected = json.loads((FIGURES / "losses_recall.json").read_text())
    vectors = np.load(FIGURES / "losses_recall.npz")
    small = recall(rank(vectors["q"], vectors["d"]))
    assert small.at_1 == expected["recall"]["top1"]
    assert small.at_1_percent == expected["recall"]["top1_percent"]
    large = recall(rank(vectors["q2"], vectors["d2"]))
    figures = expected["recall2"]
    assert (large.at_1, large.at_5, large.at_10) == (figures["top1"], figures["top5"], figures["top10"])
    assert large.at_1_percent == figures["top1_percent"]


def test_one_percent_of_cvusa_is_88_tiles() -> None:
    assert one_percent(8884) == 88


def test_recall_of_a_collapsed_model_is_called_suspicious() -> None:
    same = np.full((50, 4), 0.5, np.float32)
    collapsed = recall(rank(same, same))
    assert collapsed.at_1 == 1.0
    assert collapsed.suspicious


def test_descriptors_that_are_not_numbers_are_not_hits() -> None:
    rows = np.eye(4, dtype=np.float32)
    broken = rows.copy()
    broken[2] = np.nan
    for queries, references in ((broken, rows), (rows, broken)):
        with pytest.raises(DescriptorError, match="row 2"):
            rank(queries, references)


def test_recall_counts_only_strictly_closer_references() -> None:
    references = np.eye(4, dtype=np.float32)
    queries = references[[1, 0, 2, 3]].copy()
    ranking = rank(queries, references)
    assert recall_at(ranking, (1, 2)) == [0.5, 1.0]


def _in_float64(model: GeoDTR, branch: Branch, pixels: NDArray[np.uint8]) -> NDArray[np.float64]:
    how = model.specs[branch].preprocessing
    network = model.branch(branch).double()
    try:
        with torch.inference_mode():
            images = normalise(torch.from_numpy(pixels), how.mean, how.std).double()
            return np.asarray(network(images).numpy(), np.float64)
    finally:
        network.float()
