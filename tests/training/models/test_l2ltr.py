"""L2LTR is the official one: its files, pixels, layers, embeddings, loss and schedule."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import official
import pytest
import torch
from conftest import Outcome
from official import FIGURES
from torch import Tensor, nn

from geodtr.runtime.errors import CheckpointError
from geodtr.runtime.images.preprocess import load_image
from geodtr.runtime.names import Branch
from geodtr.training.data.spec import read_test_set
from geodtr.training.losses.contrastive import soft_margin_triplet
from geodtr.training.models.checkpoint import load_checkpoint
from geodtr.training.models.embedder import embedders
from geodtr.training.models.importers.base import Network
from geodtr.training.models.importers.l2ltr import L2LTRImporter
from geodtr.training.models.importers.official import import_official
from geodtr.training.models.l2ltr import L2LTR, L2LTRBranch, L2LTRConfig
from geodtr.training.models.registry import outline
from geodtr.training.presets.load import load_preset
from geodtr.training.trainer import _rate

SIDES: list[tuple[Branch, str]] = [("aerial", "sat"), ("ground", "grd")]
EXCEPTIONS: official.Exceptions = {
    ".attn.query.weight": lambda x: official.scaled(x / np.sqrt(x.shape[1]), 2),
    ".attn.key.weight": lambda x: official.scaled(x / np.sqrt(x.shape[1]), 2),
    "position_embeddings": lambda x: official.scaled(0.02 * x, 25),
    "cls_token": lambda x: official.scaled(0.02 * x, 25),
}
SMALL = L2LTRConfig(stem=32, widths=(128, 128, 256), units=(1, 2, 1), width=64, layers=2, heads=1, feed_forward=32)


def _network(preset: str = "l2ltr-cvusa") -> Network:
    config = load_preset(preset)
    return Network(config.model, config.ground, config.aerial)


GROUND, AERIAL = _network().ground, _network().aerial


def _branch(side: str, layers: int) -> L2LTRBranch:
    """A branch with the official seeded weights, of the first `layers` layers."""
    how = AERIAL if side == "sat" else GROUND
    branch = L2LTRBranch(L2LTRConfig(layers=layers), how)
    importer = L2LTRImporter()
    shapes = {
        name: shape
        for key, shape in official.shapes_of("l2ltr").items()
        if _layer(name := f"model_{side}.{key}") < layers
    }
    weights = official.state_dict(shapes, EXCEPTIONS)
    branch.load_state_dict({importer.rename(name).partition(".")[2]: weight for name, weight in weights.items()})
    return branch.eval()


def _layer(name: str) -> int:
    _, found, rest = name.partition(".encoder.layer.")
    return int(rest.partition(".")[0]) if found else -1


def test_every_official_key_and_shape_has_its_place_and_none_is_left() -> None:
    importer = L2LTRImporter()
    renamed = {
        importer.rename(f"{prefix}.{name}"): shape
        for prefix in ("model_grd", "model_sat")
        for name, shape in official.shapes_of("l2ltr").items()
    }
    network = outline(L2LTRConfig(), GROUND, AERIAL)
    assert renamed == {name: list(tensor.shape) for name, tensor in network.state_dict().items()}
    assert sum(parameter.numel() for parameter in network.parameters()) == 2 * 97_954_624


def test_the_first_layers_compute_what_the_official_ones_do() -> None:
    """The third layer is the first whose keys are older than its input."""
    side = "sat"
    figures = np.load(FIGURES / "l2ltr" / "embeddings.npz")
    images = official.network_input(f"l2ltr-{side}-128x512", 128, 512)
    assert images.sum(axis=(1, 2, 3), dtype=np.float64) == pytest.approx(figures[f"{side}_sum"], rel=1e-6)
    traced = _trace(_branch(side, layers=3), torch.from_numpy(images))
    assert traced == pytest.approx(figures[f"{side}_trace"][: len(traced)], rel=1e-5)


def _trace(branch: L2LTRBranch, images: Tensor) -> list[float]:
    means = list[float]()

    def record(module: nn.Module, inputs: object, output: Tensor) -> None:
        del module, inputs
        means.append(output.abs().mean(dtype=torch.float64).item())

    for module in (branch.backbone.stem, branch.backbone.stages, branch.tokens, *branch.layers):
        module.register_forward_hook(record)
    with torch.inference_mode():
        branch(images)
    return means


@pytest.mark.slow  # 196 million weights drawn, and float64 arithmetic
@pytest.mark.parametrize("side", ["sat", "grd"])
def test_embeddings_are_the_official_ones(side: str) -> None:
    figures = np.load(FIGURES / "l2ltr" / "embeddings.npz")
    network = _branch(side, layers=12)
    images = torch.from_numpy(official.network_input(f"l2ltr-{side}-128x512", 128, 512))
    expected = torch.from_numpy(figures[f"{side}_embedding"])
    with torch.inference_mode():
        single = network(images)
        torch.testing.assert_close(single, expected, rtol=0, atol=5e-5)
        assert (single * expected).sum(dim=1).min() > 0.99999
        double = network.double()(images.double())
    torch.testing.assert_close(double, expected.double(), rtol=0, atol=1e-7)
    assert _trace(network, images.double()) == pytest.approx(figures[f"{side}_trace"], rel=1e-5)


@pytest.mark.slow  # as above, for the whole file
def test_a_whole_file_is_imported_and_embeds_real_images_as_the_official_code(
    conformance: Path, cvusa_sample: Path, tmp_path: Path
) -> None:
    weights = {
        side: official.state_dict(
            {f"{side}.{name}": shape for name, shape in official.shapes_of("l2ltr").items()}, EXCEPTIONS
        )
        for side in ("model_grd", "model_sat")
    }
    path = _save(tmp_path / "model_checkpoint.pth", weights["model_grd"] | weights["model_sat"])
    model = import_official(path, network=_network())
    figures = np.load(conformance / "l2ltr" / "embeddings.npz")
    pairs = read_test_set(f"cvusa:{cvusa_sample}")
    for branch, side in SIDES:
        images = np.stack([load_image(file, model.specs[branch].preprocessing) for file in pairs.paths(branch)])
        descriptors = embedders(model)[branch].embed(images)
        np.testing.assert_allclose(descriptors, figures[f"{side}_real_embedding"], atol=5e-5)


@pytest.mark.parametrize(("branch", "side", "name"), [("aerial", "sat", "polar"), ("ground", "grd", "ground")])
def test_pixels_of_real_images_are_the_official_ones(
    conformance: Path, cvusa_sample: Path, branch: Branch, side: str, name: str
) -> None:
    how = GROUND if branch == "ground" else AERIAL
    images = np.stack([load_image(path, how) for path in read_test_set(f"cvusa:{cvusa_sample}").paths(branch)])
    np.testing.assert_array_equal(images[:2], np.load(conformance / "l2ltr" / "pixels.npz")[name])
    figures = np.load(conformance / "l2ltr" / "embeddings.npz")
    assert images.sum(axis=(1, 2, 3), dtype=np.int64).tolist() == figures[f"{side}_real_pixel_sum"].tolist()


def test_the_loss_is_the_official_one_but_for_its_constant() -> None:
    """The release adds ln 2 for each pair with itself, and divides by the batch size of training in validation too."""
    expected = json.loads((FIGURES / "l2ltr" / "losses.json").read_text())
    aerial, ground = torch.from_numpy(np.load(FIGURES / "losses_recall.npz")["vecs"][:2].astype(np.float64))
    for pairs, name in ((16, "triplet_with_diagonal"), (10, "triplet_with_diagonal_last_batch_of_10")):
        loss = soft_margin_triplet(ground[:pairs], aerial[:pairs]).item()
        with_diagonal = (loss * pairs * (pairs - 1) + pairs * np.log(2)) / (16 * 15)
        assert with_diagonal == pytest.approx(expected[name], rel=1e-6)


def test_the_schedule_is_the_official_one() -> None:
    recipe = load_preset("l2ltr-cvusa").recipe
    total = recipe.epochs * 1110
    assert _rate(0, total, recipe) == 0
    assert _rate(250, total, recipe) == 0.5
    assert _rate(500, total, recipe) == 1
    for step in (777, 100_000, total - 1):
        expected = 0.5 * (1 + np.cos(np.pi * (step - 500) / (total - 500)))
        assert _rate(step, total, recipe) == pytest.approx(expected, rel=1e-9)


def test_what_no_file_records_is_asked_for_by_name(
    tmp_path: Path, refused: Callable[..., str], cli: Callable[..., Outcome]
) -> None:
    path = _save(tmp_path / "model_checkpoint.pth", _small())
    message = refused("import-checkpoint", path, "--out", tmp_path / "a.safetensors")
    assert "--preset l2ltr-cvusa or --preset l2ltr-cvact" in message
    assert '--set "model.widths=[128, 128, 256]" --set "model.units=[1, 2, 1]"' in message
    sizes = [
        part
        for name in ("stem", "widths", "units", "width", "layers", "heads", "feed_forward")
        for value in [getattr(SMALL, name)]
        for part in ("--set", f"model.{name}={list(value) if isinstance(value, tuple) else value}")
    ]
    out = tmp_path / "b.safetensors"
    named = cli("import-checkpoint", path, "--preset", "l2ltr-cvusa-square", *sizes, "--out", out)
    assert named.code == 0, named.err
    loaded = load_checkpoint(out).model
    assert loaded.config == SMALL
    assert not loaded.specs["aerial"].preprocessing.polar


def test_half_a_file_and_strange_keys_are_refused(tmp_path: Path) -> None:
    weights = _small()
    network = Network(SMALL, GROUND, AERIAL)
    half = {name: tensor for name, tensor in weights.items() if name.startswith("model_grd.")}
    with pytest.raises(CheckpointError, match=r"no aerial\.tokens\.position"):
        import_official(_save(tmp_path / "half.pth", half))
    weights["model_sat.transformer.head.weight"] = torch.zeros(2, 64)
    with pytest.raises(CheckpointError, match=r"aerial\.head\.weight is unexpected"):
        import_official(_save(tmp_path / "more.pth", weights), network=network)


def test_a_transformer_without_a_residual_network_is_refused_by_name(
    tmp_path: Path, refused: Callable[..., str]
) -> None:
    """`--model_type ViT-B_16` of the release: patches of 16 pixels, as many positions as of R50-ViT-B_16."""
    rest = {name: tensor for name, tensor in _small().items() if ".hybrid_model." not in name}
    embedding = "transformer.embeddings.patch_embeddings.weight"
    plain = {f"model_{side}.{embedding}": torch.zeros(64, 3, 16, 16) for _, side in SIDES}
    message = refused("import-checkpoint", _save(tmp_path / "m.pth", rest | plain), "--out", tmp_path / "m.safetensors")
    assert "without a residual network" in message


def test_cvact_s_panoramas_are_shrunk_by_area_or_whole() -> None:
    """With polar tiles the release reads the images of DSM's preparation; without, the panoramas themselves."""
    polar, square = _network("l2ltr-cvact").ground, _network("l2ltr-cvusa-square").ground
    assert (polar.rows, polar.resize) == ((0.25, 0.75), "area")
    assert square.rows == (0, 1)


def _save(path: Path, weights: dict[str, Tensor]) -> Path:
    """A file as the official script writes it: two state dicts, and the optimiser's."""
    parts: dict[str, dict[str, Tensor]] = {}
    for name, tensor in weights.items():
        part, _, rest = name.partition(".")
        parts.setdefault(part, {})[rest] = tensor
    torch.save({**parts, "optimizer": {"state": {}, "param_groups": []}}, path)
    return path


def _small() -> dict[str, Tensor]:
    """A small network's weights under the release's names, written apart from the importer."""
    inner = {
        "tokens.position": "embeddings.position_embeddings",
        "tokens.learned": "embeddings.cls_token",
        "tokens.embedding": "embeddings.patch_embeddings",
        "backbone.stem.0": "embeddings.hybrid_model.root.conv",
        "backbone.stem.1": "embeddings.hybrid_model.root.gn",
        "norm": "encoder.encoder_norm",
        "attention_norm": "attention_norm_1",
        "keys_norm": "attention_norm_2",
        "feed_forward_norm": "ffn_norm",
        "feed_forward.0": "ffn.fc1",
        "feed_forward.3": "ffn.fc2",
        "norm1": "gn1",
        "norm2": "gn2",
        "norm3": "gn3",
        "projection": "downsample",
        "projection_norm": "gn_proj",
    }
    renamed = {}
    for name, tensor in L2LTR(SMALL, GROUND, AERIAL).state_dict().items():
        branch, _, rest = name.partition(".")
        path, _, last = rest.rpartition(".")
        prefix = ""
        if path.startswith("backbone.stages."):
            _, _, stage, unit, path = path.split(".")
            prefix = f"embeddings.hybrid_model.body.block{int(stage) + 1}.unit{int(unit) + 1}."
        elif path.startswith("layers."):
            _, layer, path = path.split(".", 2)
            prefix = f"encoder.layer.{layer}."
            path = path.replace("attention.", "attn.")
        key = inner[rest] if rest in inner else f"{prefix}{inner.get(path, path)}.{last}"
        renamed[f"model_{'grd' if branch == 'ground' else 'sat'}.transformer.{key}"] = tensor
    return renamed
