"""Activation ranges: the smallest and largest value that each tensor of an ONNX graph takes on calibration images.

Measured once in float32; each target's quantisation rules are applied to them later. Knows nothing of integer types.
"""

import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from geodtr.runtime.files import hash_files
from geodtr.runtime.pipeline import load_batches
from geodtr.runtime.progress import Track, untracked
from geodtr.runtime.spec import Images, Preprocessing

METHOD = "minmax"
_BATCH = 8


@dataclass(frozen=True, slots=True)
class Ranges:
    """`by_tensor`: name -> (low, high). `images_sha256` covers the contents of all image files, in order."""

    by_tensor: dict[str, tuple[float, float]]
    images: int
    images_sha256: str


def calibrate(
    graph: Path,
    images: Sequence[Path],
    preprocessing: Preprocessing,
    op_types: Sequence[str],
    *,
    track: Track = untracked,
) -> Ranges:
    """Run the float32 ONNX file `graph` on `images` and keep the ranges of what enters and leaves ops of `op_types`.

    Memory does not grow with the number of images. Raises ImageError, naming the bad file.
    """
    from onnxruntime.quantization.calibrate import CalibrationDataReader, CalibrationMethod, create_calibrator

    class Reader(CalibrationDataReader):  # type: ignore[misc] # ONNX Runtime ships no types
        def __init__(self, batches: Iterable[Images]) -> None:
            self._batches = iter(batches)

        def get_next(self) -> dict[str, NDArray[np.uint8]] | None:
            batch = next(self._batches, None)
            return None if batch is None else {"images": batch}

    def batches() -> Iterator[Images]:
        loaded = load_batches(images, preprocessing, _BATCH)
        return track(loaded, "Calibrating", ceil(len(images) / _BATCH))

    with tempfile.TemporaryDirectory() as folder:
        calibrator = create_calibrator(
            graph,
            list(op_types),
            augmented_model_path=str(Path(folder) / "augmented.onnx"),
            calibrate_method=CalibrationMethod.MinMax,
        )
        calibrator.collect_data(Reader(batches()))
        data = calibrator.compute_data()
    by_tensor = {name: (float(entry.lowest), float(entry.highest)) for name, entry in data.items()}
    return Ranges(by_tensor, len(images), hash_files(images))
