"""A polar transform inside the graph has the recall of one outside."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import Outcome, Trained
from torch import Tensor, nn

from geodtr import open_bundle
from geodtr.export.graph.raw_tiles import FromRawTiles
from geodtr.runtime.build_command import from_checkpoint
from geodtr.runtime.embed.pipeline import embed_files
from geodtr.runtime.images.polar import polar_transform
from geodtr.runtime.manifest import read_manifest
from geodtr.runtime.spec import Preprocessing


class _Seen(nn.Module):
    """Gives back the pixels that a branch would see."""

    def forward(self, images: Tensor) -> Tensor:
        return images


@pytest.mark.parametrize("side", [64, 101, 750])
def test_the_graph_sees_the_runtimes_pixels_within_one_level(side: int) -> None:
    how = Preprocessing(height=32, width=128, polar=True, mean=0.0, std=1.0)
    tiles = np.random.default_rng(0).integers(0, 256, (2, side, side, 3), np.uint8)
    seen = FromRawTiles(_Seen(), how, side)(torch.from_numpy(tiles)).permute(0, 2, 3, 1).numpy() * 255
    for tile, got in zip(tiles, seen, strict=True):
        difference = np.abs(got - polar_transform(tile, 32, 128).astype(np.float32))
        assert difference.max() <= 1.01
        assert (difference > 0.01).mean() < 0.01


def test_an_engine_with_the_polar_transform_has_the_recall_of_the_others(
    trained: Trained, cli: Callable[..., Outcome], tmp_path: Path
) -> None:
    exported, engine = tmp_path / "raw", tmp_path / "engine"
    assert cli("export", trained.checkpoint, "--raw-tiles", 64, "--out", exported).code == 0
    command = ("build-engine", exported, "--precision", "int8", "--calibration", trained.train_set.name, "--images", 40)
    assert cli(*command, "--out", engine).code == 0
    paths = trained.test_set.references[:60]
    expected = embed_files(trained.onnx.embedder("aerial"), paths)
    for bundle, smallest in ((exported, 0.9999), (engine, 0.98)):
        opened = open_bundle(bundle)
        assert opened.manifest.embedding_id == trained.onnx.manifest.embedding_id
        assert opened.manifest.aerial.spec.preprocessing == Preprocessing(
            height=64, width=64, imagery=trained.onnx.manifest.aerial.spec.preprocessing.imagery
        )
        cosine = np.sum(embed_files(opened.embedder("aerial"), paths) * expected, axis=1)
        assert cosine.min() > smallest
    (engine / "aerial.onnx").unlink()
    result = json.loads(cli("doctor", engine, "--json").out)
    (remedy,) = {finding["remedy"] for finding in result["findings"] if finding["failed"]}
    assert remedy.startswith(f"geodtr-export build-engine {exported} ")
    assert from_checkpoint(engine, read_manifest(engine)).startswith(
        f"geodtr-export export CKPT --raw-tiles 64 --out {engine}-graphs && geodtr-export build-engine {engine}-graphs "
    )
    # Parity's float32 gate of 0.99999 detects pixels that differ by one level; recall is the same except for a tie.
    report = json.loads(cli("parity", trained.checkpoint, exported, "--data", trained.test_set.name, "--json").out)
    (judged,) = report["candidates"]
    assert abs(judged["gate"]["drop"]) * report["pairs"] <= 1.001
    assert all(branch["smallest_cosine"] > 0.999 for branch in judged["branches"])


def test_a_side_out_of_range_is_refused(trained: Trained, refused: Callable[..., str], tmp_path: Path) -> None:
    message = refused("export", trained.checkpoint, "--raw-tiles", 1, "--out", tmp_path / "raw")
    assert "allowed are 2 to" in message
