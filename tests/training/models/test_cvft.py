"""CVFT is the official one: its files, pixels, embeddings, transport and loss."""

import json
import zlib
from collections.abc import Callable
from math import log
from pathlib import Path

import numpy as np
import official
import pytest
import torch
from conftest import Outcome
from official import FIGURES
from tensorflow_file import save_tensorflow

from geodtr.runtime.errors import CheckpointError
from geodtr.runtime.images.preprocess import load_image
from geodtr.runtime.names import Branch
from geodtr.training.data.spec import read_test_set
from geodtr.training.losses.contrastive import soft_margin_triplet
from geodtr.training.models.checkpoint import load_checkpoint
from geodtr.training.models.cvft import Cvft, resize_asymmetric, sinkhorn
from geodtr.training.models.embedder import embedders
from geodtr.training.models.importers.base import Network
from geodtr.training.models.importers.cvft import AERIAL, GROUND
from geodtr.training.models.importers.official import import_official
from geodtr.training.presets.load import load_preset
from geodtr.training.trainer import _rate

SIDES: list[tuple[Branch, str, tuple[int, int]]] = [("aerial", "sat", (256, 256)), ("ground", "grd", (112, 616))]
EXCEPTIONS: official.Exceptions = {
    "ot_grd_branchot_fc/weights": lambda x: 2e-5 * x,
    "ot_grd_branchot_fc/biases": lambda x: 0.01 * x,
}


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As the release's Saver leaves it, with what only training needs."""
    weights = official.tensorflow_variables(official.shapes_of("cvft"), EXCEPTIONS)
    extra = {"beta1_power": np.float32(0.9), "Variable": np.int32(7), "grd_conv/biases/Adam_1": np.ones(64, np.float32)}
    arrays = {**weights, **{name: np.asarray(value) for name, value in extra.items()}}
    return save_tensorflow(tmp_path_factory.mktemp("release") / "model.ckpt", arrays)


def network(preset: str) -> Network:
    config = load_preset(preset)
    return Network(config.model, config.ground, config.aerial)


@pytest.fixture(scope="module")
def model(release: Path) -> Cvft:
    imported = import_official(release, network=network("cvft-cvusa"))
    assert isinstance(imported, Cvft)
    return imported


def test_the_importer_takes_every_official_variable_and_leaves_none_unfilled(model: Cvft) -> None:
    assert len(model.state_dict()) == 60
    assert sum(parameter.numel() for parameter in model.parameters()) == 30_285_633
    assert (model.specs["ground"].preprocessing, model.specs["aerial"].preprocessing.resize) == (
        load_preset("cvft-cvusa").ground,
        "area",
    )
    assert (GROUND.mean, AERIAL.std) == (load_preset("cvft-cvusa").ground.mean, load_preset("cvft-cvusa").aerial.std)


@pytest.mark.parametrize(("branch", "side", "size"), SIDES)
def test_embeddings_are_the_official_ones(model: Cvft, branch: Branch, side: str, size: tuple[int, int]) -> None:
    figures = np.load(FIGURES / "cvft" / "embeddings.npz")
    name = {"sat": "sat-256", "grd": "grd-112x616"}[side]
    images = 100 * official.network_input(name, *size)
    assert images.sum(dtype=np.float64) == pytest.approx(figures[f"{side}_sum"], rel=1e-6)
    blue_first = torch.from_numpy(images).flip(1)  # the network takes red first
    with torch.inference_mode():
        descriptors = model.branch(branch)(blue_first)
    np.testing.assert_allclose(descriptors, figures[f"synth_{side}"], atol=1e-6)


def test_the_transport_plan_is_the_official_one(model: Cvft) -> None:
    figures = np.load(FIGURES / "cvft" / "embeddings.npz")
    images = torch.from_numpy(100 * official.network_input("grd-112x616", 112, 616)[:1]).flip(1)
    with torch.inference_mode():
        features = resize_asymmetric(model.ground.features(images), (8, 8))
        plan = model.ground.transport(features)
    np.testing.assert_allclose(plan[0], figures["synth_transport0"], atol=2e-6)


def test_sinkhorn_and_the_resize_are_the_official_ones() -> None:
    figures = np.load(FIGURES / "cvft" / "embeddings.npz")
    first = torch.from_numpy(3 * official.seeded("sinkhorn-1").standard_normal((2, 64, 64)))
    noise = official.seeded("sinkhorn-2").standard_normal((1, 64, 64))
    second = torch.from_numpy(-100 * (np.eye(64) + 0.01 * noise))
    for logits, name in ((first, "sinkhorn_1"), (second, "sinkhorn_2")):
        np.testing.assert_allclose(sinkhorn(logits, 20), figures[name], atol=1e-6)
    features = torch.from_numpy(official.seeded("resize").standard_normal((1, 4, 20, 2)))
    resized = resize_asymmetric(features.permute(0, 3, 1, 2), (8, 8)).permute(0, 2, 3, 1)
    np.testing.assert_allclose(resized, figures["resize_4x20_to_8x8"], atol=1e-6)


def test_pixels_and_embeddings_of_real_images_are_the_official_ones(
    model: Cvft, conformance: Path, cvusa_sample: Path
) -> None:
    figures = np.load(conformance / "cvft" / "embeddings.npz")
    pairs = read_test_set(f"cvusa:{cvusa_sample}").pairs
    for branch, side, _ in SIDES:
        how = model.specs[branch].preprocessing
        images = np.stack([load_image(getattr(pair, branch), how) for pair in pairs])
        np.testing.assert_array_equal(images[0], figures[f"real_{side}_u8_first"][0])
        assert [zlib.crc32(image.tobytes()) for image in images] == figures[f"real_{side}_crc"].tolist()
        descriptors = embedders(model)[branch].embed(images)
        np.testing.assert_allclose(descriptors, figures[f"real_{side}"], atol=1e-6)


def test_the_loss_is_the_official_one_but_for_the_diagonal_s_constant() -> None:
    values = json.loads((FIGURES / "cvft" / "values.json").read_text())
    aerial = official.seeded("tf-loss-sat").standard_normal((16, 64))
    ground = aerial + 3 * official.seeded("tf-loss-grd").standard_normal((16, 64))
    first, second = (torch.from_numpy(each / np.linalg.norm(each, axis=1, keepdims=True)) for each in (ground, aerial))
    assert soft_margin_triplet(first, second).item() + log(2) / 15 == pytest.approx(values["cvusa"], rel=1e-6)


def test_its_learning_rate_stays_what_it_is() -> None:
    recipe = load_preset("cvft-cvusa").recipe
    assert {_rate(step, 100, recipe) for step in range(100)} == {1.0}


def test_how_panoramas_are_cut_must_be_named(cli: Callable[..., Outcome], tmp_path: Path) -> None:
    sizes = {64: 4, 128: 5, 256: 6, 512: 8}
    shapes = {
        name: shape if name.startswith("ot_grd_branchot_fc") else [sizes.get(side, side) for side in shape]
        for name, shape in official.shapes_of("cvft").items()
    }
    release = save_tensorflow(tmp_path / "small.ckpt", official.tensorflow_variables(shapes, EXCEPTIONS))
    unnamed = cli("import-checkpoint", release, "--out", tmp_path / "a.safetensors")
    assert unnamed.code == 2
    message = " ".join(unnamed.err.split())
    assert "--preset cvft-cvusa or --preset cvft-cvact" in message
    assert '--set "model.channels=4" --set "model.widths=[4, 5, 6, 8, 8]"' in message
    settings = ("--set", "model.widths=[4, 5, 6, 8, 8]", "--set", "model.channels=4")
    named = cli("import-checkpoint", release, "--preset", "cvft-cvact", *settings, "--out", tmp_path / "a.safetensors")
    assert named.code == 0, named.err
    assert load_checkpoint(tmp_path / "a.safetensors").info.ground.rows == (0.25, 0.75)


def test_a_siblings_checkpoint_and_an_incomplete_one_are_refused(release: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="is a checkpoint of CVFT; the preset describes another model"):
        import_official(release, network=network("safa-cvusa"))
    tiny = {name: np.zeros(3, np.float32) for name in ("grd_conv/biases", "VGG_grd/conv1_1/biases")}
    with pytest.raises(CheckpointError, match=r"not a whole checkpoint of CVFT: .* no ground\.transport"):
        import_official(save_tensorflow(tmp_path / "part.ckpt", tiny))
