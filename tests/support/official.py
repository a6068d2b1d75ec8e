"""The official releases' models with seeded weights and inputs: the same as in the figures of tests/conformance."""

import json
import math
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

import numpy as np
import torch
import torch.nn.functional as F
from checkout import ROOT
from numpy.typing import NDArray
from torch import Tensor

FIGURES = ROOT / "tests" / "conformance"
"""Results that the official code computed from seeds."""


Values = NDArray[np.float64]
Exceptions = Mapping[str, Callable[[Values], Values]]
"""What becomes of the normal numbers of weights whose name ends so."""


def state_dict(shapes: dict[str, list[int]], exceptions: Exceptions = MappingProxyType({})) -> dict[str, Tensor]:
    """Weights by name, official names without `module.`."""
    return {name: _weight(name, shape, exceptions) for name, shape in shapes.items()}


def tensorflow_variables(
    shapes: dict[str, list[int]], exceptions: Exceptions = MappingProxyType({})
) -> dict[str, NDArray[np.float32]]:
    """Weights by TensorFlow's names, whose convolutions have their sizes first."""

    def other(x: Values) -> Values:
        return x * (math.sqrt(2 / math.prod(x.shape[:3])) if x.ndim == 4 else 0.1)

    rules: Exceptions = {**exceptions, "": other}
    return {name: _weight(name, shape, rules).numpy() for name, shape in shapes.items()}


def spectral_state_dict(shapes: dict[str, list[int]]) -> dict[str, Tensor]:
    """The same, with the vectors of spectral norms as the figures have them: one power iteration from a seeded one."""
    state = state_dict({name: shape for name, shape in shapes.items() if not name.endswith((".weight_u", ".weight_v"))})
    for name in [name for name in state if name.endswith(".weight_orig")]:
        base = name.removesuffix("_orig")
        matrix = state[name].flatten(1).double()
        u = torch.from_numpy(seeded(f"{base}_u").standard_normal(matrix.shape[0]))
        v = F.normalize(matrix.T @ F.normalize(u, dim=0), dim=0)
        state[f"{base}_u"], state[f"{base}_v"] = F.normalize(matrix @ v, dim=0).float(), v.float()
    return state


def scaled(x: Values, factor: float) -> Values:
    """`x` in float32, then times `factor` in float32."""
    return np.asarray(np.asarray(x, np.float32) * np.float32(factor), np.float64)


def shapes_of(model: str) -> dict[str, list[int]]:
    """Every key and shape of a release's state dict."""
    shapes: dict[str, list[int]] = json.loads((FIGURES / model / "state_dict.json").read_text())
    return shapes


def save_release(path: Path, weights: Mapping[str, Tensor], parameters: Mapping[str, object] | None = None) -> Path:
    """A checkpoint file as the scripts of GeoDTR's group leave it, with its parameter file beside it, if any."""
    state = {f"module.{name}": tensor for name, tensor in weights.items()}
    torch.save({"epoch": 7, "model_state_dict": state, "optimizer_state_dict": {}, "scheduler_state_dict": {}}, path)
    if parameters is not None:
        (path.parent / "20230101_parameter.json").write_text(json.dumps(parameters))
    return path


def polar_shapes() -> dict[str, list[int]]:
    shapes: dict[str, list[int]] = json.loads((FIGURES / "geodtr_polar_state_dict.json").read_text())
    return shapes


def write_release_file(path: Path, weights: dict[str, Tensor], *, heads: int = 4) -> Path:
    """A checkpoint file as the official train.py writes it, and the parameter file in the same folder."""
    code = weights["ge_grd.w1"]
    layers = sum("ge_grd" in name and name.endswith("linear1.weight") for name in weights)
    feed_forward = weights["ge_grd.tr_module.transformer_encoder.layers.0.linear1.weight"].shape[0]
    parameters = {
        "n_des": code.shape[1],
        "TR_heads": heads,
        "TR_layers": layers,
        "TR_dim": feed_forward,
        "dropout": 0.3,
        "pt": weights["ge_sat.w1"].shape[0] == code.shape[0],  # polar tiles have as many positions as panoramas
    }
    return save_release(path, weights, parameters)


def network_input(name: str, height: int = 122, width: int = 671) -> NDArray[np.float32]:
    """The normalised input [2, 3, height, width] of the published embeddings."""
    generator = seeded(name)
    yy, xx = np.meshgrid(np.linspace(0, 1, height), np.linspace(0, 1, width), indexing="ij")
    images = np.empty((2, 3, height, width), np.float32)
    for image in images:
        for channel in image:
            frequency = generator.uniform(1, 12, (6, 2))
            phase = generator.uniform(0, 6.283, 6)
            amplitude = generator.uniform(0.1, 0.4, 6)
            waves = (
                a * np.sin(6.283 * (f[0] * yy + f[1] * xx) + p)
                for f, p, a in zip(frequency, phase, amplitude, strict=True)
            )
            channel[:] = np.clip(sum(waves), -1, 1)
    return images


def _weight(name: str, shape: list[int], exceptions: Exceptions) -> Tensor:
    if name.endswith("num_batches_tracked"):
        return torch.tensor(0)
    x = np.asarray(seeded(name).standard_normal(shape))
    exception = next((change for end, change in exceptions.items() if name.endswith(end)), None)
    if exception is not None:
        x = exception(x)
    elif len(shape) == 4:
        x = x * math.sqrt(2 / math.prod(shape[1:]))
    elif name.endswith("running_var"):
        x = 1 + 0.2 * np.abs(x)
    elif name.endswith("running_mean"):
        x = 0.1 * x
    elif len(shape) == 1 and name.endswith("weight"):
        x = 1 + 0.1 * x
    elif len(shape) == 1:
        x = 0.1 * x
    elif len(shape) == 2:
        x = x / math.sqrt(shape[1])
    else:
        x = 0.02 * x
    return torch.from_numpy(np.asarray(x, np.float32))


def seeded(name: str) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(zlib.crc32(name.encode())))


def official_names(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """This project's weights under the release's names. Independent of the importer, so that each checks the other."""
    views = {"ground": "grd", "aerial": "sat"}
    inner = {
        "code": "tr_module.pos_encoder.linear",
        "code_bias": "tr_module.pos_encoder.embedding_parameter",
    }
    renamed = {}
    for name, tensor in weights.items():
        branch, part, rest = name.split(".", 2)
        prefix = ("backbone_" if part == "backbone" else "ge_") + views[branch]
        rest = inner.get(rest, rest)
        rest = f"tr_module.transformer_{rest}" if rest.startswith("encoder.") else rest
        renamed[f"{prefix}.{rest}"] = tensor
    return renamed
