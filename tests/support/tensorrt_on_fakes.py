"""Fixtures that run the whole TensorRT backend; fakes with the same interface replace the parts that need a GPU.

The fakes compute with ONNX Runtime in host memory, so descriptors must be correct. Nothing here is evidence about a
real GPU. `make check-tensorrt` compares the fakes, and every call, with the vendor's packages.
"""

import gc
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fake_cuda
import fake_tensorrt
import numpy as np
import pytest
import torch
from fake_tensorrt import FakeSettings

from geodtr import BuildRequest, Bundle, Calibration, TensorRtOptions, build_engine
from geodtr.export.build.precisions import plan_of
from geodtr.export.build.source import export_checkpoint
from geodtr.export.calibration_pool import pool_of
from geodtr.runtime.names import Precision
from geodtr.runtime.spec import Images
from geodtr.training.data.pair_set import PairSet
from geodtr.training.data.readers.pairs_csv import read_pairs
from geodtr.training.models.checkpoint import save_checkpoint
from geodtr.training.models.registry import build_model
from geodtr.training.presets.load import load_preset
from geodtr.training.world.dataset import WorldSet, write_world


class Machine:
    """The fake GPU and one version of TensorRT, new for each test."""

    trt: FakeSettings

    def __init__(self, real: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        self._real, self._monkeypatch = real, monkeypatch
        monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", fake_cuda)
        self.gpu = fake_cuda.fake_reset()
        self.upgrade("10.3.0")

    def upgrade(self, version: str) -> None:
        self.trt = fake_tensorrt.fake_reset()
        self._monkeypatch.setitem(sys.modules, "tensorrt", fake_tensorrt.fake_library(self._real, version))


@pytest.fixture
def machine(nvidia: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    with collected():
        yield Machine(nvidia, monkeypatch)


@contextmanager
def collected() -> Iterator[None]:
    """Collect the garbage made within, and that alone: to look through all that was there takes half a second."""
    gc.collect()
    gc.freeze()
    yield
    gc.collect()


@dataclass(frozen=True)
class Model:
    """A small model with random weights, and images to calibrate it on."""

    checkpoint: Path
    onnx: Bundle
    images: PairSet


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    root = tmp_path_factory.mktemp("model")
    torch.manual_seed(0)
    config = load_preset("world-tiny")
    network = build_model(config.model, config.ground, config.aerial)
    shake(network)
    save_checkpoint(root / "c.safetensors", network, "random weights")
    write_world(root / "world", WorldSet(pairs=16, height=32, width=128, region="valley"), workers=1)
    return Model(
        root / "c.safetensors", export_checkpoint(root / "c.safetensors", root / "onnx"), read_pairs(root / "world")
    )


def shake(network: torch.nn.Module) -> None:
    """Add noise to the weights, so that no two tensors are equal: the export merges equal ones."""
    for parameter in network.parameters():
        parameter.data.add_(0.05 * torch.randn_like(parameter))


@pytest.fixture
def build(model: Model, tmp_path: Path, machine: Machine) -> Callable[..., Bundle]:
    """Build a bundle of TensorRT plans from the model."""
    del machine

    def call(precision: Precision = "fp32", name: str = "bundle", **options: Any) -> Bundle:
        plan = plan_of(precision, Calibration(pool_of(model.images)), keep_cosine=0.5)
        return build_engine(BuildRequest(model.onnx.path, tmp_path / name, TensorRtOptions(**options), plan))

    return call


@pytest.fixture
def images(model: Model) -> Images:
    how = model.onnx.manifest.ground.spec.preprocessing
    return np.random.default_rng(0).integers(0, 256, (21, how.height, how.width, 3), np.uint8)
