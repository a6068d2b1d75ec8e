"""OpenVINO has the reference model's recall, computes the file's precision, and refuses unsupported requests."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import msgspec
import numpy as np
import onnx
import pytest
from conftest import BUILT, Outcome, Trained
from tiny_bundle import write_bundle

from geodtr import BuildRequest, Bundle, Calibration, OpenVinoOptions, build_engine
from geodtr.export.build.precisions import plan_of
from geodtr.export.calibration_pool import pool_of
from geodtr.export.precision.agreement import check_agreement
from geodtr.runtime.embed.pipeline import embed_files, load_batches
from geodtr.runtime.engines.base import EngineOptions
from geodtr.runtime.engines.openvino import open_model as open_compiled
from geodtr.runtime.errors import BuildError, BundleError
from geodtr.runtime.installation import install_hint
from geodtr.runtime.machine import Machine
from geodtr.runtime.names import BRANCHES, Branch, Precision
from geodtr.runtime.spec import Images


@pytest.fixture(scope="module")
def built(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> dict[Precision, Bundle]:
    root = tmp_path_factory.mktemp("openvino")
    return {
        precision: build_engine(
            BuildRequest(
                trained.onnx.path,
                root / precision,
                OpenVinoOptions(),
                plan_of(precision, Calibration(pool_of(trained.train_set))),
            )
        )
        for precision in BUILT
    }


@pytest.fixture(scope="module")
def images(trained: Trained) -> Images:
    spec = trained.onnx.manifest.ground.spec
    return next(load_batches(trained.test_set.paths("ground")[:8], spec.preprocessing, 8))


@pytest.mark.parametrize("precision", BUILT)
def test_a_row_does_not_depend_on_its_batch(
    trained: Trained, built: dict[Precision, Bundle], precision: Precision
) -> None:
    embedder = built[precision].embedder("ground")
    paths = trained.test_set.paths("ground")[:23]
    together, alone = embed_files(embedder, paths), embed_files(embedder, paths, batch_size=1)
    np.testing.assert_allclose(together, alone, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, atol=1e-5)


def test_the_manifest_records_the_precision_of_the_compiled_layers(built: dict[Precision, Bundle]) -> None:
    got = {precision: [_layers(built[precision], branch) for branch in BRANCHES] for precision in BUILT}
    assert all(set(layers) == {"fp32"} for layers in (*got["fp32"], *got["fp16"]))
    quantisation = built["int8"].manifest.quantisation
    assert quantisation is not None
    assert sum(layers["int8"] for layers in got["int8"]) == quantisation.operators - len(quantisation.kept_float)


def test_a_signal_is_handled_after_engines_were_dropped_in_another_thread(built: dict[Precision, Bundle]) -> None:
    script = (
        "import os, signal, sys, threading; from pathlib import Path; from geodtr.runtime.bundle import open_bundle\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # background jobs of a shell start with it ignored
        "held = [open_bundle(Path(sys.argv[1])).embedders()]\n"
        "dropping = threading.Thread(target=held.clear); dropping.start(); dropping.join()\n"
        "try: signal.raise_signal(signal.SIGINT)\n"
        "except KeyboardInterrupt: print('handled')\n"
    )
    line = [sys.executable, "-c", script, str(built["fp32"].path)]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "handled\n"), done.stderr


def test_layers_are_listed_by_name_kind_and_time(built: dict[Precision, Bundle]) -> None:
    images = np.zeros((2, 32, 128, 3), np.uint8)
    for precision in ("fp32", "int8"):
        layers = built[precision].layer_times("ground", images, calls=3)
        times = [layer.milliseconds for layer in layers]
        assert times == sorted(times, reverse=True)
        assert sum(layer.kind == "Convolution" for layer in layers) > 10
        assert 0 < sum(times) < 10_000


def test_quantised_and_half_precision_weights_make_the_file_smaller(built: dict[Precision, Bundle]) -> None:
    sizes = [built[precision].manifest.ground.bytes for precision in BUILT]
    assert sizes == sorted(sizes, reverse=True)


def test_the_number_of_threads_changes_no_result(built: dict[Precision, Bundle], images: Images) -> None:
    file = built["fp32"].path / "ground.onnx"
    assert int(open_compiled(file, EngineOptions(threads=1)).get_property("INFERENCE_NUM_THREADS")) == 1
    one, own = built["fp32"].embedder("ground", EngineOptions(threads=1)), built["fp32"].embedder("ground")
    np.testing.assert_allclose(one.embed(images), own.embed(images), atol=1e-6)


def test_threads_of_the_caller_share_an_embedder(built: dict[Precision, Bundle], images: Images) -> None:
    embedder = built["fp32"].embedder("ground")
    expected = [embedder.embed(image[None]) for image in images]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(5):
            got = list(pool.map(lambda image: embedder.embed(image[None]), images))
            np.testing.assert_array_equal(got, expected)


def test_a_later_call_leaves_descriptors_as_they_were(built: dict[Precision, Bundle], images: Images) -> None:
    embedder = built["fp32"].embedder("ground")
    first = embedder.embed(images[:2])
    kept = first.copy()
    embedder.embed(images[2:4])
    np.testing.assert_array_equal(first, kept)


def test_an_exported_graph_does_not_expand_its_divisor(trained: Trained) -> None:
    for branch in BRANCHES:
        graph = onnx.load(str(trained.onnx.path / f"{branch}.onnx")).graph
        assert "Expand" not in {node.op_type for node in graph.node}


def test_an_engine_that_computes_another_graph_is_refused(
    built: dict[Precision, Bundle], images: Images, tmp_path: Path
) -> None:
    graph = built["int8"].path / "ground.onnx"
    engine = built["int8"].embedder("ground")
    check_agreement(engine, graph, images, "int8", 0.993)
    with pytest.raises(BuildError, match="for another --backend"):
        check_agreement(engine, _with_one_bias(graph, tmp_path / "other.onnx"), images, "int8", 0.993)


def test_an_int8_engine_of_another_machine_or_version_is_refused_and_a_float_one_recompiled(
    built: dict[Precision, Bundle], images: Images
) -> None:
    for precision in BUILT:
        bundle = built[precision]
        entry = bundle.manifest.backend
        for backend in (
            msgspec.structs.replace(entry, machine=Machine(architecture="riscv64")),
            msgspec.structs.replace(entry, version="2025.0.0"),
        ):
            elsewhere = Bundle(bundle.path, msgspec.structs.replace(bundle.manifest, backend=backend))
            if precision == "int8":
                with pytest.raises(BundleError, match=r"build-engine \S+ --backend openvino --precision int8"):
                    elsewhere.embedder("ground")
            else:
                expected = bundle.embedder("ground").embed(images)
                np.testing.assert_allclose(elsewhere.embedder("ground").embed(images), expected, atol=1e-5)


def test_float_is_float32_even_if_the_processor_has_something_faster(built: dict[Precision, Bundle]) -> None:
    for precision in BUILT:
        for file in ("ground.onnx", "ground.blob"):
            compiled = open_compiled(built[precision].path / file)
            assert compiled.get_property("INFERENCE_PRECISION_HINT").to_string() == "f32"


def test_every_command_takes_an_openvino_bundle(trained: Trained, tmp_path: Path, cli: Callable[..., Outcome]) -> None:
    bundle, gallery, data = tmp_path / "bundle", tmp_path / "gallery", trained.test_set.name
    image = trained.test_set.pairs[0].ground
    int8 = ("--precision", "int8", "--calibration", trained.train_set.name)
    for command in (
        ("build-engine", trained.checkpoint, "--backend", "openvino", *int8, "--out", bundle),
        ("parity", trained.checkpoint, bundle, "--data", data),
        ("evaluate", bundle, "--data", data),
        ("embed", bundle, image, "--branch", "ground", "--out", tmp_path / "descriptors.npy"),
        ("gallery", "build", bundle, data, "--out", gallery),
    ):
        result = cli(*command)
        # This test does not require that 500 pairs decide.
        assert result.code == 0 or (command[0] == "parity" and result.code == 3), result
    assert "openvino" in cli("inspect", bundle).out
    located = json.loads(cli("localize", image, "--bundle", bundle, "--gallery", gallery, "--json").out)
    assert len(located["candidates"]) == 5


def test_what_openvino_cannot_compute_correctly_is_refused(
    trained: Trained, tmp_path: Path, refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from geodtr.export.backends import openvino

    command = ("build-engine", trained.onnx.path, "--backend", "openvino", "--out", tmp_path / "b")
    images = ("--calibration", trained.train_set.name)
    assert "fp32, fp16, int8" in refused(*command, "--precision", "fp8", *images)
    assert "--provider: for --backend onnxruntime, not openvino" in refused(*command, "--provider", "cuda")
    monkeypatch.setattr(openvino, "this_cpu", lambda: Machine(architecture="x86_64", cpu_flags=("avx2",)))
    assert "--dialect cpu-7bit" in refused(*command, "--precision", "int8", "--dialect", "cpu-8bit", *images)


def test_without_openvino_the_extra_is_named(
    trained: Trained,
    built: dict[Precision, Bundle],
    tmp_path: Path,
    refused: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from geodtr.runtime.engines import openvino

    def absent(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(openvino, "version", absent)
    for command in (
        ("build-engine", trained.onnx.path, "--backend", "openvino", "--out", tmp_path / "b"),
        ("evaluate", built["fp32"].path, "--data", trained.test_set.name),
    ):
        assert install_hint("openvino") in refused(*command)


def _layers(bundle: Bundle, branch: Branch) -> dict[str, int]:
    compiled = bundle.manifest.engine(branch).compiled
    assert compiled is not None
    return compiled.layers


def _with_one_bias(graph: Path, out: Path) -> Path:
    """The fault that OpenVINO's INT8 engines had: channel 0's bias of the first convolution serves all channels."""
    model = onnx.load(str(graph))
    first = next(node for node in model.graph.node if node.op_type == "Conv")
    shared = next(node for node in model.graph.node if node.output[0] == first.input[2])
    stored = next(entry for entry in model.graph.initializer if entry.name == shared.input[0])
    values = onnx.numpy_helper.to_array(stored)
    stored.CopyFrom(onnx.numpy_helper.from_array(np.full_like(values, values[0]), stored.name))
    onnx.save(model, str(out))
    return out


_AUDITED = """
import os, sys
from pathlib import Path

def audit(event, arguments):
    if event.startswith("socket.") or event == "os.fork":
        os.write(2, f"{event} {arguments}\\n".encode())

sys.addaudithook(audit)
from geodtr.runtime.engines.openvino import open_model

print(open_model(Path(sys.argv[1]) / "ground.onnx").inputs[0].any_name, "openvino_telemetry" in sys.modules)
"""


def test_openvino_writes_nothing_into_the_home_folder_and_uses_no_network(tmp_path: Path) -> None:
    """Its package openvino-telemetry does both when it is imported: a client id, and a report to Google Analytics."""
    pytest.importorskip("openvino")
    assert version("openvino-telemetry")
    bundle = write_bundle(tmp_path / "bundle")
    home = tmp_path / "home"
    home.mkdir()
    environment = {name: value for name, value in os.environ.items() if name not in ("CI", "TF_BUILD", "JENKINS_URL")}
    line = [sys.executable, "-c", _AUDITED, str(bundle)]
    done = subprocess.run(line, env={**environment, "HOME": str(home)}, capture_output=True, text=True, check=True)
    assert done.stdout == "images False\n"
    assert not done.stderr
    assert not list(home.iterdir())
