"""SAFA is the form of GeoDTR's group: its files, embeddings and counterfactual descriptors."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import official
import pytest
import torch
from conftest import Outcome
from official import FIGURES
from torch import Tensor
from torchvision.models import vgg16

from geodtr.runtime.errors import CheckpointError
from geodtr.runtime.names import Branch
from geodtr.training.models.checkpoint import load_checkpoint
from geodtr.training.models.embedder import embedders
from geodtr.training.models.importers.geodtr import AERIAL_POLAR, AERIAL_SQUARE, GROUND
from geodtr.training.models.importers.official import find_parameters, import_official
from geodtr.training.models.registry import build_model
from geodtr.training.models.safa import Safa, SafaConfig
from geodtr.training.presets.load import load_preset
from geodtr.training.pretrained.weights import first_weights

SIDES: list[tuple[Branch, str]] = [("aerial", "sat"), ("ground", "grd")]
PARAMETERS = {"model": "SAFA_vgg", "SAFA_heads": 8, "no_polar": False, "dataset": "CVUSA"}


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    weights = official.state_dict(official.shapes_of("safa"))
    return official.save_release(tmp_path_factory.mktemp("release") / "safa.pth", weights, PARAMETERS)


@pytest.fixture(scope="module")
def model(release: Path) -> Safa:
    imported = import_official(release, find_parameters(release))
    assert isinstance(imported, Safa)
    return imported


def test_the_importer_takes_every_official_key_and_leaves_none_unfilled(model: Safa) -> None:
    assert len(model.state_dict()) == 60
    assert sum(parameter.numel() for parameter in model.parameters()) == 30_749_568
    assert model.config == SafaConfig()
    assert (model.specs["ground"].preprocessing, model.specs["aerial"].preprocessing) == (GROUND, AERIAL_POLAR)


@pytest.mark.parametrize(("branch", "side"), SIDES)
def test_embeddings_are_the_official_ones(model: Safa, branch: Branch, side: str) -> None:
    figures = np.load(FIGURES / "safa" / "embeddings.npz")
    images = torch.from_numpy(official.network_input(f"{side}-polar"))
    network = model.branch(branch)

    def imagined(shape: Sequence[int]) -> Tensor:
        drawn = official.seeded(f"safa-fake-{side}").uniform(-1, 1, (2, *shape))
        return torch.from_numpy(((drawn + 1) / 2).astype(np.float32))

    with torch.inference_mode():
        features = network.backbone(images).flatten(2)
        layout = network.layout(features)
        descriptors, fake = network.with_counterfactual(images, imagined)
        torch.testing.assert_close(network(images), descriptors)
    assert features.abs().mean(dim=(1, 2)).numpy() == pytest.approx(figures[f"{side}_feature_mean_abs"], rel=1e-5)
    np.testing.assert_allclose(layout.numpy(), figures[f"{side}_mask"], atol=1e-5)
    np.testing.assert_allclose(descriptors.numpy(), figures[f"{side}_embedding"], atol=1e-6)
    np.testing.assert_allclose(fake.numpy(), figures[f"fake_{side}_embedding"], atol=1e-6)


@pytest.mark.parametrize(("branch", "side", "pixels"), [("aerial", "sat", "polar"), ("ground", "grd", "ground")])
def test_embeddings_of_real_images_are_the_official_ones(
    model: Safa, conformance: Path, branch: Branch, side: str, pixels: str
) -> None:
    figures = np.load(conformance / "safa" / "embeddings.npz")
    images = np.load(conformance / "cvusa_samples_polar.npz")[pixels]
    assert images.sum(axis=(1, 2, 3), dtype=np.int64).tolist() == figures[f"real_{side}_pixel_sum"].tolist()
    descriptors = embedders(model)[branch].embed(images)
    np.testing.assert_allclose(descriptors, figures[f"real_{side}_embedding"], atol=1e-6)


def test_the_normalisation_that_no_file_records_is_assumed_with_a_warning_or_named(
    release: Path, cli: Callable[..., Outcome], tmp_path: Path
) -> None:
    assumed = cli("import-checkpoint", release, "--out", tmp_path / "a.safetensors")
    assert assumed.code == 0, assumed.err
    assert "mean and std 0.5 were assumed" in assumed.err
    named = cli(
        "import-checkpoint",
        release,
        "--preset",
        "safa-cvusa",
        *(part for branch in ("ground", "aerial") for part in ("--set", f"{branch}.mean=[0.485, 0.456, 0.406]")),
        "--out",
        tmp_path / "b.safetensors",
    )
    assert named.code == 0, named.err
    assert load_checkpoint(tmp_path / "b.safetensors").info.ground.mean == (0.485, 0.456, 0.406)


def test_a_square_model_is_recognised_by_its_shapes_and_contradictions_are_refused(tmp_path: Path) -> None:
    config = SafaConfig(descriptors=3, widths=(4, 4, 4, 8, 8))
    weights = {
        name.replace("ground.", "backbone_grd.0." if "backbone" in name else "spatial_aware_grd.")
        .replace("aerial.", "backbone_sat.0." if "backbone" in name else "spatial_aware_sat.")
        .replace(".backbone", "")
        .replace(".layout", ""): tensor
        for name, tensor in Safa(config, GROUND, AERIAL_SQUARE).state_dict().items()
    }
    path = official.save_release(tmp_path / "square.pth", weights, {"SAFA_heads": 3, "no_polar": True})
    imported = import_official(path, find_parameters(path))
    assert imported.config == config
    assert imported.specs["aerial"].preprocessing == AERIAL_SQUARE
    official.save_release(path, weights, {"SAFA_heads": 3, "no_polar": False})
    with pytest.raises(CheckpointError, match="no_polar = False"):
        import_official(path, find_parameters(path))


def test_imagenet_weights_fill_both_backbones(tmp_path: Path) -> None:
    torch.manual_seed(0)
    reference = vgg16(weights=None).eval()
    torch.save(reference.state_dict(), tmp_path / "vgg16.pth")
    config = load_preset("safa-cvusa", [f"recipe.pretrained={tmp_path / 'vgg16.pth'}"])
    model = build_model(config.model, config.ground, config.aerial)
    assert isinstance(model, Safa)
    model.load_state_dict(dict(first_weights(config)), strict=False)
    images = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        expected = reference.features[:-1](images)
        for branch in (model.ground, model.aerial):
            torch.testing.assert_close(branch.backbone.eval()(images), expected)
