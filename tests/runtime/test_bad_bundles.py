"""A bundle runs only if it matches its manifest, and is built only in the precision of its name."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import msgspec
import onnx
import pytest
from conftest import Trained

from geodtr.runtime.files import sha256
from geodtr.runtime.manifest import read_manifest, write_manifest
from geodtr.training.models.checkpoint import load_checkpoint, save_checkpoint


def test_a_bundle_with_one_byte_changed_is_not_run(
    trained: Trained, tmp_path: Path, refused: Callable[..., str]
) -> None:
    bundle = tmp_path / "bundle"
    shutil.copytree(trained.bundles["fp32"].path, bundle)
    engine = bundle / "ground.onnx"
    content = bytearray(engine.read_bytes())
    content[len(content) // 2] ^= 1
    engine.write_bytes(content)
    image = trained.test_set.pairs[0].ground
    for command in (
        ("inspect", bundle),
        ("embed", bundle, image, "--branch", "ground", "--out", tmp_path / "d.npy"),
        ("evaluate", bundle, "--data", trained.test_set.name),
    ):
        assert "was altered" in refused(*command)
    engine.unlink()
    assert "ground.onnx is missing" in refused("inspect", bundle)


def test_a_corrupt_manifest_names_the_field(trained: Trained, tmp_path: Path, refused: Callable[..., str]) -> None:
    bundle = tmp_path / "bundle"
    shutil.copytree(trained.bundles["fp32"].path, bundle)
    manifest = bundle / "manifest.json"
    document = json.loads(manifest.read_text())
    document["ground"]["spec"]["preprocessing"]["resize"] = "nearest"
    manifest.write_text(json.dumps(document))
    assert "resize" in refused("inspect", bundle)
    manifest.write_text(json.dumps({**document, "schema": 99}))
    assert "schema 99" in refused("inspect", bundle)
    manifest.write_text("{ not json")
    assert "manifest.json" in refused("inspect", bundle)
    document["ground"]["file"] = "../elsewhere.onnx"
    document["ground"]["spec"]["preprocessing"]["resize"] = "pillow-bilinear-antialias"
    manifest.write_text(json.dumps(document))
    assert "outside the bundle" in refused("inspect", bundle)


def test_int8_without_calibration_images_names_the_option_to_add(
    trained: Trained, tmp_path: Path, refused: Callable[..., str]
) -> None:
    message = refused("build-engine", trained.onnx.path, "--precision", "int8", "--out", tmp_path / "b")
    assert "--calibration" in message


def test_a_cosine_to_keep_is_not_for_blocks_chosen_by_recall(
    trained: Trained, tmp_path: Path, refused: Callable[..., str]
) -> None:
    command = ("build-engine", trained.onnx.path, "--precision", "auto", "--calibration", trained.test_set.name)
    message = refused(*command, "--recall-on", trained.test_set.name, "--keep-cosine", 0.9, "--out", tmp_path / "b")
    assert "--keep-cosine: not for --precision auto" in " ".join(message.split())


@pytest.mark.parametrize(
    ("precision", "options", "named"),
    [
        ("fp32", ("--calibration", "pairs:x"), "--calibration"),
        ("fp16", ("--select", "coreset", "--tolerance", 0.5), "--select, --tolerance"),
        ("fp8", ("--dialect", "cpu-7bit"), "--dialect"),
        ("int8", ("--picture", "x.png"), "--picture"),
        ("same", ("--keep-cosine", 0.5, "--require-faster"), "--keep-cosine, --require-faster"),
    ],
)
def test_an_option_of_another_precision_is_refused(
    trained: Trained,
    tmp_path: Path,
    refused: Callable[..., str],
    precision: str,
    options: tuple[object, ...],
    named: str,
) -> None:
    command = ("build-engine", trained.onnx.path, "--precision", precision, *options, "--out", tmp_path / "b")
    assert f"{named}: not for --precision {precision}" in " ".join(refused(*command).split())


@pytest.mark.parametrize("backend", ["onnxruntime", "auto"])
def test_a_dialect_is_refused_for_graphs_that_are_not_int8(
    trained: Trained, tmp_path: Path, refused: Callable[..., str], backend: str
) -> None:
    source = trained.bundles["fp16"].path
    command = ("build-engine", source, "--backend", backend, "--precision", "same", "--dialect", "cpu-8bit")
    message = " ".join(refused(*command, "--out", tmp_path / "b").split())
    assert f"--dialect is for int8 graphs, and the graphs of {source} are fp16" in message


@pytest.mark.parametrize("precision", ["fp32", "fp16", "same"])
def test_a_graph_that_is_not_ours_is_refused_by_name(
    trained: Trained, tmp_path: Path, refused: Callable[..., str], precision: str
) -> None:
    bundle = shutil.copytree(trained.onnx.path, tmp_path / "bundle")
    value = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1, 3])
    same = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1, 3])
    graph = onnx.helper.make_graph([onnx.helper.make_node("Relu", ["x"], ["y"])], "foreign", [value], [same])
    onnx.save(onnx.helper.make_model(graph), str(bundle / "ground.onnx"))
    manifest = read_manifest(bundle)
    size, digest = (bundle / "ground.onnx").stat().st_size, sha256(bundle / "ground.onnx")
    write_manifest(
        bundle,
        msgspec.structs.replace(manifest, ground=msgspec.structs.replace(manifest.ground, bytes=size, sha256=digest)),
    )
    message = " ".join(refused("build-engine", bundle, "--precision", precision, "--out", tmp_path / "b").split())
    assert f"{bundle}/ground.onnx is not a graph that this project exported" in message


def test_a_single_onnx_file_is_not_taken_for_a_checkpoint(
    trained: Trained, tmp_path: Path, refused: Callable[..., str]
) -> None:
    message = refused("build-engine", trained.onnx.path / "ground.onnx", "--out", tmp_path / "b")
    assert "Name the bundle folder" in " ".join(message.split())


def test_int8_without_a_quantised_convolution_is_refused(
    trained: Trained, tmp_path: Path, refused: Callable[..., str]
) -> None:
    command = ("build-engine", trained.onnx.path, "--precision", "int8", "--calibration", trained.test_set.name)
    assert "Lower --keep-cosine" in refused(*command, "--keep-cosine", 1, "--images", 4, "--out", tmp_path / "b")


def test_two_builds_of_onnx_runtime_are_refused(
    trained: Trained, refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from geodtr.runtime.engines import onnxruntime

    monkeypatch.setattr(onnxruntime, "version", lambda _name: "1.0")
    message = refused("evaluate", trained.bundles["fp32"].path, "--data", trained.test_set.name)
    assert "onnxruntime and onnxruntime-gpu are both installed" in message


def test_engines_are_not_built_from_engines(trained: Trained, tmp_path: Path, refused: Callable[..., str]) -> None:
    message = refused("build-engine", trained.bundles["fp16"].path, "--precision", "fp32", "--out", tmp_path / "b")
    assert "built from float32" in message


def test_bundles_of_different_models_are_not_compared(
    trained: Trained, tmp_path: Path, refused: Callable[..., str]
) -> None:
    from geodtr.export.build.source import export_checkpoint

    model = load_checkpoint(trained.checkpoint).model
    save_checkpoint(tmp_path / "other.safetensors", model, "another training")
    export_checkpoint(tmp_path / "other.safetensors", tmp_path / "other")
    command = ("parity", trained.checkpoint, tmp_path / "other", "--data", trained.test_set.name)
    assert "another checkpoint" in refused(*command)
