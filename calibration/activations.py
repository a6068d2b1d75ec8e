"""Activation statistics on calibration images: the range of each tensor and the mean of each channel.

Measured in float32: one pass for the extremes and, if the method needs histograms, a second one. Memory does not grow
with the number of images. Quantisation rules of the targets are out of scope.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass
from math import ceil, isfinite
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geodtr.calibration.operators import operators
from geodtr.calibration.thresholds import Histogram
from geodtr.runtime.embed.pipeline import in_batches
from geodtr.runtime.engines.onnxruntime import Optimisation, open_session
from geodtr.runtime.errors import UserError
from geodtr.runtime.progress import Track, untracked
from geodtr.runtime.spec import INPUT, Images

Range = tuple[float, float]
_BATCH = 8


class CalibrationError(UserError):
    """Calibration gives no usable ranges."""


@dataclass(frozen=True, slots=True)
class Activations:
    """Statistics of one branch's float32 graph.

    Attributes
    ----------
    ranges
        (smallest, largest value) of every tensor that a quantisable operator reads or writes, by tensor name.
    means
        Channel means, float64 [C], of every tensor that a convolution reads, by tensor name.
    """

    ranges: dict[str, Range]
    means: dict[str, NDArray[np.float64]]


def measure_activations(
    graph: Path,
    images: Sequence[Path],
    load: Callable[[Path], Images],
    threshold: Callable[[Histogram], Range] | None = None,
    *,
    track: Track = untracked,
) -> Activations:
    """Measure the inputs and outputs of all quantisable operators of the float32 ONNX file `graph` on `images`.

    Parameters
    ----------
    load
        What the graph gets of an image, uint8 RGB [height, width, 3].
    threshold
        Computes the range from a tensor's histogram. Without it, the range is (smallest, largest value).

    Raises
    ------
    ImageError
        An image cannot be read.
    CalibrationError
        There are no images, or values are not finite.
    """
    if not images:
        raise CalibrationError("There are no calibration images. Give a data set with images: --calibration SPEC")
    import onnx

    model = onnx.load(str(graph))

    def batches(description: str) -> Iterator[Images]:
        loaded = in_batches(images, load, _BATCH)
        return track(loaded, description, ceil(len(images) / _BATCH))

    ranges, means = _extremes(model, batches("Calibrating"))
    for name, limits in ranges.items():
        if not all(map(isfinite, limits)):
            raise CalibrationError(
                f"{graph.name}: the tensor {name} has values that are not finite on the calibration images. Check "
                "whether the training run diverged."
            )
    if threshold is not None:
        histograms = _histograms(model, ranges, batches("Counting values"))
        ranges = {name: threshold(histogram) for name, histogram in histograms.items()}
    return Activations(ranges, means)


def _extremes(model: Any, batches: Iterable[Images]) -> tuple[dict[str, Range], dict[str, NDArray[np.float64]]]:
    quantisable = operators(model)
    tensors = list(dict.fromkeys(name for operator in quantisable for name in (operator.reads, operator.writes)))
    read = list(dict.fromkeys(operator.reads for operator in quantisable if operator.kind == "Conv"))
    session = _with_outputs(model, tensors, read)
    lows, highs = np.full(len(tensors), np.inf), np.full(len(tensors), -np.inf)
    totals, count = [np.zeros(1) for _ in read], 0
    names = [*(f"low {name}" for name in tensors), *(f"high {name}" for name in tensors), *(f"mean {n}" for n in read)]
    for batch in batches:
        outputs = session.run(names, {INPUT: batch})
        lows = np.minimum(lows, outputs[: len(tensors)])
        highs = np.maximum(highs, outputs[len(tensors) : 2 * len(tensors)])
        rows = outputs[2 * len(tensors) :]
        totals = [total + row.sum(axis=0, dtype=np.float64) for total, row in zip(totals, rows, strict=True)]
        count += len(batch)
    ranges = {name: (float(low), float(high)) for name, low, high in zip(tensors, lows, highs, strict=True)}
    return ranges, {name: total / count for name, total in zip(read, totals, strict=True)}


def _with_outputs(model: Any, tensors: Iterable[str], read: Iterable[str]) -> Any:
    """A session of `model` with additional outputs: extremes of `tensors` and [B, C] means of `read`."""
    from onnx import TensorProto, helper, numpy_helper

    copied = deepcopy(model)
    axes = "axes of means"
    copied.graph.initializer.append(numpy_helper.from_array(np.array([2, 3], np.int64), axes))
    wanted = [(op, f"{word} {name}", [name]) for op, word in _EXTREMES for name in tensors]
    wanted += [("ReduceMean", f"mean {name}", [name, axes]) for name in read]
    for op, output, inputs in wanted:
        copied.graph.node.append(helper.make_node(op, inputs, [output], keepdims=0))
        copied.graph.output.append(helper.make_tensor_value_info(output, TensorProto.FLOAT, None))
    return open_session(copied.SerializeToString())


_EXTREMES = (("ReduceMin", "low"), ("ReduceMax", "high"))


def open_giving(model: Any, tensors: Iterable[str], optimisation: Optimisation = "all") -> Any:
    """A session of a `ModelProto` that gives these of its tensors as well."""
    from onnx import ValueInfoProto

    copied = deepcopy(model)
    own = {entry.name for entry in model.graph.output}
    copied.graph.output.extend(ValueInfoProto(name=name) for name in tensors if name not in own)
    return open_session(copied.SerializeToString(), optimisation=optimisation)


def _histograms(model: Any, ranges: dict[str, Range], batches: Iterable[Images]) -> dict[str, Histogram]:
    session = open_giving(model, ranges)
    histograms = {name: Histogram.empty(*limits) for name, limits in ranges.items()}
    names = list(ranges)
    for batch in batches:
        # One image at a time: all feature maps of a full-size batch take gigabytes.
        for image in batch:
            values = session.run(names, {INPUT: image[None]})
            for name, tensor in zip(names, values, strict=True):
                histograms[name] = histograms[name].add(tensor)
    return histograms
