"""Engines with shorter descriptors: every backend and precision keeps the projection, and galleries tell them apart."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from shutil import copytree

import numpy as np
import onnx
import pytest
import torch
from conftest import Outcome, Trained
from tensorrt_on_fakes import shake
from tiny_bundle import write_correlating_bundle

from geodtr import (
    BuildRequest,
    Bundle,
    Calibration,
    Compact,
    Float,
    Localizer,
    OpenVinoOptions,
    Quantized,
    Recompile,
    build_engine,
    build_gallery,
    open_bundle,
)
from geodtr.calibration.operators import is_projection, operators
from geodtr.export.build.projected import ProjectionPlan, projected
from geodtr.export.build.source import export_checkpoint
from geodtr.export.calibration_pool import pool_of
from geodtr.export.graph.projection import read_projection
from geodtr.export.graph.structure import tensor_types
from geodtr.export.model import open_model
from geodtr.export.parity import Gates, compare
from geodtr.runtime.build_command import from_checkpoint, rebuild_command
from geodtr.runtime.errors import BundleError, ConfigError, DataError, EmbeddingSpaceMismatch
from geodtr.runtime.names import BRANCHES
from geodtr.training.data.pair_set import PairSet
from geodtr.training.evaluation.evaluate import embed_pairs
from geodtr.training.models.checkpoint import save_checkpoint
from geodtr.training.models.registry import build_model
from geodtr.training.presets.load import load_preset

SIZE = 48


@pytest.fixture(scope="module")
def fitting_set(trained: Trained) -> PairSet:
    return trained.train_set.first(240)


@pytest.fixture(scope="module")
def few(trained: Trained) -> PairSet:
    return trained.test_set.first(120)


@pytest.fixture(scope="module")
def compact(trained: Trained, fitting_set: PairSet, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Float32 engines of the trained model, whose descriptors are projected."""
    out = tmp_path_factory.mktemp("compact") / "fp32"
    return build_engine(BuildRequest(trained.onnx.path, out, compact=Compact(SIZE, fitting_set)))


@pytest.fixture(scope="module")
def int8(compact: Bundle, trained: Trained) -> Bundle:
    """What is built from them in INT8."""
    plan = Quantized(Calibration(pool_of(trained.train_set), images=16), keep_cosine=0.99)
    return build_engine(BuildRequest(compact.path, compact.path.with_name("int8"), plan=plan))


def test_descriptors_are_the_models_own_projected_in_float64(trained: Trained, compact: Bundle, few: PairSet) -> None:
    model, projection = open_model(trained.checkpoint), read_projection(compact)
    own, short = embed_pairs(model.embedders, few), embed_pairs(compact.embedders(), few)
    for branch in BRANCHES:
        assert short[branch].shape[1] == SIZE == compact.manifest.engine(branch).spec.descriptor_size
        expected = projection.project(branch, own[branch])
        assert (short[branch] * expected).sum(axis=1).min() > 0.99999


def test_descriptors_of_patches_that_a_network_chooses_are_projected_too(few: PairSet, tmp_path: Path) -> None:
    config = load_preset("world-transgeo-stage2", ["model.layers=2", "model.width=32"])
    torch.manual_seed(2)  # the network of test_chosen_patches.py, whose aerial branch is exported once
    network = build_model(config.model, config.ground, config.aerial)
    shake(network)
    save_checkpoint(tmp_path / "m.safetensors", network, "random weights")
    own = export_checkpoint(tmp_path / "m.safetensors", tmp_path / "onnx")
    pairs = few.first(24)
    short = build_engine(BuildRequest(own.path, tmp_path / "short", compact=Compact(8, pairs)))
    before, after = embed_pairs(own.embedders(), pairs), embed_pairs(short.embedders(), pairs)
    assert before.chooses == after.chooses == {"aerial"}
    for branch in BRANCHES:
        expected = read_projection(short).project(branch, before[branch])
        assert (after[branch] * expected).sum(axis=1).min() > 0.99999


def test_the_manifest_records_what_the_projection_was_fitted_to(
    trained: Trained, compact: Bundle, fitting_set: PairSet
) -> None:
    entry = compact.manifest.projection
    assert entry is not None
    assert (entry.of, entry.full_size) == (trained.onnx.manifest.embedding_id, 512)
    assert (entry.data, entry.pairs, entry.data_sha256) == (fitting_set.name, 240, fitting_set.fingerprint())
    assert 0 < entry.variance < 1
    assert max(trial.hits for trial in entry.trials) <= entry.queries == 240
    assert entry.layer_hits is not None
    assert not entry.is_trained  # so few pairs prove nothing
    assert entry.hits == next(trial.hits for trial in entry.trials if trial.whitening == entry.whitening)
    assert compact.manifest.embedding_id != entry.of


def test_the_same_command_gives_the_same_space_and_another_size_another(
    trained: Trained, compact: Bundle, fitting_set: PairSet, tmp_path: Path
) -> None:
    spaces = {
        size: build_engine(BuildRequest(trained.onnx.path, tmp_path / str(size), compact=Compact(size, fitting_set)))
        for size in (SIZE, SIZE - 1)
    }
    assert spaces[SIZE].manifest.embedding_id == compact.manifest.embedding_id
    assert spaces[SIZE - 1].manifest.embedding_id != compact.manifest.embedding_id


def test_a_gallery_belongs_to_its_projection(trained: Trained, compact: Bundle, tmp_path: Path) -> None:
    with pytest.raises(EmbeddingSpaceMismatch, match="gallery build"):
        Localizer.open(compact.path, trained.gallery.path)
    spec = trained.test_set.pairs[0].ground.parents[1]
    build_gallery(tmp_path / "gallery", f"pairs:{spec}", compact)
    with Localizer.open(compact.path, tmp_path / "gallery") as localizer:
        assert localizer.locate(trained.test_set.pairs[0].ground).candidates
    with pytest.raises(EmbeddingSpaceMismatch, match="gallery build"):
        Localizer.open(trained.onnx.path, tmp_path / "gallery")


def test_every_precision_keeps_the_space_and_computes_the_projection_in_float32(
    compact: Bundle, int8: Bundle, tmp_path: Path
) -> None:
    fp16 = build_engine(BuildRequest(compact.path, tmp_path / "fp16", plan=Float("fp16")))
    expected = read_projection(compact)
    for bundle in (fp16, int8):
        assert bundle.manifest.embedding_id == compact.manifest.embedding_id
        assert bundle.manifest.projection == compact.manifest.projection
        assert np.array_equal(read_projection(bundle).weights, expected.weights)
        for branch in BRANCHES:
            graph = onnx.load(bundle.path / bundle.manifest.engine(branch).file)
            types = tensor_types(graph)
            nodes = [node for node in graph.graph.node if is_projection(node)]
            assert [node.op_type for node in nodes if node.op_type != "Cast"] == [
                "MatMul",
                "Add",
                "ReduceL2",
                "Clip",
                "Div",
            ]
            assert {types[node.output[0]] for node in nodes} == {onnx.TensorProto.FLOAT}
    assert int8.manifest.quantisation is not None
    assert int8.manifest.quantisation.operators > len(int8.manifest.quantisation.kept_float)
    for branch in BRANCHES:
        graph = onnx.load(compact.path / compact.manifest.engine(branch).file)
        assert not any(is_projection(operator) for operator in operators(graph))


def test_other_backends_and_recompiled_engines_keep_it(
    compact: Bundle, int8: Bundle, few: PairSet, tmp_path: Path
) -> None:
    again = build_engine(BuildRequest(int8.path, tmp_path / "again", plan=Recompile()))
    other = build_engine(BuildRequest(compact.path, tmp_path / "openvino", OpenVinoOptions()))
    expected = embed_pairs(compact.embedders(), few.first(16))
    for bundle in (again, other):
        assert bundle.manifest.projection == compact.manifest.projection
        assert bundle.manifest.embedding_id == compact.manifest.embedding_id
    got = embed_pairs(other.embedders(), few.first(16))
    for branch in BRANCHES:
        assert (got[branch] * expected[branch]).sum(axis=1).min() > 0.9999


def test_commands_that_build_it_again_name_the_size_and_the_pairs(
    compact: Bundle, int8: Bundle, fitting_set: PairSet
) -> None:
    options = f"--descriptor-size {SIZE} --compact-on {fitting_set.name}"
    assert options in (compact.manifest.command or "")
    assert options not in (int8.manifest.command or "")  # its source is projected
    assert options in from_checkpoint(int8.path, int8.manifest)
    assert options in from_checkpoint(compact.path, compact.manifest)
    assert options not in rebuild_command(int8.path, int8.manifest)


def test_parity_holds_an_engine_against_the_projected_reference_and_its_recall_against_the_full_one(
    trained: Trained, compact: Bundle, int8: Bundle, few: PairSet
) -> None:
    reference = open_model(trained.checkpoint)
    lenient = Gates(max_compact_drop=100, accept_undecided=True)
    result = compare(reference, [open_model(compact.path), open_model(int8.path)], few, gates=lenient)
    exact, rounded = result.candidates
    assert exact.smallest_cosine > 0.99999
    assert [stage.name for stage in exact.stages] == ["onnx", "typed", "engine"]
    assert rounded.smallest_cosine < exact.smallest_cosine
    for candidate in (exact, rounded):
        own, *_, full = candidate.pairings
        assert full.name == "full"
        assert full.at_1.before == result.figures.reference.recall.at_1
        assert full.at_1.after == own.at_1.after
        assert any("the projection included" in reason for reason in candidate.gate.reasons)
    assert exact.gate.verdict == "passed"
    assert exact.gate.certain is None  # no drop is allowed against the projected reference: cosines decide


def test_parity_fails_a_projection_that_loses_too_much_and_names_a_longer_one(
    trained: Trained, fitting_set: PairSet, few: PairSet, tmp_path: Path
) -> None:
    short = build_engine(BuildRequest(trained.onnx.path, tmp_path / "2", compact=Compact(2, fitting_set)))
    reference, candidate = open_model(trained.checkpoint), open_model(short.path)
    result = compare(reference, [candidate], few)
    (judged,) = result.candidates
    assert (judged.gate.verdict, judged.gate.pairing, judged.gate.blamed) == ("failed", "full", None)
    assert judged.smallest_cosine > 0.99999
    assert judged.next_step is not None
    assert f"build-engine {trained.checkpoint}" in judged.next_step
    assert "--descriptor-size 4 " in judged.next_step
    assert compare(reference, [candidate], few, gates=Gates(max_compact_drop=100), stages=False).passed
    # Against a bundle with the same projection there is nothing but the engine to judge.
    (same,) = compare(candidate, [candidate], few, stages=False).candidates
    assert [pairing.name for pairing in same.pairings] == ["own", "queries", "gallery"]


def test_parity_refuses_another_projection(
    compact: Bundle, trained: Trained, fitting_set: PairSet, few: PairSet, tmp_path: Path
) -> None:
    other = build_engine(BuildRequest(trained.onnx.path, tmp_path / "8", compact=Compact(8, fitting_set)))
    with pytest.raises(BundleError, match="projects its descriptors otherwise"):
        compare(open_model(other.path), [open_model(compact.path)], few)


def test_inspect_and_doctor_report_the_projection(cli: Callable[..., Outcome], compact: Bundle) -> None:
    shown = cli("inspect", compact.path)
    assert shown.code == 0
    assert f"descriptors are projected from 512 numbers (embedding id {compact.manifest.projection.of})" in shown.out  # type: ignore[union-attr]
    assert cli("doctor", compact.path).code == 0


def test_a_trained_layer_is_named_and_one_without_its_trial_refused(
    cli: Callable[..., Outcome], compact: Bundle, refused: Callable[..., str], tmp_path: Path
) -> None:
    copy = copytree(compact.path, tmp_path / "copy")
    manifest = json.loads((copy / "manifest.json").read_bytes())
    manifest["projection"] |= {"is_trained": True, "layer_hits": 120}
    (copy / "manifest.json").write_text(json.dumps(manifest))
    assert "then trained as a linear layer; each held out once, they give R@1 50.0 " in cli("inspect", copy).out
    manifest["projection"]["layer_hits"] = None
    (copy / "manifest.json").write_text(json.dumps(manifest))
    assert "none of its trials" in refused("inspect", copy)


def test_descriptors_for_another_scorer_are_refused(fitting_set: PairSet, tmp_path: Path) -> None:
    bundle = open_bundle(write_correlating_bundle(tmp_path / "bundle"))
    with pytest.raises(ConfigError, match="compared by correlation over the heading"):
        projected(bundle, ProjectionPlan(8, fitting_set), tmp_path)


def test_a_second_projection_and_a_size_not_below_the_models_are_refused(
    trained: Trained, compact: Bundle, fitting_set: PairSet, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=f"projected already, from 512 numbers to {SIZE}"):
        build_engine(BuildRequest(compact.path, tmp_path / "twice", compact=Compact(8, fitting_set)))
    large = replace(trained.train_set, pairs=trained.train_set.pairs[:600])
    with pytest.raises(ConfigError, match=r"descriptor_size is 512, .* 512 numbers"):
        build_engine(BuildRequest(trained.onnx.path, tmp_path / "long", compact=Compact(512, large)))
    with pytest.raises(DataError, match="has 240 usable pairs"):
        build_engine(BuildRequest(trained.onnx.path, tmp_path / "few", compact=Compact(300, fitting_set)))
    assert not any(tmp_path.iterdir())


def test_half_a_request_is_refused(refused: Callable[..., str], trained: Trained, pairs: Path, tmp_path: Path) -> None:
    ask = ("build-engine", trained.onnx.path, "--out", tmp_path / "out")
    assert "add --compact-on SPEC" in refused(*ask, "--descriptor-size", 8)
    assert "add --descriptor-size N" in refused(*ask, "--compact-on", f"pairs:{pairs}")
    both = ("--descriptor-size", 8, "--compact-on", f"pairs:{pairs}")
    assert "not for the precision same" in refused(*ask, *both, "--precision", "same")
    assert "at most --descriptor-size 18" in refused(*ask, "--descriptor-size", 19, "--compact-on", f"pairs:{pairs}")
