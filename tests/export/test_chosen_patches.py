"""A choice of patches is compared apart from descriptors of what was chosen, and a rounding may exchange patches."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from nvidia import build_plan
from onnx import numpy_helper
from tensorrt_on_fakes import shake

from geodtr import TensorRtOptions
from geodtr.export.cosines import counted
from geodtr.export.graph.checks import check_export
from geodtr.export.graph.discrete import argmax_flips, compare_patches
from geodtr.export.graph.export import export_network
from geodtr.export.graph.structure import GraphError
from geodtr.export.parity.gates import Limits
from geodtr.export.parity.judgement import Measured, judge
from geodtr.export.parity.measures.agreement import agreements
from geodtr.export.parity.measures.pairings import pairing
from geodtr.export.precision.fp16 import to_fp16
from geodtr.runtime.engines.onnxruntime import OnnxRuntimeEmbedder, open_session
from geodtr.runtime.names import Branch
from geodtr.runtime.spec import BranchSpec, Descriptors, Images, noise
from geodtr.training.data.pair_set import Pair, PairSet
from geodtr.training.evaluation.evaluate import DescriptorPair
from geodtr.training.models.embedder import from_pixels
from geodtr.training.models.registry import build_model
from geodtr.training.presets.load import load_preset


@pytest.fixture(scope="module")
def graph() -> Any:
    """Of an aerial branch with random weights."""
    config = load_preset("world-transgeo-stage2", ["model.layers=2", "model.width=32"])
    torch.manual_seed(2)
    network = build_model(config.model, config.ground, config.aerial)
    shake(network)
    return export_network(from_pixels(network, "aerial"), config.aerial)


@pytest.fixture(scope="module")
def images() -> Images:
    shape = load_preset("world-transgeo-stage2").aerial.shape
    return np.random.default_rng(5).integers(0, 256, (16, *shape), np.uint8)


def _spec_of(graph: Any) -> BranchSpec:
    size = graph.graph.output[0].type.tensor_type.shape.dim[1].dim_value
    how = load_preset("world-transgeo-stage2").aerial
    return BranchSpec(branch="aerial", preprocessing=how, descriptor_size=size)


def _halved(graph: Any, name: str) -> Any:
    """A copy in which the weights of this name are half as large."""
    copied = type(graph)()
    copied.CopyFrom(graph)
    (entry,) = [each for each in copied.graph.initializer if each.name == name]
    entry.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(entry) / np.float32(2), name))
    return copied


def test_a_graph_agrees_with_itself(graph: Any, images: Images) -> None:
    agreement = compare_patches(graph, graph, images)
    assert agreement is not None
    assert (agreement.images, agreement.changed, agreement.others) == (16, 0, 0.0)
    assert agreement.smallest_cosine == pytest.approx(1, abs=1e-6)
    assert argmax_flips(graph, graph, images) is None


def test_another_choice_and_other_descriptors_are_two_findings(graph: Any, images: Images) -> None:
    by_map = compare_patches(graph, _halved(graph, "branch.map.tokens.embedding.weight"), images)
    assert by_map is not None
    assert by_map.changed > 0
    assert 0 < by_map.others <= 1
    assert by_map.smallest_cosine == pytest.approx(1, abs=1e-6)
    by_descriptor = compare_patches(graph, _halved(graph, "branch.distillation_head.bias"), images)
    assert by_descriptor is not None
    assert by_descriptor.changed == 0
    assert by_descriptor.smallest_cosine < 0.9999


def test_half_precision_leaves_the_choice_in_float32(graph: Any, images: Images) -> None:
    typed = to_fp16(graph)
    types = {
        entry.name: entry.type.tensor_type.elem_type
        for entry in onnx.shape_inference.infer_shapes(typed).graph.value_info
    }
    (choice,) = [node for node in typed.graph.node if node.op_type == "TopK"]
    assert types[choice.input[0]] == onnx.TensorProto.INT32
    (floor,) = [node for node in typed.graph.node if node.op_type == "Floor"]
    assert types[floor.input[0]] == onnx.TensorProto.FLOAT
    agreement = compare_patches(graph, typed, images, "none")
    assert agreement is not None
    assert agreement.others < 0.02
    assert agreement.smallest_cosine > 0.9999


def test_of_a_network_that_chooses_patches_few_images_do_not_count() -> None:
    cosine = np.array([0.999, 1.0, 0.99, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0])
    assert counted(cosine, chooses=False).min() == 0.99
    assert counted(cosine, chooses=True).min() == 1.0
    # More than one image in five, or one that is too far: then something else is wrong.
    assert counted(np.append(cosine[:9], 0.995), chooses=True).min() == 0.999
    assert counted(np.append(cosine[:9], 0.97), chooses=True).min() == 0.97
    assert not counted(np.append(cosine[:9], np.nan), chooses=True).min() >= 0.9
    assert not counted(np.full(3, np.nan), chooses=True).min() >= 0.9


@pytest.mark.usefixtures("nvidia")
def test_nvidias_builder_takes_the_choice_in_half_precision(graph: Any, tmp_path: Path) -> None:
    onnx.save(to_fp16(graph), str(tmp_path / "aerial.onnx"))
    assert len(build_plan(tmp_path / "aerial.onnx", _spec_of(graph), TensorRtOptions())) > 10_000


def test_a_promise_is_of_the_images_that_count_too() -> None:
    random = np.random.default_rng(0)
    rows = random.normal(size=(20, 32)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    other = rows + np.float32(0.15 / 32**0.5) * random.normal(size=rows.shape).astype(np.float32)
    other[4:] = rows[4:]
    pairs = PairSet("pairs:made", tuple(Pair(Path(f"g{row}"), Path(f"a{row}")) for row in range(20)))
    limits = Limits(max_drop=0.005, least_cosine=0.9, promised_cosine=0.999)
    for chooses, verdict in ((frozenset[Branch](), "failed"), (frozenset[Branch]({"aerial"}), "passed")):
        before, after = (DescriptorPair(pairs, rows, aerial, None, chooses) for aerial in (rows, other))
        branches = agreements(before, after, {})
        same = pairing("own", before.ranking(), before.ranking())
        checks = judge(Measured(branches, [same], (), (), None, ()), limits).checks
        assert [check.verdict for check in checks if check.name == "promise"] == ["passed", verdict]


@pytest.mark.parametrize(("images", "left_out"), [(1, 0), (4, 0), (5, 1), (7, 1), (9, 1), (10, 2)])
def test_at_most_one_image_in_five_does_not_count(images: int, left_out: int) -> None:
    rising = np.linspace(0.981, 0.99, images, dtype=np.float64)
    assert counted(rising, chooses=True).min() == rising[left_out]


@pytest.mark.parametrize("turned", [1, 2])
def test_an_export_may_choose_other_patches_for_one_image_in_five(graph: Any, tmp_path: Path, turned: int) -> None:
    file, spec = tmp_path / "aerial.onnx", _spec_of(graph)
    onnx.save(graph, str(file))
    others = {image.tobytes() for image in noise(spec, turned)}
    embedder = OnnxRuntimeEmbedder(open_session(file), spec, file)

    class Reference:
        """The same, but for some images."""

        spec = embedder.spec

        def embed(self, images: Images) -> Descriptors:
            rows = embedder.embed(images)
            other = rows + 0.1 * np.roll(rows, 1, axis=1)
            other /= np.linalg.norm(other, axis=1, keepdims=True)
            turns = np.array([image.tobytes() in others for image in images])
            return np.where(turns[:, None], other, rows)

    if turned == 1:
        check_export(file, Reference())
    else:
        with pytest.raises(GraphError, match="differs from PyTorch"):
            check_export(file, Reference())
