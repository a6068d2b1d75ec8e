"""Known faults of TensorRT, and how builds handle them."""

import json
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from conftest import Outcome
from tensorrt_on_fakes import Machine, Model

from geodtr import Bundle, OnnxRuntimeOptions, OpenVinoOptions, open_bundle
from geodtr.export.backends.registry import make_builder
from geodtr.export.backends.tensorrt import network as tensorrt_network
from geodtr.export.backends.tensorrt.network import expose_reductions
from geodtr.export.precision.trial_engines import Workbench
from geodtr.runtime import machine as this_machine
from geodtr.runtime.build_command import recompile_command
from geodtr.runtime.engines.tensorrt.known_bugs import known_bugs
from geodtr.runtime.engines.tensorrt.library import RTX, TENSORRT
from geodtr.runtime.engines.tensorrt.plan import open_log
from geodtr.runtime.machine import with_gpu
from geodtr.runtime.names import BRANCHES, Precision
from geodtr.runtime.spec import Images

Cli = Callable[..., Outcome]


@pytest.fixture
def jetson(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine whose system is JetPack's."""
    (tmp_path / "nv_tegra_release").write_text("# R36 (release), REVISION: 4.0")
    monkeypatch.setattr(this_machine, "_JETSON", tmp_path / "nv_tegra_release")


def test_the_saliencys_reductions_become_outputs_of_the_vendors_network(nvidia: Any, model: Model) -> None:
    log = open_log(RTX)
    builder = nvidia.Builder(log.logger)
    for branch in BRANCHES:
        network = builder.create_network(1 << int(nvidia.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
        parser = nvidia.OnnxParser(network, log.logger)
        assert parser.parse_from_file(str(model.onnx.path / f"{branch}.onnx"))
        expose_reductions(network, log)
        first, *exposed = [network.get_output(index) for index in range(network.num_outputs)]
        assert first.name == "descriptors"
        graph = onnx.load(str(model.onnx.path / f"{branch}.onnx")).graph
        kinds = [node.op_type for node in graph.node if node.op_type in ("ReduceMax", "ArgMax", "ReduceL2")]
        assert {"ReduceMax", "ArgMax"} <= set(kinds)
        assert len(exposed) == len(kinds)
        assert {str(tensor.dtype).rpartition(".")[2] for tensor in exposed} == {"FLOAT", "INT32"}


def test_an_engine_that_disagrees_with_its_graph_is_built_once_more_with_its_reductions_as_outputs(
    model: Model, images: Images, machine: Machine, tmp_path: Path, cli: Cli
) -> None:
    machine.trt.fuses_wrongly = "ArgMax"
    built = cli("build-engine", model.onnx.path, "--backend", "tensorrt", "--out", tmp_path / "b")
    assert built.code == 0, built.err
    words = " ".join(built.err.split())
    assert "does not match its graph" in words
    assert "building once more with --expose-reductions" in words
    bundle = open_bundle(tmp_path / "b")
    assert bundle.manifest.backend.tensorrt is not None
    assert bundle.manifest.backend.tensorrt.expose_reductions
    np.testing.assert_allclose(
        bundle.embedder("ground").embed(images), model.onnx.embedder("ground").embed(images), atol=1e-5
    )
    assert "reductions are outputs of the network" in cli("inspect", bundle.path).out
    again = recompile_command(bundle.path, bundle.manifest.backend)
    assert "--expose-reductions" in again
    configured = len(machine.trt.configs)
    assert cli(*shlex.split(again)[1:]).code == 0
    assert len(machine.trt.configs) == configured + 2, "asked for, it is built so at once"


@pytest.mark.parametrize("wrong", ["ArgMax", "QuantizeLinear"])
def test_a_search_whose_engines_disagree_with_their_graphs_starts_once_more_with_reductions_as_outputs(
    model: Model, machine: Machine, tmp_path: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch, wrong: str
) -> None:
    machine.trt.fuses_wrongly = wrong
    exposed = list[Any]()

    def counted(network: Any, log: Any) -> None:
        exposed.append(network)
        expose_reductions(network, log)

    monkeypatch.setattr(tensorrt_network, "expose_reductions", counted)
    every = vars(Workbench)["blocks"].func
    monkeypatch.setattr(Workbench, "blocks", property(lambda bench: every(bench)[:2]))
    monkeypatch.setattr(Workbench, "speeds", lambda _bench, choices, **_: [1.0 + len(each) for each in choices])
    command: list[object] = ["build-engine", model.onnx.path, "--backend", "tensorrt", "--precision", "auto"]
    command += ["--calibration", model.images.name, "--images", 8, "--recall-on", model.images.name, "--tolerance", 100]
    built = cli(*command, "--out", tmp_path / "b")
    assert built.code == 0, built.err
    assert built.err.count("--expose-reductions") == 1
    assert len(machine.trt.configs) - len(exposed) <= 3, "two of float32, and one of the first block"
    bundle = open_bundle(tmp_path / "b")
    how, entry = bundle.manifest.backend.tensorrt, bundle.manifest.quantisation
    assert how is not None and how.expose_reductions
    assert entry is not None and entry.search is not None
    assert len(entry.search.sensitivity) == 2
    assert "--expose-reductions" in recompile_command(bundle.path, bundle.manifest.backend)


def test_a_search_whose_engines_disagree_in_either_form_is_ended(
    model: Model, machine: Machine, tmp_path: Path, refused: Callable[..., str]
) -> None:
    machine.trt.always_wrong = True
    command: list[object] = ["build-engine", model.onnx.path, "--backend", "tensorrt", "--precision", "auto"]
    command += ["--calibration", model.images.name, "--images", 8, "--recall-on", model.images.name, "--tolerance", 100]
    command += ["--optimisation-level", 0]
    assert "does not match its graph" in refused(*command, "--out", tmp_path / "b")
    assert len(machine.trt.configs) == 2
    assert not (tmp_path / "b").exists()


def test_an_engine_that_disagrees_in_either_form_is_not_written(
    model: Model, machine: Machine, tmp_path: Path, refused: Callable[..., str]
) -> None:
    machine.trt.always_wrong = True
    command = ("build-engine", model.onnx.path, "--backend", "tensorrt", "--optimisation-level", 0)
    message = refused(*command, "--out", tmp_path / "b")
    assert "Nothing was written" in message
    assert len(machine.trt.configs) == 4
    assert not (tmp_path / "b").exists()


def test_only_backends_with_an_alternative_build_try_it() -> None:
    for options in (OnnxRuntimeOptions(), OpenVinoOptions()):
        assert make_builder(options).another_way("It is wrong.") is None


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ((), ("all of the GPU's memory ({} MiB)", "name --max-batch 16")),
        (("--max-batch", 1), ("all of the GPU's memory ({} MiB)", "End what else uses the GPU")),
        (("--workspace", 64), ("--workspace gave one layer 64 MiB", "Name --workspace 1024")),
        (("--workspace", 2048), ("2048 MiB", "Name --workspace 8192")),
    ],
)
def test_no_implementation_means_too_little_workspace(
    model: Model,
    nvidia: Any,
    machine: Machine,
    tmp_path: Path,
    refused: Callable[..., str],
    options: tuple[object, ...],
    named: tuple[str, ...],
) -> None:
    machine.trt.build_fails = True
    command = ("build-engine", model.onnx.path, "--backend", "tensorrt", *options, "--out", tmp_path / "b")
    message = refused(*command)
    assert "Could not find any implementation for node Conv_7" in message
    assert "too little workspace" in message
    (config,) = machine.trt.configs
    given = config.get_memory_pool_limit(nvidia.MemoryPoolType.WORKSPACE) >> 20
    for words in named:
        assert words.format(given) in message


@pytest.mark.parametrize(
    ("version", "capability", "precision", "on_jetson", "named"),
    [
        ("10.3.0", "8.7", "int8", True, ["fixed in 10.7"]),
        ("10.3.0", "8.7", "fp16", True, []),
        ("10.3.0", "8.9", "int8", False, []),
        ("10.7.0", "8.7", "int8", True, []),
        ("10.13.3.9", "8.7", None, True, ["SM 87 is not supported"]),
        ("10.13.3.9", "11.0", "fp8", True, ["on Thor"]),
        ("10.16.1.11", "8.7", None, True, []),
        ("11.2.0", "8.9", "fp32", False, ["--expose-reductions"]),
        ("11.4.0.106", "8.9", None, False, []),
    ],
)
def test_versions_with_known_bugs_are_known(
    version: str,
    capability: str,
    precision: Precision | None,
    on_jetson: bool,
    named: list[str],
    request: pytest.FixtureRequest,
) -> None:
    if on_jetson:
        request.getfixturevalue("jetson")
    here = with_gpu("a GPU", capability, "13.0")
    texts = [f"{bug.found} {bug.remedy}" for bug in known_bugs(TENSORRT, version, here, precision)]
    assert len(texts) == len(named)
    for text, words in zip(texts, named, strict=True):
        assert words in text
    assert list(known_bugs(RTX, version, here)) == []


def test_doctor_names_the_bugs_that_concern_a_bundle_and_the_machine(
    build: Callable[..., Bundle], machine: Machine, cli: Cli, jetson: None
) -> None:
    del jetson
    for precision, expected in (("int8", True), ("fp16", False)):
        report = json.loads(cli("doctor", build(precision, name=precision).path, "--json").out)
        bugs = [entry for entry in report["findings"] if entry["what"] == "known bug"]
        assert bool(bugs) == expected
        assert report["passed"]
    assert "fixed in 10.7" in " ".join(cli("doctor").out.split())
    machine.upgrade("11.2.0")
    assert "--expose-reductions" in cli("doctor").out


def test_a_jetson_has_tensorrt_from_jetpack(
    model: Model, tmp_path: Path, refused: Callable[..., str], cli: Cli, jetson: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    del jetson
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    message = refused("build-engine", model.onnx.path, "--backend", "tensorrt", "--out", tmp_path / "b")
    assert "a Jetson has it from JetPack, not from pip" in message
    assert "pip install" not in message
    rows = {entry["what"]: entry for entry in json.loads(cli("doctor", "--json").out)["findings"]}["tensorrt"]
    assert "JetPack" in rows["remedy"]
