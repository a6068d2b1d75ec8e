"""FusionGAN is its release's stages in a row: files, generator, streams, fusion, loss. There are no figures of it."""

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import Outcome
from numpy.typing import NDArray
from official import seeded
from safetensors.torch import save_file
from tensorflow_file import save_tensorflow
from torch import Tensor

from geodtr.runtime.errors import CheckpointError, ConfigError
from geodtr.runtime.names import BRANCHES
from geodtr.training.losses.contrastive import soft_margin_triplet
from geodtr.training.models.checkpoint import load_checkpoint
from geodtr.training.models.embedder import embedders
from geodtr.training.models.fusiongan import FusionGan, Step, TwoStream, TwoStreamConfig, resize_matrix
from geodtr.training.models.importers.base import Network
from geodtr.training.models.importers.fusiongan import AERIAL, GROUND
from geodtr.training.models.importers.official import import_official
from geodtr.training.models.registry import build_model, outline
from geodtr.training.pair_images import PairBatch
from geodtr.training.parallel.distributed import Ranks
from geodtr.training.presets.load import load_preset
from geodtr.training.pretrained.weights import first_weights
from geodtr.training.trainer import Trainer

BLUE_FIRST = (103.939, 116.779, 123.6)
WIDTHS, DRAWS, SIZE = (4, 5, 6, 7, 8), (4, 5, 6, 7), 9
SMALL = (
    f"model.widths={list(WIDTHS)}",
    f"model.generator={list(DRAWS)}",
    f"model.descriptor_size={SIZE}",
)
BASELINE = ("model.name=fusiongan-two-stream", "recipe.batch_size=30")
Variables = dict[str, NDArray[Any]]


def streams(names: tuple[str, ...], widths: tuple[int, ...], features: dict[str, int], size: int) -> Variables:
    """As TensorFlow's Saver leaves them, with what only training needs."""
    shapes: dict[str, tuple[int, ...]] = {}
    for stream in names:
        for number, (width_in, width) in enumerate(pairwise((3, *widths)), 1):
            shapes |= {f"{stream}/conv{number}/weights": (4, 4, width_in, width)}
            shapes |= {f"{stream}/conv{number}/biases": (width,)}
    for layer, count in features.items():
        shapes |= {f"dim_reduction/{layer}/weights": (count, size), f"dim_reduction/{layer}/biases": (size,)}
    extra = {"train/beta1_power": np.float32(0.9), "Variable": np.int32(7), "VGG_grd/conv1/biases/Adam_1": np.ones(4)}
    return {**drawn(shapes), **{name: np.asarray(value, np.float32) for name, value in extra.items()}}


def drawn(shapes: dict[str, tuple[int, ...]]) -> Variables:
    return {name: np.asarray(seeded(name).normal(0, 0.2, shape), np.float32) for name, shape in shapes.items()}


def generator(channels: int = 3, widths: tuple[int, ...] = DRAWS) -> dict[str, Tensor]:
    """X-Fork's first output, channels as in the release's file: blue first."""
    weights = dict[str, Tensor]()
    for part, pairs in (("encoder", pairwise((channels, *widths))), ("decoder", pairwise((*reversed(widths), 3)))):
        for number, (width_in, width) in enumerate(pairs):
            shape = (width, width_in, 4, 4) if part == "encoder" else (width_in, width, 4, 4)
            shapes = {"conv.weight": shape, "conv.bias": (width,)}
            if (part, number) not in (("encoder", 0), ("decoder", len(widths) - 1)):
                shapes |= {f"norm.{name}": (width,) for name in ("weight", "bias", "running_mean", "running_var")}
            for name, values in drawn({f"{part}.{number}.{name}": shape for name, shape in shapes.items()}).items():
                weights[name] = torch.from_numpy(np.abs(values) + 0.1 if name.endswith("var") else values)
    return weights


def of_streams() -> Variables:
    """Of an eighth of the release's sizes: the last three layers have as many positions, odd sides in front of them."""
    features = {"fc1": 64 * 6 + 16 * 7 + 4 * 8, "fc2": 80 * 6 + 20 * 7 + 5 * 8}
    return streams(("VGG_grd", "VGG_sat", "VGG_grd_seg"), WIDTHS, features, SIZE)


def of_fusion(size: int = SIZE) -> Variables:
    shapes = {f"fc/fc{number}/weights": (number * size, size) for number in (1, 2)}
    return drawn({**shapes, "fc/fc1/biases": (size,), "fc/fc2/biases": (size,)})


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    root = tmp_path_factory.mktemp("release")
    save_file(generator(), root / "generator.safetensors")
    return [
        save_tensorflow(root / "fusion.ckpt", of_fusion()),
        save_tensorflow(root / "joint.ckpt", of_streams()),
        root / "generator.safetensors",
    ]


def network(preset: str, *settings: str) -> Network:
    config = load_preset(preset, settings)
    return Network(config.model, config.ground, config.aerial)


@pytest.fixture(scope="module")
def model(files: list[Path]) -> FusionGan:
    imported = import_official(files[0], network=network("world-fusiongan", *SMALL), more=files[1:])
    assert isinstance(imported, FusionGan)
    return imported


def same(features: Tensor, kernels: Tensor, bias: Tensor) -> Tensor:
    """TensorFlow's SAME convolution of stride 2, [B, H, W, C]: of the zeros that are needed, half go before."""
    pads = [max(0, (-(-side // 2) - 1) * 2 + 4 - side) for side in features.shape[1:3]]
    (top, bottom), (left, right) = ((pad // 2, pad - pad // 2) for pad in pads)
    padded = F.pad(features.permute(0, 3, 1, 2), (left, right, top, bottom))
    return F.conv2d(padded, kernels.permute(3, 2, 0, 1), bias, stride=2).permute(0, 2, 3, 1)


def described(levels: Tensor, stream: str, layer: str, weights: dict[str, Tensor]) -> Tensor:
    """Levels of blue, green and red [B, H, W, 3] -> unit rows."""
    features, flat = levels - torch.tensor(BLUE_FIRST), list[Tensor]()
    for number in range(1, len(WIDTHS) + 1):
        part = f"{stream}/conv{number}"
        features = same(features, weights[f"{part}/weights"], weights[f"{part}/biases"]).relu()
        flat.append(features.reshape(len(features), -1))
    return linear(torch.cat(flat[-3:], dim=1), f"dim_reduction/{layer}", weights)


def linear(rows: Tensor, layer: str, weights: dict[str, Tensor]) -> Tensor:
    return F.normalize(rows @ weights[f"{layer}/weights"] + weights[f"{layer}/biases"], dim=1)


def scaled(row: NDArray[np.float64], wanted: int) -> NDArray[np.float64]:
    """Torch's image.scale of one row, pixel by pixel."""
    given = len(row)
    result = np.zeros(wanted)
    for place in range(wanted):
        if wanted > given:
            at = place * (given - 1) / (wanted - 1)
            low = max(0, min(int(at), given - 2))
            result[place] = (1 - (at - low)) * row[low] + (at - low) * row[min(low + 1, given - 1)]
        else:
            first, last = place * given / wanted, (place + 1) * given / wanted
            shares = [max(0.0, min(last, pixel + 1) - max(first, pixel)) for pixel in range(given)]
            result[place] = np.dot(shares, row) / sum(shares)
    return result


def drawn_tile(levels: Tensor, weights: dict[str, Tensor]) -> Tensor:
    """Levels of blue, green and red of panoramas -> levels of tiles, as the release's networks of Torch draw them."""
    wide = np.apply_along_axis(scaled, 2, levels.double().numpy() / 255 * 2 - 1, 128)
    features = torch.from_numpy(np.apply_along_axis(scaled, 1, wide, 32)).float().permute(0, 3, 1, 2)

    def normed(part: str, features: Tensor) -> Tensor:
        mean, var, factor, offset = (
            weights[f"{part}.norm.{name}"][:, None, None] for name in ("running_mean", "running_var", "weight", "bias")
        )
        return (features - mean) / (var + 1e-5).sqrt() * factor + offset

    def convolved(part: str, features: Tensor) -> Tensor:
        convolve = F.conv2d if part.startswith("encoder") else F.conv_transpose2d
        return convolve(features, weights[f"{part}.conv.weight"], weights[f"{part}.conv.bias"], stride=2, padding=1)

    features = convolved("encoder.0", features)
    for part in ("encoder.1", "encoder.2", "encoder.3"):
        features = normed(part, convolved(part, F.leaky_relu(features, 0.2)))
    assert features.shape[2:] == (2, 8)
    features = normed("decoder.0", convolved("decoder.0", features.relu().reshape(len(features), -1, 4, 4)))
    features = normed("decoder.1", convolved("decoder.1", features.relu()))
    features = normed("decoder.2", convolved("decoder.2", features))  # the fork has no activation before it
    tiles = convolved("decoder.3", features.relu()).tanh()
    return ((tiles + 1) / 2 * 255).permute(0, 2, 3, 1)


def test_descriptors_are_what_the_stages_make_in_a_row(model: FusionGan) -> None:
    weights = {name: torch.from_numpy(values) for name, values in {**of_fusion(), **of_streams()}.items()}
    random = np.random.default_rng(0)
    panoramas, tiles = (random.integers(0, 256, (2, *size, 3), np.uint8) for size in ((28, 154), (64, 64)))
    blue_first, blue_first_tiles = (torch.from_numpy(images).float().flip(3) for images in (panoramas, tiles))
    aerial = linear(described(blue_first_tiles, "VGG_sat", "fc1", weights), "fc/fc1", weights)
    np.testing.assert_allclose(embedders(model).aerial.embed(tiles), aerial, rtol=0, atol=1e-5)
    ground = described(blue_first, "VGG_grd", "fc2", weights)
    synthesised = described(drawn_tile(blue_first, generator()), "VGG_grd_seg", "fc1", weights)
    query = linear(torch.cat([ground, synthesised], dim=1), "fc/fc2", weights)
    np.testing.assert_allclose(embedders(model).ground.embed(panoramas), query, rtol=0, atol=1e-5)
    assert (query[0] - query[1]).abs().max() > 0.01


@pytest.mark.parametrize(("given", "wanted"), [(224, 256), (1232, 1024), (5, 5), (7, 3), (1, 4)])
def test_panoramas_are_resized_as_torch_does(given: int, wanted: int) -> None:
    row = np.random.default_rng(given).random(given)
    resized = resize_matrix(given, wanted) @ torch.from_numpy(row).float()
    np.testing.assert_allclose(resized, scaled(row, wanted), atol=1e-4)


@pytest.mark.parametrize("normed", [False, True])
def test_a_transposed_convolution_is_exported_as_a_plain_one(normed: bool) -> None:
    torch.manual_seed(0)
    step = Step(torch.nn.ConvTranspose2d(5, 3, 4, stride=2, padding=1), normed=normed).eval()
    assert step.conv.bias is not None
    torch.nn.init.normal_(step.conv.bias)
    if step.norm is not None:
        step.norm.running_mean, step.norm.running_var = torch.randn(3), torch.rand(3) + 0.5
    folded = step.folded()
    assert not any(isinstance(module, torch.nn.ConvTranspose2d) for module in folded.modules())
    for height, width in ((4, 4), (3, 7), (1, 1)):
        features = torch.randn(2, 5, height, width)
        torch.testing.assert_close(folded(features), step(features))


def test_files_of_the_release_s_image_sizes_need_no_preset(tmp_path: Path) -> None:
    """Of three streams without a fusion, two are the network."""
    widths, noticed = (2, 2, 2, 2, 2, 2, 2, 2), list[str]()
    features = {"fc1": 84 * 2, "fc2": 105 * 2}
    for names, notices in ((("VGG_grd", "VGG_sat"), 0), (("VGG_grd", "VGG_sat", "VGG_grd_seg"), 1)):
        file = save_tensorflow(tmp_path / f"{len(names)}.ckpt", streams(names, widths, features, 3))
        imported = import_official(file, notice=noticed.append)
        assert isinstance(imported, TwoStream)
        assert [imported.specs[branch].preprocessing for branch in BRANCHES] == [GROUND, AERIAL]
        assert len(noticed) == notices
    save_file(generator(widths=(2,) * 7), tmp_path / "generator.safetensors")
    fusion = save_tensorflow(tmp_path / "fusion.ckpt", of_fusion(3))
    whole = import_official(fusion, notice=noticed.append, more=[file, tmp_path / "generator.safetensors"])
    assert isinstance(whole, FusionGan)
    assert len(noticed) == 1
    full = load_preset("fusiongan-cvusa")
    assert (full.ground.mean, full.aerial.std) == (GROUND.mean, AERIAL.std)
    assert outline(TwoStreamConfig(), GROUND, AERIAL).config == load_preset("fusiongan-cvusa", BASELINE).model
    shapes = {
        name: tuple(each.shape) for name, each in outline(full.model, full.ground, full.aerial).state_dict().items()
    }
    assert shapes["ground.reduce.weight"] == (1000, 53_760)
    assert shapes["aerial.reduce.weight"] == (1000, 43_008)
    assert shapes["generator.decoder.6.conv.weight"] == (64, 3, 4, 4)


def test_files_are_imported_together_or_refused(
    files: list[Path], tmp_path: Path, cli: Callable[..., Outcome], refused: Callable[..., str]
) -> None:
    out = ("--out", tmp_path / "model.safetensors")
    preset = ["--preset", "world-fusiongan", *(word for each in SMALL for word in ("--set", each))]
    fusion, joint, draws = files
    message = " ".join(refused("import-checkpoint", fusion, joint, *preset, *out).split())
    assert "there is none of the generator" in message
    assert "import-checkpoint FUSION.index STREAMS.index GENERATOR.safetensors" in message
    assert "holds VGG_grd/conv1/weights, which another" in refused("import-checkpoint", *files, joint, *preset, *out)
    assert "describes another model" in refused("import-checkpoint", *files, "--preset", "world-safa", *out)
    save_file(generator(channels=4), tmp_path / "edges.safetensors")
    assert "Canny" in refused("import-checkpoint", fusion, joint, tmp_path / "edges.safetensors", *preset, *out)
    save_file({**generator(), "encoder.0.conv.weight": torch.tensor(0.0)}, tmp_path / "cut.safetensors")
    assert "encoder.0.conv.weight has shape []" in refused(
        "import-checkpoint", fusion, joint, tmp_path / "cut.safetensors", *preset, *out
    )
    imported = cli("import-checkpoint", draws, joint, fusion, *preset, *out)
    assert imported.code == 0, imported.err
    assert load_checkpoint(tmp_path / "model.safetensors").info.origin.endswith("joint.ckpt.index, fusion.ckpt.index")


def batch_of(size: int) -> PairBatch:
    random = np.random.default_rng(0)
    ground, aerial = (
        torch.from_numpy(random.integers(0, 256, (size, *sides, 3), np.uint8)) for sides in ((28, 154), (64, 64))
    )
    return PairBatch(ground, aerial, torch.arange(size))


@pytest.mark.parametrize("micro_batch", [8, 4])
def test_the_loss_is_the_release_s_of_both_stages(micro_batch: int) -> None:
    settings = (*SMALL, "recipe.batch_size=8", f"recipe.micro_batch={micro_batch}", "model.frozen=true")
    trainer = Trainer(load_preset("world-fusiongan", settings), Ranks(), total=10)
    model = trainer.model
    assert isinstance(model, FusionGan)
    trainer.step = 1
    whole = batch_of(8)
    cuts = [slice(start, start + micro_batch) for start in range(0, 8, micro_batch)]
    parts = [PairBatch(whole.ground[cut], whole.aerial[cut], whole.tiles[cut]) for cut in cuts]
    images = trainer._augment(parts)
    ground, aerial = (model.descriptors(branch, torch.cat([each[branch] for each in images])) for branch in BRANCHES)
    expected = soft_margin_triplet(ground[0], aerial[0])
    of_streams = (10 * soft_margin_triplet(ground[1], aerial[1]) + soft_margin_triplet(ground[2], aerial[1])) / 11
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    weights = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    of_the_streams = [name for name in weights if not name.startswith("fuse.")]
    gradients = torch.autograd.grad(of_streams, [weights[name] for name in of_the_streams])
    (loss,), _ = trainer.update(parts, rate=1e-3)
    assert loss == pytest.approx((expected + of_streams).item(), rel=1e-5)
    # The fusion's loss moves the fusion alone.
    scale = max(gradient.abs().max().item() for gradient in gradients)
    factor = None
    for name, gradient in zip(of_the_streams, gradients, strict=True):
        learned = weights[name].grad
        assert learned is not None
        factor = factor or (learned.norm() / gradient.norm()).item()  # the gradients are clipped
        torch.testing.assert_close(learned, factor * gradient, rtol=1e-3, atol=1e-5 * scale, msg=name)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name]) == name.startswith("generator."), name


def test_training_begins_with_a_generator_s_file(tmp_path: Path) -> None:
    settings = (*SMALL, "model.frozen=true")
    with pytest.raises(ConfigError, match=r"recipe\.pretrained=generator\.safetensors"):
        first_weights(load_preset("world-fusiongan", settings))
    save_file(generator(), tmp_path / "generator.safetensors")
    setting = f"recipe.pretrained={tmp_path / 'generator.safetensors'}"
    weights = first_weights(load_preset("world-fusiongan", (*settings, setting)))
    torch.testing.assert_close(weights["generator.encoder.0.conv.weight"].flip(1), generator()["encoder.0.conv.weight"])
    with pytest.raises(CheckpointError, match="does not hold a generator as this model's"):
        first_weights(load_preset("world-fusiongan", (setting,)))


def test_a_generator_of_this_toolkit_is_not_taken_for_a_release_s(
    files: list[Path], model: FusionGan, tmp_path: Path
) -> None:
    """Its colours would be turned around."""
    own = {name: tensor for name, tensor in model.state_dict().items() if name.startswith("generator.")}
    save_file(own, tmp_path / "own.safetensors")
    setting = f"recipe.pretrained={tmp_path / 'own.safetensors'}"
    with pytest.raises(CheckpointError, match=r"takes red first.*recipe\.start="):
        first_weights(load_preset("world-fusiongan", (*SMALL, "model.frozen=true", setting)))
    with pytest.raises(CheckpointError, match=r"own\.safetensors is a checkpoint of this toolkit"):
        import_official(files[0], more=[files[1], tmp_path / "own.safetensors"])


def test_sizes_that_no_tile_has_are_refused() -> None:
    for settings in (("aerial.width=80", "aerial.height=80"), ("aerial.polar=true",), ("aerial.width=96",)):
        config = load_preset("world-fusiongan", (*settings, "recipe.layout=none"))
        with pytest.raises(ConfigError, match="32 must divide their side; aerial is"):
            build_model(config.model, config.ground, config.aerial)
