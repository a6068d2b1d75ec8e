"""From float32 graphs to typed ones: precision is a property of the ONNX file, and of nothing else."""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from geodtr.calibration.activations import METHOD, Activations, measure_activations
from geodtr.calibration.select import IMAGES, select
from geodtr.export.fp16 import to_fp16
from geodtr.export.graph_checks import check_fp16, check_int8
from geodtr.export.int8 import KEEP_COSINE, to_int8
from geodtr.runtime.bundle import Bundle
from geodtr.runtime.manifest import CalibrationEntry, QuantisationEntry
from geodtr.runtime.names import BRANCHES, Branch, Dialect, Precision
from geodtr.runtime.progress import Track, untracked
from geodtr.training.data.pair_set import PairSet

QUANTISED: Collection[Precision] = ("int8", "fp8", "mixed")


@dataclass(frozen=True, slots=True)
class Calibration:
    """The images that ranges are measured on: `images` of those in `data`.

    `keep_cosine`: how closely the quantised descriptors of the first of them must follow the float32 ones.
    """

    data: PairSet
    images: int = IMAGES
    keep_cosine: float = KEEP_COSINE


def write_typed(exported: Bundle, precision: Precision, folder: Path, *, track: Track = untracked) -> None:
    """Write both branches' graphs of the float32 bundle `exported` into `folder`, in fp32 or fp16."""
    import onnx

    for branch in track(BRANCHES, f"Writing {precision} graphs", len(BRANCHES)):
        file = exported.manifest.engine(branch).file
        graph = onnx.load(str(exported.path / file))
        if precision == "fp16":
            graph = to_fp16(graph)
            check_fp16(graph)
        onnx.save(graph, str(folder / file))


def write_quantised(
    exported: Bundle, calibration: Calibration, dialect: Dialect, folder: Path, *, track: Track = untracked
) -> QuantisationEntry:
    """Calibrate the float32 bundle `exported`, then write both branches' INT8 graphs into `folder`."""
    import onnx

    activations: dict[Branch, Activations] = {}
    for branch in BRANCHES:
        engine = exported.manifest.engine(branch)
        images = select(calibration.data.images(branch), calibration.images)
        activations[branch] = measure_activations(
            exported.path / engine.file, images, engine.spec.preprocessing, track=track
        )
    operators, kept_float = 0, list[str]()
    for branch in track(BRANCHES, "Writing int8 graphs", len(BRANCHES)):
        file = exported.manifest.engine(branch).file
        graph = onnx.load(str(exported.path / file))
        made = to_int8(graph, activations[branch], dialect, calibration.keep_cosine)
        check_int8(made.graph, made.kept_float)
        onnx.save(made.graph, str(folder / file))
        operators += made.operators
        kept_float += [f"{branch}/{name}" for name in made.kept_float]
    return QuantisationEntry(
        dialect=dialect,
        calibration=CalibrationEntry(
            data=calibration.data.name,
            images=activations["ground"].images,
            ground_sha256=activations["ground"].images_sha256,
            aerial_sha256=activations["aerial"].images_sha256,
            method=METHOD,
        ),
        operators=operators,
        kept_float=tuple(kept_float),
        keep_cosine=calibration.keep_cosine,
    )
