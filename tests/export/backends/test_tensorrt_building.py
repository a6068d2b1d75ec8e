"""Building TensorRT plans, with NVIDIA's objects and the fakes of tensorrt_on_fakes.py."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import pytest
from conftest import Outcome
from tensorrt_on_fakes import Machine, Model, shake

from geodtr import BuildRequest, Bundle, TensorRtOptions, build_engine, open_bundle
from geodtr.runtime.engines.tensorrt.versions import layer_precisions, operator_precisions
from geodtr.runtime.errors import BuildError, BundleError
from geodtr.runtime.files import sha256
from geodtr.runtime.manifest import TensorRtEntry, read_manifest, write_manifest
from geodtr.runtime.names import Precision
from geodtr.runtime.spec import Images
from geodtr.training.models.checkpoint import load_checkpoint, save_checkpoint


def test_plans_are_built_with_the_given_options(build: Callable[..., Bundle], machine: Machine, nvidia: Any) -> None:
    build(workspace=64, optimisation_level=5, hardware="ampere-or-newer")
    (config, _) = machine.trt.configs
    assert not config.get_flag(nvidia.BuilderFlag.TF32)
    assert config.get_memory_pool_limit(nvidia.MemoryPoolType.WORKSPACE) == 64 << 20
    assert config.builder_optimization_level == 5
    assert config.hardware_compatibility_level == nvidia.HardwareCompatibilityLevel.AMPERE_PLUS


def test_the_manifest_records_what_a_loader_needs(build: Callable[..., Bundle]) -> None:
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
def test_a_requested_precision_that_is_absent_fails_the_build(
    model: Model, tmp_path: Path, machine: Machine, refused: Callable[..., str], version: str, precision: Precision
) -> None:
    machine.upgrade(version)
    machine.trt.without_low_precision = True
    machine.trt.split_types = version.startswith("11")
    command: list[object] = ["build-engine", model.onnx.path, "--backend", "tensorrt", "--optimisation-level", 0]
    command += ["--precision", precision, "--out", tmp_path / "b"]
    command += ["--calibration", model.images.name] * (precision == "int8")
    message = refused(*command)
    assert f"{precision} was asked for, and TensorRT {version}'s ground engine computes 0 of" in message
    assert "(fp32)" in message


@pytest.mark.parametrize("metadata", [True, False])
def test_most_operators_must_have_the_precision_of_the_graph_and_those_that_have_not_are_named(
    model: Model, tmp_path: Path, machine: Machine, cli: Callable[..., Outcome], metadata: bool
) -> None:
    machine.trt.without_metadata = not metadata
    command: list[object] = ["build-engine", model.onnx.path, "--backend", "tensorrt", "--precision", "int8"]
    command += ["--calibration", model.images.name, "--images", 8]
    machine.trt.in_float = 1
    built = cli(*command, "--out", tmp_path / "b")
    assert built.code == 0, built.err
    compiled = read_manifest(tmp_path / "b").ground.compiled
    assert compiled is not None
    (missed,) = compiled.wider
    first, *_ = (node for node in onnx.load(str(tmp_path / "b" / "ground.onnx")).graph.node if node.op_type == "Conv")
    assert missed == first.name
    assert f"in a wider type than the graph's: {missed}" in " ".join(built.err.split())
    assert f"ground: computed in a wider type than the graph's: {missed}" in cli("inspect", tmp_path / "b").out
    machine.trt.in_float = 8
    failed = cli(*command, "--out", tmp_path / "c")
    assert failed.code == 2
    assert "at least 80% must be" in failed.err
    assert f"The others: {missed} (fp32), " in failed.err
    assert not (tmp_path / "c").exists()


def test_where_no_operator_is_named_layers_are_counted(
    build: Callable[..., Bundle], machine: Machine, tmp_path: Path
) -> None:
    machine.trt.without_names = True
    compiled = build("int8").manifest.ground.compiled
    assert compiled is not None and compiled.wider == ()
    machine.trt.in_float = 8
    with pytest.raises(BuildError, match=r"at least 80% must be\. Its layers:"):
        build("int8", name="other")
    assert not (tmp_path / "other").exists()


def test_operators_are_known_by_the_layers_that_they_are_fused_into() -> None:
    def layer(name: str, kind: str, takes: str, gives: str, **more: object) -> dict[str, object]:
        types = {"Inputs": [{"Format/Datatype": takes}], "Outputs": [{"Format/Datatype": gives}]}
        return {"Name": name, "LayerType": kind, **types, **more}

    layers = [
        layer("a", "Reformat", "Float", "Int8", Metadata="[ONNX Layer: conv 1]"),
        layer("b", "kgen", "Float", "Int8", Metadata="[ONNX Layer: conv 1]"),
        layer("c", "CaskConvolution", "Int8", "Half", Metadata="[ONNX Layer: conv 1]\x1f[ONNX Layer: relu 1]"),
        layer("conv 2 + relu 2", "CaskConvolution", "Half", "Half"),
        "conv 3",
    ]
    assert operator_precisions(json.dumps({"Layers": layers})) == {
        "conv 1": "int8",
        "relu 1": "int8",
        "conv 2": "fp16",
        "relu 2": "fp16",
        "": "unknown",
    }


def test_what_is_not_quantised_is_half_precision(build: Callable[..., Bundle]) -> None:
    manifest = build("int8").manifest
    assert manifest.quantisation is not None and manifest.quantisation.rest == "fp16"
    assert manifest.ground.compiled is not None
    assert manifest.ground.compiled.layers["fp16"] > manifest.ground.compiled.layers["fp32"]


@pytest.mark.parametrize(
    "tensor",
    [
        lambda kind: {"Format/Datatype": f"Channel major {kind} format where channel % 8 == 0"},
        lambda kind: {"Format": "Row major linear format (kLINEAR)", "DataType": kind},
    ],
    ids=["10", "11"],
)
def test_layers_are_counted_by_their_precision(tensor: Callable[[str], dict[str, str]]) -> None:
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


def test_a_timing_cache_is_stored_next_to_the_bundles_and_reused(
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
def test_a_damaged_timing_cache_is_replaced_and_reported(
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
    assert "is replaced" in result.err
    assert machine.trt.caches_used == [b"", b"timed "]


def test_a_failed_build_gives_tensorrts_own_words(
    model: Model, machine: Machine, tmp_path: Path, refused: Callable[..., str]
) -> None:
    machine.trt.build_fails = True
    message = refused("build-engine", model.onnx.path, "--backend", "tensorrt", "--out", tmp_path / "b")
    assert "Could not find any implementation for node Conv_7" in message
    assert "nobody" not in message


def test_a_stripped_plan_gets_its_weights_from_the_bundles_graph(
    build: Callable[..., Bundle], images: Images, machine: Machine, nvidia: Any
) -> None:
    whole, stripped = build(), build(name="stripped", strip=True)
    assert machine.trt.configs[-1].get_flag(nvidia.BuilderFlag.REFIT_IDENTICAL)
    sizes = [bundle.manifest.ground.compiled.bytes for bundle in (whole, stripped) if bundle.manifest.ground.compiled]
    assert sizes[1] < sizes[0] / 10
    expected = whole.embedder("ground").embed(images)
    np.testing.assert_allclose(stripped.embedder("ground").embed(images), expected, atol=1e-6)


def test_a_stripped_plan_with_another_graph_is_refused(build: Callable[..., Bundle]) -> None:
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


@pytest.mark.slow
def test_another_models_weights_are_put_into_refittable_plans_without_compiling(
    model: Model, build: Callable[..., Bundle], images: Images, machine: Machine, tmp_path: Path
) -> None:
    first = build(refittable=True)
    other = load_checkpoint(model.checkpoint).model
    shake(other)
    save_checkpoint(tmp_path / "other.safetensors", other, "another training")
    compiled = len(machine.trt.configs)
    source, options = tmp_path / "other.safetensors", TensorRtOptions(refit_from=first.path)
    refitted = build_engine(BuildRequest(source, tmp_path / "refitted", options))
    assert len(machine.trt.configs) == compiled
    rebuilt = build_engine(BuildRequest(source, tmp_path / "rebuilt"))
    got = refitted.embedder("ground").embed(images)
    np.testing.assert_allclose(got, rebuilt.embedder("ground").embed(images), atol=1e-6)
    assert np.abs(got - first.embedder("ground").embed(images)).max() > 1e-3
