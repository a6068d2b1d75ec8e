"""NVIDIA's own parser and builder accept every exported graph, and report why they refuse a faulty one."""

import os
import signal
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import onnx
import planted_faults as planted
import pytest
from conftest import Trained
from msgspec.structs import replace
from nvidia import build_plan
from onnx import numpy_helper
from tensorrt_on_fakes import Model

from geodtr import TensorRtOptions
from geodtr.export.backends.tensorrt.parser import check_operators
from geodtr.export.build.source import export_checkpoint
from geodtr.export.calibration_pool import pool_of
from geodtr.export.graph.checks import check_fp16
from geodtr.export.graph.export import export_network
from geodtr.export.graph.projection import with_projection
from geodtr.export.graph.structure import GraphError
from geodtr.export.precision.fp16 import to_fp16
from geodtr.export.precision.write import CalibrationPlan, write_quantised, write_typed
from geodtr.export.projection import Projection
from geodtr.runtime.engines.tensorrt.library import Library
from geodtr.runtime.errors import BuildError
from geodtr.runtime.names import BRANCHES, Precision
from geodtr.runtime.spec import BranchSpec
from geodtr.training.models.embedder import from_pixels
from geodtr.training.models.registry import build_model
from geodtr.training.presets import preset_names
from geodtr.training.presets.load import load_preset

T = TypeVar("T")
pytestmark = pytest.mark.usefixtures("nvidia")
PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16", "int8", "fp8")


@pytest.fixture(scope="module")
def graphs(model: Model, tmp_path_factory: pytest.TempPathFactory) -> Callable[[Precision], Path]:
    """The folder of both branches' typed graphs, as they are written for TensorRT."""
    root = tmp_path_factory.mktemp("typed")

    def written(precision: Precision) -> Path:
        folder = root / precision
        if not folder.exists():
            folder.mkdir()
            if precision in ("int8", "fp8"):
                plan = CalibrationPlan(pool_of(model.images), keep_cosine=0.5)
                write_quantised(model.onnx, plan, precision, "tensorrt", folder)
            else:
                write_typed(model.onnx, precision, folder)
        return folder

    return written


def _specs(model: Model) -> list[BranchSpec]:
    return [model.onnx.manifest.engine(branch).spec for branch in BRANCHES]


@pytest.mark.parametrize("precision", PRECISIONS)
def test_every_precision_of_both_branches_becomes_a_plan(
    model: Model, graphs: Callable[[Precision], Path], precision: Precision
) -> None:
    for spec in _specs(model):
        assert len(build_plan(graphs(precision) / f"{spec.branch}.onnx", spec, TensorRtOptions())) > 10_000


def test_raw_tiles_become_a_plan(trained: Trained, tmp_path: Path) -> None:
    bundle = export_checkpoint(trained.checkpoint, tmp_path / "raw", raw_tiles=64)
    assert build_plan(bundle.path / "aerial.onnx", bundle.manifest.aerial.spec, TensorRtOptions())


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_projected_descriptors_become_a_plan(model: Model, tmp_path: Path, precision: Precision) -> None:
    spec = model.onnx.manifest.ground.spec
    random = np.random.default_rng(0)
    weights, bias = random.normal(size=(spec.descriptor_size, 24)), random.normal(size=24)
    projection = Projection(weights.astype(np.float32), {"ground": bias.astype(np.float32)})
    graph = with_projection(onnx.load(str(model.onnx.path / "ground.onnx")), projection, "ground")
    if precision == "fp16":
        graph = to_fp16(graph)
        check_fp16(graph)
    check_operators(graph)
    onnx.save(graph, str(tmp_path / "graph.onnx"))
    assert build_plan(tmp_path / "graph.onnx", replace(spec, descriptor_size=24), TensorRtOptions())


@pytest.mark.slow
@pytest.mark.parametrize("preset", [name for name in preset_names() if not name.endswith("-stage1")])
def test_the_graphs_of_every_preset_become_plans(tmp_path: Path, preset: str) -> None:
    """Of world-tiny above, and of the other models' small presets in test_model_family.py, each precision does.

    FusionGAN's stage 1 has no graphs.
    """
    config = load_preset(preset)
    network = build_model(config.model, config.ground, config.aerial)
    for branch in BRANCHES:
        spec = network.specs[branch]
        onnx.save(export_network(from_pixels(network, branch), spec.preprocessing), str(tmp_path / "graph.onnx"))
        assert build_plan(tmp_path / "graph.onnx", spec, TensorRtOptions())


class Watching:
    """The vendor's builder, which keeps the configuration that a build was given."""

    def __init__(self, trt: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        self.configs = list[Any]()
        kept = self.configs

        class Builder(trt.Builder):  # type: ignore[misc] # TensorRT ships no types
            def build_serialized_network(self, network: Any, config: Any) -> Any:
                kept.append(config)
                return super().build_serialized_network(network, config)

        monkeypatch.setattr(trt, "Builder", Builder)


def test_the_builder_gets_the_given_options(
    nvidia: Any, model: Model, graphs: Callable[[Precision], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    watching = Watching(nvidia, monkeypatch)
    ground, _ = _specs(model)
    options = TensorRtOptions(min_batch=2, opt_batch=4, max_batch=8, workspace=64, optimisation_level=1)
    build_plan(graphs("fp32") / "ground.onnx", ground, options)
    (config,) = watching.configs
    assert not config.get_flag(nvidia.BuilderFlag.TF32)
    assert config.get_memory_pool_limit(nvidia.MemoryPoolType.WORKSPACE) == 64 << 20
    assert config.builder_optimization_level == 1
    assert config.num_optimization_profiles == 1
    assert config.profiling_verbosity == nvidia.ProfilingVerbosity.DETAILED


@pytest.mark.parametrize(
    ("options", "flags"),
    [
        ({"strip": True}, {"STRIP_PLAN", "REFIT_IDENTICAL"}),
        ({"strip": True, "refittable": True}, {"STRIP_PLAN", "REFIT"}),
        ({"refittable": True}, {"REFIT"}),
        ({}, set()),
    ],
)
def test_the_builder_gets_the_choice_of_weights_in_a_plan(
    nvidia: Any,
    model: Model,
    graphs: Callable[[Precision], Path],
    monkeypatch: pytest.MonkeyPatch,
    options: dict[str, Any],
    flags: set[str],
) -> None:
    watching = Watching(nvidia, monkeypatch)
    ground, _ = _specs(model)
    # Without a driver the vendor's builder does not get to the end of a plan without weights: it compiles on a device.
    with suppress(BuildError):
        build_plan(graphs("fp32") / "ground.onnx", ground, TensorRtOptions(**options))
    (config,) = watching.configs
    every = ("STRIP_PLAN", "REFIT", "REFIT_IDENTICAL", "VERSION_COMPATIBLE")
    assert {name for name in every if config.get_flag(getattr(nvidia.BuilderFlag, name))} == flags


def test_a_build_reports_its_progress(model: Model, graphs: Callable[[Precision], Path]) -> None:
    seen = list[str]()

    def track(items: Iterable[T], description: str, total: int | None) -> Iterator[T]:
        del total
        for item in items:
            seen.append(description)
            yield item

    ground, _ = _specs(model)
    build_plan(graphs("fp16") / "ground.onnx", ground, TensorRtOptions(), track=track)
    assert seen
    assert all(description.startswith("Building the ground engine: ") for description in seen)


def test_ctrl_c_ends_a_build(model: Model, graphs: Callable[[Precision], Path]) -> None:
    def track(items: Iterable[T], description: str, total: int | None) -> Iterator[T]:
        del description, total
        for item in items:
            os.kill(os.getpid(), signal.SIGINT)
            yield item

    ground, _ = _specs(model)
    with pytest.raises(KeyboardInterrupt):
        build_plan(graphs("fp16") / "ground.onnx", ground, TensorRtOptions(), track=track)
    assert build_plan(graphs("fp16") / "ground.onnx", ground, TensorRtOptions())


def unsigned_zero_points(graph: Any) -> None:
    """Activations in unsigned bytes around 128, as CPUs have them."""
    stored = {entry.name: entry for entry in graph.graph.initializer}
    changed = set[str]()
    for node in graph.graph.node:
        if node.op_type == "QuantizeLinear":
            changed.add(node.input[2])
    for name in changed:
        stored[name].CopyFrom(numpy_helper.from_array(np.array(128, np.uint8), name))


def an_operator_of_nobodys(graph: Any) -> None:
    """The last node becomes one that no parser knows."""
    graph.graph.node[-1].op_type = "Flatland"


@pytest.mark.parametrize("fault", [planted.transposed_pixels, an_operator_of_nobodys])
def test_an_export_that_it_refuses_is_no_export(model: Model, fault: Callable[[Any], None]) -> None:
    graph = onnx.load(str(model.onnx.path / "ground.onnx"))
    check_operators(graph)
    fault(graph)
    with pytest.raises(GraphError, match="parser does not take the graph: In node"):
        check_operators(graph)


@pytest.mark.parametrize("missing", ["all of it", "its libraries"])
def test_where_it_is_not_installed_the_list_of_its_operators_serves(
    model: Model, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, missing: str
) -> None:
    (tmp_path / "without_libraries.py").write_text("raise ImportError('libtensorrt_rtx.so.1')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(Library, "modules", ("no_such_module" if missing == "all of it" else "without_libraries",))
    graph = onnx.load(str(model.onnx.path / "ground.onnx"))
    check_operators(graph)
    an_operator_of_nobodys(graph)
    with pytest.raises(GraphError, match=r"ai\.onnx\.Flatland"):
        check_operators(graph)


@pytest.mark.parametrize(
    ("fault", "precision", "named"),
    [
        (planted.transposed_pixels, "fp32", "UInt8"),
        (unsigned_zero_points, "int8", "zero"),
        (an_operator_of_nobodys, "fp32", "Flatland"),
    ],
)
def test_a_graph_that_it_refuses_is_refused_in_its_own_words(
    model: Model,
    graphs: Callable[[Precision], Path],
    tmp_path: Path,
    fault: Callable[[Any], None],
    precision: Precision,
    named: str,
) -> None:
    ground, _ = _specs(model)
    graph = onnx.load(str(graphs(precision) / "ground.onnx"))
    fault(graph)
    onnx.save(graph, str(tmp_path / "ground.onnx"))
    with pytest.raises(BuildError, match="(?i)" + named):
        build_plan(tmp_path / "ground.onnx", ground, TensorRtOptions())
