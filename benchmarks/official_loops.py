"""Training here beside a release's own code: python benchmarks/official_loops.py geodtr|sample4geo|l2ltr|transgeo CLONE

CLONE is a clone of the release: zxh009123/GeoDTR, Skyy93/Sample4Geo, yanghongji2007/cross_view_localization_L2LTR or
Jeff-Zilence/TransGeo2022. The last three need timm, tqdm, ml-collections and matplotlib in the same environment. The
release's network, loss, optimiser and clipping make each step on one batch in memory: none of its images is read. Here
a step reads, augments and uploads its images too. Weights are random on both sides, in float32 and at full size.
Interleaved rounds of a few steps; prints pairs per second, and the ratio within a round.
"""

import argparse
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from importlib import import_module
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import torch
import torchvision
from torch import Tensor, nn

from geodtr.runtime.names import Branch
from geodtr.runtime.spec import Preprocessing
from geodtr.training.config import TrainConfig
from geodtr.training.data.readers.pairs_csv import read_pairs
from geodtr.training.pair_images import PairImages
from geodtr.training.parallel.distributed import Ranks
from geodtr.training.presets.load import load_preset
from geodtr.training.trainer import Trainer
from geodtr.training.world.dataset import WorldSet, write_world
from training import ROUNDS, Size, interleaved, our_loop, ratio, same_batch, spread

Batches = Iterator[Sequence[Tensor]]
COMMON = ("machine.precision=float32", "recipe.pretrained=none", "recipe.negatives=random")


def geodtr(batches: Batches) -> Iterator[None]:
    """As train.py with --cf, which itself does not run: it names options that it does not define."""
    torchvision.models.resnet34 = partial(_without_weights, torchvision.models.resnet34)
    losses = import_module("utils")
    model = (
        import_module("GeoDTR").GeoDTR(n_des=8, tr_heads=4, tr_layers=2, dropout=0.3, d_hid=2048, is_polar=True).train()
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=0.03, eps=1e-6)
    for ground, aerial in batches:
        optimizer.zero_grad()
        sat, grd, fake_sat, fake_grd = model(aerial, ground, True)
        loss = losses.softMarginTripletLoss(sate_vecs=sat, pano_vecs=grd, loss_weight=10.0)
        loss.item()
        loss += (losses.CFLoss(sat, fake_sat) + losses.CFLoss(grd, fake_grd)) / 2.0
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        yield


def sample4geo(batches: Batches) -> Iterator[None]:
    """The release's own loop over one batch at a time; it sleeps for 0.1 s before each."""
    model = import_module("sample4geo.model").TimmModel(
        "convnext_base.fb_in22k_ft_in1k_384", pretrained=False, img_size=384
    )
    loss = import_module("sample4geo.loss").InfoNCE(nn.CrossEntropyLoss(label_smoothing=0.1))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    scheduler = torch.optim.lr_scheduler.ConstantLR(optimizer)
    config = SimpleNamespace(verbose=False, device="cpu", gpu_ids=(), clip_grad=100.0, scheduler="constant")
    for views in batches:
        import_module("sample4geo.trainer").train(config, model, [(*views, None)], loss, optimizer, scheduler)
        yield


def l2ltr(batches: Batches) -> Iterator[None]:
    """As train(), without apex."""
    apex = ModuleType("apex")
    vars(apex)["amp"] = None
    sys.modules["apex"] = apex
    module = import_module("models.model_crossattn")
    config = module.CONFIGS["R50-ViT-B_16"]
    networks = nn.ModuleList(module.VisionTransformer(config, (128, 512)) for _ in range(2)).train()
    optimizer = torch.optim.AdamW(networks.parameters(), lr=1e-4, eps=1e-6, weight_decay=0.03)
    criterion, settings = import_module("train").triplet_loss(), SimpleNamespace(loss_weight=10)
    for views in batches:
        settings.train_batch_size = len(views[0])
        loss = criterion(*(network(view) for network, view in zip(networks, views, strict=True)), settings)
        loss.backward()
        loss.item()
        nn.utils.clip_grad_norm_(networks.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        yield


def transgeo(batches: Batches) -> Iterator[None]:
    """As train() of stage 1 with --op sam --asam --rho 2.5, without mining."""
    setattr(Tensor, "cuda", lambda self, *_, **__: self)  # noqa: B010 (mypy takes it for a mistake; the loss asks for a GPU)
    module = import_module("model.TransGeo")
    deit = "deit_small_distilled_patch16_224"
    vars(module)[deit] = partial(vars(module)[deit], pretrained=False)
    networks = module.TransGeo(SimpleNamespace(dim=1000, dataset="cvusa", sat_res=0, fov=0, crop=False)).train()
    adamw = {"lr": 1e-4, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.03, "amsgrad": False}
    optimizer = import_module("criterion.sam").SAM(
        networks.parameters(), torch.optim.AdamW, rho=2.5, adaptive=True, **adamw
    )
    criterion = import_module("criterion.soft_triplet").SoftTripletBiLoss()
    for ground, aerial in batches:
        loss, _, _ = criterion(*networks(im_q=ground, im_k=aerial))
        loss.item()
        optimizer.zero_grad()
        loss.backward()
        optimizer.first_step(zero_grad=True)
        loss, _, _ = criterion(*networks(im_q=ground, im_k=aerial))
        loss.backward()
        optimizer.second_step(zero_grad=True)
        yield


def _without_weights(build: Callable[..., nn.Module], **_: Any) -> nn.Module:
    return build(weights=None)


RELEASES: dict[str, tuple[str, Callable[[Batches], Iterator[None]]]] = {
    "geodtr": ("geodtr-cvusa", geodtr),
    "sample4geo": ("sample4geo-cvusa", sample4geo),
    "l2ltr": ("l2ltr-cvusa", l2ltr),
    "transgeo": ("transgeo-cvusa", transgeo),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("release", choices=RELEASES)
    parser.add_argument("clone", type=Path)
    parser.add_argument("--batch", type=int, default=4)
    options = parser.parse_args()
    preset, official = RELEASES[options.release]
    batch = [f"recipe.batch_size={options.batch}", f"recipe.micro_batch={options.batch}"]
    config = load_preset(preset, [*COMMON, *batch])
    size, device = Size(preset, COMMON, pairs=4 * options.batch, steps=3), Ranks().device
    # The release's own modules come first, whose names are common ones.
    sys.path.insert(0, str(options.clone.resolve()))
    loops = {
        "official": official(same_batch(config, device)),
        "here": here(config, size.pairs),
    }
    rates = interleaved(loops, size, options.batch, device)
    print(f"{options.release}, batch {options.batch}, {ROUNDS} interleaved rounds: pairs/s")
    for name, values in rates.items():
        print(f"  {name:9} {statistics.median(values):.3f} ({spread(values)})")
    print(f"  here against official: {ratio(rates['here'], rates['official'])}")


def here(config: TrainConfig, pairs: int) -> Iterator[None]:
    with tempfile.TemporaryDirectory() as folder:
        write_world(Path(folder) / "world", WorldSet(pairs=pairs, height=128, width=512))
        branches: dict[Branch, Preprocessing] = {"ground": config.ground, "aerial": config.aerial}
        images = PairImages(read_pairs(Path(folder) / "world"), branches, cache_bytes=4e9)
        yield from our_loop(Trainer(config, Ranks(), total=10**6), images, [])


if __name__ == "__main__":
    main()
