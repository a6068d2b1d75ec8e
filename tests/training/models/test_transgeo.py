"""TransGeo's first stage is the official one: its files, pixels, embeddings, loss, steps and schedule."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import official
import pytest
import torch
import torch.nn.functional as F
from conftest import Outcome
from official import FIGURES
from torch import Tensor, nn
from transgeo_files import EXCEPTIONS, SMALL, network_of, save, timm_names

from geodtr.runtime.errors import CheckpointError
from geodtr.runtime.images.preprocess import load_image
from geodtr.runtime.names import BRANCHES, Branch
from geodtr.training.data.spec import read_test_set
from geodtr.training.losses.contrastive import soft_margin_triplet
from geodtr.training.models.checkpoint import load_checkpoint
from geodtr.training.models.embedder import embedders
from geodtr.training.models.importers.official import import_official
from geodtr.training.models.transgeo.stage_1 import TransGeo, TransGeoConfig
from geodtr.training.presets.load import load_preset
from geodtr.training.sharpness import climbed
from geodtr.training.trainer import _rate

INPUTS: dict[Branch, tuple[str, int, int]] = {
    "ground": ("transgeo-ground", 112, 616),
    "aerial": ("transgeo-aerial", 256, 256),
}


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    weights = official.state_dict(official.shapes_of("transgeo"), EXCEPTIONS)
    return save(tmp_path_factory.mktemp("release") / "model_best.pth.tar", weights)


@pytest.fixture(scope="module")
def model(release: Path) -> TransGeo:
    imported = import_official(release, network=network_of("transgeo-cvusa"))
    assert isinstance(imported, TransGeo)
    return imported


def test_the_importer_takes_every_official_key_and_leaves_none_unfilled(model: TransGeo) -> None:
    assert len(official.shapes_of("transgeo")) == 310
    official_count = sum(np.prod(shape) for shape in official.shapes_of("transgeo").values())
    assert sum(parameter.numel() for parameter in model.parameters()) == official_count
    assert model.config == TransGeoConfig()


@pytest.mark.parametrize("branch", BRANCHES)
def test_embeddings_are_the_official_ones(model: TransGeo, branch: Branch) -> None:
    figures = np.load(FIGURES / "transgeo" / "embeddings.npz")
    images = official.network_input(*INPUTS[branch])
    assert images.sum(axis=(1, 2, 3), dtype=np.float64) == pytest.approx(figures[f"{branch}_sum"], rel=1e-6)
    network = model.branch(branch)
    means = list[float]()

    def record(module: nn.Module, inputs: object, output: Tensor) -> None:
        del module, inputs
        means.append(output.abs().mean(dtype=torch.float64).item())

    handles = [
        each.register_forward_hook(record) for each in (network.tokens.embedding, network.tokens, *network.layers)
    ]
    expected = torch.from_numpy(figures[f"{branch}_embedding"])
    with torch.inference_mode():
        raw = network.raw(torch.from_numpy(images))
        for handle in handles:
            handle.remove()
        unit = network(torch.from_numpy(images))
    torch.testing.assert_close(raw, expected, rtol=0, atol=3e-5)
    assert F.cosine_similarity(raw, expected).min() > 0.999999
    torch.testing.assert_close(unit, F.normalize(expected), rtol=0, atol=2e-6)
    assert means == pytest.approx(figures[f"{branch}_trace"], rel=1e-5)


@pytest.mark.slow  # float64 arithmetic
@pytest.mark.parametrize("branch", BRANCHES)
def test_in_float64_embeddings_are_the_official_ones_to_one_in_a_million(model: TransGeo, branch: Branch) -> None:
    figures = np.load(FIGURES / "transgeo" / "embeddings.npz")
    network = model.branch(branch).double()
    try:
        with torch.inference_mode():
            raw = network.raw(torch.from_numpy(official.network_input(*INPUTS[branch])).double())
    finally:
        network.float()
    torch.testing.assert_close(raw.float(), torch.from_numpy(figures[f"{branch}_embedding"]), rtol=0, atol=1e-6)


@pytest.mark.parametrize("branch", BRANCHES)
def test_pixels_and_embeddings_of_real_images_are_the_official_ones(
    model: TransGeo, conformance: Path, cvusa_sample: Path, branch: Branch
) -> None:
    figures = np.load(conformance / "transgeo" / "embeddings.npz")
    pixels = np.load(conformance / "transgeo" / "pixels.npz")
    how = model.specs[branch].preprocessing
    images = np.stack([load_image(path, how) for path in read_test_set(f"cvusa:{cvusa_sample}").paths(branch)])
    np.testing.assert_array_equal(images[:2], pixels["ground" if branch == "ground" else "aerial256"])
    assert images.sum(axis=(1, 2, 3), dtype=np.int64).tolist() == figures[f"real_{branch}_pixel_sum"].tolist()
    expected = F.normalize(torch.from_numpy(figures[f"real_{branch}_embedding"])).numpy()
    np.testing.assert_allclose(embedders(model)[branch].embed(images), expected, atol=2e-6)


def test_the_loss_is_the_official_one() -> None:
    """It has a factor of 20 of cosines, which is one of 10 of squared distances."""
    expected = json.loads((FIGURES / "transgeo" / "losses.json").read_text())
    aerial, ground = np.load(FIGURES / "losses_recall.npz")["vecs"][:2].astype(np.float64)
    lengths = official.seeded("transgeo-scale").uniform(1, 30, (2, 16, 1))
    unit_ground, unit_aerial = (
        F.normalize(torch.from_numpy(r * n)) for r, n in zip((ground, aerial), lengths, strict=True)
    )
    loss = soft_margin_triplet(unit_ground, unit_aerial, expected["alpha"] / 2)
    assert loss.item() == pytest.approx(expected["soft_triplet"], rel=1e-9)


def test_sharpness_aware_steps_are_the_official_ones() -> None:
    figures = np.load(FIGURES / "transgeo" / "training.npz")
    weights, bias, inputs, targets = (
        torch.from_numpy(official.seeded(f"asam-{name}").standard_normal(shape))
        for name, shape in (("W", (4, 3)), ("b", 4), ("X", (8, 3)), ("Y", (8, 4)))
    )
    parameters = [nn.Parameter(weights), nn.Parameter(bias)]
    optimizer = torch.optim.AdamW(parameters, lr=0.01, eps=1e-8, weight_decay=0.03)

    def descend() -> float:
        loss = (inputs @ parameters[0].T + parameters[1] - targets).square().mean()
        torch.autograd.backward(loss)
        return loss.item()

    for step in range(3):
        optimizer.zero_grad()
        assert descend() == pytest.approx(figures["asam_loss"][step], rel=1e-10)
        with climbed(parameters, 2.5):
            for name, parameter in zip(("W", "b"), parameters, strict=True):
                expected = figures[f"asam_{name}_perturbed"][step]
                np.testing.assert_allclose(parameter.detach().numpy(), expected, atol=1e-10)
            assert descend() == pytest.approx(figures["asam_loss_perturbed"][step], rel=1e-10)
        optimizer.step()
        for name, parameter in zip(("W", "b"), parameters, strict=True):
            np.testing.assert_allclose(parameter.detach().numpy(), figures[f"asam_{name}"][step], atol=1e-10)


def test_the_schedule_is_the_official_one() -> None:
    recipe = load_preset("transgeo-cvusa").recipe
    total = recipe.epochs * 1110
    for epoch in (0, 1, 50, 99):
        expected = 0.5 * (1 + np.cos(np.pi * epoch / 100))
        for step in (0, 1109):
            assert _rate(epoch * 1110 + step, total, recipe) == pytest.approx(expected, rel=1e-12)


def test_what_no_file_records_is_asked_for_by_name(
    tmp_path: Path, refused: Callable[..., str], cli: Callable[..., Outcome]
) -> None:
    path = save(tmp_path / "checkpoint.pth.tar", timm_names(SMALL, network_of("transgeo-cvusa")))
    message = refused("import-checkpoint", path, "--out", tmp_path / "a.safetensors")
    assert "--preset transgeo-cvusa or --preset transgeo-cvact" in message
    assert '--set "model.width=64" --set "model.layers=2"' in message
    names = ("width", "layers", "heads", "feed_forward", "descriptor_size")
    sizes = [part for name in names for part in ("--set", f"model.{name}={getattr(SMALL, name)}")]
    out = tmp_path / "b.safetensors"
    named = cli("import-checkpoint", path, "--preset", "transgeo-cvact", *sizes, "--out", out)
    assert named.code == 0, named.err
    loaded = load_checkpoint(out).model
    assert loaded.config == SMALL
    assert loaded.specs["ground"].preprocessing.rows == (0.25, 0.75)


def test_a_file_for_a_limited_field_of_view_needs_its_width(tmp_path: Path, refused: Callable[..., str]) -> None:
    """`--fov 90` of the release: int(90 / 360 * 616) columns, of which 7x9 patches are seen."""
    network = network_of("transgeo-cvusa", "ground.width=154", "ground.imagery.field_of_view=90")
    network = replace(network, config=SMALL)
    path = save(tmp_path / "fov.pth.tar", timm_names(SMALL, network))
    message = refused("import-checkpoint", path, "--out", tmp_path / "a.safetensors")
    assert "63 feature positions" in message
    assert "--set ground.width=PIXELS" in message
    assert import_official(path, network=network).specs["ground"].preprocessing.width == 154


def test_a_file_for_vigor_is_recognised_by_its_shapes(tmp_path: Path) -> None:
    vigor = network_of("transgeo-vigor")
    imported = import_official(save(tmp_path / "v.pth.tar", timm_names(SMALL, vigor)))
    assert (imported.config, imported.specs["aerial"].preprocessing.geometry) == (SMALL, vigor.aerial.geometry)


@pytest.mark.parametrize("damage", ["missing", "unexpected", "shape", "sibling"])
def test_a_damaged_file_is_refused(tmp_path: Path, damage: str) -> None:
    weights = timm_names(SMALL, network_of("transgeo-cvusa"))
    if damage == "missing":
        del weights["reference_net.dist_token"]
        expected = "aerial.tokens.learned is missing"
    elif damage == "unexpected":
        weights["query_net.blocks.1.attn.extra"] = torch.zeros(2)
        expected = "is unexpected"
    elif damage == "shape":
        weights["query_net.blocks.1.attn.qkv.bias"] = torch.zeros(6)
        expected = "ground.layers.1.attention.query.bias has shape"
    else:
        weights = {f"model_grd.{name}": tensor for name, tensor in weights.items()}
        expected = "L2LTR; the preset describes another model"
    network = replace(network_of("transgeo-cvusa"), config=SMALL)
    with pytest.raises(CheckpointError, match=expected.replace(".", r"\.")):
        import_official(save(tmp_path / "damaged.pth", weights), network=network)
