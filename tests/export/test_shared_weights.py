"""One network with two input sizes is stored once in a bundle, and its branches go together."""

import shutil
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import onnx
import pytest
import torch
from conftest import Outcome
from nvidia import build_plan

from geodtr import (
    BuildRequest,
    Bundle,
    Float,
    OnnxRuntimeOptions,
    OpenVinoOptions,
    TensorRtOptions,
    build_engine,
    open_bundle,
)
from geodtr.export.backends.options import BackendOptions
from geodtr.export.build.precisions import Recompile
from geodtr.export.build.request import FastestBackend
from geodtr.export.build.source import export_checkpoint
from geodtr.export.graph.shared_weights import share_weights
from geodtr.runtime.archive.keys import new_key
from geodtr.runtime.archive.pack import pack
from geodtr.runtime.manifest import read_manifest, write_manifest
from geodtr.runtime.names import BRANCHES
from geodtr.runtime.spec import noise
from geodtr.runtime.triton.repository import write_repository
from geodtr.training.models.checkpoint import load_checkpoint, save_checkpoint
from geodtr.training.models.embedder import embedders
from geodtr.training.models.registry import build_model
from geodtr.training.presets.load import load_preset


def _exported(folder: Path, seed: int) -> Bundle:
    config = load_preset("world-sample4geo", ["model.widths=[32,64]", "model.blocks=[1,1]"])
    torch.manual_seed(seed)
    save_checkpoint(folder / "m.safetensors", build_model(config.model, config.ground, config.aerial), "random weights")
    return export_checkpoint(folder / "m.safetensors", folder / "onnx")


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return _exported(tmp_path_factory.mktemp("first"), 0)


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return _exported(tmp_path_factory.mktemp("second"), 1)


def _weights(bundle: Bundle) -> Path:
    first, second = (bundle.manifest.engine(branch).weights for branch in BRANCHES)
    assert first is not None
    assert first == second
    return bundle.path / first.file


def test_a_bundle_is_as_large_as_the_network_once(exported: Bundle) -> None:
    model = load_checkpoint(exported.path.parent / "m.safetensors").model
    parameters = 4 * sum(parameter.numel() for parameter in model.parameters())
    assert _weights(exported).stat().st_size < parameters
    assert parameters < exported.bytes < 1.3 * parameters
    assert exported.bytes == sum(path.stat().st_size for path in exported.path.glob("[!m]*"))
    for branch in BRANCHES:
        images = noise(exported.manifest.engine(branch).spec, 3)
        np.testing.assert_allclose(
            exported.embedder(branch).embed(images), embedders(model)[branch].embed(images), atol=1e-6
        )


def test_graphs_that_share_nothing_get_no_file(tmp_path: Path) -> None:
    paths = [tmp_path / "a.onnx", tmp_path / "b.onnx"]
    for fill, path in enumerate(paths):
        tensor = onnx.numpy_helper.from_array(np.full(4096, fill, np.float32), "w")
        onnx.save(onnx.helper.make_model(onnx.helper.make_graph([], "g", [], [], [tensor])), str(path))
    before = [path.read_bytes() for path in paths]
    share_weights(paths)
    assert sorted(tmp_path.iterdir()) == paths
    assert [path.read_bytes() for path in paths] == before


@pytest.mark.parametrize("backend", [OnnxRuntimeOptions(), OpenVinoOptions(), FastestBackend()])
def test_engines_are_built_and_built_again_of_shared_graphs(
    exported: Bundle, tmp_path: Path, backend: BackendOptions | FastestBackend
) -> None:
    plan = Float("fp32" if isinstance(backend, FastestBackend) else "fp16")
    built = build_engine(BuildRequest(exported.path, tmp_path / "built", plan=plan, backend=backend))
    assert _weights(built).is_file()
    again = build_engine(BuildRequest(built.path, tmp_path / "again", plan=Recompile()))
    assert _weights(again).read_bytes() == _weights(built).read_bytes()
    for branch in BRANCHES:
        assert again.manifest.engine(branch).sha256 == built.manifest.engine(branch).sha256
        images = noise(exported.manifest.engine(branch).spec, 3)
        expected = exported.embedder(branch).embed(images)
        for bundle in (built, again):
            assert np.sum(bundle.embedder(branch).embed(images) * expected, axis=1).min() > 0.9999


@pytest.mark.usefixtures("nvidia")
def test_nvidias_parser_reads_the_weights_beside_the_graph(exported: Bundle) -> None:
    parameters = _weights(exported).stat().st_size
    for branch in BRANCHES:
        entry = exported.manifest.engine(branch)
        assert len(build_plan(exported.path / entry.file, entry.spec, TensorRtOptions())) > 0.9 * parameters


def test_a_branch_of_another_model_is_refused_by_name(
    exported: Bundle, other: Bundle, tmp_path: Path, refused: Callable[..., str]
) -> None:
    mixed = shutil.copytree(exported.path, tmp_path / "mixed")
    shutil.copyfile(other.path / "ground.onnx", mixed / "ground.onnx")
    assert "ground.onnx was altered" in refused("inspect", mixed)
    whole, manifest = read_manifest(exported.path), read_manifest(other.path)
    write_manifest(mixed, msgspec.structs.replace(whole, ground=manifest.ground))
    shutil.copyfile(_weights(other), mixed / _weights(other).name)
    message = " ".join(refused("inspect", mixed).split())
    assert "share their weights" in message
    assert "was replaced by another model's branch" in message
    shutil.copyfile(exported.path / "aerial.onnx", mixed / "aerial.onnx")
    ground = msgspec.structs.replace(manifest.ground, weights=whole.ground.weights)
    write_manifest(mixed, msgspec.structs.replace(whole, ground=ground))
    message = " ".join(refused("build-engine", mixed, "--precision", "fp16", "--out", tmp_path / "b").split())
    assert f"{_weights(exported).name}, and ground was replaced" in message


def test_inspect_lists_them(exported: Bundle, cli: Callable[..., Outcome]) -> None:
    shown = cli("inspect", exported.path)
    assert shown.code == 0, shown.err
    assert exported.manifest.ground.weights is not None
    assert f"both share {exported.manifest.ground.weights.sha256[:16]}" in " ".join(
        word for word in shown.out.split() if "." not in word
    )


def test_doctor_names_weights_that_are_gone(exported: Bundle, tmp_path: Path, cli: Callable[..., Outcome]) -> None:
    bundle = tmp_path / "bundle"
    shutil.copytree(exported.path, bundle)
    (weights,) = bundle.glob("weights-*.bin")
    weights.unlink()
    examined = cli("doctor", bundle)
    assert examined.code == 1
    assert weights.name in examined.out


def test_altered_weights_are_not_run(exported: Bundle, tmp_path: Path, refused: Callable[..., str]) -> None:
    damaged = shutil.copytree(exported.path, tmp_path / "damaged")
    weights = damaged / _weights(exported).name
    content = bytearray(weights.read_bytes())
    content[len(content) // 2] ^= 1
    weights.write_bytes(content)
    assert f"{weights.name} was altered" in " ".join(refused("inspect", damaged).split())
    weights.unlink()
    assert f"{weights.name} is missing" in " ".join(refused("inspect", damaged).split())


def test_an_archive_and_a_triton_repository_hold_the_weights(
    exported: Bundle, tmp_path: Path, cli: Callable[..., Outcome]
) -> None:
    new_key(tmp_path / "key")
    index = pack(exported.path, None, tmp_path / "key", tmp_path / "a.tar")
    assert [entry.path for entry in index.files].count(f"bundle/{_weights(exported).name}") == 1
    unpacked = cli("bundle", "unpack", tmp_path / "a.tar", tmp_path / "device", "--trust", tmp_path / "key.pub")
    assert unpacked.code == 0, unpacked.err
    (manifest,) = (tmp_path / "device").rglob("manifest.json")
    assert _weights(open_bundle(manifest.parent)).is_file()
    write_repository(exported.path, None, tmp_path / "triton")
    for branch in BRANCHES:
        onnx.load(str(tmp_path / "triton" / f"geodtr_{branch}" / "1" / "model.onnx"))  # raises without its weights
