"""Backbones start from ImageNet weights, from a file of them, or from none; missing weights are reported."""

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torchvision.models import ResNet34_Weights, convnext_base, convnext_tiny, resnet34

from geodtr.runtime.errors import CheckpointError, ConfigError
from geodtr.training.models.checkpoint import save_checkpoint
from geodtr.training.models.geodtr.geodtr import GeoDTR
from geodtr.training.models.registry import build_model
from geodtr.training.presets.load import load_preset
from geodtr.training.pretrained.weights import first_weights


@pytest.fixture(scope="module")
def weights() -> dict[str, torch.Tensor]:
    torch.manual_seed(3)
    state: dict[str, torch.Tensor] = resnet34(weights=None).state_dict()
    return state


def _full_size() -> GeoDTR:
    config = load_preset("geodtr-cvusa")
    model = build_model(config.model, config.ground, config.aerial)
    assert isinstance(model, GeoDTR)
    return model


def _read(preset: str, source: object) -> None:
    first_weights(load_preset(preset, [f"recipe.pretrained={source}"]))


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_file_of_torchvisions_network_fills_both_backbones(
    weights: dict[str, torch.Tensor], tmp_path: Path, suffix: str
) -> None:
    path = tmp_path / f"resnet34{suffix}"
    save_file(weights, path) if suffix == ".safetensors" else torch.save(weights, path)
    model = _full_size()
    config = load_preset("geodtr-cvusa", [f"recipe.pretrained={path}"])
    model.load_state_dict(dict(first_weights(config)), strict=False)
    reference = resnet34(weights=None).eval()
    reference.load_state_dict(weights)
    reference.maxpool = torch.nn.Identity()
    images = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        stem = reference.relu(reference.bn1(reference.conv1(images)))
        expected = reference.layer4(reference.layer3(reference.layer2(reference.layer1(stem))))
        for branch in (model.ground, model.aerial):
            torch.testing.assert_close(branch.backbone.eval()(images), expected)


def test_a_convnext_file_fills_geodtr_plus_and_sample4geo_by_either_name(tmp_path: Path) -> None:
    tiny, base = convnext_tiny(weights=None).state_dict(), convnext_base(weights=None).state_dict()
    torch.save(tiny, tmp_path / "tiny.pth")
    weights = first_weights(load_preset("geodtr-plus-cvusa", [f"recipe.pretrained={tmp_path / 'tiny.pth'}"]))
    last = weights["aerial.backbone.net.5.8.block.5.weight"]
    torch.testing.assert_close(last, tiny["features.5.8.block.5.weight"])
    timm = {
        "stem.0.weight": base["features.0.0.weight"],
        "stages.3.blocks.2.gamma": base["features.7.2.layer_scale"].flatten(),
    }
    torch.save(base, tmp_path / "base.pth")
    weights = first_weights(load_preset("sample4geo-cvusa", [f"recipe.pretrained={tmp_path / 'base.pth'}"]))
    torch.testing.assert_close(weights["encoder.norm.weight"], base["classifier.0.weight"])
    torch.save(timm, tmp_path / "timm.pth")
    with pytest.raises(CheckpointError, match=r"ConvNeXt-B: 340 tensors are missing"):
        _read("sample4geo-cvusa", tmp_path / "timm.pth")


def test_none_brings_no_weights() -> None:
    assert not first_weights(load_preset("world-tiny"))


def test_without_a_network_and_without_a_file_the_error_names_the_remedy(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    # An address at which nothing answers: the real loader meets a real refusal.
    monkeypatch.setattr(ResNet34_Weights.IMAGENET1K_V1.value, "url", "http://127.0.0.1:9/resnet34-b627a593.pth")
    with pytest.raises(ConfigError, match=r"--set recipe\.pretrained=FILE.*--set recipe\.pretrained=none"):
        _read("geodtr-cvusa", "imagenet")


def test_what_is_no_resnet_34_is_refused(weights: dict[str, torch.Tensor], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"only for a ResNet-34, .*the model has another one"):
        _read("world-tiny", "imagenet")
    with pytest.raises(ConfigError, match="allowed are none, imagenet, or an existing file"):
        _read("geodtr-cvusa", tmp_path / "absent.pth")
    (tmp_path / "noise.pth").write_bytes(b"noise")
    with pytest.raises(CheckpointError, match=r"noise\.pth"):
        _read("geodtr-cvusa", tmp_path / "noise.pth")
    (tmp_path / "noise.safetensors").write_bytes(b"noise")
    with pytest.raises(CheckpointError, match=r"noise\.safetensors"):
        _read("geodtr-cvusa", tmp_path / "noise.safetensors")
    torch.save(
        {name: tensor for name, tensor in weights.items() if name != "layer3.0.conv1.weight"}, tmp_path / "p.pth"
    )
    with pytest.raises(CheckpointError, match=r"layers\.5\.0\.conv1\.weight"):
        _read("geodtr-cvusa", tmp_path / "p.pth")


def _deit(seed: int = 0, classes: int = 10) -> dict[str, torch.Tensor]:
    """A small file in DeiT's names: width 32, two layers, a table of 3x3 patches of 16 pixels."""
    shapes = {
        "cls_token": (1, 1, 32),
        "dist_token": (1, 1, 32),
        "pos_embed": (1, 11, 32),
        "patch_embed.proj.weight": (32, 3, 16, 16),
        "patch_embed.proj.bias": (32,),
        **{f"{norm}.{part}": (32,) for norm in ("norm",) for part in ("weight", "bias")},
        **{f"{head}.weight": (classes, 32) for head in ("head", "head_dist")},
        **{f"{head}.bias": (classes,) for head in ("head", "head_dist")},
    }
    for layer in range(2):
        block = f"blocks.{layer}"
        shapes |= {f"{block}.{norm}.{part}": (32,) for norm in ("norm1", "norm2") for part in ("weight", "bias")}
        for name, (rows, columns) in {"attn.qkv": (96, 32), "attn.proj": (32, 32), "mlp.fc1": (64, 32)}.items():
            shapes |= {f"{block}.{name}.weight": (rows, columns), f"{block}.{name}.bias": (rows,)}
        shapes |= {f"{block}.mlp.fc2.weight": (32, 64), f"{block}.mlp.fc2.bias": (32,)}
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}


TRANSGEO = ("model.width=32", "model.layers=2", "model.heads=2", "model.feed_forward=64", "model.patch=16")
SIZES = ("ground.height=32", "ground.width=96", "aerial.height=48", "aerial.width=48")


def test_a_deit_s_file_begins_both_networks_of_transgeo(tmp_path: Path) -> None:
    file = _deit()
    torch.save({"model": file}, tmp_path / "deit.pth")
    settings = (*TRANSGEO, *SIZES, "model.descriptor_size=10", f"recipe.pretrained={tmp_path / 'deit.pth'}")
    config = load_preset("world-transgeo", settings)
    model = build_model(config.model, config.ground, config.aerial)
    model.load_state_dict(dict(first_weights(config)))  # strictly: nothing is left as it was drawn
    weights = model.state_dict()
    torch.testing.assert_close(weights["aerial.tokens.position"], file["pos_embed"])  # 3x3, as in the file
    assert weights["ground.tokens.position"].shape == (1, 2 + 2 * 6, 32)
    torch.testing.assert_close(weights["ground.tokens.position"][:, :2], file["pos_embed"][:, :2])
    torch.testing.assert_close(weights["ground.layers.1.attention.key.weight"], file["blocks.1.attn.qkv.weight"][32:64])
    torch.testing.assert_close(weights["ground.distillation_head.bias"], file["head_dist.bias"])
    other = first_weights(load_preset("world-transgeo", [*settings, "model.descriptor_size=25"]))
    torch.testing.assert_close(other["aerial.distillation_head.weight"][20:], file["head.weight"][:5])


def _hybrid() -> dict[str, NDArray[np.float32]]:
    """A small file in the names of Google's hybrid: two heads of 8, one layer, a table of 4x4."""
    random, arrays = np.random.default_rng(0), {}

    def add(name: str, *shape: int) -> None:
        arrays[name] = random.standard_normal(shape).astype(np.float32)

    add("cls", 1, 1, 16)
    add("embedding/kernel", 1, 1, 16, 16)
    add("embedding/bias", 16)
    add("Transformer/posembed_input/pos_embedding", 1, 17, 16)
    add("conv_root/kernel", 7, 7, 3, 8)
    for part in ("scale", "bias"):
        add(f"gn_root/{part}", 1, 1, 1, 8)
        add(f"Transformer/encoder_norm/{part}", 16)
        for norm in (0, 2):
            add(f"Transformer/encoderblock_0/LayerNorm_{norm}/{part}", 16)
    for block in (1, 2, 3):
        unit, read = f"block{block}/unit1", 8 if block == 1 else 16
        for name, size, inputs, outputs in (("conv1", 1, read, 4), ("conv2", 3, 4, 4), ("conv3", 1, 4, 16)):
            add(f"{unit}/{name}/kernel", size, size, inputs, outputs)
        add(f"{unit}/conv_proj/kernel", 1, 1, read, 16)
        for group_norm, width in (("gn1", 4), ("gn2", 4), ("gn3", 16), ("gn_proj", 16)):
            for part in ("scale", "bias"):
                add(f"{unit}/{group_norm}/{part}", 1, 1, 1, width)
    layer = "Transformer/encoderblock_0"
    for name in ("query", "key", "value"):
        add(f"{layer}/MultiHeadDotProductAttention_1/{name}/kernel", 16, 2, 8)
        add(f"{layer}/MultiHeadDotProductAttention_1/{name}/bias", 2, 8)
    add(f"{layer}/MultiHeadDotProductAttention_1/out/kernel", 2, 8, 16)
    add(f"{layer}/MultiHeadDotProductAttention_1/out/bias", 16)
    for dense, inputs, outputs in ((0, 16, 32), (1, 32, 16)):
        add(f"{layer}/MlpBlock_3/Dense_{dense}/kernel", inputs, outputs)
        add(f"{layer}/MlpBlock_3/Dense_{dense}/bias", outputs)
    add("head/kernel", 16, 5)
    add("pre_logits/bias", 16)
    return arrays


def _save_npz(path: Path, arrays: dict[str, NDArray[np.float32]]) -> None:
    with path.open("wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type] # NumPy's own option is among the names that it may not be


L2LTR_SETTINGS = (
    *("model.stem=8", "model.widths=[16,16,16]", "model.units=[1,1,1]", "model.width=16", "model.layers=1"),
    *("model.heads=2", "model.feed_forward=32", "model.groups=4", "ground.height=64", "ground.width=128"),
    *("aerial.height=64", "aerial.width=64", "aerial.polar=false", "recipe.layout=none"),
)


def test_google_s_file_begins_both_networks_of_l2ltr(tmp_path: Path) -> None:
    file = _hybrid()
    _save_npz(tmp_path / "hybrid.npz", file)
    settings = (*L2LTR_SETTINGS, f"recipe.pretrained={tmp_path / 'hybrid.npz'}")
    config = load_preset("world-l2ltr", settings)
    model = build_model(config.model, config.ground, config.aerial)
    model.load_state_dict(dict(first_weights(config)))  # strictly
    weights = model.state_dict()
    position = file["Transformer/posembed_input/pos_embedding"]
    torch.testing.assert_close(weights["aerial.tokens.position"], torch.from_numpy(position))  # 4x4, as in the file
    # Corners are aligned: of 8 columns the first and the last are the file's.
    ground = weights["ground.tokens.position"][0, 1:].reshape(4, 8, 16)
    torch.testing.assert_close(ground[:, [0, -1]], torch.from_numpy(position[0, 1:].reshape(4, 4, 16)[:, [0, -1]]))
    kernel = file["Transformer/encoderblock_0/MultiHeadDotProductAttention_1/key/kernel"]
    torch.testing.assert_close(
        weights["aerial.layers.0.attention.key.weight"], torch.from_numpy(kernel.reshape(16, 16).T)
    )
    norm = torch.from_numpy(file["Transformer/encoderblock_0/LayerNorm_0/scale"])
    for name in ("attention_norm", "keys_norm"):
        torch.testing.assert_close(weights[f"ground.layers.0.{name}.weight"], norm)
    stem = torch.from_numpy(file["conv_root/kernel"].transpose(3, 2, 0, 1))
    torch.testing.assert_close(weights["ground.backbone.stem.0.weight"], stem)


@pytest.mark.parametrize(
    ("preset", "settings", "named"),
    [
        ("world-transgeo", (*TRANSGEO, *SIZES, "model.descriptor_size=10"), "timm.create_model"),
        ("world-l2ltr", L2LTR_SETTINGS, r"R50\+ViT-B_16\.npz"),
    ],
)
def test_a_transformer_s_weights_that_are_absent_or_others_are_named(
    tmp_path: Path, preset: str, settings: tuple[str, ...], named: str
) -> None:
    for source in ("imagenet", str(tmp_path / "absent")):
        with pytest.raises(ConfigError, match=f"{named}.*--set recipe.pretrained="):
            first_weights(load_preset(preset, [*settings, f"recipe.pretrained={source}"]))
    deit, hybrid = _deit(), _hybrid()
    del deit["blocks.1.norm2.bias"], hybrid["block3/unit1/gn3/bias"]
    torch.save(deit, tmp_path / "less")
    if preset == "world-l2ltr":
        _save_npz(tmp_path / "less", hybrid)
    with pytest.raises(CheckpointError, match=r"holds another network than the model's: 2 tensors are missing"):
        first_weights(load_preset(preset, [*settings, f"recipe.pretrained={tmp_path / 'less'}"]))
    (tmp_path / "noise").write_bytes(b"noise")
    with pytest.raises(CheckpointError, match="noise"):
        first_weights(load_preset(preset, [*settings, f"recipe.pretrained={tmp_path / 'noise'}"]))


def test_a_run_begins_with_the_same_network_after_other_images(tmp_path: Path) -> None:
    """Other imagery and what acts in training alone are no other network; a difference is named with both values."""
    config = load_preset("world-tiny")
    file = tmp_path / "first.safetensors"
    first = build_model(config.model, config.ground, config.aerial)
    save_checkpoint(file, first, "random weights")
    start = f"recipe.start={file}"
    again = load_preset("world-tiny", [start, "ground.imagery.aspect=2.5", "model.dropout=0.05"])
    assert again.ground != config.ground
    assert again.model != config.model
    assert all(tensor.equal(first.state_dict()[name]) for name, tensor in first_weights(again).items())
    with pytest.raises(
        ConfigError, match=r"model\.descriptors is \d+ there, 5 here; ground\.width is \d+ there, 160 here"
    ):
        first_weights(load_preset("world-tiny", [start, "model.descriptors=5", "ground.width=160"]))
