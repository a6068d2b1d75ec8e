"""A build compares the engine with its graph: a wrong engine is not written, a correct one is not refused."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from conftest import BUILT, Trained
from faulty_builder import Faulty

from geodtr import BuildRequest, Calibration, build_engine
from geodtr.export.build.precisions import plan_of
from geodtr.export.calibration_pool import pool_of
from geodtr.export.graph.structure import without_rounding
from geodtr.export.precision.agreement import check_agreement
from geodtr.runtime.embed.pipeline import load_batches
from geodtr.runtime.engines.onnxruntime import OnnxRuntimeEmbedder, open_session
from geodtr.runtime.errors import BuildError
from geodtr.runtime.names import BRANCHES, Precision
from geodtr.runtime.spec import Descriptors, Embedder, Images


@pytest.mark.parametrize("precision", BUILT)
def test_an_engine_that_computes_another_graph_is_not_written(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, precision: Precision
) -> None:
    monkeypatch.setattr("geodtr.export.build.single.make_builder", lambda *_given, **_more: Faulty())
    plan = plan_of(precision, Calibration(pool_of(trained.train_set), images=40))
    with pytest.raises(BuildError, match="aerial engine does not match its graph"):
        build_engine(BuildRequest(trained.onnx.path, tmp_path / "engine", plan=plan))
    assert list(tmp_path.iterdir()) == []


class Turned:
    """The engine `of`, its first `images` descriptors turned by `angle`: 15 degrees, as by another arg-max."""

    def __init__(self, of: Embedder, images: int, angle: float = np.pi / 12) -> None:
        self._of, self._images, self._angle = of, images, angle
        self.spec = of.spec

    def embed(self, images: Images) -> Descriptors:
        rows = self._of.embed(images)
        for row in rows[: self._images]:
            aside = np.random.default_rng(0).normal(size=row.shape)
            aside -= (aside @ row) * row
            row[:] = np.cos(self._angle) * row + np.sin(self._angle) * aside / np.linalg.norm(aside)
        return rows


@pytest.mark.parametrize(("precision", "may_turn"), [("fp32", 0), ("fp16", 0), ("int8", 3)])
def test_the_arg_max_of_few_images_may_differ_in_a_quantised_engine(
    trained: Trained, precision: Precision, may_turn: int
) -> None:
    bundle = trained.bundles[precision]
    spec = bundle.manifest.ground.spec
    images = next(load_batches(trained.test_set.paths("ground")[:8], spec.preprocessing, 8))
    graph, engine = bundle.path / bundle.manifest.ground.file, bundle.embedder("ground")
    check_agreement(Turned(engine, may_turn), graph, images, precision, 0.993)
    with pytest.raises(BuildError, match="does not match its graph"):
        check_agreement(Turned(engine, max(1, 2 * may_turn)), graph, images, precision, 0.993)


def test_an_int8_engine_may_differ_by_rounding_and_by_little_more(trained: Trained) -> None:
    """A wrong bias in the first convolution turned descriptors by less than `keep_cosine` allows their rounding to."""
    bundle = trained.bundles["int8"]
    for branch in BRANCHES:
        entry = bundle.manifest.engine(branch)
        images = next(load_batches(trained.test_set.paths(branch)[:8], entry.spec.preprocessing, 8))
        graph = bundle.path / entry.file
        exact = without_rounding(onnx.load(str(graph))).SerializeToString()
        unrounded = OnnxRuntimeEmbedder(open_session(exact, optimisation="none"), entry.spec, graph)
        check_agreement(unrounded, graph, images, "int8", 0.993)
        with pytest.raises(BuildError, match="does not match its graph"):
            check_agreement(Turned(bundle.embedder(branch), 8, np.arccos(0.9935)), graph, images, "int8", 0.993)
