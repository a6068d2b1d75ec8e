"""The JSON of training options beside a release's file, and what an import asks for where nothing states it."""

import re
import shlex
from collections.abc import Callable
from pathlib import Path

import official
import pytest
import torch
from conftest import Outcome

from geodtr.runtime.spec import Preprocessing
from geodtr.training.models.checkpoint import read_info
from geodtr.training.models.geodtr.geodtr import BackboneConfig, GeoDTRConfig
from geodtr.training.models.geodtr.geodtr_plus import ConvNextConfig, GeoDTRPlusConfig, ResidualConfig
from geodtr.training.models.importers import geodtr, geodtr_plus
from geodtr.training.models.registry import ModelConfig, build_model
from geodtr.training.models.safa import SafaConfig

THIN = BackboneConfig(widths=(4, 4, 4, 4), blocks=(1, 1, 1, 1))
THIN_PLUS = ConvNextConfig(widths=(8, 8, 16), blocks=(1, 1, 1))
THIN_VGG = (4, 4, 4, 8, 8)

GEODTR = GeoDTRConfig(backbone=THIN, feed_forward=8, descriptors=3), {"TR_heads": 4, "pt": True}
PLUS = (
    GeoDTRPlusConfig(backbone=THIN_PLUS, feed_forward=8, descriptors=3, heads=2, layers=1, mask="normalised"),
    {"TR_heads": 2, "bottleneck": True, "normalize": True, "orthogonalize": False, "no_polar": False},
)
SAFA = SafaConfig(widths=THIN_VGG, descriptors=3), {"SAFA_heads": 3, "no_polar": False}
INPUTS = {
    GeoDTRConfig: (geodtr.GROUND, geodtr.AERIAL_POLAR),
    GeoDTRPlusConfig: (geodtr_plus.GROUND, geodtr_plus.AERIAL_POLAR),
    SafaConfig: (geodtr.GROUND, geodtr.AERIAL_POLAR),
}


def release(
    path: Path,
    config: ModelConfig,
    parameters: dict[str, object] | None,
    inputs: tuple[Preprocessing, Preprocessing] | None = None,
) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    weights = build_model(config, *(inputs or INPUTS[type(config)])).state_dict()
    if isinstance(config, GeoDTRConfig):
        return official.save_release(path, official.official_names(weights), parameters)
    renamed = {}
    for name, tensor in weights.items():
        branch, part, rest = name.split(".", 2)
        side = {"ground": "grd", "aerial": "sat"}[branch]
        if isinstance(config, SafaConfig):
            prefix = f"backbone_{side}.0" if part == "backbone" else f"spatial_aware_{side}"
        else:
            prefix = f"backbone_{side}" if part == "backbone" else f"GLE_{side}"
            rest = re.sub(r"^encoder\.", "transformer_encoder.", re.sub("^position$", "pe.pe", rest))
        renamed[f"{prefix}.{rest}"] = tensor
    return official.save_release(path, renamed, parameters)


@pytest.mark.parametrize(("config", "parameters"), [GEODTR, PLUS, SAFA])
def test_panoramas_of_cvact_are_cut_as_the_release_cuts_them(
    config: ModelConfig, parameters: dict[str, object], tmp_path: Path, cli: Callable[..., Outcome]
) -> None:
    for dataset, rows, resize in (
        ("CVACT", (0.25, 0.75), "area"),
        ("CVUSA", (0.0, 1.0), "pillow-bilinear-antialias"),
        (None, (0.0, 1.0), "pillow-bilinear-antialias"),
    ):
        folder = tmp_path / str(dataset)
        path = release(folder / "m.pth", config, {**parameters, "dataset": dataset})
        imported = cli("import-checkpoint", path, "--out", folder / "m.safetensors")
        assert imported.code == 0, imported.err
        ground = read_info(folder / "m.safetensors").ground
        assert (ground.rows, ground.resize) == (rows, resize)
        assert ('"dataset": "CVACT"' in imported.err) == (dataset is None)


@pytest.mark.parametrize(
    ("model", "preset", "settings", "expected"),
    [
        (GEODTR, "geodtr-cvusa", ("model.heads=2",), "TR_heads = 4, and the preset 2"),
        (PLUS, "geodtr-plus-cvusa", ("model.heads=2",), "normalize = True, and the preset False"),
    ],
)
def test_a_preset_that_contradicts_the_file_beside_is_refused(
    model: tuple[ModelConfig, dict[str, object]],
    preset: str,
    settings: tuple[str, ...],
    expected: str,
    tmp_path: Path,
    refused: Callable[..., str],
) -> None:
    config, parameters = model
    path = release(tmp_path / "m.pth", config, parameters)
    sizes = [*settings, "model.descriptors=3", "model.feed_forward=8"]
    if isinstance(config, GeoDTRPlusConfig):
        sizes += ["model.layers=1", "model.backbone.widths=[8,8,16]", "model.backbone.blocks=[1,1,1]"]
    else:
        sizes += ["model.backbone.widths=[4,4,4,4]", "model.backbone.blocks=[1,1,1,1]"]
    options = [part for setting in sizes for part in ("--set", setting)]
    message = refused("import-checkpoint", path, "--preset", preset, *options, "--out", tmp_path / "m.safetensors")
    assert expected in message
    assert "20230101_parameter.json" in message


def test_tiles_that_the_file_states_otherwise_are_refused(tmp_path: Path, refused: Callable[..., str]) -> None:
    config, parameters = GEODTR
    path = release(tmp_path / "m.pth", config, {**parameters, "pt": False})
    assert "pt = False, but its weights have True" in refused("import-checkpoint", path, "--out", tmp_path / "a")


def test_options_of_a_release_that_writes_none_are_refused(tmp_path: Path, refused: Callable[..., str]) -> None:
    torch.save({"model.stem.0.weight": torch.zeros(8, 3, 4, 4)}, tmp_path / "m.pth")
    (tmp_path / "options.json").write_text("{}")
    message = refused(
        "import-checkpoint", tmp_path / "m.pth", "--parameters", tmp_path / "options.json", "--out", tmp_path / "a"
    )
    assert "Sample4Geo, whose release writes no training options" in message
    assert "Leave --parameters out" in message


def named_options(message: str, preset: str) -> list[str]:
    """The options behind `--preset NAME` in a message, but for the ones that stand for others."""
    return shlex.split(re.findall(rf"--preset {preset}((?: --set (?:\"[^\"]*\"|\S+))*)", message)[0])


@pytest.mark.parametrize(
    ("backbone", "inputs"),
    [
        (THIN_PLUS, (geodtr_plus.VIGOR_GROUND, geodtr_plus.VIGOR_AERIAL)),
        (ResidualConfig(widths=(8, 8, 8, 16), blocks=(1, 2, 1, 1)), (geodtr_plus.GROUND, geodtr_plus.AERIAL_SQUARE)),
    ],
)
def test_the_command_that_a_message_names_imports_the_file(
    backbone: ConvNextConfig | ResidualConfig,
    inputs: tuple[Preprocessing, Preprocessing],
    tmp_path: Path,
    refused: Callable[..., str],
    cli: Callable[..., Outcome],
) -> None:
    config = GeoDTRPlusConfig(backbone=backbone, descriptors=3, layers=1, feed_forward=8)
    path = release(tmp_path / "m.pth", config, None, inputs)
    out = tmp_path / "m.safetensors"
    options = named_options(refused("import-checkpoint", path, "--out", out), "geodtr-plus-cvusa")
    named = cli("import-checkpoint", path, "--preset", "geodtr-plus-cvusa", *options, "--out", out)
    assert named.code == 0, named.err
    info = read_info(out)
    assert info.model == config
    assert (info.ground.shape, info.aerial.shape, info.aerial.polar) == (inputs[0].shape, inputs[1].shape, False)


def test_the_command_for_other_pixels_of_a_square_safa_imports_it(tmp_path: Path, cli: Callable[..., Outcome]) -> None:
    config = SafaConfig(widths=THIN_VGG, descriptors=3)
    path = release(tmp_path / "m.pth", config, {"dataset": "CVACT"}, (geodtr.GROUND, geodtr.AERIAL_SQUARE))
    assumed = " ".join(cli("import-checkpoint", path, "--out", tmp_path / "a.safetensors").err.split())
    shown = re.findall(r'--set "([^"]*)"', assumed)
    pixels = [
        setting.replace("ground", "aerial") for setting in shown if setting.startswith(("ground.mean", "ground.std"))
    ]
    options = [part for setting in (*shown, *pixels) for part in ("--set", setting)]
    named = cli("import-checkpoint", path, "--preset", "safa-cvusa", *options, "--out", tmp_path / "b.safetensors")
    assert named.code == 0, named.err
    info = read_info(tmp_path / "b.safetensors")
    assert info.aerial.std == (0.229, 0.224, 0.225)
    assert info.ground.rows == (0.25, 0.75)
