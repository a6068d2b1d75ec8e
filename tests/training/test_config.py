"""A run's configuration: presets, settings that override them, and the errors for wrong ones."""

from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import World
from hypothesis import given
from hypothesis import strategies as st

from geodtr.runtime.errors import ConfigError
from geodtr.training.models.fusiongan import TwoStreamConfig
from geodtr.training.models.geodtr.geodtr import GeoDTRConfig
from geodtr.training.models.geodtr.geodtr_plus import GeoDTRPlusConfig, ResidualConfig
from geodtr.training.presets import preset_names
from geodtr.training.presets.load import encode_config, load_preset


@pytest.mark.parametrize("name", preset_names())
def test_a_saved_configuration_is_a_preset_that_gives_the_same_run(name: str, tmp_path: Path) -> None:
    config = load_preset(name, ["recipe.seed=5", "recipe.learning_rate=2e-4"])
    (tmp_path / "config.toml").write_bytes(encode_config(config))
    assert load_preset(str(tmp_path / "config.toml")) == config


def test_settings_override_a_presets_values() -> None:
    config = load_preset(
        "world-tiny", ["recipe.epochs=3", "recipe.layout=strong", 'recipe.semantic="weak"', "model.heads = 1"]
    )
    assert isinstance(config.model, GeoDTRConfig)
    assert (config.recipe.epochs, config.recipe.layout, config.recipe.semantic, config.model.heads) == (
        3,
        "strong",
        "weak",
        1,
    )
    assert config.recipe.batch_size == load_preset("world-tiny").recipe.batch_size


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("recipe.epoch=3", "nearest is recipe.epochs"),
        ("epochs=3", "nearest is recipe.epochs"),
        ("machine.presicion=bf16", "nearest is machine.precision"),
        ("recipe.epochs=0", "recipe.epochs: expected `int` >= 1"),
        ("recipe.epochs=many", "recipe.epochs: expected `int`"),
        ("recipe.learning_rate=-1", "recipe.learning_rate"),
        ("recipe.batch_size=1", "recipe.batch_size"),
        ("machine.precision=fp8", "machine.precision"),
        ("recipe.micro_batch=5", "does not divide recipe.batch_size 16"),
        ("aerial.polar=false", "any-angle"),
        ("ground.polar=true", "ground.polar is true"),
        ("recipe.epochs", "not KEY=VALUE"),
    ],
)
def test_a_wrong_setting_is_named_with_the_allowed_values(
    setting: str, expected: str, refused: Callable[..., str], tmp_path: Path
) -> None:
    message = refused(
        "train", "--preset", "world-tiny", "--data", f"pairs:{tmp_path}", "--out", "run", "--set", setting
    )
    assert expected in message


def test_another_kind_of_model_or_backbone_keeps_what_it_has_too() -> None:
    sizes = ["model.backbone.widths=[8,8,8,16]", "model.backbone.blocks=[1,1,1,1]"]
    residual = load_preset("world-geodtr-plus", [*sizes, "model.backbone.type=residual"]).model
    assert isinstance(residual, GeoDTRPlusConfig)
    assert residual.backbone == ResidualConfig(widths=(8, 8, 8, 16), blocks=(1, 1, 1, 1))
    assert residual.feed_forward == 128
    streams = load_preset("world-fusiongan", ["model.name=fusiongan-two-stream"]).model
    assert streams == TwoStreamConfig(descriptor_size=64, widths=(16, 32, 64, 64, 64), dropout=0.0)
    with pytest.raises(ConfigError, match="unknown field `generator`"):
        load_preset("world-fusiongan", ["model.generator=[16, 32]", "model.name=fusiongan-two-stream"])


def test_panoramas_of_another_field_of_view_have_another_aspect() -> None:
    narrow = ["ground.width=128", "ground.imagery.field_of_view=90"]
    assert load_preset("dsm-cvusa", narrow).ground.imagery.aspect == 1.375
    assert load_preset("dsm-cvusa", [*narrow, "ground.imagery.aspect=1.5"]).ground.imagery.aspect == 1.5
    assert load_preset("dsm-cvusa").ground.imagery.aspect == 5.5


def test_sizes_that_no_network_takes_are_refused(world: World, tmp_path: Path, refused: Callable[..., str]) -> None:
    command = ("train", "--preset", "world-tiny", "--data", world.train_set.name, "--out", tmp_path / "run")
    oblong = ("aerial.polar=false", "aerial.height=32", "aerial.width=64", "recipe.layout=strong")
    for settings, expected in ((oblong, "Make it square"), (("ground.height=8", "ground.width=8"), "at least two")):
        assert expected in refused(*command, *(part for setting in settings for part in ("--set", setting)))


@given(st.text(max_size=40))
def test_no_setting_is_answered_by_a_traceback(setting: str) -> None:
    try:
        load_preset("world-tiny", [setting])
    except ConfigError:
        return


def test_an_unknown_preset_and_a_broken_file_are_named(tmp_path: Path, refused: Callable[..., str]) -> None:
    assert "geodtr-cvusa, " in refused("train", "--preset", "geodtr", "--data", "pairs:nowhere", "--out", "run")
    broken = tmp_path / "broken.toml"
    broken.write_text("epochs == 3")
    assert "configuration in TOML" in refused("train", "--preset", broken, "--data", "pairs:nowhere", "--out", "run")
    broken.write_text("recipe = 3")
    assert "to be a table" in refused("train", "--preset", broken, "--out", "run", "--seed", 1)
    assert "is not a preset" in refused("train", "--preset", "x" * 300, "--out", "run")
    assert "names no data" in refused("train", "--preset", "world-tiny", "--out", "run")
