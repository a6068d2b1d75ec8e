"""GeoDTR+ is the official one: its files, embeddings, masks, pixels and losses."""

import json
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import official
import pytest
import torch
from conftest import Outcome
from numpy.typing import NDArray
from official import FIGURES

from geodtr.runtime.errors import CheckpointError
from geodtr.runtime.names import Branch
from geodtr.runtime.spec import Preprocessing
from geodtr.training.losses.contrastive import counterfactual, soft_margin_triplet
from geodtr.training.models.checkpoint import load_checkpoint
from geodtr.training.models.embedder import embedders
from geodtr.training.models.geodtr.geodtr_plus import (
    GeoDTRPlus,
    GeoDTRPlusConfig,
    Mask,
    ResidualConfig,
    orthogonal,
    positions,
)
from geodtr.training.models.importers.base import Network
from geodtr.training.models.importers.geodtr_plus import (
    AERIAL_POLAR,
    AERIAL_SQUARE,
    GROUND,
    VIGOR_AERIAL,
    VIGOR_GROUND,
)
from geodtr.training.models.importers.official import find_parameters, import_official
from geodtr.training.models.registry import build_model

SIDES: list[tuple[Branch, str]] = [("aerial", "sat"), ("ground", "grd")]
PARAMETERS = {
    "descriptors": 8,
    "TR_heads": 4,
    "TR_layers": 2,
    "TR_dim": 512,
    "dropout": 0.3,
    "backbone": "convnext",
    "no_polar": False,
    "bottleneck": True,
    "normalize": False,
    "orthogonalize": False,
    "gamma": 10.0,
    "dataset": "CVUSA",
}
EXCEPTIONS: official.Exceptions = {
    "layer_scale": lambda x: 0.3 + 0.1 * x,
    ".w1": lambda x: x / np.sqrt(x.shape[1]),
    ".w2": lambda x: x / np.sqrt(x.shape[1]),
}


def official_weights() -> dict[str, torch.Tensor]:
    return official.state_dict(official.shapes_of("geodtr_plus"), EXCEPTIONS)


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return official.save_release(tmp_path_factory.mktemp("release") / "plus.pth", official_weights(), PARAMETERS)


@pytest.fixture(scope="module")
def model(release: Path) -> GeoDTRPlus:
    imported = import_official(release, find_parameters(release))
    assert isinstance(imported, GeoDTRPlus)
    return imported


def figures() -> dict[str, NDArray[np.float32]]:
    return dict(np.load(FIGURES / "geodtr_plus" / "embeddings.npz"))


def test_the_importer_takes_every_official_key_and_leaves_none_unfilled(model: GeoDTRPlus) -> None:
    assert len(model.state_dict()) == 360
    assert sum(parameter.numel() for parameter in model.parameters()) == 30_192_336
    assert model.config == GeoDTRPlusConfig()
    assert (model.specs["ground"].preprocessing, model.specs["aerial"].preprocessing) == (GROUND, AERIAL_POLAR)


@pytest.mark.parametrize(
    ("config", "ground", "aerial", "count"),
    [
        (GeoDTRPlusConfig(), GROUND, AERIAL_SQUARE, 30_047_696),
        (GeoDTRPlusConfig(), VIGOR_GROUND, VIGOR_AERIAL, 35_526_928),
        (GeoDTRPlusConfig(backbone=ResidualConfig()), GROUND, AERIAL_POLAR, 51_050_000),
    ],
)
def test_the_published_sizes_have_the_published_number_of_parameters(
    config: GeoDTRPlusConfig, ground: Preprocessing, aerial: Preprocessing, count: int
) -> None:
    assert sum(parameter.numel() for parameter in GeoDTRPlus(config, ground, aerial).parameters()) == count


@pytest.mark.parametrize(("branch", "side"), SIDES)
def test_embeddings_and_masks_are_the_official_ones(model: GeoDTRPlus, branch: Branch, side: str) -> None:
    expected = figures()
    images = official.network_input(f"{side}-polar")
    assert images.sum(dtype=np.float64) == pytest.approx(expected[f"{side}_sum"], rel=1e-6)
    network = model.branch(branch)
    with torch.inference_mode():
        features = network.backbone(torch.from_numpy(images)).flatten(2)
        layout = network.layout(features)
        descriptors = network(torch.from_numpy(images)).numpy()
    np.testing.assert_allclose(features[0].mean(dim=1).numpy(), expected[f"feat_{side}0_mean"], atol=1e-5)
    np.testing.assert_allclose(layout[0].numpy(), expected[f"mask_{side}0"], atol=1e-5)
    np.testing.assert_allclose(descriptors, expected[f"synth_{side}"], atol=1e-6)


@pytest.mark.parametrize(("branch", "side", "pixels"), [("aerial", "sat", "polar"), ("ground", "grd", "ground")])
def test_embeddings_of_real_images_are_the_official_ones(
    model: GeoDTRPlus, conformance: Path, branch: Branch, side: str, pixels: str
) -> None:
    expected = np.load(conformance / "geodtr_plus" / "embeddings.npz")[f"real_{side}"]
    images = np.load(conformance / "cvusa_samples_polar.npz")[pixels]
    descriptors = embedders(model)[branch].embed(images)
    np.testing.assert_allclose(descriptors, expected, atol=1e-6)
    assert np.sum(descriptors * expected, axis=1).min() > 0.999999


def test_losses_of_two_views_a_pair_are_the_official_ones() -> None:
    expected = json.loads((FIGURES / "geodtr_plus" / "values.json").read_text())

    def normal(name: str) -> NDArray[np.float64]:
        return np.asarray(official.seeded(name).standard_normal((16, 64)))

    first = normal("chsg-aerial")
    second = first + 0.8 * normal("chsg-aerial-2")
    aerial = _unit(np.concatenate([first, second]))
    ground = _unit(np.concatenate([first + 1.2 * normal("chsg-ground"), second + 1.2 * normal("chsg-ground-2")]))
    fake = _unit(official.seeded("chsg-fake").standard_normal((32, 64)) + 0.8 * aerial.numpy())
    losses = {
        "triplet_two_views": soft_margin_triplet(ground, aerial),
        "triplet_first_view_only": soft_margin_triplet(ground[:16], aerial[:16]),
        "triplet_two_views_hardest_10pct": soft_margin_triplet(ground, aerial, hardest=0.1),
        "counterfactual_aerial": counterfactual(aerial, fake),
    }
    for name, loss in losses.items():
        assert loss.item() == pytest.approx(expected[name], rel=1e-6), name


def _unit(rows: NDArray[np.float64]) -> torch.Tensor:
    return torch.from_numpy(rows / np.linalg.norm(rows, axis=1, keepdims=True))


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("orthogonalize", [False, True])
def test_options_that_shapes_do_not_tell_come_from_the_parameter_file(
    tmp_path: Path, normalize: bool, orthogonalize: bool
) -> None:
    stated = {**PARAMETERS, "TR_heads": 8, "bottleneck": False, "normalize": normalize, "orthogonalize": orthogonalize}
    path = official.save_release(tmp_path / "plus.pth", official_weights(), stated)
    config = import_official(path, find_parameters(path)).config
    mask: Mask = ("orthogonal" if orthogonalize else "normalised") if normalize else "sigmoid"
    assert config == GeoDTRPlusConfig(heads=8, bottleneck=False, mask=mask)


def test_what_no_file_records_is_asked_for_by_name(
    release: Path, refused: Callable[..., str], cli: Callable[..., Outcome], tmp_path: Path
) -> None:
    (tmp_path / "alone").mkdir()
    alone = tmp_path / "alone" / "plus.pth"
    alone.write_bytes(release.read_bytes())
    message = refused("import-checkpoint", alone, "--out", tmp_path / "a.safetensors")
    assert "TR_heads, bottleneck, normalize" in message
    assert "--preset geodtr-plus-cvusa --set model.heads=4" in message
    options = ("--preset", "geodtr-plus-cvusa", "--set", "model.heads=8", "--set", "model.mask=normalised")
    named = cli("import-checkpoint", alone, *options, "--out", tmp_path / "b.safetensors")
    assert named.code == 0, named.err
    assert load_checkpoint(tmp_path / "b.safetensors").model.config == GeoDTRPlusConfig(heads=8, mask="normalised")


@pytest.mark.parametrize(
    "wrong", [{"descriptors": 12}, {"TR_layers": 3}, {"TR_dim": 2048}, {"backbone": "resnet"}, {"no_polar": True}]
)
def test_parameters_that_contradict_the_weights_are_refused(
    release: Path, refused: Callable[..., str], tmp_path: Path, wrong: dict[str, object]
) -> None:
    options = tmp_path / "options.json"
    options.write_text(json.dumps({**PARAMETERS, **wrong}))
    ((name, value),) = wrong.items()
    message = refused("import-checkpoint", release, "--parameters", options, "--out", tmp_path / "m.safetensors")
    assert f"{name} = {value}" in message


def test_a_network_of_another_model_or_size_is_refused(release: Path) -> None:
    with pytest.raises(CheckpointError, match="GeoDTR\\+; the preset describes another model"):
        import_official(release, network=_network("geodtr-cvusa"))
    with pytest.raises(CheckpointError, match="instead of"):
        import_official(release, network=_network("geodtr-plus-cvusa", "model.descriptors=4"))


def _network(preset: str, *settings: str) -> Network:
    from geodtr.training.presets.load import load_preset

    config = load_preset(preset, settings)
    return Network(config.model, config.ground, config.aerial)


@pytest.mark.parametrize("backbone", ["convnext", "residual"])
@pytest.mark.parametrize("layers", [0, 1])
def test_other_configurations_come_out_of_the_release_s_file_format(tmp_path: Path, backbone: str, layers: int) -> None:
    small = _network("world-geodtr-plus").config
    assert isinstance(small, GeoDTRPlusConfig)
    thin = ResidualConfig(widths=(8, 8, 8, 16), blocks=(1, 2, 1, 1)) if backbone == "residual" else small.backbone
    config = msgspec.structs.replace(small, backbone=thin, layers=layers, descriptors=3, heads=2, feed_forward=24)
    built = build_model(config, GROUND, AERIAL_SQUARE).eval()
    stated = {
        "TR_heads": 2,
        "TR_layers": layers,
        "dropout": 0.0,
        "bottleneck": True,
        "normalize": False,
        "backbone": "resnet" if backbone == "residual" else "convnext",
    }
    path = official.save_release(tmp_path / "other.pth", _official_names(built.state_dict()), stated)
    imported = import_official(path, find_parameters(path))
    assert imported.specs == built.specs
    images = np.random.default_rng(0).integers(0, 256, (1, 122, 671, 3), np.uint8)
    np.testing.assert_array_equal(embedders(imported).ground.embed(images), embedders(built).ground.embed(images))


def _official_names(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The release's names, written apart from the importer."""
    renamed = {}
    for name, tensor in weights.items():
        branch, part, rest = name.split(".", 2)
        side = {"ground": "grd", "aerial": "sat"}[branch]
        if part == "layout":
            rest = "pe.pe" if rest == "position" else f"transformer_{rest}" if rest.startswith("encoder.") else rest
        renamed[f"{'backbone' if part == 'backbone' else 'GLE'}_{side}.{rest}"] = tensor
    return renamed


def test_orthogonal_layouts_are_the_q_of_lapack() -> None:
    columns = torch.from_numpy(official.seeded("columns").standard_normal((3, 41, 8)))
    torch.testing.assert_close(orthogonal(columns), torch.linalg.qr(columns).Q, rtol=0, atol=1e-12)


def test_the_grids_are_the_published_ones() -> None:
    backbone = GeoDTRPlusConfig().backbone
    sizes = (GROUND, AERIAL_SQUARE, VIGOR_AERIAL, VIGOR_GROUND)
    assert [positions(backbone, how) for how in sizes] == [287, 256, 400, 800]
    assert positions(ResidualConfig(), GROUND) == 336
