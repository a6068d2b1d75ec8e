"""A build compares the engine with its graph: a wrong one is not written, a right one is not refused."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from conftest import BUILT, Trained

from geodtr.export.backends.base import Builder, Compiled
from geodtr.export.backends.options import OnnxRuntimeOptions
from geodtr.export.backends.registry import make_builder
from geodtr.export.build.engine import build_engine
from geodtr.export.build.request import BuildRequest, Calibration, plan_of
from geodtr.export.calibration_pool import pool_of
from geodtr.export.precision.agreement import check_agreement
from geodtr.runtime.embed.pipeline import load_batches
from geodtr.runtime.errors import BuildError
from geodtr.runtime.manifest import BackendEntry
from geodtr.runtime.names import Precision
from geodtr.runtime.progress import Track
from geodtr.runtime.spec import BranchSpec, Descriptors, Embedder, Images

ONNXRUNTIME = make_builder(OnnxRuntimeOptions())


class Faulty:
    """Compiles another aerial graph than it is given, and leaves the one it is given as it is."""

    def __init__(self, real: Builder = ONNXRUNTIME) -> None:
        self._real = real
        self.dialect = real.dialect

    def check(self, precision: Precision) -> BackendEntry:
        return self._real.check(precision)

    def compile(
        self, graph: Path, spec: BranchSpec, precision: Precision, out: Path, *, track: Track
    ) -> Compiled | None:
        if spec.branch == "ground":
            return self._real.compile(graph, spec, precision, out, track=track)
        model = onnx.load(str(graph))
        kernel = next(entry for entry in model.graph.initializer if len(entry.dims) == 4)
        kernel.CopyFrom(onnx.numpy_helper.from_array(-onnx.numpy_helper.to_array(kernel), kernel.name))
        (out / "elsewhere").mkdir()
        onnx.save(model, str(out / "elsewhere" / graph.name))
        return self._real.compile(out / "elsewhere" / graph.name, spec, precision, out, track=track)

    def another_way(self, fault: str) -> Builder | None:
        return self._real.another_way(fault)


@pytest.mark.parametrize("precision", BUILT)
def test_an_engine_that_computes_another_graph_is_not_written(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, precision: Precision
) -> None:
    monkeypatch.setattr("geodtr.export.build.engine.make_builder", lambda *_given, **_more: Faulty())
    plan = plan_of(precision, Calibration(pool_of(trained.train_set), images=40))
    with pytest.raises(BuildError, match="aerial engine does not compute what its graph says"):
        build_engine(BuildRequest(trained.onnx.path, tmp_path / "engine", plan=plan))
    assert list(tmp_path.iterdir()) == []


class Turned:
    """The engine `of`, with the descriptors of its first `images` turned by 15 degrees, as by another arg-max."""

    def __init__(self, of: Embedder, images: int) -> None:
        self._of, self._images = of, images
        self.spec = of.spec

    def embed(self, images: Images) -> Descriptors:
        rows = self._of.embed(images)
        for row in rows[: self._images]:
            aside = np.random.default_rng(0).normal(size=row.shape)
            aside -= (aside @ row) * row
            row[:] = np.cos(np.pi / 12) * row + np.sin(np.pi / 12) * aside / np.linalg.norm(aside)
        return rows


@pytest.mark.parametrize(("precision", "may_turn"), [("fp32", 0), ("fp16", 0), ("int8", 3)])
def test_the_arg_max_of_few_images_may_fall_the_other_way_in_a_quantised_engine(
    trained: Trained, precision: Precision, may_turn: int
) -> None:
    bundle = trained.bundles[precision]
    spec = bundle.manifest.ground.spec
    images = next(load_batches(trained.test_set.paths("ground")[:8], spec.preprocessing, 8))
    graph, engine = bundle.path / bundle.manifest.ground.file, bundle.embedder("ground")
    check_agreement(Turned(engine, may_turn), graph, images, precision, 0.993)
    with pytest.raises(BuildError, match="does not compute what its graph says"):
        check_agreement(Turned(engine, max(1, 2 * may_turn)), graph, images, precision, 0.993)
