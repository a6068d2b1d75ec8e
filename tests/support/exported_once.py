"""Each network is exported once for all tests: PyTorch's exporter takes five seconds even for a small one."""

from collections.abc import Iterator
from functools import wraps
from hashlib import sha256
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from build_once import build_once

from geodtr.export.graph import export as graph_export
from geodtr.runtime.spec import Preprocessing


@pytest.fixture(scope="session", autouse=True)
def exported_once() -> Iterator[None]:
    original = graph_export.export_network

    @wraps(original)
    def export_network(network: torch.nn.Module, how: Preprocessing) -> Any:
        def export(folder: Path) -> None:
            onnx.save(original(network, how), str(folder / "graph.onnx"))

        return onnx.load(str(build_once(f"export-{_hash(network, how)}", export) / "graph.onnx"))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(graph_export, "export_network", export_network)
        yield


def _hash(network: torch.nn.Module, how: Preprocessing) -> str:
    """Hash everything that defines a network's result: its classes, their plain attributes, and its tensors."""
    digest = sha256(repr((network, how)).encode())
    for name, module in network.named_modules():
        plain = {key: value for key, value in vars(module).items() if isinstance(value, str | int | float | tuple)}
        digest.update(repr((name, type(module), plain)).encode())
    for name, tensor in (*network.named_parameters(), *network.named_buffers()):
        digest.update(repr((name, tensor.shape, tensor.dtype)).encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]
