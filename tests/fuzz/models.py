"""Checkpoints of both formats, and engines whose manifest someone else wrote."""

import json
import struct
from pathlib import Path

import msgspec
import numpy as np
import torch
from hostile import changed_json, damaged
from hypothesis import strategies as st
from kinds import Kind, of_file
from official import official_names
from tiny_bundle import SIDE, write_bundle

from geodtr import open_bundle
from geodtr.runtime.files.reading import sha256
from geodtr.runtime.machine import this_cpu
from geodtr.runtime.manifest import read_manifest, write_manifest
from geodtr.runtime.spec import Preprocessing
from geodtr.training.models.checkpoint import load_checkpoint, save_checkpoint
from geodtr.training.models.geodtr.geodtr import BackboneConfig, GeoDTR, GeoDTRConfig
from geodtr.training.models.importers.geodtr import AERIAL_POLAR, GROUND
from geodtr.training.models.importers.official import import_official

_THIN = BackboneConfig(widths=(4, 4, 4, 4), blocks=(1, 1, 1, 1))


def checkpoint(root: Path) -> Kind:
    file, how = root / "m.safetensors", Preprocessing(height=32, width=32)
    save_checkpoint(file, GeoDTR(GeoDTRConfig(backbone=_THIN, heads=1, feed_forward=8), how, how), "none")
    content = file.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    header, tensors = content[8 : 8 + length].decode(), content[8 + length :]
    own = json.loads(header)["__metadata__"]["geodtr"]

    def packed(text: str) -> bytes:
        return struct.pack("<Q", len(text.encode())) + text.encode() + tensors

    def described(text: str) -> bytes:
        document = json.loads(header)
        document["__metadata__"]["geodtr"] = text
        return packed(json.dumps(document))

    inputs = changed_json(header).map(packed) | changed_json(own).map(described) | damaged(content, 8 + length)
    return of_file(file, inputs, lambda: load_checkpoint(file))


def official(root: Path) -> Kind:
    """As an official release: PyTorch's archive."""
    file = root / "m.pth"
    model = GeoDTR(GeoDTRConfig(backbone=_THIN, feed_forward=8), GROUND, AERIAL_POLAR)
    torch.save({"epoch": 7, "model_state_dict": official_names(model.state_dict())}, file)
    (root / "a_parameter.json").write_text(json.dumps({"TR_heads": 4}))
    content = file.read_bytes()
    pickled = content.index(b"data.pkl") + 64
    middle = st.builds(lambda part: content[:pickled] + part + content[pickled + 20_000 :], _part(content, pickled))
    end = st.builds(lambda part: content[:-20_000] + part, damaged(content[-20_000:], 20_000))
    parameters = root / "a_parameter.json"
    return of_file(file, damaged(content) | middle | end, lambda: import_official(file, parameters))


def _part(content: bytes, start: int) -> st.SearchStrategy[bytes]:
    """Where the archive's pickle is."""
    return damaged(content[start : start + 20_000], 20_000)


def onnx(root: Path) -> Kind:
    return _engine(root, "onnx")


def openvino(root: Path) -> Kind:
    return _engine(root, "openvino")


def _engine(root: Path, backend: str) -> Kind:
    bundle = write_bundle(root / "bundle")
    images = np.zeros((2, SIDE, SIDE, 3), np.uint8)
    file = bundle / "ground.onnx"
    content = file.read_bytes()
    manifest = read_manifest(bundle)
    entry = msgspec.structs.replace(manifest.backend, name=backend, version="0", machine=this_cpu())
    manifest = msgspec.structs.replace(manifest, backend=entry)

    def read() -> None:
        hashed = msgspec.structs.replace(manifest.ground, bytes=file.stat().st_size, sha256=sha256(file))
        write_manifest(bundle, msgspec.structs.replace(manifest, ground=hashed))
        open_bundle(bundle).embedder("ground").embed(images)

    return of_file(file, damaged(content, len(content)), read)
