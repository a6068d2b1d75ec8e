"""Running TensorRT plans, by the fakes of tensorrt_on_fakes.py."""

import gc
import re
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import fake_cuda
import fake_pycuda
import numpy as np
import onnx
import pytest
from checkout import ROOT
from tensorrt_on_fakes import Machine

from geodtr import BuildRequest, Bundle, Recompile, UserError, build_engine
from geodtr.runtime.engines.tensorrt.cuda import open_cuda
from geodtr.runtime.errors import BundleError, MissingDependency
from geodtr.runtime.names import Precision
from geodtr.runtime.spec import Images


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_descriptors_are_the_results_of_the_graph(
    build: Callable[..., Bundle], images: Images, precision: Precision
) -> None:
    """The descriptors must equal the results of the bundle's typed graph, run by ONNX Runtime."""
    bundle = build(precision)
    plan = Recompile("tensorrt" if precision == "int8" else None)
    request = BuildRequest(bundle.path, bundle.path.with_name("onnx"), plan=plan)
    onnx_bundle = build_engine(request)
    got, expected = bundle.embedder("ground").embed(images), onnx_bundle.embedder("ground").embed(images)
    np.testing.assert_allclose(got, expected, atol=1e-6)
    both = bundle.embedders()
    np.testing.assert_allclose(both["ground"].embed(images), expected, atol=1e-6)
    assert both["aerial"].embed(images[:0]).shape == (0, bundle.manifest.aerial.spec.descriptor_size)


def test_layers_are_listed_by_name_and_time_up_to_the_largest_batch(
    build: Callable[..., Bundle], images: Images
) -> None:
    bundle = build(max_batch=8)
    layers = bundle.layer_times("ground", images, calls=3)
    assert {layer.name for layer in layers} == {
        node.name for node in onnx.load(str(bundle.path / "ground.onnx")).graph.node
    }
    times = [layer.milliseconds for layer in layers]
    assert times == sorted(times, reverse=True)
    assert min(times) > 0


def test_batches_are_cut_at_the_largest_and_padded_to_the_smallest(
    build: Callable[..., Bundle], images: Images, machine: Machine
) -> None:
    embedder = build(min_batch=4, opt_batch=4, max_batch=8).embedder("ground")
    alone = np.concatenate([embedder.embed(image[None]) for image in images])
    before = machine.gpu.calls["launch"]
    np.testing.assert_allclose(embedder.embed(images), alone, atol=1e-6)
    assert machine.gpu.calls["launch"] - before == 3  # 8, 8, and 5


def test_both_branches_share_one_stream_and_one_set_of_buffers(
    build: Callable[..., Bundle], images: Images, machine: Machine
) -> None:
    opened = build().embedders()
    machine.gpu.calls.clear()
    for _ in range(3):
        for branch in ("ground", "aerial"):
            how = opened[branch].spec.preprocessing
            opened[branch].embed(np.zeros((5, how.height, how.width, 3), np.uint8))
    assert machine.gpu.calls["stream"] == 1
    assert machine.gpu.calls["malloc"] == 5  # scratch; images and rows, on the device and pinned
    assert machine.gpu.calls["graph"] == 2  # a branch each, at batch 5
    assert machine.gpu.calls["launch"] == 6
    opened["ground"].embed(images[:6])
    assert machine.gpu.calls["graph"] == 3


def test_a_last_short_batch_captures_no_graph_until_its_size_comes_again(
    build: Callable[..., Bundle], images: Images, machine: Machine
) -> None:
    embedder = build().embedder("ground")
    alone = np.concatenate([embedder.embed(image[None]) for image in images])
    machine.gpu.calls.clear()
    for graphs in (1, 2):
        batched = np.concatenate([embedder.embed(images[start : start + 8]) for start in (0, 8, 16)])
        np.testing.assert_allclose(batched, alone, atol=1e-6)
        assert machine.gpu.calls["graph"] == graphs


def test_contexts_of_unused_batch_sizes_are_released(build: Callable[..., Bundle], images: Images) -> None:
    embedder = build().embedder("ground")
    expected = embedder.embed(images)
    for _ in range(2):
        for size in range(1, 21):
            np.testing.assert_allclose(embedder.embed(images[:size]), expected[:size], atol=1e-6)
    gc.collect()
    assert len(fake_cuda.fake_gpu.graphs) <= 8


def test_work_that_cannot_be_captured_runs_without_a_graph(
    build: Callable[..., Bundle], images: Images, machine: Machine
) -> None:
    expected = build().embedder("ground").embed(images)
    machine.gpu.refuses_capture = True
    machine.gpu.calls.clear()
    np.testing.assert_allclose(build(name="plain").embedder("ground").embed(images), expected, atol=1e-6)
    assert machine.gpu.calls["launch"] == 0


def test_each_thread_uses_its_own_stream(build: Callable[..., Bundle], images: Images, machine: Machine) -> None:
    embedder = build().embedder("ground")
    expected = embedder.embed(images)
    machine.gpu.calls.clear()
    with ThreadPoolExecutor(3) as pool:
        results = list(pool.map(lambda size: embedder.embed(images[:size]), [21, 1, 5, 21, 9, 2, 21, 5, 1]))
    for rows in results:
        np.testing.assert_allclose(rows, expected[: len(rows)], atol=1e-6)
    assert 1 <= machine.gpu.calls["stream"] <= 3


def test_pycuda_serves_where_cuda_bindings_is_not_installed(
    build: Callable[..., Bundle], images: Images, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = build()
    expected = bundle.embedder("ground").embed(images)
    monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", None)
    monkeypatch.setitem(sys.modules, "pycuda.driver", fake_pycuda)
    fake_pycuda.Context.pop()
    machine.gpu.calls.clear()
    embedder = bundle.embedder("ground")
    np.testing.assert_allclose(embedder.embed(images), expected, atol=1e-6)
    with ThreadPoolExecutor(1) as pool:
        np.testing.assert_allclose(pool.submit(embedder.embed, images[:3]).result(), expected[:3], atol=1e-6)
    assert machine.gpu.calls["launch"] == 0  # it knows no graphs
    machine.gpu.free_bytes = 1000
    with pytest.raises(UserError, match="--max-batch"):
        bundle.embedder("ground").embed(images)
    machine.gpu.error = fake_cuda.cudaError_t.cudaErrorNoDevice
    with pytest.raises(MissingDependency, match="cuInit failed"):
        open_cuda()


@pytest.mark.parametrize(
    ("complaint", "fault", "message"),
    [
        ("Error Code 1: Cuda Runtime (invalid argument)", "cudaSuccess", "it could not run a batch: Error Code 1"),
        ("Error Code 2: OutOfMemory (Requested size was 99 bytes.)", "cudaSuccess", "no memory left.*--max-batch"),
        ("", "cudaErrorIllegalAddress", "CUDA: cudaErrorIllegalAddress"),
        ("", "cudaErrorMemoryAllocation", "no memory left.*--max-batch"),
    ],
)
def test_what_fails_while_a_plan_runs_is_one_message(
    build: Callable[..., Bundle], images: Images, machine: Machine, complaint: str, fault: str, message: str
) -> None:
    bundle = build()
    for warm in (False,) if complaint else (False, True):  # a captured graph runs without the library
        embedder = bundle.embedder("ground")
        expected = embedder.embed(images) if warm else None
        machine.trt.run_fails, machine.gpu.fault = complaint, fake_cuda.cudaError_t[fault]
        with pytest.raises(UserError, match=message) as error:
            embedder.embed(images)
        assert "no memory" in message or "ground.plan" in str(error.value)
        machine.trt.run_fails, machine.gpu.fault = "", fake_cuda.cudaError_t.cudaSuccess
        if expected is not None:
            np.testing.assert_allclose(embedder.embed(images), expected, atol=1e-6)


def test_what_fails_while_a_plan_is_loaded_is_one_message(build: Callable[..., Bundle], machine: Machine) -> None:
    bundle = build()
    machine.trt.load_fails = "Error Code 1: Serialization (magic tag does not match)"
    with pytest.raises(BundleError, match=r"TensorRT refuses it: Error Code 1.*Build it here"):
        bundle.embedder("ground")
    machine.trt.load_fails = "[defaultAllocator.cpp] Cuda Runtime (out of memory)"
    with pytest.raises(UserError, match=r"no memory left.*--max-batch"):
        bundle.embedder("ground")


def test_one_module_knows_cuda() -> None:
    files = [path for room in ("runtime", "calibration", "training", "export") for path in (ROOT / room).rglob("*.py")]
    knowing = {path.name for path in files if re.search(r"cuda\.bindings|import pycuda|pycuda\.", path.read_text())}
    assert knowing == {"cuda.py"}


def test_a_full_gpu_is_reported(build: Callable[..., Bundle], images: Images, machine: Machine) -> None:
    embedder = build().embedder("ground")
    machine.gpu.free_bytes = 1000
    with pytest.raises(UserError, match="--max-batch"):
        embedder.embed(images)
