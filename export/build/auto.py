"""`--backend auto`: build with every backend that runs on this machine and keep the fastest that passes its checks.

Each backend is built and checked exactly as `single` does it for one. Ranges are calibrated once. The engines
are timed side by side (see timing), both branches with a batch of noise. What is not kept is removed.
"""

import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TypeVar

import msgspec

from geodtr.export.build.candidates import CANDIDATES, Able, Candidate, find_able, none_left, not_timed
from geodtr.export.build.command_line import command_line
from geodtr.export.build.compile import compile_graphs
from geodtr.export.build.graphs import check_comparable, check_dialect, copy_graphs, read_typed, write_graphs
from geodtr.export.build.plans import calibration_plan, projection_plan
from geodtr.export.build.projected import projected
from geodtr.export.build.request import BuildRequest
from geodtr.export.build.source import float32_bundle
from geodtr.export.precision.write import CalibrationPlan, calibrated
from geodtr.export.speed import BATCH, check_faster, measure_speed
from geodtr.export.statistics import mcnemar
from geodtr.export.timing import PairTiming, Timing, time_pairs
from geodtr.runtime.bundle import Bundle, open_bundle
from geodtr.runtime.engines.base import EngineOptions
from geodtr.runtime.errors import UserError
from geodtr.runtime.files import new_folder, scratch_in
from geodtr.runtime.machine import this_cpu, this_gpu
from geodtr.runtime.manifest import (
    BackendChoiceEntry,
    BackendTrialEntry,
    Manifest,
    TrialSpeed,
    read_manifest,
    write_manifest,
)
from geodtr.runtime.names import BRANCHES, Dialect, Precision
from geodtr.runtime.progress import Track
from geodtr.runtime.spec import EmbedderPair, noise

T = TypeVar("T")

ROUNDS = 20
"""Rounds of timing: one backend is faster than another when it is so in at least 15 of 20."""
_CHANCE = 0.05


@dataclass(frozen=True, slots=True)
class _Passed:
    """A candidate whose engines were built and passed their checks."""

    able: Able
    bundle: Bundle
    embedders: EmbedderPair


@dataclass(frozen=True, slots=True)
class _Graphs:
    """Typed graphs that several backends can compile, in a folder of their own."""

    folder: Path
    manifest: Manifest


def build_fastest(request: BuildRequest, warn: Callable[[str], None], track: Track) -> None:
    """Build engines with every backend that runs here, and keep the fastest in a bundle, whole or not at all.

    The manifest's `backend_choice` lists every backend with its speed at `speed_batch` images per call, or why it was
    not timed. Raises BuildError, with every backend's reason, when none is left.
    """
    precision, batch = request.precision, request.speed_batch or BATCH
    if precision is None:
        _recompile_fastest(request, batch, warn, track)
        return
    calibration, projection = calibration_plan(request.plan, warn), projection_plan(request.compact, warn)
    comparable = check_comparable if request.require_faster else None
    able, entries = find_able(precision, request.dialect, comparable, warn)
    with (
        new_folder(request.out) as folder,
        scratch_in(folder) as scratch,
        float32_bundle(request.source, track, scratch) as whole,
    ):
        exported = projected(whole, projection, scratch, track=track)
        if calibration is not None:
            calibration = replace(calibration, file=calibration.file or scratch / "ranges.json")
            calibrated(exported, calibration, track=track)  # what it raises is no backend's fault
        graphs = _write_graphs(able, entries, exported, precision, calibration, scratch, track)
        kept = _keep_fastest(graphs, entries, calibration, folder, scratch, command_line(request), batch, track)
        if request.require_faster:
            speed = measure_speed(open_bundle(folder), exported, kept.builder, scratch, batch, track=track)
            manifest = read_manifest(folder)
            check_faster(speed, manifest)
            write_manifest(folder, msgspec.structs.replace(manifest, speed=speed))


def _recompile_fastest(request: BuildRequest, batch: int, warn: Callable[[str], None], track: Track) -> None:
    """Compile the typed graphs of a bundle with every backend that runs here, and keep the fastest.

    A backend that wants quantised graphs of another dialect is not tried. Raises as `build_fastest` and `read_typed`.
    """
    source = request.source
    manifest = read_typed(source, request.dialect)
    able, entries = find_able(manifest.precision, request.dialect, partial(check_dialect, source, manifest), warn)
    with new_folder(request.out) as folder, scratch_in(folder) as scratch:
        place = scratch / "graphs"
        place.mkdir()
        copy_graphs(source, manifest, place)
        graphs = [(each, _Graphs(place, manifest)) for each in able]
        _keep_fastest(graphs, entries, None, folder, scratch, command_line(request), batch, track)


def _write_graphs(
    able: Sequence[Able],
    entries: dict[Candidate, BackendTrialEntry],
    exported: Bundle,
    precision: Precision,
    calibration: CalibrationPlan | None,
    scratch: Path,
    track: Track,
) -> list[tuple[Able, _Graphs]]:
    """Each candidate with its typed graphs. Only int8 graphs differ between dialects: each dialect is written once.

    A candidate whose dialect cannot be written gets its entry with the reason instead.
    """
    written: dict[Dialect | None, _Graphs | str] = {}
    graphs = list[tuple[Able, _Graphs]]()
    for each in able:
        key = each.builder.dialect if precision == "int8" else None
        if key not in written:
            place = scratch / f"graphs {key or precision}"
            place.mkdir()
            try:
                manifest = write_graphs(exported, precision, calibration, each.builder.dialect, place, track=track)
                written[key] = _Graphs(place, manifest)
            except UserError as error:
                written[key] = str(error)
        result = written[key]
        if isinstance(result, str):
            entries[each.candidate] = not_timed(each.candidate, result, each.backend.version)
        else:
            graphs.append((each, result))
    return graphs


def _keep_fastest(
    able: Sequence[tuple[Able, _Graphs]],
    entries: dict[Candidate, BackendTrialEntry],
    calibration: CalibrationPlan | None,
    folder: Path,
    scratch: Path,
    command: str,
    batch: int,
    track: Track,
) -> Able:
    """Build every candidate in `scratch`, time those that pass, and move the fastest into `folder`; `entries` holds the
    candidates that were ruled out before, and gets the others.
    """
    passed = list[_Passed]()
    for each, graphs in able:
        try:
            passed.append(_build(each, graphs, calibration, scratch, batch, track))
        except OSError:
            raise  # a full disk is no backend's fault
        except Exception as error:
            # What a vendor's library raises has no base class of its own, and another backend may still do.
            reason = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
            entries[each.candidate] = not_timed(each.candidate, reason, each.backend.version)
    if not passed:
        raise none_left(entries)
    timings = time_pairs([each.embedders for each in passed], batch, rounds=ROUNDS, track=track)
    kept = fastest([each["both"] for each in timings])
    for one, timed in zip(passed, timings, strict=True):
        entries[one.able.candidate] = _timed(one, timed, timings[kept])
    choice = BackendChoiceEntry(
        batch=batch,
        rounds=ROUNDS,
        machine=this_gpu() or this_cpu(),
        trials=tuple(entries[candidate] for candidate in CANDIDATES),
    )
    winner = passed[kept]
    for file in winner.bundle.path.iterdir():
        file.replace(folder / file.name)
    write_manifest(folder, msgspec.structs.replace(winner.bundle.manifest, backend_choice=choice, command=command))
    return winner.able


def _build(
    able: Able, graphs: _Graphs, calibration: CalibrationPlan | None, scratch: Path, batch: int, track: Track
) -> _Passed:
    """Compile, check and open one candidate's engines in a folder of its own, and call them once as they are timed."""
    name = able.candidate.name
    place = scratch / name
    shutil.copytree(graphs.folder, place)
    bundle = compile_graphs(
        place, graphs.manifest, able.backend, able.builder, calibration, track=_prefixed(track, name)
    )
    embedders = bundle.embedders(EngineOptions(trust_host_code=True))
    for branch in BRANCHES:
        embedders[branch].embed(noise(embedders[branch].spec, batch))
    return _Passed(able, bundle, embedders)


def fastest(timings: Sequence[Timing]) -> int:
    """The row to keep: the first that no other beats; where each is beaten, the one with the highest median."""
    unbeaten = (row for row, timing in enumerate(timings) if not any(_beats(other, timing) for other in timings))
    return next(unbeaten, max(range(len(timings)), key=lambda row: timings[row].speed.median))


def _beats(one: Timing, other: Timing) -> bool:
    """Whether `one` is faster than `other` in more of the rounds that both ran in than chance gives: sign test, 5 %."""
    quicker, slower = _rounds_won(one, other), _rounds_won(other, one)
    return quicker > slower and mcnemar(quicker, slower) < _CHANCE


def _rounds_won(one: Timing, other: Timing) -> int:
    return sum(own < others for own, others in zip(one.seconds, other.seconds, strict=True))


def _timed(passed: _Passed, timed: PairTiming, kept: PairTiming) -> BackendTrialEntry:
    speeds = {
        what: TrialSpeed(images_per_second=timing.speed, times_kept=timing.ratio(kept[what]))
        for what, timing in timed.items()
    }
    one, other = timed["both"], kept["both"]
    return BackendTrialEntry(
        name=passed.able.candidate.backend,
        provider=passed.able.candidate.provider,
        version=passed.able.backend.version,
        ground=speeds["ground"],
        aerial=speeds["aerial"],
        both=speeds["both"],
        tied=one is not other and not _beats(one, other) and not _beats(other, one),
    )


def _prefixed(track: Track, name: str) -> Track:
    """`track` with the backend's name before each description."""

    def named(items: Iterable[T], description: str, total: int | None) -> Iterator[T]:
        return track(items, f"{name}: {description}", total)

    return named
