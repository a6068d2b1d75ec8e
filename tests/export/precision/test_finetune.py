"""Quantisation-aware fine-tuning computes as the engines do, and leaves an ordinary checkpoint."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from conftest import Outcome, Trained
from PIL import Image

from geodtr.calibration.operators import operators
from geodtr.calibration.ranges import RangeOptions, calibrate
from geodtr.export.calibration_pool import pool_of
from geodtr.export.finetune import finetune_config
from geodtr.export.precision.cosine_selection import describe
from geodtr.export.precision.int8 import with_quantised, with_types
from geodtr.runtime.embed.pipeline import load_batches
from geodtr.runtime.engines.onnxruntime import open_session
from geodtr.runtime.errors import ImageError
from geodtr.runtime.spec import INPUT, Descriptors, Images
from geodtr.training.data.pair_set import PairSet
from geodtr.training.models.checkpoint import load_checkpoint, save_checkpoint
from geodtr.training.models.embedder import embedders
from geodtr.training.models.registry import Model, build_model
from geodtr.training.presets.load import load_preset
from geodtr.training.qat import simulate_int8


@pytest.fixture
def run(trained: Trained) -> Path:
    return trained.checkpoint.parent


@dataclass(frozen=True, slots=True)
class Simulated:
    """The ground branch with its arithmetic simulated, and the graph that an engine would be built from."""

    exact: Descriptors
    model: Model
    graph: onnx.ModelProto
    images: Images


@pytest.fixture(scope="module")
def simulated(trained: Trained) -> Simulated:
    run, options = trained.checkpoint.parent, RangeOptions(images=40)
    config = finetune_config(run, trained.train_set, options, "cpu-8bit")
    model = load_checkpoint(run).model
    images = next(load_batches(trained.test_set.paths("ground")[:40], config.ground, 40))
    exact = embedders(model).ground.embed(images)
    simulate_int8(model, config.int8)
    activations = calibrate(trained.onnx, pool_of(trained.train_set), options).ranges.ground.activations
    graph = onnx.load(str(trained.onnx.path / "ground.onnx"))
    convolutions = [operator.name for operator in operators(graph) if operator.kind == "Conv"]
    return Simulated(exact, model, with_quantised(with_types(graph), activations, "cpu-8bit", convolutions), images)


def test_the_first_convolution_gives_the_numbers_of_the_graph(simulated: Simulated) -> None:
    given = list[torch.Tensor]()
    normalisation = simulated.model.branch("ground").get_submodule("backbone.layers.1")
    hook = normalisation.register_forward_hook(lambda _module, _images, features: given.append(features.relu()))
    embedders(simulated.model).ground.embed(simulated.images)
    hook.remove()
    graph = onnx.ModelProto.FromString(simulated.graph.SerializeToString())
    followed = next(node for node in graph.graph.node if node.op_type == "Conv").output[0]
    while (node := next(node for node in graph.graph.node if followed in node.input)).op_type != "DequantizeLinear":
        followed = node.output[0]
    graph.graph.output.append(onnx.helper.make_tensor_value_info(node.output[0], onnx.TensorProto.FLOAT, None))
    session = open_session(graph.SerializeToString(), optimisation="none")
    (expected,) = session.run([node.output[0]], {INPUT: simulated.images})
    step = np.diff(np.unique(expected)).max()
    steps_apart = np.abs(given[0].numpy() - expected) / step
    assert steps_apart.max() < 1.01
    # A sum in another order sometimes rounds to the other side of a half.
    assert (steps_apart > 0.01).mean() < 0.002


def test_the_simulation_rotates_descriptors_as_the_engine_does(simulated: Simulated) -> None:
    """Unrelated rounding would be as far from the engine's result as both together are from float32."""
    trained = embedders(simulated.model).ground.embed(simulated.images)
    # As the graph is written: the integer kernels of CPUs without VNNI saturate.
    engine = describe(simulated.graph, simulated.images, "none")
    engine_turn, turn, apart = (
        1 - np.sum(one * other, axis=1)
        for one, other in ((simulated.exact, engine), (simulated.exact, trained), (engine, trained))
    )
    assert 0.5 < turn.mean() / engine_turn.mean() < 2
    assert apart.mean() < 0.5 * (turn.mean() + engine_turn.mean())
    assert np.corrcoef(turn, engine_turn)[0, 1] > 0.5


def test_it_calibrates_on_what_the_training_sees(trained: Trained, tmp_path: Path) -> None:
    Image.new("RGB", (64, 48)).save(tmp_path / "photo.png")
    photos = PairSet("pairs:photos", (replace(trained.test_set.pairs[0], ground=tmp_path / "photo.png"),))
    with pytest.raises(ImageError, match="no full turn"):
        finetune_config(
            trained.checkpoint.parent, photos, RangeOptions(images=1), "cpu-8bit", settings=["recipe.fields=[90]"]
        )


def test_gradients_pass_through_the_rounding(trained: Trained, run: Path) -> None:
    config = finetune_config(run, trained.train_set, RangeOptions(images=8), "cpu-8bit")
    model = load_checkpoint(run).model.train()
    simulate_int8(model, config.int8)
    images = torch.rand(4, 3, config.ground.height, config.ground.width)
    torch.autograd.backward(model.branch("ground")(images)[:, :64].sum())
    convolutions = [weight for name, weight in model.branch("ground").named_parameters() if "conv" in name]
    assert convolutions
    assert all(weight.grad is not None and weight.grad.abs().sum() > 0 for weight in convolutions)


def test_a_fine_tuned_run_is_a_checkpoint_like_any_other(
    run: Path, pairs: Path, cli: Callable[..., Outcome], tmp_path: Path
) -> None:
    out, data = tmp_path / "tuned", f"pairs:{pairs}"
    command = ("finetune", run, "--data", data, "--epochs", 1, "--images", 16, "--out", out)
    result = cli(*command, "--set", "recipe.batch_size=10")
    assert result.code == 0, result.err
    before, after = load_checkpoint(run).model.state_dict(), load_checkpoint(out).model.state_dict()
    assert list(before) == list(after)
    assert all(torch.equal(before[name], after[name]) for name in before if "running" in name)
    assert any(not torch.equal(before[name], after[name]) for name in before if "conv" in name)
    assert cli("resume", out).code == 0
    engine = tmp_path / "engine"
    int8 = ("--precision", "int8", "--calibration", data, "--images", 16)
    built = cli("build-engine", out, *int8, "--out", engine)
    assert built.code == 0, built.err


@pytest.mark.parametrize(
    ("setting", "named"),
    [
        ("int8.weight_bits=4", "int8.weight_bits: 4 is not allowed; allowed: 7, 8"),
        ("machine.precision=half", "machine.precision: 'half' is not allowed; allowed: float32, bf16, fp16"),
        ("int8.bits=7", "'int8.bits' is not a setting"),
    ],
)
def test_an_impossible_setting_is_refused_before_any_work(
    trained: Trained, run: Path, refused: Callable[..., str], tmp_path: Path, setting: str, named: str
) -> None:
    command = ("finetune", run, "--data", trained.train_set.name, "--set", setting, "--out", tmp_path / "tuned")
    message = refused(*command)
    assert named in message
    assert "Calibrating" not in message


def test_a_network_without_batch_normalisation_is_refused_before_any_work(
    trained: Trained, refused: Callable[..., str], tmp_path: Path
) -> None:
    config = load_preset("world-safa")
    file = tmp_path / "safa.safetensors"
    save_checkpoint(file, build_model(config.model, config.ground, config.aerial), "random weights")
    command = (
        "finetune",
        file,
        "--preset",
        "world-safa",
        "--data",
        trained.train_set.name,
        "--out",
        tmp_path / "tuned",
    )
    message = refused(*command)
    assert "This network has others, first ground.backbone.0" in message
    assert "--keep-cosine" in message
    assert "Exporting" not in message


def test_a_checkpoint_alone_needs_its_recipe_named(
    trained: Trained, refused: Callable[..., str], tmp_path: Path
) -> None:
    command = ("finetune", trained.checkpoint, "--data", trained.train_set.name, "--out", tmp_path / "tuned")
    assert "--preset" in refused(*command)


def test_a_missing_checkpoint_is_reported(trained: Trained, refused: Callable[..., str], tmp_path: Path) -> None:
    command = ("finetune", tmp_path / "nowhere", "--data", trained.train_set.name, "--out", tmp_path / "tuned")
    assert "is not a checkpoint file" in " ".join(refused(*command).split())
