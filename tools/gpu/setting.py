"""Sizes, and the data and models shared by the checks, created once in the work folder.

Heavy modules are imported inside the methods.
"""

import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from geodtr.training.config import TrainConfig
    from geodtr.training.data.pair_set import PairSet

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))  # the checks share code with the benchmarks
SMALL = "world-tiny"
"""Preset of a model that a check trains, to measure recall, not speed."""


@dataclass(frozen=True, slots=True)
class Size:
    """Sizes of the checks. `preset`: the network to time, trained on `pairs` pairs with batch size `batch`.

    `steps` per round. `small_pairs` and `epochs` are for training the small model, `batches` for timing engines.
    """

    preset: str
    batch: int
    pairs: int
    steps: int
    rounds: int
    small_pairs: int
    epochs: int
    batches: tuple[int, ...]


FULL = Size("geodtr-cvusa", 32, pairs=256, steps=8, rounds=5, small_pairs=800, epochs=12, batches=(1, 32))
DRY = Size(SMALL, 8, pairs=16, steps=2, rounds=2, small_pairs=32, epochs=1, batches=(1, 2))


@dataclass(frozen=True, slots=True)
class Setting:
    """The work folder and the sizes."""

    work: Path
    size: Size

    @property
    def dry(self) -> bool:
        return self.size is DRY

    @property
    def device(self) -> "torch.device":
        from geodtr.training.parallel.distributed import Ranks

        return Ranks().device

    def config(self, *settings: str, preset: str | None = None) -> "TrainConfig":
        """Configuration of the timed network, or of another `preset`, with random weights."""
        from geodtr.training.presets.load import load_preset

        own = () if preset else (f"recipe.batch_size={self.size.batch}",)
        return load_preset(preset or self.size.preset, ["recipe.pretrained=none", *own, *settings])

    def world(self, preset: str, pairs: int, region: str = "valley") -> "PairSet":
        """Generated pairs with the image size of `preset`."""
        from geodtr.training.data.readers.pairs_csv import read_pairs
        from geodtr.training.presets.load import load_preset
        from geodtr.training.world.dataset import WorldSet, write_world

        how = load_preset(preset).ground
        folder = self.work / f"{preset}-{region}-{pairs}"
        if not folder.exists():
            write_world(folder, WorldSet(pairs=pairs, height=how.height, width=how.width, region=region))
        return read_pairs(folder)

    def small_sets(self) -> "tuple[PairSet, PairSet]":
        """Training set of the small model, and a test set from another region."""
        pairs = self.size.small_pairs
        return self.world(SMALL, pairs), self.world(SMALL, pairs, region="coast")

    def small_run(self) -> Path:
        """Train the small model, on a GPU if there is one; return its folder."""
        from geodtr.training.loop import train

        out = self.work / "run"
        if not (out / "last.safetensors").exists():
            shutil.rmtree(out, ignore_errors=True)  # left by a check that timed out
            train(self.config(f"recipe.epochs={self.size.epochs}", preset=SMALL), self.small_sets()[0], out)
        return out

    def full_checkpoint(self) -> Path:
        """Checkpoint of the timed network: random weights and the batch statistics of generated pairs."""
        from engines import random_checkpoint

        return random_checkpoint(self.work, self.world(self.size.preset, 16), self.size.preset)
