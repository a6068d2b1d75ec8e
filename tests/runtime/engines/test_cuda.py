"""The settings that are passed to CUDA; they can be checked without a GPU."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from tiny_bundle import write_bundle
from torch import Tensor, nn

from geodtr import open_bundle
from geodtr.export.graph.export import export_network
from geodtr.runtime.engines.onnxruntime import open_session
from geodtr.runtime.spec import BranchSpec, Preprocessing
from geodtr.training.models.embedder import TorchEmbedder

SPEC = BranchSpec(branch="ground", preprocessing=Preprocessing(height=8, width=16), descriptor_size=3)


class Averages(nn.Module):
    """Averages the pixels into descriptors, and records the arithmetic that was set."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3))
        self.arithmetic = list[str]()

    def forward(self, images: Tensor) -> Tensor:
        self.arithmetic = _arithmetic()
        rows: Tensor = images.float().mean(dim=(1, 2)) * self.weight
        return nn.functional.normalize(rows, dim=1)


def _arithmetic() -> list[str]:
    backends: Any = torch.backends
    return [backends.cudnn.conv.fp32_precision, backends.cuda.matmul.fp32_precision]


def test_the_reference_computes_float32_and_no_tf32() -> None:
    before, network = _arithmetic(), Averages()
    assert before[0] == "tf32", "PyTorch's default for convolutions"
    TorchEmbedder(network, SPEC).embed(np.ones((1, 8, 16, 3), np.uint8))
    assert network.arithmetic == ["ieee", "ieee"]
    assert _arithmetic() == before


def test_the_cuda_provider_computes_float32_and_no_tf32(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    passed = dict[str, Any]()
    opened = onnxruntime.InferenceSession

    class Session(opened):  # type: ignore[misc, valid-type]
        def __init__(self, *arguments: Any, providers: Any, **options: Any) -> None:
            passed["providers"] = providers
            super().__init__(*arguments, providers=["CPUExecutionProvider"], **options)

        def get_providers(self) -> list[str]:
            return ["CUDAExecutionProvider", "CPUExecutionProvider"]

    bundle = open_bundle(write_bundle(tmp_path / "bundle"))
    monkeypatch.setattr(onnxruntime, "InferenceSession", Session)
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    monkeypatch.setattr(onnxruntime, "preload_dlls", lambda: sys.stdout.write("Failed to load\n"), raising=False)
    open_session(bundle.path / bundle.manifest.ground.file, "cuda")
    assert passed["providers"] == [("CUDAExecutionProvider", {"use_tf32": "0"}), "CPUExecutionProvider"]
    printed = capsys.readouterr()
    assert (printed.out, printed.err) == ("", "Failed to load\n"), "libraries are loaded, and --json stays JSON"


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_exporting_leaves_the_network_unchanged_on_its_device(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The device "meta" replaces a GPU."""
    network = Averages().to(device).train()
    if device == "meta":
        monkeypatch.setattr(nn.Module, "cpu", lambda self: self.to_empty(device="cpu"))
    export_network(network, SPEC.preprocessing)
    assert network.training
    assert network.weight.device.type == device
