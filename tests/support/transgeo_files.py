"""TransGeo's release files: seeded weights under its names, written apart from the importer."""

from pathlib import Path

import numpy as np
import official
import torch
from torch import Tensor

from geodtr.training.models.importers.base import Network
from geodtr.training.models.transgeo.stage_1 import TransGeo, TransGeoConfig
from geodtr.training.presets.load import load_preset

SMALL = TransGeoConfig(width=64, layers=2, heads=1, feed_forward=32, descriptor_size=16)


def _sharper(x: official.Values) -> official.Values:
    weights = official.scaled(x / np.sqrt(x.shape[1]), 1)
    attending = 2 * len(weights) // 3
    weights[:attending] = official.scaled(weights[:attending], 1.25)
    return weights


def _visible(x: official.Values) -> official.Values:
    return official.scaled(0.02 * x, 25)


EXCEPTIONS: official.Exceptions = {
    "attn.qkv.weight": _sharper,
    "pos_embed": _visible,
    "cls_token": _visible,
    "dist_token": _visible,
}


def network_of(preset: str, *settings: str) -> Network:
    config = load_preset(preset, settings)
    return Network(config.model, config.ground, config.aerial)


def save(path: Path, weights: dict[str, Tensor]) -> Path:
    """A file as the official script writes it, with a number of NumPy's in it."""
    state = {f"module.{name}": tensor for name, tensor in weights.items()}
    content = {"epoch": 99, "state_dict": state, "best_acc1": np.float64(94.08), "optimizer": {"state": {}}}
    torch.save(content, path)
    return path


def timm_names(config: TransGeoConfig, network: Network) -> dict[str, Tensor]:
    """A network's weights under the release's names."""
    inner = {
        "attention_norm": "norm1",
        "feed_forward_norm": "norm2",
        "attention.out": "attn.proj",
        "feed_forward.0": "mlp.fc1",
        "feed_forward.3": "mlp.fc2",
    }
    weights = TransGeo(config, network.ground, network.aerial).state_dict()
    renamed = {}
    for name, tensor in weights.items():
        branch, _, rest = name.partition(".")
        prefix = "query_net" if branch == "ground" else "reference_net"
        path, _, last = rest.rpartition(".")
        if path.startswith("layers."):
            _, layer, path = path.split(".", 2)
            if path == "attention.query":
                parts = [weights[name.replace("query", part)] for part in ("query", "key", "value")]
                renamed[f"{prefix}.blocks.{layer}.attn.qkv.{last}"] = torch.cat(parts)
            elif path in inner:
                renamed[f"{prefix}.blocks.{layer}.{inner[path]}.{last}"] = tensor
        elif rest == "tokens.learned":
            renamed[f"{prefix}.cls_token"], renamed[f"{prefix}.dist_token"] = tensor.split(1, dim=1)
        elif rest == "tokens.position":
            renamed[f"{prefix}.pos_embed"] = tensor
        else:
            path = {"tokens.embedding": "patch_embed.proj", "distillation_head": "head_dist"}.get(path, path)
            renamed[f"{prefix}.{path}.{last}"] = tensor
    # Two views of one tensor would share their values in a file.
    return {name: tensor.clone() for name, tensor in renamed.items()}
