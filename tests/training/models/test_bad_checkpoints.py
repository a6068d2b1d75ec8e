"""Checkpoints are read strictly, without running code in them, and a bad one is named."""

import json
import pickle
from collections.abc import Callable
from pathlib import Path

import torch
from conftest import Outcome, Trained
from official import official_names

from geodtr.training.models.checkpoint import load_checkpoint, save_checkpoint
from geodtr.training.models.geodtr.geodtr import BackboneConfig, GeoDTR, GeoDTRConfig
from geodtr.training.models.importers.geodtr import AERIAL_POLAR, GROUND
from geodtr.training.models.importers.official import import_official


def test_a_checkpoint_that_carries_code_is_refused_and_not_run(tmp_path: Path, refused: Callable[..., str]) -> None:
    trap = tmp_path / "trap"

    class Payload:
        def __reduce__(self) -> tuple[object, tuple[Path]]:
            return (Path.touch, (trap,))

    torch.save({"model_state_dict": Payload()}, tmp_path / "evil.pth")
    (tmp_path / "plain.pth").write_bytes(pickle.dumps(Payload()))
    for name in ("evil.pth", "plain.pth"):
        message = refused("import-checkpoint", tmp_path / name, "--out", tmp_path / "m.safetensors")
        assert name in message
    assert not trap.exists()


def test_a_checkpoint_of_another_model_is_named(tmp_path: Path, refused: Callable[..., str]) -> None:
    other = tmp_path / "other.pth"
    torch.save({"model_state_dict": {"module.patch_embed.proj.weight": torch.zeros(8, 3, 4, 4)}}, other)
    assert "another model" in refused("import-checkpoint", other, "--out", tmp_path / "m.safetensors")
    torch.save({"model_state_dict": {"aerial.head.weight": torch.zeros(8)}}, other)
    assert "use it as it is" in refused("import-checkpoint", other, "--out", tmp_path / "m.safetensors")
    torch.save({"epoch": 3}, other)
    assert "model_state_dict" in refused("import-checkpoint", other, "--out", tmp_path / "m.safetensors")
    other.write_bytes(b"PK\x03\x04 cut short")
    assert "other.pth" in refused("import-checkpoint", other, "--out", tmp_path / "m.safetensors")


def test_a_missing_and_a_strange_key_are_named(tmp_path: Path, refused: Callable[..., str]) -> None:
    weights = _small_official()
    del weights["ge_grd.b2"]
    weights["ge_grd.extra"] = torch.zeros(1)
    torch.save({"model_state_dict": weights}, tmp_path / "m.pth")
    message = refused("import-checkpoint", tmp_path / "m.pth", "--out", tmp_path / "m.safetensors")
    assert "ground.layout.b2 is missing" in message
    assert "ground.layout.extra is unexpected" in message


def test_an_unknown_number_of_heads_is_refused_and_found_one_folder_up(
    tmp_path: Path, refused: Callable[..., str], cli: Callable[..., Outcome]
) -> None:
    (tmp_path / "run" / "models").mkdir(parents=True)
    path = tmp_path / "run" / "models" / "m.pth"
    torch.save({"model_state_dict": _small_official()}, path)
    command = ("import-checkpoint", path, "--out", tmp_path / "m.safetensors")
    assert "number of heads" in refused(*command)
    for name in "ab":
        (tmp_path / "run" / f"{name}_parameter.json").write_text(json.dumps({"TR_heads": 4}))
    assert "or more than one. Name the release's JSON with --parameters" in refused(*command)
    (tmp_path / "run" / "b_parameter.json").unlink()
    (tmp_path / "run" / "a_parameter.json").write_text(json.dumps({"n_des": 8}))
    assert "has no TR_heads" in refused(*command)
    (tmp_path / "run" / "a_parameter.json").write_text(json.dumps({"TR_heads": 4}))
    assert "heads 4" in cli(*command).err


def test_parameters_that_contradict_the_weights_are_refused(tmp_path: Path, refused: Callable[..., str]) -> None:
    torch.save({"model_state_dict": _small_official()}, tmp_path / "m.pth")
    options = tmp_path / "options.json"
    command = ("import-checkpoint", tmp_path / "m.pth", "--parameters", options, "--out", tmp_path / "m.safetensors")
    options.write_text(json.dumps({"n_des": 12}))
    assert "n_des = 12" in refused(*command)
    options.write_text("{")
    assert "options.json" in refused(*command)
    wrongs: list[dict[str, object]] = [
        {"TR_heads": 0},
        {"TR_heads": -1},
        {"dropout": "abc"},
        {"dropout": 2},
        {"n_des": []},
    ]
    for wrong in wrongs:
        options.write_text(json.dumps(wrong))
        assert next(iter(wrong)) in refused(*command)
    options.unlink()
    assert "options.json is not a file. Check --parameters" in refused(*command)


def test_a_model_whose_weights_are_not_numbers_is_refused(
    trained: Trained, tmp_path: Path, refused: Callable[..., str]
) -> None:
    model = load_checkpoint(trained.checkpoint).model
    assert isinstance(model, GeoDTR)
    with torch.no_grad():
        model.get_parameter("ground.layout.w1")[0, 0, 0] = float("nan")
    save_checkpoint(tmp_path / "nan.safetensors", model, "broken")
    message = refused("evaluate", tmp_path / "nan.safetensors", "--data", trained.test_set.name)
    assert "ground.layout.w1 holds values that are not finite" in message


def test_integers_and_numbers_too_large_are_no_weights(tmp_path: Path, refused: Callable[..., str]) -> None:
    weights = _small_official()
    name = "ge_grd.w1"
    command = ("import-checkpoint", tmp_path / "m.pth", "--out", tmp_path / "m.safetensors")
    for changed, problem in (
        (torch.ones_like(weights[name], dtype=torch.int8), "holds int8 instead of float32"),
        (torch.full_like(weights[name], 1e300, dtype=torch.float64), "holds values that are not finite"),
    ):
        torch.save({"model_state_dict": {**weights, name: changed}}, tmp_path / "m.pth")
        assert f"ground.layout.w1 {problem}" in refused(*command)


def test_a_checkpoint_of_a_later_version_is_refused(
    trained: Trained, tmp_path: Path, refused: Callable[..., str]
) -> None:
    for old, new in ((b'"schema":2', b'"schema":9'), (b'"name":"geodtr"', b'"name":"safamo"')):
        path = tmp_path / "later.safetensors"
        escaped_old, escaped_new = (text.replace(b'"', b'\\"') for text in (old, new))
        path.write_bytes(trained.checkpoint.read_bytes().replace(escaped_old, escaped_new))
        assert "does not know" in refused("evaluate", path, "--data", trained.test_set.name)


def _small_official() -> dict[str, torch.Tensor]:
    """Weights in the release's names, of official input sizes but thin layers."""
    backbone = BackboneConfig(widths=(4, 4, 4, 4), blocks=(1, 1, 1, 1))
    return official_names(GeoDTR(GeoDTRConfig(backbone=backbone, feed_forward=8), GROUND, AERIAL_POLAR).state_dict())


def test_the_small_official_file_used_here_is_importable(tmp_path: Path) -> None:
    torch.save({"model_state_dict": _small_official()}, tmp_path / "m.pth")
    (tmp_path / "options.json").write_text(json.dumps({"TR_heads": 4}))
    model = import_official(tmp_path / "m.pth", tmp_path / "options.json")
    assert isinstance(model, GeoDTR)
    assert model.config.descriptors == 8


def test_a_network_without_transformer_is_imported(tmp_path: Path, cli: Callable[..., Outcome]) -> None:
    """`--TR_layers 0` of the release: the descriptors are w2's of w1's, without a code, at any number of heads."""
    backbone = BackboneConfig(widths=(4, 4, 4, 4), blocks=(1, 1, 1, 1))
    built = GeoDTR(GeoDTRConfig(backbone=backbone, descriptors=3, layers=0), GROUND, AERIAL_POLAR).eval()
    torch.save({"model_state_dict": official_names(built.state_dict())}, tmp_path / "m.pth")
    (tmp_path / "a_parameter.json").write_text(json.dumps({"n_des": 3, "TR_layers": 0, "TR_heads": 8, "TR_dim": 2048}))
    outcome = cli("import-checkpoint", tmp_path / "m.pth", "--out", tmp_path / "m.safetensors")
    assert "layers 0" in outcome.err
    imported = load_checkpoint(tmp_path / "m.safetensors").model
    layout = imported.branch("ground").get_submodule("layout")
    w1, b1, w2, b2 = (layout.get_parameter(name) for name in ("w1", "b1", "w2", "b2"))
    features = torch.rand(2, 4, 336)
    inner = torch.einsum("bn,nkd->bkd", features.amax(dim=1), w1) + b1
    expected = (torch.einsum("bkd,dkn->bnk", inner, w2) + b2.transpose(1, 2)).clamp(-1, 1)
    torch.testing.assert_close(layout(features), expected)
