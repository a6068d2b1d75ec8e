"""Test the paper's claims on the generated world, for docs/claims.md: python benchmarks/claims.py WORK

Trains on one region and tests on unseen regions of the same and of another style, with three seeds. WORK keeps finished
trainings, so that an interrupted benchmark resumes. Takes about an hour on two CPU cores.
"""

import argparse
import statistics
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import msgspec

from geodtr.cli.console import messages
from geodtr.cli.train.bar import TrainingBar
from geodtr.export.model import open_model
from geodtr.runtime.files import write_bytes
from geodtr.runtime.files.own_kinds import STATE
from geodtr.training.config import TrainConfig
from geodtr.training.data.pair_set import PairSet
from geodtr.training.data.readers.pairs_csv import read_pairs
from geodtr.training.evaluation.evaluate import evaluate
from geodtr.training.loop import resume, train
from geodtr.training.presets.load import encode_config, load_preset
from geodtr.training.world.dataset import WorldSet, write_world

SEEDS = (0, 1, 2)
WORLD_SEED = 11
"""Worlds 11, 12 and 13; the generator was tuned on others."""
TRAIN_PAIRS, TEST_PAIRS = 1200, 500
TRAIN, SAME, CROSS = "valley", "coast", "desert"
AUGMENTED = ("recipe.layout=strong", "recipe.semantic=strong")
RELEASED = ("recipe.hardest=1", "recipe.heading_error=0")
"""As in the release: all triplets count, and both views are rotated alike."""
BASE = ("recipe.epochs=30", "model.descriptors=8", "model.initialisation=fan-in", *RELEASED, *AUGMENTED)
SQUARE = ("aerial.polar=false", "aerial.height=96", "aerial.width=96")


@dataclass(frozen=True, slots=True)
class Variant:
    """One row: `settings` over the preset world-demo."""

    name: str
    settings: tuple[str, ...]


VARIANTS = (
    Variant("GeoDTR (K 8, polar, LS + SA, counterfactual)", BASE),
    Variant("without LS + SA", (*BASE, "recipe.layout=none", "recipe.semantic=none")),
    Variant("without counterfactual loss", (*BASE, "recipe.counterfactual_weight=0")),
    Variant("K 4", (*BASE, "model.descriptors=4")),
    Variant("K 1", (*BASE, "model.descriptors=1")),
    Variant("square aerial tile", (*BASE, *SQUARE)),
    Variant("official initialisation", (*BASE, "model.initialisation=official")),
)


class Result(msgspec.Struct, frozen=True):
    """R@1 in percent on unseen regions of the same and of another style."""

    same: float
    cross: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work", type=Path)
    options = parser.parse_args()
    results = {variant.name: [measure(variant, seed, options.work) for seed in SEEDS] for variant in VARIANTS}
    print(render(results))


def measure(variant: Variant, seed: int, work: Path) -> Result:
    """Train and test one variant with one seed, or read the stored result."""
    config = load_preset("world-demo", (*variant.settings, f"recipe.seed={seed}"))
    folder = work / key(config)
    file = folder / "result.json"
    if file.is_file():
        return msgspec.json.decode(file.read_bytes(), type=Result)
    messages.print(f"{variant.name}, seed {seed}", style="bold")
    train_set = world(work, TRAIN, TRAIN_PAIRS, seed)
    with TrainingBar() as bar:
        if (folder / "run" / STATE).is_file():
            resume(folder / "run", train_set, listener=bar)
        else:
            train(config, train_set, folder / "run", listener=bar)
    model = open_model(folder / "run").embedders
    same, cross = (100 * evaluate(model, world(work, region, TEST_PAIRS, seed)).at_1 for region in (SAME, CROSS))
    result = Result(same, cross)
    write_bytes(file, msgspec.json.encode(result))
    messages.print(f"  same style {same:.1f}, other style {cross:.1f}")
    return result


def key(config: TrainConfig) -> str:
    """Hash of everything that a result depends on."""
    data = (WORLD_SEED, TRAIN, TRAIN_PAIRS, SAME, CROSS, TEST_PAIRS)
    return sha256(encode_config(config) + repr(data).encode()).hexdigest()[:16]


def world(work: Path, region: str, pairs: int, seed: int) -> PairSet:
    folder = work / f"world-{seed}" / region
    if not folder.exists():
        write_world(folder, WorldSet(pairs=pairs, region=region, seed=WORLD_SEED + seed))
    return read_pairs(folder)


def render(results: dict[str, list[Result]]) -> str:
    """The table: mean R@1 over the seeds (smallest to largest), and the change from the first row, per seed."""
    full = results[VARIANTS[0].name]
    lines = [
        f"| R@1, {TEST_PAIRS} tiles, mean of {len(SEEDS)} seeds (range) | same style | change | other style | change |",
        "|---|---|---|---|---|",
    ]
    for name, rows in results.items():
        cells = [name]
        for of in ("same", "cross"):
            values = [getattr(row, of) for row in rows]
            changes = [getattr(row, of) - getattr(base, of) for row, base in zip(rows, full, strict=True)]
            cells.append(_spread(values, ".1f"))
            cells.append("" if rows is full else _spread(changes, "+.1f"))
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _spread(values: list[float], form: str) -> str:
    return f"{statistics.mean(values):{form}} ({min(values):{form}} to {max(values):{form}})"


if __name__ == "__main__":
    main()
