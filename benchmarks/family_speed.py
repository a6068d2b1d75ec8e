"""Every model of the family at full size on this CPU, for docs/models.md: python benchmarks/family_speed.py WORK

Each release's preset with weights drawn at random, as in engines.py: its engines beside ONNX Runtime and OpenVINO used
directly on the same exported file, and INT8 beside float32. Two engines of one file differ by several percent by where
their memory lies: each model is opened in several fresh processes, and each has some rounds. WORK caches all files; a
model's row is printed, and kept in WORK, as soon as it is measured, so that a stopped run goes on.
"""

import argparse
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import TypeVar

from engines import BUILT, EAGER, Contender, open_all, quantised, random_checkpoint, worlds

from geodtr.cli.console import times, track
from geodtr.export.timing import Timing, rounded, time_pairs
from geodtr.runtime.files import write_bytes

PRESETS = {
    "GeoDTR": "geodtr-cvusa",
    "GeoDTR+": "geodtr-plus-cvusa",
    "Sample4Geo": "sample4geo-cvusa",
    "SAFA": "safa-cvusa",
    "L2LTR": "l2ltr-cvusa",
    "TransGeo": "transgeo-cvusa",
    "TransGeo, stage 2": "transgeo-cvusa-stage2",
    "CVFT": "cvft-cvusa",
    "DSM": "dsm-cvusa",
    "CDE": "cde-cvusa",
    "FusionGAN": "fusiongan-cvusa",
}
COMPARED = [each for each in BUILT if "fp16" not in each]
BATCH, PROCESSES, ROUNDS = 8, 3, 2
HEAD = """\
| model | images/s, fp32 | against ONNX Runtime by hand | OpenVINO against OpenVINO by hand | int8 against fp32 | \
OpenVINO's | INT8 operators |
|---|---|---|---|---|---|---|"""


Result = TypeVar("Result")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("--models", nargs="+", choices=PRESETS, default=list(PRESETS))
    parser.add_argument("--processes", type=int, default=PROCESSES)
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="Of each process.")
    options = parser.parse_args()
    worlds(options.work)
    print(HEAD)
    for model in options.models:
        file = options.work / PRESETS[model] / "row.txt"
        if not file.exists():
            file.parent.mkdir(parents=True, exist_ok=True)
            typed = in_fresh_process(build, model, options.work)
            taken = [in_fresh_process(measure, model, options.work, options.rounds) for _ in range(options.processes)]
            write_bytes(file, row(model, typed, taken).encode())
        print(file.read_text(encoding="utf-8"), flush=True)


def in_fresh_process(work: Callable[..., Result], *arguments: object) -> Result:
    """What `work` returns, computed where nothing has used memory before."""
    with ProcessPoolExecutor(1, get_context("spawn")) as process:
        return process.submit(work, *arguments).result()


def build(model: str, work: Path) -> str:
    """Build the model's bundles that `work` does not have; how many operators are INT8."""
    return next(quantised(each.path) for each in opened(model, work) if each.name == "ONNX Runtime int8")


def measure(model: str, work: Path, rounds: int) -> dict[str, Timing]:
    """Both branches together, by contender."""
    contenders = opened(model, work)
    timings = time_pairs([each.embedders for each in contenders], BATCH, rounds=rounds, track=track)
    return {each.name: timing["both"] for each, timing in zip(contenders, timings, strict=True)}


def opened(model: str, work: Path) -> list[Contender]:
    folder, (train_set, _) = work / PRESETS[model], worlds(work)
    checkpoint = random_checkpoint(folder, train_set, PRESETS[model])
    return [each for each in open_all(checkpoint, folder, train_set, COMPARED) if each.name != EAGER]


def row(model: str, typed: str, taken: Sequence[Mapping[str, Timing]]) -> str:
    """Ratios are taken within a round: the median, the lowest and the highest of all processes."""

    def of(name: str) -> Timing:
        return Timing(taken[0][name].batch, tuple(calls for each in taken for calls in each[name].rounds))

    onnxruntime, openvino = of("ONNX Runtime fp32"), of("OpenVINO fp32")
    ratios = (
        onnxruntime.ratio(of("onnxruntime by hand, fp32")),
        openvino.ratio(of("openvino by hand, fp32")),
        of("ONNX Runtime int8").ratio(onnxruntime),
        of("OpenVINO int8").ratio(openvino),
    )
    return f"| {model} | {rounded(onnxruntime.speed.median)} | {' | '.join(map(times, ratios))} | {typed} |"


if __name__ == "__main__":
    main()
