"""TensorRT's backend, whole but for the vendor's own calls, which fakes of the same surface take.

The fakes compute with ONNX Runtime on memory of the host, so descriptors must come out right; nothing here says
anything of a GPU. `make check-tensorrt` compares the fakes, and every call, with the vendor's packages.
"""

import gc
import json
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import fake_cuda
import fake_pycuda
import fake_tensorrt
import msgspec
import numpy as np
import onnx
import pytest
import torch
from conftest import Outcome
from fake_cuda import FakeGpu
from fake_tensorrt import BuilderFlag, FakeWishes

from geodtr.export.build.builder import BuildOptions, make_builder
from geodtr.export.build.tensorrt_options import TensorRtOptions
from geodtr.export.calibration_pool import pool_of
from geodtr.export.engine_builder import build_engine, export_checkpoint, recompile
from geodtr.export.precision import CalibrationPlan
from geodtr.runtime.bundle import Bundle, open_bundle
from geodtr.runtime.engines.cuda import open_cuda
from geodtr.runtime.engines.tensorrt import HOST_CODE
from geodtr.runtime.engines.tensorrt_fit import mismatches
from geodtr.runtime.engines.tensorrt_versions import layer_precisions
from geodtr.runtime.errors import BundleError, ConfigError, MissingDependency, UserError
from geodtr.runtime.files import sha256
from geodtr.runtime.manifest import BackendEntry, TensorRtEntry, read_manifest, write_manifest
from geodtr.runtime.names import Precision
from geodtr.runtime.spec import Images
from geodtr.training.checkpoint import load_checkpoint, save_checkpoint
from geodtr.training.config import load_preset
from geodtr.training.data.pair_set import PairSet
from geodtr.training.data.pairs_csv import read_pairs
from geodtr.training.models.catalogue import build_model
from geodtr.training.world.dataset import WorldSet, write_world


@dataclass
class Machine:
    """The fake GPU and the fake TensorRT, one for each test."""

    gpu: FakeGpu
    trt: FakeWishes

    def upgrade(self, version: str) -> None:
        self.trt = fake_tensorrt.fake_reset(version)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    monkeypatch.setitem(sys.modules, "tensorrt", fake_tensorrt)
    monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", fake_cuda)
    yield Machine(fake_cuda.fake_reset(), fake_tensorrt.fake_reset("10.3.0"))
    gc.collect()


@dataclass(frozen=True)
class Model:
    """A small model with weights drawn at random, and images to calibrate it on."""

    checkpoint: Path
    onnx: Bundle
    images: PairSet


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    root = tmp_path_factory.mktemp("model")
    torch.manual_seed(0)
    config = load_preset("world-tiny")
    network = build_model(config.model, config.ground, config.aerial)
    _shake(network)
    save_checkpoint(root / "c.safetensors", network, "random weights")
    write_world(root / "world", WorldSet(pairs=16, height=32, width=128, region="valley"))
    return Model(
        root / "c.safetensors", export_checkpoint(root / "c.safetensors", root / "onnx"), read_pairs(root / "world")
    )


def _shake(network: torch.nn.Module) -> None:
    """Other weights, none of them equal: the export would keep one tensor for two that are."""
    for parameter in network.parameters():
        parameter.data.add_(0.05 * torch.randn_like(parameter))


@pytest.fixture
def build(model: Model, tmp_path: Path, machine: Machine) -> Callable[..., Bundle]:
    """Build a bundle of TensorRT plans from the model."""
    del machine

    def call(precision: Precision = "fp32", name: str = "bundle", **options: Any) -> Bundle:
        calibration = CalibrationPlan(pool_of(model.images), keep_cosine=0.5) if precision == "int8" else None
        builder = make_builder("tensorrt", BuildOptions(tensorrt=TensorRtOptions(**options)))
        return build_engine(
            model.onnx.path, tmp_path / name, precision=precision, builder=builder, calibration=calibration
        )

    return call


@pytest.fixture
def images(model: Model) -> Images:
    how = model.onnx.manifest.ground.spec.preprocessing
    return np.random.default_rng(0).integers(0, 256, (21, how.height, how.width, 3), np.uint8)


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_descriptors_are_those_of_the_graph(build: Callable[..., Bundle], images: Images, precision: Precision) -> None:
    """The typed graph beside the plans, run by ONNX Runtime, is what their descriptors must equal."""
    bundle = build(precision)
    builder = make_builder("onnxruntime", BuildOptions(dialect="tensorrt"))
    onnx_bundle = recompile(bundle.path, bundle.path.with_name("onnx"), builder=builder)
    got, expected = bundle.embedder("ground").embed(images), onnx_bundle.embedder("ground").embed(images)
    np.testing.assert_allclose(got, expected, atol=1e-6)
    both = bundle.embedders()
    np.testing.assert_allclose(both["ground"].embed(images), expected, atol=1e-6)
    assert both["aerial"].embed(images[:0]).shape == (0, bundle.manifest.aerial.spec.descriptor_size)


def test_layers_are_told_by_name_and_time_for_no_more_than_the_largest_batch(
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


def test_contexts_of_batch_sizes_long_past_are_given_up(build: Callable[..., Bundle], images: Images) -> None:
    embedder = build().embedder("ground")
    expected = embedder.embed(images)
    for _ in range(2):
        for size in range(1, 21):
            np.testing.assert_allclose(embedder.embed(images[:size]), expected[:size], atol=1e-6)
    gc.collect()
    assert len(fake_cuda.fake_gpu.graphs) <= 8


def test_what_cannot_be_captured_runs_without_a_graph(
    build: Callable[..., Bundle], images: Images, machine: Machine
) -> None:
    expected = build().embedder("ground").embed(images)
    machine.gpu.refuses_capture = True
    machine.gpu.calls.clear()
    np.testing.assert_allclose(build(name="plain").embedder("ground").embed(images), expected, atol=1e-6)
    assert machine.gpu.calls["launch"] == 0


def test_each_thread_works_in_a_stream_of_its_own(
    build: Callable[..., Bundle], images: Images, machine: Machine
) -> None:
    embedder = build().embedder("ground")
    expected = embedder.embed(images)
    machine.gpu.calls.clear()
    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(lambda size: embedder.embed(images[:size]), [21, 1, 5, 21, 9, 2, 21, 5, 1]))
    for rows in found:
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


def test_one_module_knows_cuda() -> None:
    root = Path(__file__).parents[1]
    files = [path for room in ("runtime", "calibration", "training", "export") for path in (root / room).rglob("*.py")]
    knowing = {path.name for path in files if re.search(r"cuda\.bindings|import pycuda|pycuda\.", path.read_text())}
    assert knowing == {"cuda.py"}


def test_a_full_gpu_is_said_to_be_full(build: Callable[..., Bundle], images: Images, machine: Machine) -> None:
    embedder = build().embedder("ground")
    machine.gpu.free_bytes = 1000
    with pytest.raises(UserError, match="--max-batch"):
        embedder.embed(images)


def test_plans_are_built_as_asked(build: Callable[..., Bundle], machine: Machine) -> None:
    build(workspace=64, optimisation_level=5, hardware="ampere-or-newer")
    (config, _) = machine.trt.configs
    assert BuilderFlag.TF32 not in config._flags
    assert config._pools == {0: 64 << 20}
    assert config.builder_optimization_level == 5
    assert config.hardware_compatibility_level == 1


def test_the_manifest_says_what_a_loader_must_know(build: Callable[..., Bundle]) -> None:
    manifest = build("int8", max_batch=4, strip=True).manifest
    backend = manifest.backend
    assert (backend.name, backend.version) == ("tensorrt", "10.3.0")
    assert backend.machine is not None
    assert (backend.machine.gpu, backend.machine.compute_capability, backend.machine.driver) == (
        "Fake GPU",
        "8.7",
        "12.6",
    )
    assert backend.tensorrt == TensorRtEntry(min_batch=1, opt_batch=4, max_batch=4, stripped=True)
    assert manifest.ground.compiled is not None
    assert manifest.ground.compiled.file == "ground.plan"
    assert manifest.ground.compiled.layers["int8"] > 0
    assert manifest.quantisation is not None
    assert manifest.quantisation.dialect == "tensorrt"


@pytest.mark.parametrize("version", ["10.3.0", "11.4.0.106"])
@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_a_precision_that_was_asked_for_and_is_absent_fails_the_build(
    model: Model, tmp_path: Path, machine: Machine, refused: Callable[..., str], version: str, precision: Precision
) -> None:
    machine.upgrade(version)
    machine.trt.without_low_precision = True
    machine.trt.split_types = version.startswith("11")
    asked: list[object] = ["build-engine", model.onnx.path, "--backend", "tensorrt", "--optimisation-level", 0]
    asked += ["--precision", precision, "--out", tmp_path / "b"]
    asked += ["--calibration", model.images.name] * (precision == "int8")
    message = refused(*asked)
    assert f"{precision} was asked for, and no layer" in message
    assert "fp32" in message


@pytest.mark.parametrize(
    "tensor",
    [
        lambda kind: {"Format/Datatype": f"Channel major {kind} format where channel % 8 == 0"},
        lambda kind: {"Format": "Row major linear format (kLINEAR)", "DataType": kind},
    ],
    ids=["10", "11"],
)
def test_layers_are_counted_by_what_they_compute_in(tensor: Callable[[str], dict[str, str]]) -> None:
    def layer(kind: str, takes: str, gives: str, **more: object) -> dict[str, object]:
        return {"Name": "x", "LayerType": kind, "Inputs": [tensor(takes)], "Outputs": [tensor(gives)], **more}

    layers = [
        layer("CaskConvolution", "Int8", "FP32"),  # gives floats, computes in INT8
        layer("kgen", "Float", "Int8"),  # quantises
        layer("kgen", "Int8", "Half"),  # dequantises
        layer("gemm", "FP16", "FP16"),
        layer("gemm", "FP8", "BF16"),
        layer("CaskConvolution", "Half", "Half", Weights={"Type": "Int8", "Count": 9}),
        layer("kgen", "UInt8", "Float"),  # pixels come in
        layer("Reformat", "Int8", "Int8"),  # computes nothing
        layer("kgen", "Int32", "Bool"),
        "a layer of a plan without details",
    ]
    counted = layer_precisions(json.dumps({"Layers": layers}))
    assert counted == {"fp16": 2, "fp32": 2, "fp8": 1, "int8": 2, "unknown": 2}


def test_a_timing_cache_is_kept_beside_the_bundles_and_used_again(
    build: Callable[..., Bundle], machine: Machine, tmp_path: Path
) -> None:
    build()
    (cache,) = tmp_path.glob("*.timing")
    assert "10.3.0" in cache.name
    assert "Fake-GPU-8.7" in cache.name
    build(name="second")
    assert machine.trt.caches_used == [b"", b"timed ", b"timed timed ", b"timed timed timed "]
    machine.gpu.name = b"Other GPU"
    build(name="third")
    assert machine.trt.caches_used[4] == b""
    assert len(list(tmp_path.glob("*.timing"))) == 2


@pytest.mark.parametrize("damage", ["cut", "flipped", "another machine's"])
def test_a_damaged_timing_cache_is_made_anew_and_the_user_told(
    model: Model,
    build: Callable[..., Bundle],
    machine: Machine,
    tmp_path: Path,
    cli: Callable[..., Outcome],
    damage: str,
) -> None:
    build()
    (cache,) = tmp_path.glob("*.timing")
    content = bytearray(cache.read_bytes())
    content[-1] ^= 1
    if damage == "another machine's":
        machine.gpu.driver = 13000
    else:
        cache.write_bytes(bytes(content[:7] if damage == "cut" else content))
    machine.trt.caches_used.clear()
    result = cli("build-engine", model.onnx.path, "--backend", "tensorrt", "--out", tmp_path / "second")
    assert result.code == 0, result.err
    assert "made anew" in result.err
    assert machine.trt.caches_used == [b"", b"timed "]


def test_a_build_can_be_interrupted_and_leaves_nothing(model: Model, tmp_path: Path) -> None:
    script = Path(__file__).with_name("interrupted_build.py")
    command = [sys.executable, str(script), str(model.onnx.path), str(tmp_path / "b")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert 3 <= int(done.stdout) < 10
    assert list(tmp_path.iterdir()) == []


def test_a_build_moves_a_bar(build: Callable[..., Bundle], cli: Callable[..., Outcome], tmp_path: Path) -> None:
    bundle = build()
    result = cli("build-engine", bundle.path, "--backend", "tensorrt", "--out", tmp_path / "again")
    assert "Building the ground engine: Building engine: 100 of 100" in result.err


def test_a_failed_build_gives_tensorrts_own_words(
    model: Model, machine: Machine, tmp_path: Path, refused: Callable[..., str]
) -> None:
    machine.trt.build_fails = True
    message = refused("build-engine", model.onnx.path, "--backend", "tensorrt", "--out", tmp_path / "b")
    assert "Could not find any implementation for node Conv_7" in message
    assert "--workspace" in message
    assert "nobody" not in message


def test_a_stripped_plan_gets_its_weights_from_the_graph_beside_it(
    build: Callable[..., Bundle], images: Images, machine: Machine
) -> None:
    whole, stripped = build(), build(name="stripped", strip=True)
    assert BuilderFlag.REFIT_IDENTICAL in machine.trt.configs[-1]._flags
    sizes = [bundle.manifest.ground.compiled.bytes for bundle in (whole, stripped) if bundle.manifest.ground.compiled]
    assert sizes[1] < sizes[0] / 10
    expected = whole.embedder("ground").embed(images)
    np.testing.assert_allclose(stripped.embedder("ground").embed(images), expected, atol=1e-6)


def test_a_stripped_plan_beside_another_graph_is_refused(build: Callable[..., Bundle]) -> None:
    bundle = build(strip=True)
    file = bundle.path / "ground.onnx"
    graph = onnx.load(str(file))
    graph.graph.initializer[0].name += "2"
    for node in graph.graph.node:
        renamed = graph.graph.initializer[0].name
        node.input[:] = [renamed if name + "2" == renamed else name for name in node.input]
    onnx.save(graph, str(file))
    manifest = read_manifest(bundle.path)
    ground = msgspec.structs.replace(manifest.ground, sha256=sha256(file), bytes=file.stat().st_size)
    write_manifest(bundle.path, msgspec.structs.replace(manifest, ground=ground))
    with pytest.raises(BundleError, match="the weights do not fit"):
        open_bundle(bundle.path).embedder("ground")


def test_another_models_weights_are_put_into_refittable_plans_without_compiling(
    model: Model, build: Callable[..., Bundle], images: Images, machine: Machine, tmp_path: Path
) -> None:
    first = build(refittable=True)
    other = load_checkpoint(model.checkpoint).model
    _shake(other)
    save_checkpoint(tmp_path / "other.safetensors", other, "another training")
    compiled = len(machine.trt.configs)
    options = TensorRtOptions(refit_from=first.path)
    refitted = build_engine(
        tmp_path / "other.safetensors",
        tmp_path / "refitted",
        precision="fp32",
        builder=make_builder("tensorrt", BuildOptions(tensorrt=options)),
    )
    assert len(machine.trt.configs) == compiled
    anew = build_engine(
        tmp_path / "other.safetensors",
        tmp_path / "anew",
        precision="fp32",
        builder=make_builder("onnxruntime", BuildOptions()),
    )
    got = refitted.embedder("ground").embed(images)
    np.testing.assert_allclose(got, anew.embedder("ground").embed(images), atol=1e-6)
    assert np.abs(got - first.embedder("ground").embed(images)).max() > 1e-3


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"name": b"NVIDIA Orin"}, "built for Fake GPU"),
        ({"capability": (8, 9)}, "8.9"),
        ({"version": "10.16.1"}, "built by TensorRT 10.3.0, here is 10.16.1"),
    ],
)
def test_a_plan_of_another_machine_is_refused_with_the_command_that_rebuilds_it_here(
    build: Callable[..., Bundle],
    machine: Machine,
    cli: Callable[..., Outcome],
    monkeypatch: pytest.MonkeyPatch,
    change: dict[str, Any],
    named: str,
) -> None:
    bundle = build("fp16", max_batch=8, workspace=64, refittable=True)
    for name, value in change.items():
        if name == "version":
            machine.upgrade(value)
        else:
            setattr(machine.gpu, name, value)
    touched = list[bytes]()
    monkeypatch.setattr(fake_tensorrt.Runtime, "deserialize_cuda_engine", lambda _, plan: touched.append(plan))
    with pytest.raises(BundleError, match=named) as refusal:
        bundle.embedder("ground")
    assert touched == []
    monkeypatch.undo()
    command = str(refusal.value).rpartition("To build it anew: ")[2]
    monkeypatch.setitem(sys.modules, "tensorrt", fake_tensorrt)
    monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", fake_cuda)
    result = cli(*shlex.split(command)[1:])
    assert result.code == 0, result.err
    rebuilt = open_bundle(Path(f"{bundle.path}-rebuilt"))
    assert rebuilt.manifest.ground.sha256 == bundle.manifest.ground.sha256
    assert rebuilt.manifest.backend.tensorrt == bundle.manifest.backend.tensorrt
    rebuilt.embedder("ground")


@pytest.mark.parametrize(
    ("how", "built", "here", "runs"),
    [
        ({}, ("10.3.0", "Orin", "8.7"), ("10.3.0", "Orin", "8.7"), True),
        ({}, ("10.3.0", "Orin", "8.7"), ("10.3.1", "Orin", "8.7"), False),
        ({}, ("10.3.0", "RTX 4090", "8.9"), ("10.3.0", "RTX 4070", "8.9"), False),
        ({"hardware": "same-capability"}, ("10.9.0", "RTX 4090", "8.9"), ("10.9.0", "RTX 4070", "8.9"), True),
        ({"hardware": "same-capability"}, ("10.9.0", "RTX 4090", "8.9"), ("10.9.0", "H100", "9.0"), False),
        ({"hardware": "ampere-or-newer"}, ("10.3.0", "A100", "8.0"), ("10.3.0", "B200", "10.0"), True),
        ({"hardware": "ampere-or-newer"}, ("10.3.0", "A100", "8.0"), ("10.3.0", "T4", "7.5"), False),
        ({"version_compatible": True}, ("10.3.0", "A100", "8.0"), ("10.16.1", "A100", "8.0"), True),
        ({"version_compatible": True}, ("10.16.1", "A100", "8.0"), ("10.3.0", "A100", "8.0"), False),
        ({"version_compatible": True}, ("10.16.1", "A100", "8.0"), ("11.4.0", "A100", "8.0"), False),
    ],
)
def test_which_plans_run_where(
    machine: Machine, how: dict[str, Any], built: tuple[str, str, str], here: tuple[str, str, str], runs: bool
) -> None:
    del machine
    template = open_cuda().machine
    machines = [
        msgspec.structs.replace(template, gpu=gpu, compute_capability=capability)
        for _, gpu, capability in (built, here)
    ]
    entry = TensorRtEntry(min_batch=1, opt_batch=1, max_batch=1, **how)
    backend = BackendEntry(name="tensorrt", version=built[0], machine=machines[0], tensorrt=entry)
    assert (mismatches(backend, here[0], machines[1]) == []) == runs


def test_program_code_in_a_plan_runs_only_with_leave(
    build: Callable[..., Bundle], images: Images, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = build(version_compatible=True)
    machine.upgrade("10.16.1.11")
    with pytest.raises(BundleError, match=f"{HOST_CODE}=1"):
        bundle.embedder("ground")
    monkeypatch.setenv(HOST_CODE, "1")
    np.testing.assert_allclose(np.linalg.norm(bundle.embedder("ground").embed(images), axis=1), 1, atol=1e-4)


def test_a_plan_of_other_batches_than_the_manifest_says_is_refused(build: Callable[..., Bundle]) -> None:
    bundle = build()
    backend = bundle.manifest.backend
    assert backend.tensorrt is not None
    wider = msgspec.structs.replace(backend, tensorrt=msgspec.structs.replace(backend.tensorrt, max_batch=64))
    with pytest.raises(BundleError, match="other shapes"):
        replace(bundle, manifest=msgspec.structs.replace(bundle.manifest, backend=wider)).embedder("ground")


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (("--min-batch", 4, "--max-batch", 2), "must rise"),
        (("--version-compatible", "--strip"), "excludes"),
        (("--dla", 0, "--max-batch", 8, "--opt-batch", 4, "--precision", "fp16"), "one batch size"),
        (("--dla", 0), "fp16 and int8 only"),
        (("--dla", 0, "--precision", "fp16"), "11.4 on an AGX Orin"),
        (("--hardware", "same-capability"), "cannot build for same-capability"),
        (("--refit-from", "x", "--strip"), "leave the other options"),
        (("--dialect", "cpu-8bit"), "leave --dialect out"),
        (("--provider", "cuda"), "--provider is for --backend onnxruntime"),
    ],
)
def test_options_that_cannot_be_met_are_refused_before_the_work(
    model: Model, machine: Machine, tmp_path: Path, refused: Callable[..., str], options: Any, named: str
) -> None:
    assert named in refused("build-engine", model.onnx.path, "--backend", "tensorrt", *options, "--out", tmp_path / "b")
    assert machine.trt.configs == []


def test_options_of_tensorrt_are_refused_by_other_backends(
    model: Model, tmp_path: Path, refused: Callable[..., str]
) -> None:
    message = refused("build-engine", model.onnx.path, "--max-batch", 4, "--dla", 0, "--out", tmp_path / "b")
    assert "--max-batch, --dla: for --backend tensorrt, not onnxruntime" in message


def test_a_dla_gets_one_batch_size_and_the_gpu_the_rest(build: Callable[..., Bundle], machine: Machine) -> None:
    machine.upgrade("11.4.0.106")
    machine.trt.dla_cores = 2
    bundle = build("fp16", dla_core=1, opt_batch=4)
    config = machine.trt.configs[0]
    assert (config.DLA_core, config.default_device_type) == (1, fake_tensorrt.DeviceType.DLA)
    assert BuilderFlag.GPU_FALLBACK in config._flags
    entry = bundle.manifest.backend.tensorrt
    assert entry is not None
    assert (entry.min_batch, entry.opt_batch, entry.max_batch, entry.dla_core) == (4, 4, 4, 1)
    with pytest.raises(ConfigError, match="this machine has 2"):
        build("fp16", "other", dla_core=2)


def test_a_dla_has_no_fp32_to_be_faster_than(
    model: Model, machine: Machine, tmp_path: Path, refused: Callable[..., str]
) -> None:
    machine.upgrade("11.4.0.106")
    machine.trt.dla_cores = 2
    asked = ("build-engine", model.onnx.path, "--backend", "tensorrt", "--dla", 0, "--precision", "fp16")
    assert "Leave --require-faster out" in refused(*asked, "--require-faster", "--out", tmp_path / "b")
    assert machine.trt.configs == []


@pytest.mark.parametrize(("error", "named"), [(35, "there is no driver, or it is older"), (100, "sees no device")])
def test_a_machine_without_a_gpu_is_told_so(
    model: Model, machine: Machine, tmp_path: Path, refused: Callable[..., str], error: int, named: str
) -> None:
    machine.gpu.error = fake_cuda.cudaError_t(error)
    message = refused("build-engine", model.onnx.path, "--backend", "tensorrt", "--out", tmp_path / "b")
    assert named in message
    assert "--backend onnxruntime" in message


def test_the_installed_packages_say_that_there_is_no_gpu() -> None:
    """The real cuda-bindings, where it is installed (PyTorch brings it), on a machine without a driver."""
    pytest.importorskip("cuda.bindings.runtime", reason="cuda-bindings is not installed")
    if Path("/dev/nvidiactl").exists():
        pytest.skip("this machine has a GPU")
    with pytest.raises(MissingDependency, match="No NVIDIA GPU can be used"):
        open_cuda()


@pytest.mark.parametrize(("version", "named"), [(None, "cannot be used here"), ("8.6.1", "10.3 to 11.x")])
def test_a_missing_or_old_tensorrt_is_named(
    model: Model,
    machine: Machine,
    tmp_path: Path,
    refused: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
    version: str | None,
    named: str,
) -> None:
    if version is None:
        monkeypatch.setitem(sys.modules, "tensorrt", None)
    else:
        machine.upgrade(version)
    message = refused("build-engine", model.onnx.path, "--backend", "tensorrt", "--out", tmp_path / "b")
    assert named in message
    assert "pip install" in message
