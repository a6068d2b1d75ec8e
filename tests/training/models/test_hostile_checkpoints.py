"""Files of weights that ask for more than they hold are refused by name, before memory is taken for them."""

import json
import re
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from official import official_names
from safetensors import safe_open
from safetensors.torch import save_file
from tiny_bundle import write_pairs

from geodtr.runtime.errors import CheckpointError, ConfigError
from geodtr.runtime.spec import Preprocessing
from geodtr.training import memory
from geodtr.training.models.checkpoint import load_checkpoint, save_checkpoint
from geodtr.training.models.geodtr.geodtr import BackboneConfig, GeoDTR, GeoDTRConfig
from geodtr.training.models.importers.geodtr import AERIAL_POLAR, GROUND
from geodtr.training.models.importers.official import import_official
from geodtr.training.models.registry import build_model, outline
from geodtr.training.parallel.distributed import Ranks
from geodtr.training.presets import preset_names
from geodtr.training.presets.load import load_preset
from geodtr.training.pretrained.weights import first_weights

_THIN = BackboneConfig(widths=(4, 4, 4, 4), blocks=(1, 1, 1, 1))
_NAME = "ge_grd.code_bias"

LARGER: dict[str, tuple[tuple[str, ...], object]] = {
    "layers": (("model", "layers"), 100_000),
    "descriptors": (("model", "descriptors"), 1_000_000),
    "feed-forward": (("model", "feed_forward"), 10**12),
    "blocks": (("model", "backbone", "blocks"), [1, 1, 1, 10**9]),
    "widths": (("model", "backbone", "widths"), [4, 4, 4, 10**18]),
    "heads": (("model", "heads"), 10**6),
    "height": (("ground", "height"), 16_384),
    "nested": (("model", "heads"), "[" * 100_000),
}


@pytest.fixture(scope="module")
def official() -> dict[str, torch.Tensor]:
    """Weights in the release's names, of official input sizes but thin layers."""
    model = GeoDTR(GeoDTRConfig(backbone=_THIN, feed_forward=8), GROUND, AERIAL_POLAR)
    return {name: tensor.detach() for name, tensor in official_names(model.state_dict()).items()}


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    how = Preprocessing(height=32, width=32)
    save_checkpoint(
        tmp_path / "m.safetensors", build_model(GeoDTRConfig(backbone=_THIN, heads=1, feed_forward=8), how, how), "none"
    )
    return tmp_path / "m.safetensors"


def _read_backbone(path: Path) -> None:
    first_weights(load_preset("geodtr-cvusa", [f"recipe.pretrained={path}"]))


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_builds_its_model_and_an_outline_has_its_names_and_shapes(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A second for the largest, and no number is looked at.
    for draw in ("kaiming_normal_", "kaiming_uniform_", "normal_", "trunc_normal_", "uniform_", "xavier_uniform_"):
        monkeypatch.setattr(torch.nn.init, draw, lambda tensor, *_how, **_more: tensor)
    config = load_preset(name)
    model = build_model(config.model, config.ground, config.aerial)
    assert model.specs["ground"].descriptor_size == model.specs["aerial"].descriptor_size
    expected = model.state_dict()
    got = outline(config.model, config.ground, config.aerial).state_dict()
    assert {key: tensor.shape for key, tensor in got.items()} == {key: value.shape for key, value in expected.items()}
    assert {tensor.device.type for tensor in got.values()} == {"meta"}


@pytest.mark.parametrize("case", LARGER)
def test_a_checkpoint_that_describes_a_larger_network_than_it_holds_is_refused(checkpoint: Path, case: str) -> None:
    place, value = LARGER[case]
    with safe_open(checkpoint, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
        document: Any = json.loads(file.metadata()["geodtr"])
    within = document
    for key in place[:-1]:
        within = within[key]
    within[place[-1]] = value
    text = json.dumps(document)
    save_file(tensors, checkpoint, {"geodtr": text.replace('"[', "[").replace('["', "[")})
    with pytest.raises(CheckpointError, match=r"m\.safetensors"):
        load_checkpoint(checkpoint)


def _strange() -> dict[str, torch.Tensor]:
    thousand = torch.zeros(1).expand(1000, 1000, 1000, 1000)
    return {
        "expanded": thousand,
        "sparse": torch.sparse_coo_tensor(torch.zeros(2, 1, dtype=torch.long), torch.ones(1), (10**6, 10**6)),
        "without values": torch.empty(10**6, 10**6, device="meta"),
        "quantised": torch.quantize_per_tensor(torch.zeros(4), 0.1, 0, torch.qint8),
        "complex": torch.zeros(4, dtype=torch.complex64),
    }


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["expanded", "sparse", "without values", "quantised", "complex"])
def test_tensors_that_are_not_plain_numbers_in_the_file_are_named(
    official: dict[str, torch.Tensor], tmp_path: Path, refused: Callable[..., str], kind: str
) -> None:
    torch.save({"model_state_dict": {**official, _NAME: _strange()[kind]}}, tmp_path / "m.pth")
    message = refused("import-checkpoint", tmp_path / "m.pth", "--out", tmp_path / "m.safetensors")
    assert _NAME in message
    assert kind in message
    assert "Warning" not in message
    torch.save({"conv1.weight": _strange()[kind]}, tmp_path / "backbone.pth")
    with pytest.raises(CheckpointError, match=rf"conv1\.weight is {kind}"):
        _read_backbone(tmp_path / "backbone.pth")


def test_shapes_without_numbers_or_rows_take_no_memory(official: dict[str, torch.Tensor], tmp_path: Path) -> None:
    """Of the network's sizes some are read off the tensors' shapes."""
    for name in (
        "ge_grd.tr_module.transformer_encoder.layers.0.linear1.weight",
        "backbone_grd.layers.6.0.conv1.weight",
    ):
        for tensor in (torch.zeros(10**12, 0), torch.zeros(10**12, 0, 3, 3), torch.tensor(0.0)):
            torch.save({"model_state_dict": {**official, name: tensor}}, tmp_path / "m.pth")
            with pytest.raises(CheckpointError, match=r"m\.pth"):
                import_official(tmp_path / "m.pth")


def test_tensors_that_share_their_numbers_do_not_fill_a_larger_network(
    official: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    shared = torch.zeros(512, 512)
    many = {f"ge_grd.tr_module.transformer_encoder.layers.{n}.linear1.weight": shared for n in range(1000)}
    torch.save({"model_state_dict": {**official, **many}}, tmp_path / "m.pth")
    with pytest.raises(CheckpointError, match=r"1,0\d\d,\d\d\d,\d\d\d bytes"):
        import_official(tmp_path / "m.pth")


@pytest.mark.parametrize("name", ["released.tar", "released.tar.gz", "released.pth.tar", "released.zip"])
def test_an_archive_of_files_is_to_be_unpacked(tmp_path: Path, refused: Callable[..., str], name: str) -> None:
    torch.save({"model_state_dict": {}}, tmp_path / "m.pth")
    if name.endswith("zip"):
        with zipfile.ZipFile(tmp_path / name, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.write(tmp_path / "m.pth", "m.pth")
    else:
        with tarfile.open(tmp_path / name, "w:gz" if name.endswith("gz") else "w") as packed:
            packed.add(tmp_path / "m.pth", "m.pth")
    message = refused("import-checkpoint", tmp_path / name, "--out", tmp_path / "m.safetensors")
    assert f"{name} is an archive of files. Unpack it" in message


def test_an_archive_that_unpacks_to_more_than_its_size_is_refused_unread(
    official: dict[str, torch.Tensor], tmp_path: Path, refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, bomb = tmp_path / "whole.pth", tmp_path / "bomb.pth"
    torch.save({"model_state_dict": official}, whole)
    with zipfile.ZipFile(whole) as source, zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as packed:
        for entry in source.infolist():
            packed.writestr(entry.filename, source.read(entry))
        packed.writestr("whole/data/10000", bytes(100_000_000))
    monkeypatch.setattr(torch, "load", lambda *_given, **_more: pytest.fail("it was read"))
    message = refused("import-checkpoint", bomb, "--out", tmp_path / "m.safetensors")
    assert "bomb.pth unpacks to 11" in message
    with pytest.raises(CheckpointError, match="unpacks to 11"):
        _read_backbone(bomb)


@pytest.mark.parametrize(
    ("setting", "named"),
    [
        ("model.layers=100000", "model.layers: expected `int` <= 100"),
        ("model.backbone.blocks=[1, 1, 1, 100000]", "<= 100"),
        ("model.feed_forward=900000000", "model.feed_forward: expected `int` <= 1000000"),
        (
            "model.descriptors=1000000",
            "832,638,240 parameters. To train it takes at least 13.3 GB; this machine has 2.0 GB",
        ),
        ("recipe.batch_size=100000", "fit"),
    ],
)
def test_a_setting_that_asks_for_more_memory_than_there_is_is_refused_with_numbers(
    refused: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, setting: str, named: str
) -> None:
    monkeypatch.setattr(memory, "memory_bytes", lambda: 2_000_000_000)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    pairs = write_pairs(tmp_path / "pairs", 2)
    command = ("train", "--preset", "world-tiny", "--data", f"pairs:{pairs}", "--out", tmp_path / "run")
    message = refused(*command, "--set", setting)
    assert named in message


@pytest.mark.parametrize("preset", ["world-tiny", "world-sample4geo", "world-safa", "world-l2ltr"])
def test_the_named_micro_batch_fits_and_the_named_sizes_exist(preset: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    ranks = Ranks()

    def message(settings: list[str]) -> str:
        with pytest.raises(ConfigError) as error:
            memory.check_memory(load_preset(preset, settings), ranks)
        return str(error.value)

    # The weights take most of the memory: what they leave counts.
    monkeypatch.setattr(memory, "memory_bytes", lambda: 1)
    least = float(re.search(r"at least ([\d.]+) GB", message([]))[1])  # type: ignore[index]
    monkeypatch.setattr(memory, "memory_bytes", lambda: int((least + 0.3) * 1e9))
    most = int(re.search(r"at most (\d+) fit", message(["recipe.batch_size=100000"]))[1])  # type: ignore[index]
    memory.check_memory(load_preset(preset, [f"recipe.batch_size={most}"]), ranks)
    assert "fit" in message([f"recipe.batch_size={most + 1}"])
    monkeypatch.setattr(memory, "memory_bytes", lambda: 1)
    config = load_preset(preset).model
    named = re.findall(r"model\.(\w+)", message([]))
    assert named and all(hasattr(config, name) for name in named)
