"""Sample4Geo is the official one: its files, pixels, embeddings and loss."""

import json
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import official
import pytest
import torch
import torch.nn.functional as F
from conftest import Outcome
from official import FIGURES

from geodtr.runtime.errors import CheckpointError
from geodtr.runtime.images.preprocess import load_image
from geodtr.runtime.names import BRANCHES, Branch
from geodtr.training.data.spec import read_test_set
from geodtr.training.losses.contrastive import info_nce
from geodtr.training.models.backbones.convnext import convnext
from geodtr.training.models.backbones.convnext_block import Block
from geodtr.training.models.checkpoint import load_checkpoint, save_checkpoint
from geodtr.training.models.embedder import embedders
from geodtr.training.models.importers.base import Network
from geodtr.training.models.importers.official import import_official
from geodtr.training.models.sample4geo import Sample4Geo, Sample4GeoConfig
from geodtr.training.presets.load import load_preset

SIDES: list[tuple[Branch, str]] = [("aerial", "sat"), ("ground", "grd")]
INPUTS: dict[Branch, tuple[str, int, int]] = {"aerial": ("sat-384", 384, 384), "ground": ("grd-140x768", 140, 768)}
EXCEPTIONS: official.Exceptions = {".gamma": lambda x: 0.3 + 0.1 * x}


@pytest.fixture(scope="module")
def weights() -> dict[str, torch.Tensor]:
    return official.state_dict(official.shapes_of("sample4geo"), EXCEPTIONS)


@pytest.fixture(scope="module")
def release(weights: dict[str, torch.Tensor], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("release") / "weights_e40_98.6830.pth"
    torch.save(weights, path)
    return path


@pytest.fixture(scope="module")
def model(release: Path) -> Sample4Geo:
    imported = import_official(release, network=_network())
    assert isinstance(imported, Sample4Geo)
    return imported


def _network(preset: str = "sample4geo-cvusa") -> Network:
    config = load_preset(preset)
    return Network(config.model, config.ground, config.aerial)


GROUND, AERIAL = _network().ground, _network().aerial


def test_the_importer_takes_every_official_key_and_leaves_none_unfilled(model: Sample4Geo) -> None:
    assert len(model.state_dict()) == 343
    assert sum(parameter.numel() for parameter in model.parameters()) == 87_566_464 + 1
    assert model.config == Sample4GeoConfig()
    assert (model.specs["ground"].preprocessing, model.specs["aerial"].preprocessing) == (GROUND, AERIAL)


@pytest.mark.parametrize(("branch", "side"), SIDES)
def test_embeddings_are_the_official_ones(model: Sample4Geo, branch: Branch, side: str) -> None:
    figures = np.load(FIGURES / "sample4geo" / "embeddings.npz")
    images = official.network_input(*INPUTS[branch])
    assert images.sum(dtype=np.float64) == pytest.approx(figures[f"{side}_sum"], rel=1e-6)
    expected = torch.from_numpy(figures[f"synth_{side}_raw"])
    with torch.inference_mode():
        raw = model.encoder.raw(torch.from_numpy(images))
        torch.testing.assert_close(raw, expected, rtol=0, atol=2e-5)
        unit = model.branch(branch)(torch.from_numpy(images))
        torch.testing.assert_close(unit, F.normalize(expected), rtol=0, atol=1e-6)


@pytest.mark.parametrize(("branch", "side"), SIDES)
def test_pixels_of_real_images_are_the_official_ones(
    conformance: Path, cvusa_sample: Path, branch: Branch, side: str
) -> None:
    figures = np.load(conformance / "sample4geo" / "embeddings.npz")
    how = GROUND if branch == "ground" else AERIAL
    images = [load_image(path, how) for path in read_test_set(f"cvusa:{cvusa_sample}").paths(branch)]
    np.testing.assert_array_equal(images[0], figures[f"real_{side}_u8_first"][0])
    assert [zlib.crc32(image.tobytes()) for image in images] == figures[f"real_{side}_crc"].tolist()


def test_embeddings_of_real_images_are_the_official_ones(
    model: Sample4Geo, conformance: Path, cvusa_sample: Path
) -> None:
    figures = np.load(conformance / "sample4geo" / "embeddings.npz")
    pairs = read_test_set(f"cvusa:{cvusa_sample}")
    descriptors = {}
    for branch, side in SIDES:
        images = np.stack([load_image(path, model.specs[branch].preprocessing) for path in pairs.paths(branch)])
        descriptors[branch] = embedders(model)[branch].embed(images)
        expected = F.normalize(torch.from_numpy(figures[f"real_{side}_raw"])).numpy()
        np.testing.assert_allclose(descriptors[branch], expected, atol=1e-6)
    np.testing.assert_allclose(descriptors["ground"] @ descriptors["aerial"].T, figures["real_cos"], atol=1e-6)


def test_the_weights_are_stored_once_and_serve_both_branches(tmp_path: Path) -> None:
    small = Sample4Geo(Sample4GeoConfig(widths=(8, 16), blocks=(1, 1)), GROUND, AERIAL)
    save_checkpoint(tmp_path / "m.safetensors", small, "test")
    parameters = sum(parameter.numel() for parameter in small.parameters())
    assert (tmp_path / "m.safetensors").stat().st_size < 4 * parameters + 16_384
    loaded = load_checkpoint(tmp_path / "m.safetensors").model
    assert loaded.branch("ground") is loaded.branch("aerial")
    for branch in BRANCHES:
        how = small.specs[branch].preprocessing
        images = np.random.default_rng(0).integers(0, 256, (1, how.height, how.width, 3), np.uint8)
        np.testing.assert_array_equal(embedders(loaded)[branch].embed(images), embedders(small)[branch].embed(images))


@pytest.mark.parametrize("damage", ["missing", "unexpected", "shape"])
def test_a_file_that_the_release_would_load_in_part_is_refused(
    weights: dict[str, torch.Tensor], tmp_path: Path, damage: str
) -> None:
    weights = dict(weights)
    if damage == "missing":
        del weights["model.stages.2.blocks.26.mlp.fc2.bias"]
        expected = "encoder.features.5.26.block.5.bias is missing"
    elif damage == "unexpected":
        weights["model.head.fc.weight"] = torch.zeros(2, 1024)
        expected = "model.head.fc.weight is unexpected"
    else:
        weights["model.stages.3.downsample.1.bias"] = torch.zeros(3)
        expected = "encoder.features.6.1.bias has shape"
    torch.save(weights, tmp_path / "damaged.pth")
    with pytest.raises(CheckpointError, match=expected.replace(".", r"\.")):
        import_official(tmp_path / "damaged.pth", network=_network())


def test_sizes_that_no_file_records_are_asked_for_by_name(
    tmp_path: Path, refused: Callable[..., str], cli: Callable[..., Outcome]
) -> None:
    small = Sample4GeoConfig(widths=(8, 16), blocks=(1, 1))
    weights = Sample4Geo(small, GROUND, AERIAL).state_dict()
    torch.save(_timm_names(weights), tmp_path / "small.pth")
    message = refused("import-checkpoint", tmp_path / "small.pth", "--out", tmp_path / "a.safetensors")
    for data_set in ("cvusa", "cvact", "vigor", "university"):
        assert f"--preset sample4geo-{data_set}" in message
    assert 'sample4geo-university; here with --set "model.widths=[8, 16]" --set "model.blocks=[1, 1]"' in message
    options = ("--preset", "sample4geo-vigor", "--set", "model.widths=[8, 16]", "--set", "model.blocks=[1, 1]")
    named = cli("import-checkpoint", tmp_path / "small.pth", *options, "--out", tmp_path / "b.safetensors")
    assert named.code == 0, named.err
    loaded = load_checkpoint(tmp_path / "b.safetensors").model
    assert loaded.config == small
    assert loaded.specs["ground"].preprocessing.height == 384


def test_small_encoders_of_timm_keep_linear_maps_as_convolutions(tmp_path: Path) -> None:
    small = Sample4Geo(Sample4GeoConfig(widths=(8, 16), blocks=(1, 1)), GROUND, AERIAL)
    names = _timm_names(small.state_dict())
    pointwise = {name: w[..., None, None] for name, w in names.items() if ".mlp.fc" in name and w.ndim == 2}
    torch.save(names | pointwise, tmp_path / "atto.pth")
    imported = import_official(tmp_path / "atto.pth", network=Network(small.config, GROUND, AERIAL))
    assert all(torch.equal(w, small.state_dict()[name]) for name, w in imported.state_dict().items())


@pytest.mark.parametrize("name", ["stages.0.blocks.0.mlp.grn.weight", "blocks.0.norm1.weight", "norm_pre.weight"])
def test_another_encoder_is_named(tmp_path: Path, refused: Callable[..., str], name: str) -> None:
    torch.save({"logit_scale": torch.zeros(()), f"model.{name}": torch.zeros(8)}, tmp_path / "other.pth")
    message = refused("import-checkpoint", tmp_path / "other.pth", "--out", tmp_path / "m.safetensors")
    assert "Sample4Geo with another encoder than timm's plain ConvNeXt" in message


def test_an_encoder_with_another_epsilon_is_named(tmp_path: Path, refused: Callable[..., str]) -> None:
    network = Sample4Geo(Sample4GeoConfig(widths=(8, 3072), blocks=(1, 1)), GROUND, AERIAL)
    torch.save(_timm_names(network.state_dict()), tmp_path / "other.pth")
    message = refused("import-checkpoint", tmp_path / "other.pth", "--out", tmp_path / "m.safetensors")
    assert "3072 numbers, convnext_xxlarge's" in message


def test_cvact_s_panoramas_are_squeezed_whole() -> None:
    """The release reads 832x1664 pixels and does not crop them."""
    ground = _network("sample4geo-cvact").ground
    assert (ground.rows, ground.imagery.aspect, ground.shape) == ((0, 1), 2, GROUND.shape)


def test_a_checkpoint_of_this_toolkit_is_not_imported(tmp_path: Path, refused: Callable[..., str]) -> None:
    small = Sample4Geo(Sample4GeoConfig(widths=(8, 16), blocks=(1, 1)), GROUND, AERIAL)
    save_checkpoint(tmp_path / "own.safetensors", small, "test")
    message = refused("import-checkpoint", tmp_path / "own.safetensors", "--out", tmp_path / "m.safetensors")
    assert "use it as it is" in message


def _timm_names(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The release's names and shapes, written apart from the importer."""
    inner = {"block.0": "conv_dw", "block.2": "norm", "block.3": "mlp.fc1", "block.5": "mlp.fc2"}
    renamed = {"logit_scale": weights["logit_scale"]}
    for name, tensor in weights.items():
        parts = name.split(".")
        if name.startswith("encoder.norm."):
            renamed[f"model.head.norm.{parts[-1]}"] = tensor
        elif name.startswith("encoder.features.0."):
            renamed[f"model.stem.{'.'.join(parts[3:])}"] = tensor
        elif name.startswith("encoder.features."):
            stage, odd = divmod(int(parts[2]), 2)
            if not odd:
                renamed[f"model.stages.{stage}.downsample.{'.'.join(parts[3:])}"] = tensor
            elif parts[4] == "layer_scale":
                renamed[f"model.stages.{stage}.blocks.{parts[3]}.gamma"] = tensor.flatten()
            else:
                part = inner[f"{parts[4]}.{parts[5]}"]
                renamed[f"model.stages.{stage}.blocks.{parts[3]}.{part}.{parts[6]}"] = tensor
    return renamed


@pytest.mark.parametrize("case", json.loads((FIGURES / "sample4geo" / "infonce.json").read_text()))
def test_the_loss_is_the_official_one(case: str) -> None:
    expected = json.loads((FIGURES / "sample4geo" / "infonce.json").read_text())[case]
    scale, smoothing = (float(part.partition("=")[2]) for part in case.split(","))
    # The name has six digits of the scale.
    scale = 1 / 0.07 if scale < 20 else scale
    first = official.seeded("infonce-a").standard_normal((16, 64))
    second = first + 1.5 * official.seeded("infonce-b").standard_normal((16, 64))
    ground, aerial = (torch.from_numpy(rows.astype(np.float32).astype(np.float64)) for rows in (first, second))
    ground.requires_grad_()
    log_scale = torch.tensor(np.log(scale), dtype=torch.float64, requires_grad=True)
    loss = info_nce(F.normalize(ground), F.normalize(aerial), log_scale, smoothing)
    torch.autograd.backward(loss)
    assert loss.item() == pytest.approx(expected["loss"], rel=1e-6)
    assert log_scale.grad is not None
    assert ground.grad is not None
    assert log_scale.grad.item() == pytest.approx(expected["d_loss_d_log_scale"], rel=1e-6)
    assert ground.grad.norm().item() == pytest.approx(expected["grad_a_norm"], rel=1e-6)


def test_a_block_is_exported_with_products_of_tokens() -> None:
    torch.manual_seed(0)
    network = convnext((6, 8), (1, 2), layer_scale=0.5).eval()
    blocks = [module for module in network.modules() if isinstance(module, Block)]
    assert len(blocks) == 3
    for block in blocks:
        torch.nn.init.normal_(block.layer_scale)
        features = torch.randn(2, len(block.layer_scale), 5, 7)
        expected = block(features)
        torch.testing.assert_close(block.folded()(features), expected)
