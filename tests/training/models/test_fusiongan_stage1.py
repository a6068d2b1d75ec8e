"""FusionGAN's stage 1 trains its generator as the release does, by a second writing, and stage 2 begins with it."""

import re
import shutil
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import Losses, Outcome, Stop, Stopping
from safetensors.torch import load_file
from torch import Tensor, nn

from geodtr.runtime.errors import ConfigError, DataError
from geodtr.runtime.images.preprocess import load_image
from geodtr.runtime.names import Branch
from geodtr.training.data.pair_set import Skipped
from geodtr.training.data.readers.pairs_csv import read_pairs
from geodtr.training.drawing import measure_drawing
from geodtr.training.listener import DrawingValidation
from geodtr.training.loop import resume, train
from geodtr.training.models.checkpoint import load_checkpoint
from geodtr.training.models.fusiongan import resize_matrix
from geodtr.training.models.fusiongan_stage1 import FusionGanStage1
from geodtr.training.models.registry import outline
from geodtr.training.objectives.base import StepInput
from geodtr.training.parallel.distributed import Ranks
from geodtr.training.presets.load import load_preset
from geodtr.training.pretrained.weights import first_weights
from geodtr.training.seeding import Purpose, seed_of
from geodtr.training.trainer import Trainer
from geodtr.training.world.dataset import WorldSet, write_world

WIDTHS = (4, 5, 6, 7)
SMALL = (f"model.generator={list(WIDTHS)}", "machine.channels_last=false")
STAGE_2 = ("model.widths=[4,4,4,4]", "model.descriptor_size=8", f"model.generator={list(WIDTHS)}", "model.frozen=true")
MEAN = torch.tensor((123.6, 116.779, 103.939)) / 255
Weights = dict[str, Tensor]


def normed(weights: Weights, name: str, features: Tensor) -> Tensor:
    return F.batch_norm(features, None, None, weights[f"{name}.weight"], weights[f"{name}.bias"], training=True)


def drawn(weights: Weights, panoramas: Tensor, seed: int) -> Tensor:
    """X-Fork's first output, in training: values of panoramas -> values of tiles, both from -1 to 1."""
    torch.manual_seed(seed)
    features = resize_matrix(28, 32) @ (panoramas @ resize_matrix(154, 128).T)
    for number in range(4):
        part = f"generator.encoder.{number}"
        features = F.leaky_relu(features, 0.2) if number else features
        features = F.conv2d(features, weights[f"{part}.conv.weight"], weights[f"{part}.conv.bias"], 2, 1)
        features = normed(weights, f"{part}.norm", features) if number else features
    features = features.reshape(len(features), -1, 4, 4)
    for number in range(4):
        part = f"generator.decoder.{number}"
        features = features if number == 2 else features.relu()  # the fork has no activation before it
        features = F.conv_transpose2d(features, weights[f"{part}.conv.weight"], weights[f"{part}.conv.bias"], 2, 1)
        features = normed(weights, f"{part}.norm", features) if number < 3 else features
        features = F.dropout(features, 0.5) if number < 2 else features
    return features.tanh()


def judged(weights: Weights, tiles: Tensor) -> Tensor:
    """The discriminator's probability of each patch."""
    for number in range(6):
        tiles = F.conv2d(tiles, weights[f"{number}.weight"], weights[f"{number}.bias"], 2 if number < 4 else 1, 1)
        tiles = normed(weights, f"norm{number}", tiles) if 0 < number < 5 else tiles
        tiles = F.leaky_relu(tiles, 0.2) if number < 5 else tiles.sigmoid()
    return tiles


def cross_entropy(label: float, probability: Tensor) -> Tensor:
    return -(label * probability.log() + (1 - label) * (1 - probability).log()).mean()


def is_bias(name: str) -> bool:
    """Of a convolution."""
    return name.endswith("bias") and "norm" not in name


def zero_biases(weights: Weights) -> None:
    with torch.no_grad():
        for name in filter(is_bias, weights):
            weights[name].zero_()


def begun_with(networks: nn.Module) -> tuple[Weights, Weights]:
    """The weights of the trainer's generator and discriminator, and the biases that the release's has."""
    start = {name: each.detach().clone() for name, each in networks.named_parameters()}
    generator = {name.removeprefix("model."): each for name, each in start.items() if name.startswith("model.")}
    judge, places = Weights(), (0, 2, 5, 8, 11, 14)
    for number, (width_in, width) in enumerate(pairwise((3, 4, 8, 16, 32, 32, 1))):
        judge[f"{number}.weight"] = start[f"discriminator.{places[number]}.weight"]
        assert judge[f"{number}.weight"].shape == (width, width_in, 4, 4)
        judge[f"{number}.bias"] = torch.zeros(width)
        for end in ("weight", "bias") if 0 < number < 5 else ():
            judge[f"norm{number}.{end}"] = start[f"discriminator.{places[number] + 1}.{end}"]
    assert len(generator) + len(judge) - len(places) == len(start)
    return generator, judge


@pytest.mark.parametrize("micro_batches", [1, 2])
def test_a_step_is_the_release_s_two_updates(micro_batches: int) -> None:
    size = 4 // micro_batches
    trainer = Trainer(load_preset("world-fusiongan-stage1", (*SMALL, f"recipe.micro_batch={size}")), Ranks(), total=10)
    own = trainer.networks
    generator, judge = begun_with(own)
    of_generator, of_judge = (
        torch.optim.Adam([each.requires_grad_() for each in weights.values()], lr=2e-4, betas=(0.5, 0.999))
        for weights in (generator, judge)
    )
    levels = [torch.rand((4, 3, *sides), generator=torch.Generator().manual_seed(0)) for sides in ((28, 154), (64, 64))]
    parts = list(zip(*(torch.split(each, size) for each in levels), strict=True))
    images: list[dict[Branch, Tensor]] = [
        {"ground": (below - MEAN[:, None, None]) * 255, "aerial": (above - MEAN[:, None, None]) * 255}
        for below, above in parts
    ]
    for number in (1, 2, 3):
        zero_biases(generator)
        zero_biases(judge)
        both = [
            (above * 2 - 1, drawn(generator, below * 2 - 1, seed_of(0, Purpose.DROPOUT, number, index, 0)))
            for index, (below, above) in enumerate(parts)
        ]
        judgement = torch.stack(
            [
                cross_entropy(0.9, judged(judge, real)) + cross_entropy(0, judged(judge, fake.detach()))
                for real, fake in both
            ]
        ).mean()
        of_judge.zero_grad()
        torch.autograd.backward(judgement)
        wanted = {"discriminator.5.weight": judge["2.weight"].grad.clone()}  # type: ignore[union-attr] # is not None
        of_judge.step()
        zero_biases(judge)
        drawing = torch.stack(
            [cross_entropy(0.9, judged(judge, fake)) + 100 * (fake - real).abs().mean() for real, fake in both]
        ).mean()
        of_generator.zero_grad()
        torch.autograd.backward(drawing)
        wanted |= {f"model.{name}": each.grad for name, each in generator.items() if not is_bias(name)}
        losses, updated = list[float](), set[str]()
        for loss in trainer.objective.gradients(StepInput(number, images, torch.arange(4), 1.0), lambda loss: loss):
            losses.append(loss.item())
            learning = {name: each.grad for name, each in own.named_parameters() if each.grad is not None}
            assert len({name.partition(".")[0] for name in learning}) == 1  # one network an update
            for name in learning.keys() & wanted.keys():
                allowed = 2e-3 * wanted[name].abs().max().item()
                torch.testing.assert_close(learning[name], wanted[name], rtol=0, atol=allowed, msg=name)
                updated.add(name)
            trainer.optimizer.step()
        of_generator.step()
        np.testing.assert_allclose(losses, [judgement.item(), drawing.item()], rtol=1e-4)
        assert updated == wanted.keys()
    state = own.state_dict()
    assert not any(each.any() for name, each in state.items() if name.endswith("conv.bias"))
    counted = {each.item() for name, each in state.items() if name.startswith("model.") and "tracked" in name}
    assert counted == {3 * micro_batches}


def test_the_release_s_constants_are_the_preset_s() -> None:
    recipe = load_preset("fusiongan-cvusa-stage1").recipe
    assert (recipe.batch_size, recipe.learning_rate, recipe.beta1, recipe.epsilon) == (4, 2e-4, 0.5, 1e-8)
    assert (recipe.real_label, recipe.l1_weight, recipe.clip_norm, recipe.weight_decay) == (0.9, 100, float("inf"), 0)
    assert (recipe.schedule, recipe.warmup, recipe.heading_error) == ("constant", 0, 0)


def test_the_full_network_is_the_release_s() -> None:
    config = load_preset("fusiongan-cvusa-stage1")
    shapes = outline(config.model, config.ground, config.aerial).state_dict()
    stage_2 = load_preset("fusiongan-cvusa")
    whole = outline(stage_2.model, stage_2.ground, stage_2.aerial).state_dict()
    assert {name: each.shape for name, each in shapes.items()} == {
        name: each.shape for name, each in whole.items() if name.startswith("generator.")
    }
    assert (config.ground, config.aerial) == (stage_2.ground, stage_2.aerial)
    model = outline(config.model, config.ground, config.aerial)
    assert isinstance(model, FusionGanStage1)
    dropouts = [each for each in model.generator.decoder.modules() if isinstance(each, nn.Dropout)]
    assert [each.p for each in dropouts] == [0.5, 0.5, 0.5, 0, 0, 0, 0]


class Drawings(Losses):
    def __init__(self) -> None:
        super().__init__()
        self.drawings: list[DrawingValidation] = []

    def on_drawing(self, validation: DrawingValidation) -> None:
        self.drawings.append(validation)


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world") / "pairs"
    write_world(folder, WorldSet(pairs=12, height=32, width=128))
    return folder


@pytest.fixture(scope="module")
def run(pairs: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Drawings]:
    out, listener = tmp_path_factory.mktemp("runs") / "stage1", Drawings()
    config = load_preset("world-fusiongan-stage1", (*SMALL, "recipe.epochs=6", "recipe.learning_rate=2e-3"))
    train(config, read_pairs(pairs), out, validation=read_pairs(pairs), listener=listener)
    return out, listener


def test_a_stopped_run_resumes_to_the_same_networks(run: tuple[Path, Drawings], pairs: Path, tmp_path: Path) -> None:
    out, whole = run
    first, second, pair_set = Stopping(after=4), Drawings(), read_pairs(pairs)
    with pytest.raises(Stop):
        train(load_preset(str(out / "config.toml")), pair_set, tmp_path / "run", validation=pair_set, listener=first)
    checkpoint = resume(tmp_path / "run", pair_set, validation=pair_set, listener=second)
    assert [*first.losses[:3], *second.losses] == whole.losses
    assert [each.drawing.l1 for each in second.drawings] == [each.drawing.l1 for each in whole.drawings[1:]]
    assert checkpoint.read_bytes() == (out / "last.safetensors").read_bytes()
    states = [load_file(folder / "state.safetensors") for folder in (out, tmp_path / "run")]
    assert all(states[0][name].equal(states[1][name]) for name in states[0])
    assert any(name.startswith("optimizer/discriminator.") for name in states[0])
    assert all(name.startswith("generator.") for name in load_file(checkpoint))


def test_validation_measures_drawn_tiles_and_keeps_the_nearest(run: tuple[Path, Drawings], pairs: Path) -> None:
    out, listener = run
    figures = [each.drawing.l1 for each in listener.drawings]
    assert len(figures) == 6
    assert figures[-1] < figures[0]
    assert [each.best for each in listener.drawings] == [
        figure < min(figures[:index], default=1.0) for index, figure in enumerate(figures)
    ]
    model = load_checkpoint(out / "best.safetensors").model
    assert isinstance(model, FusionGanStage1)
    tiles = []
    for pair in read_pairs(pairs).pairs:
        panorama, tile = (
            torch.tensor(load_image(path, how.preprocessing)).permute(2, 0, 1) / 255
            for path, how in ((pair.ground, model.specs["ground"]), (pair.aerial, model.specs["aerial"]))
        )
        with torch.inference_mode():
            drawn_tile = model.generator(((panorama - MEAN[:, None, None]) * 255)[None])[0]
        tiles.append((tile * 2 - 1, (drawn_tile / 255 + MEAN[:, None, None]) * 2 - 1))
    best = listener.drawings[figures.index(min(figures))].drawing
    assert best.l1 == pytest.approx(np.mean([(ours - real).abs().mean() for real, ours in tiles]), rel=1e-4)
    others = [(ours - real).abs().mean() for (real, _), (_, ours) in pairwise(tiles)]
    assert best.l1_of_others == pytest.approx(np.mean(others), rel=1e-4)
    wanted = torch.stack([torch.cat(each, dim=1) for each in tiles[:6]]).add(1).mul(127.5)
    sheet = torch.from_numpy(best.sheet).float().view(128, 6, 64, 3).permute(1, 3, 0, 2)
    torch.testing.assert_close(sheet, wanted, rtol=0, atol=0.6)


def test_an_unreadable_tile_is_named_and_one_tile_alone_is_refused(
    run: tuple[Path, Drawings], pairs: Path, tmp_path: Path
) -> None:
    model = load_checkpoint(run[0] / "best.safetensors").model
    assert isinstance(model, FusionGanStage1)
    folder = shutil.copytree(pairs, tmp_path / "pairs")
    (folder / "aerial" / "000001.png").write_bytes(b"")
    skipped = list[Skipped]()
    measure_drawing(model, read_pairs(folder), skipped.append)
    assert [each.path for each in skipped] == [folder / "aerial" / "000001.png"]
    table = folder / "pairs.csv"
    table.write_text(re.sub(r"aerial/\d+", "aerial/000000", table.read_text()))
    with pytest.raises(DataError, match="two tiles"):
        measure_drawing(model, read_pairs(folder), skipped.append)


def test_stage_2_begins_with_the_generator(run: tuple[Path, Drawings], pairs: Path, tmp_path: Path) -> None:
    start = f"recipe.start={run[0]}"
    config = load_preset(
        "world-fusiongan", (*STAGE_2, start, "recipe.epochs=1", "recipe.batch_size=6", "recipe.layout=none")
    )
    learned = load_file(train(config, read_pairs(pairs), tmp_path / "run"))
    of_stage_1 = load_file(run[0] / "last.safetensors")
    assert all(learned[name].equal(each) for name, each in of_stage_1.items())
    assert any(each.any() for each in of_stage_1.values())
    with pytest.raises(ConfigError, match=r"model\.generator is .* there"):
        first_weights(load_preset("world-fusiongan", (start,)))
    with pytest.raises(ConfigError, match=r"aerial\.height is \d+ there, 128 here"):
        first_weights(load_preset("world-fusiongan", (*STAGE_2, start, "aerial.height=128", "aerial.width=128")))


def test_what_needs_descriptors_is_refused(
    run: tuple[Path, Drawings], pairs: Path, tmp_path: Path, refused: Callable[..., str]
) -> None:
    stage_1, spec, out = run[0], f"pairs:{pairs}", ("--out", tmp_path / "out")
    for command in (
        ("evaluate", stage_1, "--data", spec),
        ("export", stage_1, *out),
        ("build-engine", stage_1, "--backend", "onnxruntime", "--precision", "fp32", *out),
        ("build-engine", stage_1, "--backend", "onnxruntime", "--precision", "int8", "--calibration", spec, *out),
        ("finetune", stage_1, "--data", spec, *out),
        ("visualize", stage_1, "--data", spec, "--out", tmp_path / "out.png"),
    ):
        message = " ".join(refused(*command).split())
        assert "has no descriptors" in message, command
        assert "train --preset fusiongan-cvusa --set recipe.start=RUN" in message, command
    assert "is not a bundle" in refused("parity", stage_1, stage_1, "--data", spec)


def test_the_terminal_shows_each_update_and_the_validation(
    pairs: Path, tmp_path: Path, cli: Callable[..., Outcome]
) -> None:
    settings = [word for each in (*SMALL, "recipe.epochs=1") for word in ("--set", each)]
    data = ("--data", f"pairs:{pairs}", "--validation", f"pairs:{pairs}")
    done = cli("train", "--preset", "world-fusiongan-stage1", *settings, *data, "--out", tmp_path / "run")
    assert done.code == 0, done.err
    assert "(discriminator 1." in done.err
    assert ", generator " in done.err
    assert "Validation after epoch 1: L1 0." in done.err


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("recipe.loss=triplet", "no descriptors to compare"),
        ("recipe.negatives=mined", r"Set recipe\.loss=adversarial, recipe\.negatives=random"),
        ("recipe.hardest=0.1", "no descriptors to compare"),
        ("recipe.counterfactual_weight=1", "updates of its own"),
    ],
)
def test_settings_that_need_descriptors_are_refused(setting: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_preset("world-fusiongan-stage1", (setting,))


def test_tiles_without_a_patch_are_refused() -> None:
    config = load_preset("world-fusiongan-stage1", (*SMALL, "aerial.height=32", "aerial.width=32"))
    with pytest.raises(ConfigError, match="tiles from 48x48 on; aerial is 32x32"):
        Trainer(config, Ranks())
