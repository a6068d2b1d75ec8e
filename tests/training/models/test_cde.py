"""CDE's retrieving half is the official one: its files, pixels, embeddings and spectral norms."""

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

from geodtr.runtime.errors import CheckpointError, ConfigError
from geodtr.runtime.images.polar import polar_transform
from geodtr.runtime.images.preprocess import load_image
from geodtr.runtime.names import Branch
from geodtr.training.data.spec import read_test_set
from geodtr.training.models.cde import AveragedConv, Cde, SpectralConv
from geodtr.training.models.checkpoint import load_checkpoint
from geodtr.training.models.embedder import embedders
from geodtr.training.models.importers.base import Network
from geodtr.training.models.importers.official import import_official
from geodtr.training.models.registry import build_model
from geodtr.training.presets.load import load_preset

SIDES: list[tuple[Branch, str]] = [("aerial", "sat"), ("ground", "grd")]
PARTS = {"generator": "generator_model_dict", "retrieval": "retriebal_model_dict"}

Parts = dict[str, dict[str, torch.Tensor]]


def weights_of(shapes: dict[str, list[int]]) -> Parts:
    """The official weights by part."""
    return {
        file: official.spectral_state_dict(
            {name.removeprefix(f"{part} "): shape for name, shape in shapes.items() if name.startswith(f"{part} ")}
        )
        for part, file in PARTS.items()
    }


def save(path: Path, parts: Parts) -> Path:
    """As the release's script leaves it, trained on GPUs."""
    named = {part: {f"module.{name}": tensor for name, tensor in state.items()} for part, state in parts.items()}
    torch.save({"last_epoch": 7, "best_acc": 0.5, "optimizer_G_dict": {}, **named}, path)
    return path


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("release") / "rgan_best_ckpt.pth", weights_of(official.shapes_of("cde")))


def network(preset: str) -> Network:
    config = load_preset(preset)
    return Network(config.model, config.ground, config.aerial)


@pytest.fixture(scope="module")
def model(release: Path) -> Cde:
    imported = import_official(release, network=network("cde-cvusa"))
    assert isinstance(imported, Cde)
    return imported


def test_the_importer_takes_every_official_key_but_the_decoder_s(model: Cde) -> None:
    decoder = ("attention2.", "deconv", "conv_end.", "in1_d.", "in2_d.", "in3_d.")
    taken = [name for name in official.shapes_of("cde") if not name.removeprefix("generator ").startswith(decoder)]
    assert len(model.state_dict()) == len(taken)
    retrieving = [parameter for name, parameter in model.named_parameters() if not name.startswith("aerial.backbone")]
    assert sum(parameter.numel() for parameter in retrieving) == 26_789_520


@pytest.mark.parametrize(("branch", "side"), SIDES)
def test_embeddings_are_the_official_ones(model: Cde, branch: Branch, side: str) -> None:
    figures = np.load(FIGURES / "cde" / "embeddings.npz")
    images = official.network_input(f"{side}-112x616", 112, 616)
    assert images.sum(dtype=np.float64) == pytest.approx(figures[f"{side}_sum"], rel=1e-6)
    with torch.inference_mode():
        np.testing.assert_allclose(
            model.branch(branch)(torch.from_numpy(images)), figures[f"synth_{side}"], rtol=0, atol=1e-6
        )
        if branch == "aerial":
            means = model.aerial.backbone(torch.from_numpy(images)).mean(dim=(2, 3))
            np.testing.assert_allclose(means, figures["synth_sat_feature_mean"], rtol=0, atol=1e-5)


def test_pixels_and_embeddings_of_real_images_are_the_official_ones(
    model: Cde, conformance: Path, cvusa_sample: Path
) -> None:
    figures = np.load(conformance / "cde" / "embeddings.npz")
    pairs = read_test_set(f"cvusa:{cvusa_sample}").pairs
    tile = load_preset("geodtr-cvusa-square", ["aerial.height=750", "aerial.width=750"]).aerial
    polar = [polar_transform(load_image(pair.aerial, tile), 224, 1232) for pair in pairs]
    assert [zlib.crc32(image.tobytes()) for image in polar] == figures["real_polar_224x1232_crc"].tolist()
    for branch, side in SIDES:
        how = model.specs[branch].preprocessing
        images = np.stack([load_image(getattr(pair, branch), how) for pair in pairs])
        apart = np.abs(images[0].astype(int) - figures[f"real_{side}_u8_first"][0])
        assert apart.max() <= 1
        assert (apart != 0).mean() <= 0.03
        descriptors = embedders(model)[branch].embed(images)
        np.testing.assert_allclose(descriptors, figures[f"real_{side}"], rtol=0, atol=1e-3)
        images[0] = figures[f"real_{side}_u8_first"][0]
        same = embedders(model)[branch].embed(images[:1])
        np.testing.assert_allclose(same, figures[f"real_{side}"][:1], rtol=0, atol=1e-6)


def test_a_kernel_is_divided_by_its_largest_singular_value() -> None:
    torch.manual_seed(0)
    convolution = SpectralConv(8, 16, 3).train()
    images = torch.randn(2, 8, 6, 10)
    for _ in range(60):  # each value of the weights is one step of the power iteration
        with torch.no_grad():
            convolution.weight.add_(0)
        first = convolution(images)
        torch.testing.assert_close(convolution(images), first, rtol=0, atol=0)
    largest = torch.linalg.matrix_norm(convolution.weight.detach().flatten(1), 2)
    expected = F.conv2d(F.pad(images, (1, 1, 1, 1), mode="reflect"), convolution.weight / largest, convolution.bias)
    torch.testing.assert_close(convolution(images), expected, rtol=1e-3, atol=1e-5)
    convolution.eval()
    torch.testing.assert_close(convolution.folded()(images), convolution(images))


@pytest.mark.parametrize("size", [1, 3])
def test_a_convolution_and_its_means_are_exported_as_one_convolution(size: int) -> None:
    torch.manual_seed(0)
    convolution = AveragedConv(4, 6, size).eval()
    assert convolution.bias is not None
    torch.nn.init.normal_(convolution.bias)
    for height, width in ((6, 10), (7, 9)):
        images = torch.randn(2, 4, height, width)
        torch.testing.assert_close(convolution.folded()(images), convolution(images))


def test_how_panoramas_are_cut_must_be_named(cli: Callable[..., Outcome], tmp_path: Path) -> None:
    sizes = {32: 8, 64: 8, 128: 12, 256: 16}
    derived = (".weight_u", ".weight_v")
    shapes = {
        name: [sizes.get(side, side) for side in shape]
        for name, shape in official.shapes_of("cde").items()
        if not name.endswith(derived)
    }
    release = save(tmp_path / "small.pth", weights_of(shapes))
    unnamed = cli("import-checkpoint", release, "--out", tmp_path / "a.safetensors")
    assert unnamed.code == 2
    message = " ".join(unnamed.err.split())
    assert "--preset cde-cvusa or --preset cde-cvact" in message
    settings = ("model.begin=8", "model.encoder=[8,12,16]", "model.widths=[8,12,16]")
    options = [option for setting in settings for option in ("--set", setting)]
    named = cli("import-checkpoint", release, "--preset", "cde-cvact", *options, "--out", tmp_path / "a.safetensors")
    assert named.code == 0, named.err
    loaded = load_checkpoint(tmp_path / "a.safetensors").info
    assert (loaded.ground.rows, loaded.aerial.stretch, loaded.aerial.polar_scale) == ((0.25, 0.75), True, 1)


def test_another_file_and_another_network_are_refused(release: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="is a checkpoint of CDE; the preset describes another model"):
        import_official(release, network=network("safa-cvusa"))
    generator = {"generator_model_dict": {"begin_conv.bias": torch.zeros(32)}, "retriebal_model_dict": {}}
    with pytest.raises(CheckpointError, match=r"not a whole checkpoint of CDE: .* no ground\.layout\.w1"):
        import_official(save(tmp_path / "part.pth", generator))
    for settings, expected in (
        (("aerial.polar=false", "aerial.polar_scale=1"), "needs it polar-transformed"),
        (("model.encoder=[8,8,8]",), "Make them equal"),
    ):
        config = load_preset("world-cde", settings)
        with pytest.raises(ConfigError, match=expected):
            build_model(config.model, config.ground, config.aerial)
