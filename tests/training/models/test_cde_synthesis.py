"""CDE trains by its release's method: its street view is the official one, its three updates a second writing's."""

import copy
import re
from pathlib import Path

import numpy as np
import official
import pytest
import torch
import torch.nn.functional as F
from conftest import Losses, Stop, Stopping
from official import FIGURES
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.utils import spectral_norm

from geodtr.runtime.errors import ConfigError
from geodtr.training.data.readers.pairs_csv import read_pairs
from geodtr.training.loop import resume, train
from geodtr.training.models.cde import Cde, CdeConfig, Encoder
from geodtr.training.models.cde_synthesis import Decoder
from geodtr.training.models.importers.cde import CdeImporter
from geodtr.training.objectives.base import StepInput
from geodtr.training.pair_images import PairBatch
from geodtr.training.parallel.distributed import Ranks
from geodtr.training.presets.load import load_preset
from geodtr.training.trainer import Trainer, _hardest
from geodtr.training.world.dataset import WorldSet, write_world

# Of fewer than 16 channels, channels last, an odd batch and AVX-512, oneDNN 3.13 in PyTorch 2.15 computes the gradient
# of a 1x1 convolution of stride 2 beyond its memory when it has two threads.
SMALL = (
    *("model.begin=4", "model.encoder=[8,16,16]", "model.widths=[16,16,16]"),
    *("model.residuals=2", "recipe.batch_size=6", "recipe.layout=none"),
    *("ground.height=24", "ground.width=48", "aerial.height=24", "aerial.width=48"),
)
DECODER = (
    (r"^deconv(\d)\.norm_r(\d)\.", r"decoder.up\1.norm\2."),
    (r"^deconv(\d)\.conv_r1\.conv2d\.", r"decoder.up\1.first."),
    (r"^deconv(\d)\.conv_r2\.conv2d\.", r"decoder.up\1.second."),
    (r"^deconv(\d)\.conv_l\.conv2d\.", r"decoder.up\1.shortcut."),
    (r"^in(\d)_d\.", r"decoder.up\1.norm."),
    (r"^attention2\.", "decoder.attention."),
    (r"^conv_end\.0\.", "decoder.end."),
    (r"\.weight_orig$", ".weight"),
    (r"\.weight_([uv])$", r".\1"),
)


class Padded(nn.Module):
    def __init__(self, width_in: int, width: int, size: int) -> None:
        super().__init__()
        self.conv2d = spectral_norm(nn.Conv2d(width_in, width, size))

    def forward(self, features: Tensor) -> Tensor:
        convolved: Tensor = self.conv2d(F.pad(features, [self.conv2d.kernel_size[0] // 2] * 4, mode="reflect"))
        return convolved


class Attending(nn.Module):
    theta: nn.Module
    phi: nn.Module
    g: nn.Module

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.tensor(0.0))
        for name, sizes in {"theta": (width, width // 8), "phi": (width, width // 8), "g": (width, width // 2)}.items():
            setattr(self, name, spectral_norm(nn.Conv2d(*sizes, 1, bias=False)))
        self.o = spectral_norm(nn.Conv2d(width // 2, width, 1, bias=False))

    def forward(self, features: Tensor) -> Tensor:
        theta = self.theta(features).flatten(2)
        phi, g = (F.max_pool2d(part(features), 2).flatten(2) for part in (self.phi, self.g))
        shares = torch.einsum("bcn,bcm->bnm", theta, phi).softmax(dim=-1)
        attended = torch.einsum("bcm,bnm->bcn", g, shares).reshape(len(features), -1, *features.shape[2:])
        added: Tensor = features + self.gamma * self.o(attended)
        return added


class Part(nn.Module):
    """A down block, an up block or a residual block, whose parts have the release's names."""

    def __init__(self, **parts: nn.Module) -> None:
        super().__init__()
        for name, part in parts.items():
            setattr(self, name, part)


def normed(width: int) -> nn.Module:
    return nn.InstanceNorm2d(width, affine=True)


class OfficialGenerator(nn.Module):
    """The release's generator, written a second time from the facts, under its own names."""

    def __init__(self, config: CdeConfig) -> None:
        super().__init__()
        e1, e2, e3 = config.encoder
        self.residuals = config.residuals
        self.begin_conv, self.begini_e = spectral_norm(nn.Conv2d(3, config.begin, 7)), normed(config.begin)
        for number, (width_in, width) in enumerate(((config.begin, e1), (e1, e2), (e2, e3)), 1):
            convs = {"conv_r1": Padded(width_in, width, 3), "conv_r2": Padded(width, width, 3)}
            self.add_module(f"conv{number}", Part(**convs, conv_l=Padded(width_in, width, 1)))
            self.add_module(f"in{number}_e", normed(width))
        for number in range(1, config.residuals + 1):
            convs = {"conv1": Padded(e3, e3, 3), "conv2": Padded(e3, e3, 3)}
            self.add_module(f"res{number}", Part(**convs, in1=normed(e3), in2=normed(e3)))
        self.attention2 = Attending(2 * e2)
        for number, (width_in, width) in {3: (2 * e3, e2), 2: (2 * e2, e1), 1: (2 * e1, e1)}.items():
            convs = {"conv_r1": Padded(width_in, width, 3), "conv_r2": Padded(width, width, 3)}
            norms = {"norm_r1": normed(width_in), "norm_r2": normed(width)}
            self.add_module(f"deconv{number}", Part(**norms, **convs, conv_l=Padded(width_in, width, 1)))
            self.add_module(f"in{number}_d", normed(width))
        self.conv_end = nn.Sequential(nn.Conv2d(e1, 3, 3, padding=1), nn.Tanh())

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        features = self.begini_e(self.begin_conv(F.pad(images, [3] * 4, mode="reflect")))
        encoded = []
        for number in (1, 2, 3):
            block = getattr(self, f"conv{number}")
            deep = F.avg_pool2d(block.conv_r2(F.relu(block.conv_r1(F.relu(features)))), 2)
            features = self.get_submodule(f"in{number}_e")(deep + F.avg_pool2d(block.conv_l(features), 2))
            encoded.append(features)
        for number in range(1, self.residuals + 1):
            block = getattr(self, f"res{number}")
            features = features + block.in2(block.conv2(F.relu(block.in1(block.conv1(features)))))
        bottleneck = features
        for number in (3, 2, 1):
            features = torch.cat([features, encoded[number - 1]], dim=1)
            block = getattr(self, f"deconv{number}")
            if number == 2:
                features = self.attention2(features)
            larger = F.interpolate(F.relu(block.norm_r1(features)), scale_factor=2)
            deep = block.conv_r2(F.relu(block.norm_r2(block.conv_r1(larger))))
            features = self.get_submodule(f"in{number}_d")(deep + block.conv_l(F.interpolate(features, scale_factor=2)))
        return bottleneck, self.conv_end(features)


def official_discriminator(config: CdeConfig) -> nn.Sequential:
    e1, e2, e3 = config.encoder
    return nn.Sequential(
        *(nn.Conv2d(6, e1, 4, 2, 1), nn.LeakyReLU(0.1)),
        *(spectral_norm(nn.Conv2d(e1, e2, 4, 2, 1)), nn.LeakyReLU(0.1), Attending(e2)),
        *(spectral_norm(nn.Conv2d(e2, e3, 4, 2, 1)), nn.LeakyReLU(0.1)),
        *(spectral_norm(nn.Conv2d(e3, 2 * e3, 4, 1, 1)), nn.LeakyReLU(0.1), nn.Conv2d(2 * e3, 1, 4, 1, 1)),
    )


def own_name(name: str) -> str:
    """Of a tensor of the release's generator, in this project's networks."""
    for pattern, replacement in DECODER:
        name = re.sub(pattern, replacement, name)
    if name.startswith("decoder."):
        return name
    return "model." + CdeImporter().rename(f"generator_model_dict.{name}")


def test_the_second_writing_has_the_release_s_names_and_shapes() -> None:
    shapes = {name: list(tensor.shape) for name, tensor in OfficialGenerator(CdeConfig()).state_dict().items()}
    known = official.shapes_of("cde")
    assert shapes == {name.removeprefix("generator "): known[name] for name in known if name.startswith("generator ")}


def test_the_street_view_is_the_release_s() -> None:
    figures = np.load(FIGURES / "cde" / "embeddings.npz")
    encoder, decoder = Encoder(CdeConfig()), Decoder(CdeConfig())
    networks = nn.ModuleDict({"encoder": encoder, "decoder": decoder})
    assert sum(parameter.numel() for parameter in networks.parameters()) == 9_507_908
    shapes = official.shapes_of("cde")
    of_generator = {name.removeprefix("generator "): shapes[name] for name in shapes if name.startswith("generator ")}
    tensors = official.spectral_state_dict(of_generator)
    named = {own_name(name).replace("model.aerial.backbone.", "encoder."): tensor for name, tensor in tensors.items()}
    networks.load_state_dict(named)
    networks.eval()
    images = torch.from_numpy(official.network_input("sat-112x616", 112, 616)[:1])
    with torch.inference_mode():
        view = decoder(*encoder.stages(images))[0, :, ::8, ::8]
    np.testing.assert_allclose(view, figures["synth_fake0_small"], rtol=0, atol=1e-4)


def trainer_of(*settings: str) -> Trainer:
    return Trainer(load_preset("world-cde", (*SMALL, *settings)), Ranks(), total=10)


def images_of(count: int) -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(0)
    ground, aerial = torch.rand((2, count, 3, 24, 48), generator=random) * 2 - 1
    return ground, aerial


def triplet(ground: Tensor, aerial: Tensor, share: float) -> Tensor:
    """The release's: over the hardest share of all B(B-1) of each direction."""
    count = len(ground)
    distance = 2 - 2 * ground @ aerial.T
    others = ~torch.eye(count, dtype=torch.bool)
    losses = [
        F.softplus(10 * (each.diagonal()[:, None] - each))[others].sort(descending=True).values
        for each in (distance, distance.T)
    ]
    kept = int(share * count * (count - 1))
    return (losses[0][:kept].mean() + losses[1][:kept].mean()) / 2


def taken_for(label: float, logits: Tensor) -> Tensor:
    probability = logits.sigmoid()
    return -(label * probability.log() + (1 - label) * (1 - probability).log()).mean()


def test_a_step_is_the_release_s_three_updates() -> None:
    trainer = trainer_of("recipe.learning_rate=1e-3", "recipe.epsilon=1e-8", "recipe.weight_decay=0")
    model, own = trainer.model, trainer.networks
    assert isinstance(model, Cde)
    with torch.no_grad():
        for attention in ("decoder.attention", "discriminator.4"):
            own.get_parameter(f"{attention}.gamma").fill_(0.5)  # 0 at first, which hides the rest
    generator, judge = OfficialGenerator(model.config), official_discriminator(model.config)
    state = own.state_dict()
    generator.load_state_dict({name: state[own_name(name)] for name in generator.state_dict()})
    names = [name.replace(".weight_orig", ".weight") for name in judge.state_dict()]
    names = [re.sub(r"\.weight_([uv])$", r".\1", name) for name in names]
    judge.load_state_dict(
        {name: state[f"discriminator.{own_one}"] for name, own_one in zip(judge.state_dict(), names, strict=True)}
    )
    retrieving = nn.ModuleDict({"ground": copy.deepcopy(model.ground), "layout": copy.deepcopy(model.aerial.layout)})
    descend: dict[nn.Module, torch.optim.Adam] = {
        part: torch.optim.Adam(part.parameters(), lr=1e-3, betas=(0.5, 0.999))
        for part in (judge, retrieving, generator)
    }
    street, tile = images_of(6)

    def describe(features: Tensor) -> tuple[Tensor, Tensor]:
        weighted = features.flatten(2) @ retrieving["layout"](features.flatten(2))
        return retrieving["ground"](street), F.normalize(weighted.flatten(1), dim=1)

    wanted = dict[nn.Module, list[Tensor]]()

    def learn(part: nn.Module, loss: Tensor) -> float:
        descend[part].zero_grad()
        torch.autograd.backward(loss)
        wanted[part] = [each.grad.clone() for each in part.parameters() if each.grad is not None]
        descend[part].step()
        return loss.item()

    def official_step(share: float) -> list[float]:
        features, fake = generator(tile)
        both = torch.cat([torch.cat([tile, street], dim=1), torch.cat([tile, fake.detach()], dim=1)])
        real, drawn = judge(both).chunk(2)
        losses = [learn(judge, (taken_for(0.9, real) + taken_for(0.0, drawn)) / 2)]
        losses.append(learn(retrieving, triplet(*describe(features.detach()), share)))
        passed = taken_for(0.9, judge(torch.cat([tile, fake], dim=1)))
        apart = (fake - street).abs().mean()
        return [*losses, learn(generator, passed + 100 * apart + 1000 * triplet(*describe(features), share))]

    updated = (("discriminator.",), ("model.ground.", "model.aerial.layout."), ("model.aerial.backbone.", "decoder."))
    for share in (1.0, 0.5, 0.1):
        step = StepInput(1, [{"ground": street, "aerial": tile}], torch.arange(6), share)
        losses, expected = [], official_step(share)
        gradients = dict[str, Tensor]()
        for parts, loss in zip(updated, trainer.objective.gradients(step, lambda loss: loss), strict=True):
            losses.append(loss.item())
            learning = {name: each.grad for name, each in own.named_parameters() if each.grad is not None}
            assert all(name.startswith(parts) for name in learning)
            gradients |= {name: gradient.clone() for name, gradient in learning.items()}
            for group in trainer.optimizer.param_groups:
                group["lr"] = 1e-3
            trainer.optimizer.step()
        # Rounding grows afterwards: a step of Adam is as long for a gradient of rounding as for a large one.
        np.testing.assert_allclose(losses, expected, rtol=1e-4 if share == 1 else 1e-2)
        if share == 1:
            order = {
                judge: [f"discriminator.{name.removesuffix('_orig')}" for name, _ in judge.named_parameters()],
                retrieving: [f"model.ground.{name}" for name, _ in model.ground.named_parameters()]
                + [f"model.aerial.layout.{name}" for name, _ in model.aerial.layout.named_parameters()],
                generator: [own_name(name) for name, _ in generator.named_parameters()],
            }
            for part, of_part in order.items():
                largest = max(gradient.abs().max().item() for gradient in wanted[part])
                for name, gradient in zip(of_part, wanted[part], strict=True):
                    # A bias before a normalisation has none but of rounding.
                    allowed = 1e-2 * gradient.abs().max().item() + 1e-6 * largest
                    torch.testing.assert_close(gradients[name], gradient, rtol=0, atol=allowed, msg=name)
        assert {name for name, _ in own.named_parameters()} - gradients.keys() == set()


@pytest.mark.parametrize("micro_batch", [3, 2])
def test_the_generator_s_update_does_not_depend_on_micro_batches(micro_batch: int) -> None:
    """But for the panoramas' batch normalisation, which sees a micro-batch, and is left out of the loss here."""
    ground, aerial = torch.randint(
        0, 256, (2, 6, 24, 48, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    learned = []
    for size in (6, micro_batch):
        trainer = trainer_of("recipe.matching_weight=0", f"recipe.micro_batch={size}")
        parts = [
            PairBatch(*each)
            for each in zip(*(rows.split(size) for rows in (ground, aerial, torch.arange(6))), strict=True)
        ]
        for _ in range(2):
            trainer.step += 1
            trainer.update(parts, rate=1e-4)
        learned.append(trainer.networks.state_dict())
    for name, tensor in learned[0].items():
        if name.startswith(("decoder.", "discriminator.", "model.aerial.backbone.")):
            torch.testing.assert_close(learned[1][name], tensor, rtol=1e-3, atol=3e-4, msg=name)


def test_a_stopped_run_resumes_to_the_same_networks(tmp_path: Path) -> None:
    write_world(tmp_path / "pairs", WorldSet(pairs=12, height=24, width=48))
    pairs = read_pairs(tmp_path / "pairs")
    config = load_preset("world-cde", (*SMALL, "recipe.epochs=3"))
    whole, first, second = Losses(), Stopping(after=3), Losses()
    expected = train(config, pairs, tmp_path / "whole", listener=whole)
    with pytest.raises(Stop):
        train(config, pairs, tmp_path / "run", listener=first)
    checkpoint = resume(tmp_path / "run", pairs, listener=second)
    assert [*first.losses[:2], *second.losses] == whole.losses
    assert checkpoint.read_bytes() == expected.read_bytes()
    states = [load_file(tmp_path / run / "state.safetensors") for run in ("whole", "run")]
    assert all(states[0][name].equal(states[1][name]) for name in states[0])
    # What draws is part of the run, and of no checkpoint.
    kept = [name for name in states[0] if name.startswith(("weights/decoder.", "weights/discriminator."))]
    assert any(name.endswith(".u") for name in kept)
    assert any(name.startswith("optimizer/discriminator.") for name in states[0])
    assert not any("decoder" in name or "discriminator" in name for name in load_file(checkpoint))


def test_the_hardest_triplets_count_by_epoch() -> None:
    recipe = load_preset("cde-cvusa").recipe
    shares = [_hardest(10 * epoch, 10 * recipe.epochs, recipe) for epoch in (0, 19, 20, 39, 40, 59, 60, 199)]
    assert shares == [1, 1, 0.1, 0.1, 0.05, 0.05, 0.01, 0.01]


def test_a_share_of_triplets_may_rise() -> None:
    recipe = load_preset("cde-cvusa", ["recipe.hardest_from=[[4, 0.5], [0, 0.1], [8, 1.0]]", "recipe.epochs=12"]).recipe
    assert [_hardest(epoch, 12, recipe) for epoch in (0, 3, 4, 7, 8, 11)] == [0.1, 0.1, 0.5, 0.5, 1, 1]


def test_what_cannot_be_drawn_is_refused() -> None:
    for setting, expected in (
        ("ground.width=64", "Make them equal"),
        ("aerial.height=15", "set aerial.height and aerial.width to 16 or more"),
        ("ground.mean=0.4", "draws values from -1 to 1"),
        ("recipe.counterfactual_weight=1", "Set all three to 0"),
        ("recipe.hardest=0.5", "Set only one of them"),
    ):
        with pytest.raises(ConfigError, match=expected):
            trainer_of(setting, "recipe.hardest_from=[[1, 0.1]]")
    with pytest.raises(ConfigError, match='only the models "cde" and "fusiongan-stage1" do'):
        load_preset("world-safa", ["recipe.loss=adversarial"])
