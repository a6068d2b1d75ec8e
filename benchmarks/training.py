"""Compare the speed of training with a plain loop: python benchmarks/training.py [world|full] [--loops LOOP ...]

The plain loop works like the official one: PyTorch's DataLoader with workers that decode, augment and normalise each
image with Pillow and torchvision; float32, no channels-last. Network, data, batch size, losses and optimiser are the
same; the polar transform is applied in advance for both. The bare loop is the plain one on a single batch in memory:
the network, its losses and the optimiser alone, with our default order of values in memory. Ours runs in float32 with
either order, and in bf16. Runs interleaved rounds of a few steps. Prints pairs per second (median and range), ratios to
the plain and the bare loop (from six rounds on with the 95 % interval of the median), and the time our loop waits for
images.
"""

import argparse
import math
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice, repeat
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from scipy.stats import quantile_test
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from geodtr.runtime.images.preprocess import load_image
from geodtr.runtime.names import BRANCHES
from geodtr.training.config import TrainConfig
from geodtr.training.data.pair_set import PairSet
from geodtr.training.data.readers.pairs_csv import read_pairs
from geodtr.training.losses.contrastive import counterfactual, soft_margin_triplet
from geodtr.training.models.geodtr.geodtr import GeoDTR
from geodtr.training.models.registry import build_model
from geodtr.training.pair_images import PairImages
from geodtr.training.parallel.distributed import Ranks
from geodtr.training.presets.load import load_preset
from geodtr.training.trainer import Trainer, memory_format
from geodtr.training.world.dataset import WorldSet, write_world

ROUNDS = 5
_SETS_AN_EPOCH = 100


@dataclass(frozen=True, slots=True)
class Size:
    """A preset with settings, the number of pairs, and the steps of one round.

    The first step of a round is affected by the previous loop, so three steps are the minimum for a robust median.
    """

    preset: str
    settings: tuple[str, ...]
    pairs: int
    steps: int


SIZES = {
    "world": Size("world-demo", ("recipe.layout=strong", "recipe.semantic=strong"), pairs=480, steps=20),
    "full": Size("geodtr-cvusa", ("recipe.batch_size=8", "recipe.pretrained=none"), pairs=32, steps=3),
}
OURS = {
    "channels first": ("machine.channels_last=false",),
    "channels last": ("machine.channels_last=true",),
    "bf16": ("machine.precision=bf16",),
}
LOOPS = ("plain", "bare", *OURS)


class PlainPairs(Dataset[tuple[Tensor, Tensor]]):
    """Opens, augments and normalises one pair at a time, each image separately."""

    def __init__(self, folder: Path, count: int) -> None:
        self._folder, self._count = folder, count
        self._transform = transforms.Compose(
            [
                transforms.ColorJitter(0.3, 0.3, 0.3),
                transforms.RandomGrayscale(0.2),
                transforms.RandomPosterize(4, p=0.2),
                transforms.GaussianBlur(kernel_size=(1, 5), sigma=(0.1, 5)),
                transforms.ToTensor(),
                transforms.Normalize((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
            ]
        )

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        mirrored, quarters = bool(torch.rand(()) < 0.5), int(torch.randint(4, ()))
        views = []
        for branch in BRANCHES:
            with Image.open(self._folder / branch / f"{index}.png") as image:
                view = self._transform(image.convert("RGB"))
            view = view.flip(2) if mirrored else view
            views.append(view.roll(quarters * view.shape[2] // 4, 2))
        return views[0], views[1]


def write_plain(folder: Path, pair_set: PairSet, config: TrainConfig) -> None:
    """Write the preprocessed images, without normalisation, for the plain loop."""
    for branch in BRANCHES:
        how = config.ground if branch == "ground" else config.aerial
        (folder / branch).mkdir(parents=True)
        for index, path in enumerate(pair_set.paths(branch)):
            Image.fromarray(load_image(path, how)).save(folder / branch / f"{index}.png")


def plain_batches(config: TrainConfig, folder: Path, count: int, device: torch.device) -> Iterator[Sequence[Tensor]]:
    loader: DataLoader[Any] = DataLoader(
        PlainPairs(folder, count),
        config.recipe.batch_size,
        shuffle=True,
        drop_last=True,
        num_workers=os.cpu_count() or 1,
        pin_memory=device.type == "cuda",
        persistent_workers=True,
    )
    return chain.from_iterable(repeat(loader))


def same_batch(config: TrainConfig, device: torch.device) -> Iterator[Sequence[Tensor]]:
    """Noise in memory."""
    shapes = [(config.recipe.batch_size, 3, how.height, how.width) for how in (config.ground, config.aerial)]
    return repeat([torch.randn(shape, device=device) for shape in shapes])


def plain_loop(
    config: TrainConfig,
    batches: Iterator[Sequence[Tensor]],
    device: torch.device,
    *,
    half: bool = False,
    compiled: bool = False,
    layout: torch.memory_format = torch.contiguous_format,
) -> Iterator[None]:
    """Run one step per iteration. `half`: with autocast to bf16. `compiled`: with torch.compile for each branch."""
    recipe = config.recipe
    model = build_model(config.model, config.ground, config.aerial).to(device).to(memory_format=layout).train()
    assert isinstance(model, GeoDTR)
    optimizer = torch.optim.AdamW(model.parameters(), lr=recipe.learning_rate, weight_decay=0.03, eps=1e-6)

    def uniform(shape: Any) -> Tensor:
        return torch.rand((recipe.batch_size, *shape), device=device)

    branches = [model.ground.with_counterfactual, model.aerial.with_counterfactual]
    if compiled:
        branches = [torch.compile(branch) for branch in branches]
    for images in batches:
        with torch.autocast(device.type, torch.bfloat16, enabled=half):
            (f_ground, i_ground), (f_aerial, i_aerial) = (
                branch(view.to(device, non_blocking=True, memory_format=layout), uniform)
                for branch, view in zip(branches, images, strict=True)
            )
        loss = soft_margin_triplet(f_ground, f_aerial)
        loss = loss + (counterfactual(f_ground, i_ground) + counterfactual(f_aerial, i_aerial)) / 2
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        loss.item()
        yield


def our_loop(trainer: Trainer, images: PairImages, waited: list[float]) -> Iterator[None]:
    batch = trainer.config.recipe.batch_size
    whole = len(images) // batch * batch
    while True:
        # As long as a real epoch, because each starts without prefetched images.
        order = torch.cat([torch.randperm(len(images))[:whole] for _ in range(_SETS_AN_EPOCH)])
        batches = torch.split(order, batch)
        for step in trainer.steps(images, batches, epoch=0):
            waited.append(step.waited / step.seconds)
            yield


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("size", choices=SIZES, nargs="?", default="world")
    parser.add_argument("--loops", nargs="+", choices=LOOPS, default=LOOPS)
    parser.add_argument("--batch-size", type=int)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    options = parser.parse_args()
    size = SIZES[options.size]
    batch = () if options.batch_size is None else (f"recipe.batch_size={options.batch_size}",)
    settings = (*size.settings, *batch, "machine.precision=float32")
    config = load_preset(size.preset, settings)
    device = Ranks().device
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        height, width = config.ground.height, config.ground.width
        write_world(work / "world", WorldSet(pairs=size.pairs, height=height, width=width))
        pair_set = read_pairs(work / "world")
        images = PairImages(pair_set, {"ground": config.ground, "aerial": config.aerial}, cache_bytes=4e9)
        loops = dict[str, Iterator[None]]()
        waited = dict[str, list[float]]()
        for label in options.loops:
            if label == "plain":
                write_plain(work / "plain", pair_set, config)
                loops[label] = plain_loop(config, plain_batches(config, work / "plain", size.pairs, device), device)
            elif label == "bare":
                layout = memory_format(config, device)
                loops[label] = plain_loop(config, same_batch(config, device), device, layout=layout)
            else:
                ours = load_preset(size.preset, (*settings, *OURS[label]))
                waited[label] = []
                loops[label] = our_loop(Trainer(ours, Ranks(), total=10**6), images, waited[label])
        rates = interleaved(loops, size, config.recipe.batch_size, device, options.rounds)
        report(rates, waited, options.size, device)


def interleaved(
    loops: dict[str, Iterator[None]], size: Size, batch: int, device: torch.device, rounds: int = ROUNDS
) -> dict[str, list[float]]:
    """Pairs per second of each loop in each round, after one warm-up step."""
    finish: Callable[[], None] = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    for loop in loops.values():
        next(loop)
    rates: dict[str, list[float]] = {label: [] for label in loops}
    for _ in range(rounds):
        for label, loop in loops.items():
            finish()
            start = time.perf_counter()
            for _ in islice(loop, size.steps):
                pass
            finish()
            rates[label].append(size.steps * batch / (time.perf_counter() - start))
    return rates


def ratio(values: Sequence[float], base: Sequence[float]) -> str:
    ratios = [value / other for value, other in zip(values, base, strict=True)]
    return f"{statistics.median(ratios):.2f} ({spread(ratios)}{certain(ratios)})"


def certain(ratios: Sequence[float]) -> str:
    """The 95 % interval of the median, by order statistics."""
    lower, upper = quantile_test(ratios, p=0.5).confidence_interval(0.95)
    return "" if math.isnan(lower + upper) else f"; median {lower:.3f} to {upper:.3f} with 95 % confidence"


def spread(values: Sequence[float]) -> str:
    return f"{min(values):.2f} to {max(values):.2f}"


def report(rates: dict[str, list[float]], waited: dict[str, list[float]], name: str, device: torch.device) -> None:
    rounds = len(next(iter(rates.values())))
    print(f"{name} on {device.type}, {rounds} interleaved rounds, {torch.get_num_threads()} threads: pairs/s")
    for label, values in rates.items():
        against = (f", {ratio(values, rates[base])} of {base}" for base in ("plain", "bare") if base in rates)
        print(f"  {label:14} {statistics.median(values):8.2f} ({spread(values)}){''.join(against)}")
    for label, shares in waited.items():
        print(f"  {label}: {100 * float(np.median(shares)):.1f} % of a step is spent waiting for images")


if __name__ == "__main__":
    torch.manual_seed(0)
    main()
