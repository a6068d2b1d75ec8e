"""Backbones start from ImageNet weights, from a file of them, or from none; missing weights are reported."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torchvision.models import ResNet34_Weights, convnext_base, convnext_tiny, resnet34

from geodtr.runtime.errors import CheckpointError, ConfigError
from geodtr.training.config import load_preset
from geodtr.training.models.geodtr import GeoDTR
from geodtr.training.models.registry import build_model
from geodtr.training.pretrained import first_weights


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
