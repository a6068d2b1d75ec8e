"""The main job on a generated world, end to end: render, train, export, compile, localise, prove.

Every step writes one folder or file, whole or not at all, so that a second run reuses what the first finished.
"""

import platform
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import numpy as np
from PIL.Image import Image

from geodtr import __version__
from geodtr.export.build.engine import build_engine
from geodtr.export.build.precisions import Calibration, plan_of
from geodtr.export.build.request import BuildRequest
from geodtr.export.build.source import export_checkpoint
from geodtr.export.calibration_pool import pool_of
from geodtr.export.model import open_model
from geodtr.export.parity import Gates, compare, record
from geodtr.export.parity.result import ParityFigures
from geodtr.export.pixel_baseline import pixel_baseline
from geodtr.export.plots.files import save_picture
from geodtr.export.plots.sheets.retrieval import SheetRow, draw_sheet
from geodtr.export.plots.sheets.sheet import spread
from geodtr.runtime.bundle import open_bundle
from geodtr.runtime.errors import OutputExists
from geodtr.runtime.files import check_new_folder, write_bytes
from geodtr.runtime.files.documents import decode_json, read_document
from geodtr.runtime.gallery.base import Gallery
from geodtr.runtime.gallery.build import build_gallery
from geodtr.runtime.gallery.manifest import made_by
from geodtr.runtime.gallery.registry import open_gallery
from geodtr.runtime.geodesy import distance
from geodtr.runtime.localization.localizer import Localizer
from geodtr.runtime.localization.result import Localisation
from geodtr.runtime.manifest import QuantisationEntry
from geodtr.runtime.names import Precision
from geodtr.runtime.progress import Track, untracked
from geodtr.runtime.recall import Recall
from geodtr.training.data.pair_set import PairSet
from geodtr.training.data.readers.pairs_csv import read_pairs
from geodtr.training.data.references import reference_tiles
from geodtr.training.evaluation.evaluate import evaluate

if TYPE_CHECKING:
    from geodtr.training.config import TrainConfig
    from geodtr.training.listener import Listener

MARKER, REPORT, SHEET, TABLE = "demo.json", "report.json", "sheet.png", "table.md"
UNFINISHED, UNFINISHED_GALLERY = "run.unfinished", "gallery.unfinished"
RESULTS = ("world", "run", UNFINISHED, "onnx", "bundles", "gallery", UNFINISHED_GALLERY, REPORT, SHEET, TABLE, MARKER)
BUILT: tuple[Precision, ...] = ("fp32", "fp16", "int8")
_NEAR = 25.0
_SHEET_QUERIES, _SHEET_TILES = 8, 5


class DemoOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What decides the demo's result. Steps of a folder are reused only by a run with the same options."""

    seed: int = 0
    preset: str = "world-demo"
    train_pairs: int = 1500
    test_pairs: int = 4000
    train_region: str = "valley"
    test_region: str = "coast"


class _Marker(msgspec.Struct, frozen=True, kw_only=True):
    """What a demo's folder was made by: finished steps are reused only when all of it is the same."""

    version: str
    options: DemoOptions
    training: "TrainConfig"


@dataclass(frozen=True, slots=True)
class PositionError:
    """How far the best tile lies from where the panorama was taken, in metres.

    A tile is listed at its pair's position, so the right one counts as 0 m: `median_of_misses` is what a wrong one
    costs. `within_25_m` is the share of all queries.
    """

    median: float
    median_of_misses: float
    within_25_m: float


@dataclass(frozen=True, slots=True)
class DemoReport:
    """Everything the demo measured; `seconds` by step, 0 for a reused one; `quantisation` is the int8 bundle's."""

    options: DemoOptions
    machine: str
    parity: ParityFigures
    pixels: Recall
    quantisation: QuantisationEntry | None
    position_error: PositionError
    seconds: dict[str, float]
    passed: bool


@dataclass(frozen=True, slots=True)
class _Stopwatch:
    """Runs the steps whose result is missing, and records the seconds of each.

    After a step that ran, all later steps run again, because their earlier results came from other input.
    """

    announce: Callable[[str], None]
    results: list[Path] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def step(self, title: str) -> Iterator[None]:
        self.announce(title)
        start = time.perf_counter()
        yield
        self.seconds[title] = round(time.perf_counter() - start, 1)

    def make(self, title: str, result: Path, work: Callable[[], object]) -> Path:
        if result.exists() and self.results:
            shutil.rmtree(result)
        if result.exists():
            self.announce(f"{title}: reusing {result}")
            self.seconds[title] = 0.0
        else:
            with self.step(title):
                work()
            self.results.append(result)
        return result


def run_demo(
    out: Path,
    options: DemoOptions,
    *,
    fresh: bool = False,
    track: Track = untracked,
    listener: "Listener | None" = None,
    announce: Callable[[str], None] = lambda _title: None,
) -> DemoReport:
    """Run every step into `out`; leave report.json, sheet.png and table.md there. `fresh` removes an earlier demo.

    Raises OutputExists when `out` holds something else, or a demo of another version or other options.
    """
    from geodtr.runtime.files.own_kinds import STATE
    from geodtr.training.loop import resume, train
    from geodtr.training.presets.load import load_preset
    from geodtr.training.world.dataset import WorldSet, write_world

    config = load_preset(options.preset, changes={"recipe.seed": options.seed})
    marker = _Marker(version=__version__, options=options, training=config)
    _claim(out, msgspec.json.format(msgspec.json.encode(marker), indent=2) + b"\n", fresh)
    watch = _Stopwatch(announce)

    def world(name: str, pairs: int, region: str) -> PairSet:
        height, width = config.ground.height, config.ground.width
        world_set = WorldSet(pairs=pairs, height=height, width=width, region=region, seed=options.seed)
        folder = out / "world" / name
        watch.make(f"Render {pairs} {name} pairs", folder, lambda: write_world(folder, world_set, track=track))
        return read_pairs(folder)

    def train_into(run: Path) -> None:
        # A run in progress is no result yet: it takes its name when it is finished.
        unfinished = out / UNFINISHED
        if (unfinished / STATE).is_file():
            resume(unfinished, train_set, track=track, listener=listener)
        else:
            shutil.rmtree(unfinished, ignore_errors=True)
            train(config, train_set, unfinished, track=track, listener=listener)
        unfinished.rename(run)

    train_set = world("train", options.train_pairs, options.train_region)
    test_set = world("test", options.test_pairs, options.test_region)
    run = watch.make("Train", out / "run", lambda: train_into(out / "run"))
    onnx = watch.make("Export to ONNX", out / "onnx", lambda: export_checkpoint(run, out / "onnx", track=track))
    bundles = [out / "bundles" / precision for precision in BUILT]
    for precision, bundle in zip(BUILT, bundles, strict=True):
        request = BuildRequest(onnx, bundle, plan=plan_of(precision, Calibration(pool_of(train_set))))
        watch.make(f"Build {precision} engines", bundle, partial(build_engine, request, track=track))
    flying = open_bundle(bundles[0])
    watch.make(
        "Build the gallery", out / "gallery", lambda: _build_gallery(out / "gallery", flying.path, test_set, track)
    )
    gallery = open_gallery(out / "gallery")
    with watch.step("Localise"):
        panoramas = test_set.paths("ground")
        localizer = Localizer(flying, gallery)
        located = list(localizer.locate_frames(panoramas, _SHEET_TILES, count=len(panoramas), track=track))
    with watch.step("Prove parity"):
        reference = open_model(run)
        candidates = [open_model(bundle) for bundle in bundles]
        # Step by step takes as long again, and matters where an engine fails: `parity` shows it.
        gates = Gates(accept_undecided=True)
        parity = compare(reference, candidates, test_set, gates=gates, stages=False, track=track).figures
        pixels = evaluate(pixel_baseline(reference.embedders), test_set, track=track)
        record(parity)
    report = DemoReport(
        options=options,
        machine=f"{platform.machine()}, Python {platform.python_version()}, {platform.system()}",
        parity=parity,
        pixels=pixels,
        quantisation=open_bundle(bundles[-1]).manifest.quantisation,
        position_error=_position_error(test_set, located),
        seconds=watch.seconds,
        passed=parity.verdict == "passed",
    )
    save_picture(_sheet(test_set, located, gallery, report), out / SHEET, replace=True)
    write_bytes(out / TABLE, markdown_table(parity).encode())
    write_bytes(out / REPORT, msgspec.json.format(msgspec.json.encode(report), indent=2) + b"\n")
    return report


def markdown_table(figures: ParityFigures) -> str:
    """The README's table: R@1 in percent, speed and size of the reference model and of each engine."""
    before = figures.reference
    rows = [(before.name, before.recall.at_1, before.speed.median, before.bytes, "reference")]
    for each in figures.candidates:
        verdict = "accepted" if each.gate.accepted else each.gate.verdict
        rows.append((each.name, each.own.recall.at_1, each.speed.median, each.bytes, verdict))
    head = "| model | R@1, % | images/s | MB | parity |\n| --- | ---: | ---: | ---: | --- |\n"
    return head + "".join(
        f"| {name} | {100 * at_1:.1f} | {speed:.0f} | {size / 1e6:.1f} | {verdict} |\n"
        for name, at_1, speed, size, verdict in rows
    )


def _claim(out: Path, marker: bytes, fresh: bool) -> None:
    """Make `out` this demo's folder: empty, or one that the same version with the same options began."""
    file = out / MARKER
    ours = file.is_file() and _is_marker(read_document(file))
    if not ours:
        check_new_folder(out)
    elif fresh:
        for name in RESULTS:
            entry = out / name
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink(missing_ok=True)
    elif file.read_bytes() != marker:
        raise OutputExists(
            f"{out} holds a demo of another version or other options (see {file}). Add --fresh, or name another --out."
        )
    write_bytes(file, marker)


def _is_marker(content: bytes) -> bool:
    try:
        return set(decode_json(content, dict[str, object])) == set(_Marker.__struct_fields__)
    except msgspec.DecodeError:
        return False


def _build_gallery(out: Path, bundle_path: Path, test_set: PairSet, track: Track) -> None:
    bundle = open_bundle(bundle_path)
    # A gallery in progress is no result yet: it takes its name when it is finished.
    unfinished = out.with_name(UNFINISHED_GALLERY)
    shutil.rmtree(unfinished, ignore_errors=True)
    build_gallery(
        unfinished, reference_tiles(test_set), bundle.embedder("aerial"), made_by(bundle.manifest), track=track
    )
    unfinished.rename(out)


def _position_error(test_set: PairSet, located: list[Localisation]) -> PositionError:
    best = [localisation.candidates[0].place for localisation in located]
    true = np.array([(pair.lat, pair.lon) for pair in test_set.pairs], np.float64)
    located_at = np.array([(place.lat, place.lon) for place in best], np.float64)
    metres = distance(true[:, 0], true[:, 1], located_at[:, 0], located_at[:, 1])
    misses = metres[metres > _NEAR]
    return PositionError(
        median=float(np.median(metres)),
        median_of_misses=float(np.median(misses)) if len(misses) else 0.0,
        within_25_m=float((metres <= _NEAR).mean()),
    )


def _sheet(test_set: PairSet, located: list[Localisation], gallery: Gallery, report: DemoReport) -> Image:
    ground, aerial = test_set.paths("ground"), test_set.paths("aerial")
    rows = []
    for query in spread(len(located), _SHEET_QUERIES):
        candidates = located[query].candidates
        right = next((rank for rank, entry in enumerate(candidates, 1) if entry.row == query), None)
        rows.append(
            SheetRow(
                query=ground[query],
                caption=f"query {query}: " + (f"right tile at rank {right}" if right else "right tile not among these"),
                tiles=tuple((aerial[entry.row], f"{entry.score:.3f}", entry.row == query) for entry in candidates),
            )
        )
    at_1 = report.parity.reference.recall.at_1
    return draw_sheet(rows, f"{len(gallery)} tiles, R@1 {at_1:.1%}: queries, their nearest tiles, the right one framed")
