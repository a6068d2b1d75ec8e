"""Every model of the family at full size on this CPU, for docs/models.md: python benchmarks/family_speed.py WORK

Each release's preset with weights drawn at random, as in engines.py: its engines beside ONNX Runtime and OpenVINO used
directly on the same exported file, and INT8 beside float32. WORK caches all files; a model's row is printed, and kept
in WORK, as soon as it is measured, so that a stopped run goes on.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from engines import BUILT, Contender, open_all, quantised, random_checkpoint, worlds

from geodtr.cli.console import times, track
from geodtr.export.timing import PairTiming, rounded, time_pairs
from geodtr.runtime.files import write_bytes
from geodtr.training.data.pair_set import PairSet

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
BATCH, ROUNDS = 8, 5
HEAD = """\
| model | images/s, fp32 | against ONNX Runtime by hand | OpenVINO against OpenVINO by hand | int8 against fp32 | \
OpenVINO's | INT8 operators |
|---|---|---|---|---|---|---|"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("--models", nargs="+", choices=PRESETS, default=list(PRESETS))
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    options = parser.parse_args()
    train_set, _ = worlds(options.work)
    print(HEAD)
    for model in options.models:
        file = options.work / PRESETS[model] / "row.txt"
        if not file.exists():
            write_bytes(file, measured(model, file.parent, train_set, options.rounds).encode())
        print(file.read_text(encoding="utf-8"), flush=True)


def measured(model: str, work: Path, train_set: PairSet, rounds: int) -> str:
    """The model's row. Its engines are gone from memory when the next model's are built."""
    work.mkdir(parents=True, exist_ok=True)
    checkpoint = random_checkpoint(work, train_set, PRESETS[model])
    contenders = list(open_all(checkpoint, work, train_set, COMPARED))
    timings = time_pairs([each.embedders for each in contenders], BATCH, rounds=rounds, track=track)
    return row(model, contenders, timings)


def row(model: str, contenders: Sequence[Contender], timings: Sequence[PairTiming]) -> str:
    """Both branches together; ratios are taken within a round: the median, the lowest and the highest."""
    both = {contender.name: timing["both"] for contender, timing in zip(contenders, timings, strict=True)}
    onnxruntime, openvino = both["ONNX Runtime fp32"], both["OpenVINO fp32"]
    ratios = (
        onnxruntime.ratio(both["onnxruntime by hand, fp32"]),
        openvino.ratio(both["openvino by hand, fp32"]),
        both["ONNX Runtime int8"].ratio(onnxruntime),
        both["OpenVINO int8"].ratio(openvino),
    )
    typed = next(quantised(each.path) for each in contenders if each.name == "ONNX Runtime int8")
    return f"| {model} | {rounded(onnxruntime.speed.median)} | {' | '.join(map(times, ratios))} | {typed} |"


if __name__ == "__main__":
    main()
