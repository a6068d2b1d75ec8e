"""Engines have the recall of the PyTorch model, and a bundle's manifest matches its files."""

import inspect
import json
import shutil
from collections.abc import Callable, Collection
from pathlib import Path
from types import SimpleNamespace

import msgspec
import numpy as np
import onnx
import pytest
from conftest import BUILT, Outcome, Trained
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_bundle import write_bundle

from geodtr import BuildRequest, Calibration, Float, OnnxRuntimeOptions, Quantized, build_engine, open_bundle
from geodtr.export.backends.registry import make_builder
from geodtr.export.build.source import export_checkpoint
from geodtr.export.calibration_pool import pool_of
from geodtr.export.graph import export as graph_export
from geodtr.export.precision.cosine_selection import largest_good
from geodtr.runtime.embed.pipeline import embed_files
from geodtr.runtime.errors import BundleError
from geodtr.runtime.files import sha256
from geodtr.runtime.manifest import read_manifest, write_manifest
from geodtr.runtime.names import BRANCHES, Precision
from geodtr.runtime.progress import untracked


@pytest.mark.parametrize("precision", BUILT)
def test_a_row_does_not_depend_on_its_batch(trained: Trained, precision: Precision) -> None:
    embedder = trained.bundles[precision].embedder("ground")
    paths = trained.test_set.paths("ground")[:23]
    together, alone = embed_files(embedder, paths), embed_files(embedder, paths, batch_size=1)
    # Sums in another order fall to the other side of a half, 1e-3 of a value apart.
    np.testing.assert_allclose(together, alone, atol=5e-5 if precision == "fp16" else 1e-5)
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, atol=1e-5)


def test_precision_is_a_property_of_the_file(trained: Trained) -> None:
    types = {
        precision: {node.op_type for node in _graph(trained, precision).graph.node}
        | {initializer.data_type for initializer in _graph(trained, precision).graph.initializer if initializer.dims}
        for precision in BUILT
    }
    assert "QuantizeLinear" not in types["fp32"] | types["fp16"]
    assert {"QuantizeLinear", "DequantizeLinear", onnx.TensorProto.INT8} <= types["int8"]
    assert onnx.TensorProto.FLOAT16 in types["fp16"]
    assert onnx.TensorProto.FLOAT16 not in types["fp32"] | types["int8"]


def test_halves_weigh_less_than_floats_and_a_network_quantised_whole_less_than_halves(
    trained: Trained, tmp_path_factory: pytest.TempPathFactory
) -> None:
    whole = Quantized(Calibration(pool_of(trained.train_set), images=40), keep_cosine=0.9)
    out = tmp_path_factory.mktemp("whole") / "int8"
    int8 = build_engine(BuildRequest(trained.onnx.path, out, plan=whole))
    for branch in BRANCHES:
        fp32, fp16 = (trained.bundles[precision].manifest.engine(branch).bytes for precision in ("fp32", "fp16"))
        assert int8.manifest.engine(branch).bytes < fp16 < fp32


def test_nothing_behind_the_last_product_of_an_fp16_engine_is_rounded_to_half(trained: Trained) -> None:
    graph = onnx.shape_inference.infer_shapes(_graph(trained, "fp16")).graph
    types = {entry.name: entry.type.tensor_type.elem_type for entry in (*graph.value_info, *graph.output)}
    (norm,) = [node for node in graph.node if node.op_type == "ReduceL2"]
    assert types[norm.input[0]] == types[norm.output[0]] == onnx.TensorProto.FLOAT
    assert types["descriptors"] == onnx.TensorProto.FLOAT


def test_the_same_checkpoint_gives_the_same_bytes(
    trained: Trained, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(graph_export, "export_network", inspect.unwrap(graph_export.export_network))
    again = export_checkpoint(trained.checkpoint, tmp_path_factory.mktemp("again") / "onnx")
    for branch in BRANCHES:
        assert again.manifest.engine(branch).sha256 == trained.onnx.manifest.engine(branch).sha256


def test_engines_come_from_a_checkpoint_as_from_its_exported_bundle(
    trained: Trained, tmp_path_factory: pytest.TempPathFactory
) -> None:
    out = tmp_path_factory.mktemp("direct") / "fp16"
    direct = build_engine(BuildRequest(trained.checkpoint, out, plan=Float("fp16")))
    for branch in BRANCHES:
        assert direct.manifest.engine(branch).sha256 == trained.bundles["fp16"].manifest.engine(branch).sha256


def test_parity_passes_and_records_and_prints_its_verdict(trained: Trained, cli: Callable[..., Outcome]) -> None:
    bundle = trained.bundles["fp32"].path
    data = trained.test_set.name
    result = cli("parity", trained.checkpoint, bundle, "--data", data, "--limit", 60, "--json")
    assert result.code == 0
    report = json.loads(result.out)
    assert report["verdict"] == "passed"
    assert all(branch["smallest_cosine"] >= 0.99999 for branch in report["candidates"][0]["branches"])
    (entry,) = read_manifest(bundle).parity
    assert (entry.verdict, entry.data_sha256) == ("passed", report["data_sha256"])
    assert entry.pairs == 60
    assert "passed" in cli("inspect", bundle).out
    assert open_bundle(bundle).manifest.parity == (entry,)


def test_parity_fails_with_exit_code_1_when_an_engine_is_worse(
    trained: Trained, cli: Callable[..., Outcome], tmp_path_factory: pytest.TempPathFactory
) -> None:
    root = tmp_path_factory.mktemp("swapped")
    bundle = build_engine(BuildRequest(trained.onnx.path, root / "bundle"))
    swapped = _swap_colours(trained)
    (bundle.path / "ground.onnx").write_bytes(swapped)
    _forge_manifest(bundle.path)
    result = cli("parity", trained.checkpoint, bundle.path, "--data", trained.test_set.name, "--limit", 60)
    assert result.code == 1
    assert "FAILED" in result.out
    assert read_manifest(bundle.path).parity[0].verdict == "failed"


@settings(max_examples=200, deadline=None)
@given(bad=st.sets(st.integers(0, 35), max_size=36))
def test_halving_leaves_out_only_the_bad_images(bad: set[int]) -> None:
    items = [str(number) for number in range(36)]
    spoilt = {str(number) for number in bad}
    tried = list[frozenset[str]]()

    def good(chosen: Collection[str]) -> bool:
        tried.append(frozenset(chosen))
        return not spoilt & set(chosen)

    decided = dict(largest_good(items, good))
    assert list(decided) == items
    assert len(set(tried)) == len(tried), "a set was tried twice"
    assert {name for name, accepted in decided.items() if accepted} == set(items) - spoilt


def _graph(trained: Trained, precision: Precision) -> onnx.ModelProto:
    return onnx.load(str(trained.bundles[precision].path / "ground.onnx"))


def _swap_colours(trained: Trained) -> bytes:
    """The ground branch of a model that reads BGR for RGB: a fault that parity must catch."""
    graph = _graph(trained, "fp32")
    first = next(node for node in graph.graph.node if node.op_type == "Conv")
    weight = next(entry for entry in graph.graph.initializer if entry.name == first.input[1])
    values = onnx.numpy_helper.to_array(weight)
    weight.CopyFrom(onnx.numpy_helper.from_array(np.ascontiguousarray(values[:, ::-1]), weight.name))
    return bytes(graph.SerializeToString())


def _forge_manifest(bundle: Path) -> None:
    """Make the manifest agree with an altered ground engine, so that only parity can tell."""
    file = bundle / "ground.onnx"
    manifest = read_manifest(bundle)
    entry = msgspec.structs.replace(manifest.ground, sha256=sha256(file), bytes=file.stat().st_size, compiled=None)
    write_manifest(bundle, msgspec.structs.replace(manifest, ground=entry))


def test_a_disk_that_fills_up_while_a_graph_is_optimised_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the free space is replaced: ONNX Runtime itself reports that serialisation failed."""
    bundle = open_bundle(write_bundle(tmp_path / "bundle"))
    entry = bundle.manifest.ground
    (tmp_path / "ground.optimised.onnx").mkdir()  # a place that cannot be written
    builder = make_builder(OnnxRuntimeOptions())
    with pytest.raises(BundleError, match="refuses"):
        builder.compile(bundle.path / entry.file, entry.spec, "fp32", tmp_path, track=untracked)
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: SimpleNamespace(free=0))
    with pytest.raises(OSError, match="No space left"):
        builder.compile(bundle.path / entry.file, entry.spec, "fp32", tmp_path, track=untracked)
