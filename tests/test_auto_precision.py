"""`build-engine --precision auto` on a real network: whole, recorded, and what it says is in the file."""

from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
import torch
from conftest import Outcome, Trained
from PIL import Image

from geodtr.calibration.operators import operators
from geodtr.runtime.bundle import open_bundle
from geodtr.runtime.names import BRANCHES
from geodtr.training.checkpoint import save_checkpoint
from geodtr.training.config import load_preset
from geodtr.training.models.catalogue import build_model


@pytest.fixture
def wide(tmp_path: Path) -> Path:
    """A checkpoint with weights drawn at random, of a network wide enough for 8 bits to be faster."""
    torch.manual_seed(0)
    config = load_preset("world-tiny", ["model.backbone.widths=[64, 128, 192, 192]"])
    save_checkpoint(tmp_path / "wide.safetensors", build_model(config.model, config.ground, config.aerial), "random")
    return tmp_path / "wide.safetensors"


def test_the_bundle_holds_the_chosen_blocks_in_8_bits_and_the_evidence(
    wide: Path, pairs: Path, cli: Callable[..., Outcome], tmp_path: Path
) -> None:
    out, picture = tmp_path / "auto", tmp_path / "search.png"
    asked = ("build-engine", wide, "--precision", "auto", "--calibration", f"pairs:{pairs}", "--images", 8)
    result = cli(*asked, "--recall-on", f"pairs:{pairs}", "--tolerance", 100, "--picture", picture, "--out", out)
    assert result.code == 0, result.err
    assert "chosen" in result.out
    made = open_bundle(out).manifest
    assert made.precision == "mixed"
    assert made.quantisation is not None and made.quantisation.search is not None
    search = made.quantisation.search
    assert len(search.sensitivity) == 10
    assert search.chosen in search.trials
    assert search.chosen.queries == 20
    assert search.chosen.speed == max(trial.speed or 0 for trial in search.trials)
    for branch in BRANCHES:
        graph = onnx.load(str(out / f"{branch}.onnx"))
        producer = {name: node.op_type for node in graph.graph.node for name in node.output}
        quantised = {
            node.name
            for node in graph.graph.node
            if len(node.input) > 1 and producer.get(node.input[1]) == "DequantizeLinear"
        }
        exported = tmp_path / "onnx"
        if not exported.exists():
            assert cli("export", wide, "--out", exported).code == 0
        for operator in operators(onnx.load(str(exported / f"{branch}.onnx"))):
            assert (operator.name in quantised) == (f"{branch}/{operator.block}" in search.chosen.blocks)
    with Image.open(picture) as image:
        assert image.width > 1000
    assert not list(tmp_path.glob("*.search.json"))
    assert "Choices of blocks" in cli("inspect", out).out


def test_without_pairs_to_measure_recall_on_it_says_what_to_add(
    trained: Trained, refused: Callable[..., str], tmp_path: Path
) -> None:
    asked = ("build-engine", trained.onnx.path, "--precision", "auto", "--calibration", trained.test_set.name)
    assert "--recall-on" in refused(*asked, "--out", tmp_path / "auto")
