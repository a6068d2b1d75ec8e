"""What activations do on calibration images: the range of each tensor, the mean of each channel.

Measured once in float32; each target's quantisation rules are applied to them later. Knows nothing of integer types.
"""

import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geodtr.runtime.engines.onnxruntime import open_session
from geodtr.runtime.files import hash_files
from geodtr.runtime.pipeline import load_batches
from geodtr.runtime.progress import Track, untracked
from geodtr.runtime.spec import INPUT, Images, Preprocessing

METHOD = "minmax"
SAMPLE = 16
_BATCH = 8


@dataclass(frozen=True, slots=True)
class Activations:
    """Statistics of one branch's float32 graph on its calibration images.

    ranges: tensor -> (smallest, largest value). means: tensor -> float64 [C], of every tensor that a convolution reads.
    sample: the first images, preprocessed, to try a quantised graph on. images_sha256 covers all files, in order.
    """

    ranges: dict[str, tuple[float, float]]
    means: dict[str, NDArray[np.float64]]
    sample: Images
    images: int
    images_sha256: str


def measure_activations(
    graph: Path, images: Sequence[Path], preprocessing: Preprocessing, *, track: Track = untracked
) -> Activations:
    """Run the float32 ONNX file `graph` on `images` and keep statistics of what its convolutions read and write.

    Memory does not grow with the number of images. Raises ImageError, naming the bad file.
    """

    def batches(description: str) -> Iterator[Images]:
        loaded = load_batches(images, preprocessing, _BATCH)
        return track(loaded, description, ceil(len(images) / _BATCH))

    return Activations(
        ranges=_ranges(graph, batches("Calibrating ranges")),
        means=_means(graph, batches("Calibrating means")),
        sample=next(load_batches(images[:SAMPLE], preprocessing, SAMPLE)),
        images=len(images),
        images_sha256=hash_files(images),
    )


def _ranges(graph: Path, batches: Iterable[Images]) -> dict[str, tuple[float, float]]:
    from onnxruntime.quantization.calibrate import CalibrationDataReader, CalibrationMethod, create_calibrator

    class Reader(CalibrationDataReader):  # type: ignore[misc] # ONNX Runtime ships no types
        def __init__(self) -> None:
            self._batches = iter(batches)

        def get_next(self) -> dict[str, Images] | None:
            batch = next(self._batches, None)
            return None if batch is None else {INPUT: batch}

    with tempfile.TemporaryDirectory() as folder:
        calibrator = create_calibrator(
            graph,
            ["Conv"],
            augmented_model_path=str(Path(folder) / "augmented.onnx"),
            calibrate_method=CalibrationMethod.MinMax,
        )
        calibrator.collect_data(Reader())
        data = calibrator.compute_data()
    return {name: (entry.lowest.item(), entry.highest.item()) for name, entry in data.items()}


def _means(graph: Path, batches: Iterable[Images]) -> dict[str, NDArray[np.float64]]:
    import onnx

    model = onnx.load(str(graph))
    read = list(dict.fromkeys(node.input[0] for node in model.graph.node if node.op_type == "Conv"))
    _add_means(model, read)
    session = open_session(model.SerializeToString())
    total, count = [np.zeros(1) for _ in read], 0
    for batch in batches:
        rows = session.run([_mean_of(name) for name in read], {INPUT: batch})
        total = [before + row.sum(axis=0, dtype=np.float64) for before, row in zip(total, rows, strict=True)]
        count += len(batch)
    return {name: value / count for name, value in zip(read, total, strict=True)}


def _add_means(model: Any, tensors: Iterable[str]) -> None:
    """Add to an ONNX model, for each of its `tensors` [B, C, H, W], an output with its means [B, C]."""
    from onnx import TensorProto, helper, numpy_helper

    axes = "mean_axes"
    model.graph.initializer.append(numpy_helper.from_array(np.array([2, 3], np.int64), axes))
    for name in tensors:
        model.graph.node.append(helper.make_node("ReduceMean", [name, axes], [_mean_of(name)], keepdims=0))
        model.graph.output.append(helper.make_tensor_value_info(_mean_of(name), TensorProto.FLOAT, None))


def _mean_of(tensor: str) -> str:
    return f"mean of {tensor}"
