"""Localise rendered nadir frames: python benchmarks/nadir.py BUNDLE WORK

Renders a map and frames with other light, season and cars in a region that the model was not trained on, into WORK, and
builds a gallery. Prints the first stage's recall (the best tile, or one of five, shows the frame's middle), its heading
and scale errors, and the second stage's share of fixed frames, errors in metres, wrong fixes, and the time of a frame,
in all and by its stages. The altitude is known within 5 %, as a barometer over flat ground has it. An existing WORK is
reused.
"""

import argparse
import math
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from functools import wraps
from inspect import isgenerator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geodtr import Localizer, open_bundle
from geodtr.cli.console import track
from geodtr.runtime.gallery.build import build_gallery
from geodtr.runtime.gallery.manifest import made_by
from geodtr.runtime.geodesy import Near, distance, east_north, moved
from geodtr.runtime.images.decode import read_image
from geodtr.runtime.images.frames import Frame
from geodtr.runtime.localization.nadir import refine as refine_module
from geodtr.runtime.localization.nadir.alignment import Aligner
from geodtr.runtime.localization.nadir.guesses import Guesses
from geodtr.runtime.localization.nadir.hypotheses import NadirOptions
from geodtr.runtime.localization.nadir.map_window import MapWindows
from geodtr.runtime.localization.nadir.matching import Patches
from geodtr.runtime.localization.nadir.overhead import NadirView
from geodtr.runtime.localization.nadir.refine import RefineOptions
from geodtr.runtime.localization.result import Localisation
from geodtr.runtime.sources.registry import open_source
from geodtr.training.world.flight import FRAMES, FlightSet, FrameTruth, read_truth, write_flight
from geodtr.training.world.views.aerial import EXTENT

WRONG = 15.0
"""Metres beyond which a fix is wrong, not inaccurate."""
ALTITUDE_ERROR = 0.05

Floats = NDArray[np.float64]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--frames", type=int, default=250)
    parser.add_argument("--side", type=float, default=600.0, help="Side of the map in metres.")
    parser.add_argument("--stride", type=float, default=20.0, help="Metres between tiles.")
    parser.add_argument("--tilt", type=float, default=10.0, help="Largest tilt in degrees.")
    parser.add_argument("--gap", type=float, default=0.12, help="Log-normal sigma of the materials' colours.")
    parser.add_argument("--region", default="coast")
    parser.add_argument("--rotations", type=int, default=16)
    parser.add_argument("--ground-sizes", type=int, default=3)
    parser.add_argument("--size-error", type=float, default=0.12)
    parser.add_argument("--limit", type=int, default=None, help="Localise the first N frames.")
    parser.add_argument(
        "--places", type=int, default=RefineOptions().places, help="Places that the second stage tries."
    )
    parser.add_argument("--near", type=float, default=None, help="Radius in metres of a prior, as wrong as it may be.")
    parser.add_argument("--no-refine", action="store_true")
    parser.add_argument("--no-fov", action="store_true", help="The second stage fixes what the middle shows.")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    if not options.work.exists():
        flight = FlightSet(
            frames=options.frames,
            side=options.side,
            stride=options.stride,
            tilt=options.tilt,
            gap=options.gap,
            region=options.region,
            seed=options.seed,
        )
        write_flight(options.work, flight, track=track)
    gallery = options.work / "gallery"
    if not gallery.exists():
        bundle = open_bundle(options.bundle)
        source = open_source(options.work / "tiles")
        build_gallery(gallery, source, bundle.embedder("aerial"), made_by(bundle.manifest), track=track)

    truth = read_truth(options.work / FRAMES)[: options.limit]
    random = np.random.default_rng(options.seed)
    nadir = NadirOptions(
        fov=None if options.no_fov else truth[0].fov,
        size_error=options.size_error,
        rotations=options.rotations,
        ground_sizes=options.ground_sizes,
        frame_metres=(84.0, 168.0) if options.no_fov else None,
    )
    refine = None if options.no_refine else RefineOptions(places=options.places)
    answers, seconds, stages = [], [], Stages()
    for stage, (owner, method) in STAGES.items():
        stages.watch(stage, owner, method)
    with Localizer.open(options.bundle, gallery, nadir=nadir, refine=refine) as localizer:
        for each in track(truth, "Localising", len(truth)):
            altitude = each.altitude * math.exp(random.normal(0, ALTITUDE_ERROR))
            frame = Frame(each.file, read_image(options.work / each.file), altitude=altitude)
            near = None if options.near is None else _prior(each, options.near, random)
            start, used = time.perf_counter(), time.process_time()
            answers.append(localizer.locate(frame, near=near))
            seconds.append((time.perf_counter() - start, time.process_time() - used))
            stages.end_frame(seconds[-1][1])
    _report_first(answers, truth)
    if refine is not None:
        _report_second(answers, truth)
    for name, taken in zip(("time", "CPU time"), 1e3 * np.array(seconds).T, strict=True):
        _report_time(name, taken)
    for stage, of_stage in stages.of_frames.items():
        _report_time(f"  {stage}", 1e3 * np.array(of_stage))


def _report_time(name: str, taken: Floats) -> None:
    middle, low, high, most = np.quantile(taken, (0.5, 0.25, 0.75, 0.95))
    print(f"{name:14} median {middle:5.1f} ms a frame, half of them {low:5.1f} to {high:5.1f}, 95 %: {most:5.1f} ms")


STAGES: dict[str, tuple[Any, str]] = {
    "crops": (NadirView, "load"),
    "engine": (Localizer, "embed"),
    "survey": (Guesses, "survey"),
    "map": (MapWindows, "cut"),
    "alignment": (Aligner, "align"),
    "matching": (Patches, "match"),
    "homography": (refine_module, "homography_of"),
    "pose": (refine_module, "camera_pose"),
}
"""By name, the callable whose CPU time is counted, of all threads; of two within each other, the outer one."""


class Stages:
    """CPU seconds of each stage of each frame, and of the rest: search, votes, copies."""

    def __init__(self) -> None:
        self.of_frames = defaultdict[str, list[float]](list)
        self._frame = defaultdict[str, float](float)
        self._within = False

    def watch(self, stage: str, owner: Any, method: str) -> None:
        """Count the time of a method, or of each step of the generator that it returns."""
        inner = getattr(owner, method)

        @wraps(inner)
        def watched(*arguments: Any, **named: Any) -> Any:
            result = self._counted(stage, lambda: inner(*arguments, **named))
            return self._steps(stage, result) if isgenerator(result) else result

        setattr(owner, method, watched)

    def _steps(self, stage: str, generator: Iterator[Any]) -> Iterator[Any]:
        end = object()
        while (step := self._counted(stage, lambda: next(generator, end))) is not end:
            yield step

    def _counted(self, stage: str, work: Callable[[], Any]) -> Any:
        if self._within:
            return work()
        self._within, start = True, time.process_time()
        try:
            return work()
        finally:
            self._within = False
            self._frame[stage] += time.process_time() - start

    def end_frame(self, used: float) -> None:
        for stage in STAGES:
            self.of_frames[stage].append(self._frame[stage])
        self.of_frames["rest"].append(used - sum(self._frame.values()))
        self._frame.clear()


def _report_first(answers: list[Localisation], truth: list[FrameTruth]) -> None:
    ranks, headings, scales, fixes = [], [], [], []
    for answer, each in zip(answers, truth, strict=True):
        middle = seen(each)
        shown = [
            _off(middle, candidate.place.lat, candidate.place.lon) <= EXTENT / 2 for candidate in answer.candidates
        ]
        ranks.append(shown.index(True) if True in shown else len(shown))
        assert answer.fix is not None  # every tile has a position
        fixes.append(distance(*middle, answer.fix.lat, answer.fix.lon))
        best = answer.candidates[0]
        if ranks[-1] == 0 and best.heading is not None and best.ground_metres is not None:
            headings.append(abs((best.heading - each.heading + 180) % 360 - 180))
            scales.append(abs(best.ground_metres / each.ground_metres - 1))
    rank = np.array(ranks)
    print(f"{len(truth)} frames; R@1 {(rank < 1).mean():.1%}, R@5 {(rank < 5).mean():.1%}")
    print(f"fix          median {np.median(fixes):.1f} m, beyond 60 m: {(np.array(fixes) > 60).mean():.1%}")
    print(f"of the right ones: heading error median {_middle(headings):.1f}, 90 %: {_most(headings):.1f} degrees")
    print(f"                   scale error median {_middle(scales):.1%}, 90 %: {_most(scales):.1%}")


def _report_second(answers: list[Localisation], truth: list[FrameTruth]) -> None:
    errors, headings, scales, normal = [], [], [], []
    for answer, each in zip(answers, truth, strict=True):
        assert answer.nadir is not None
        refined = answer.nadir.refined
        if refined is None:
            continue
        east, north = east_north(refined.lat, refined.lon, *((each.lat, each.lon) if refined.camera else seen(each)))
        off = np.array([float(east), float(north)])
        errors.append(float(np.hypot(*off)))
        headings.append(abs((refined.heading - each.heading + 180) % 360 - 180))
        scales.append(abs(refined.ground_metres / each.ground_metres - 1))
        ee, en, nn = refined.covariance_m2
        normal.append(float(off @ np.linalg.solve(np.array([(ee, en), (en, nn)]), off)))
    if not errors:
        print("refined      none")
        return
    error = np.array(errors)
    print(
        f"refined      {len(error) / len(truth):.1%} of the frames; wrong (beyond {WRONG:g} m): "
        f"{(error > WRONG).sum()}, {(error > WRONG).mean():.2%} of the fixes"
    )
    print(f"             error median {np.median(error):.2f} m, 90 %: {np.quantile(error, 0.9):.2f} m")
    print(f"             heading error median {_middle(headings):.2f} degrees, scale error {_middle(scales):.2%}")
    # Two degrees of freedom: 68 and 95 % of the squared normalised errors are below these.
    within = [(np.array(normal) < limit).mean() for limit in (2.28, 5.99)]
    print(
        f"             within the covariance's 68 %: {within[0]:.0%}, 95 %: {within[1]:.0%}; errors are "
        f"{math.sqrt(np.median(normal) / 1.386):.2f} times as large as it claims"
    )


def _prior(truth: FrameTruth, radius: float, random: np.random.Generator) -> Near:
    """A prior of which what the frame's middle shows is anywhere within."""
    angle, away = random.uniform(0, 2 * math.pi), radius * math.sqrt(random.random())
    lat, lon = moved(*seen(truth), away * math.sin(angle), away * math.cos(angle))
    return Near(float(lat), float(lon), radius)


def seen(truth: FrameTruth) -> tuple[float, float]:
    """The position that the frame's middle shows, in degrees."""
    angle, away = math.radians(truth.heading + truth.towards), truth.altitude * math.tan(math.radians(truth.tilt))
    lat, lon = moved(truth.lat, truth.lon, away * math.sin(angle), away * math.cos(angle))
    return float(lat), float(lon)


def _off(middle: tuple[float, float], lat: float | None, lon: float | None) -> float:
    """The larger of the distances east and north, as a square tile is reached."""
    assert lat is not None  # every tile has a position
    assert lon is not None
    return max(abs(float(part)) for part in east_north(lat, lon, *middle))


def _middle(values: list[float]) -> float:
    return float(np.median(values)) if values else math.nan


def _most(values: list[float]) -> float:
    return float(np.quantile(values, 0.9)) if values else math.nan


if __name__ == "__main__":
    main()
