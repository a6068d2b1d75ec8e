"""Which operators may be quantised without turning descriptors: the cheap rule, for when there are no pairs to rank."""

from collections.abc import Callable, Collection, Iterable
from typing import Any, Protocol

import numpy as np

from geodtr.calibration.operators import Operator
from geodtr.runtime.engines.onnxruntime import Optimisation, open_session
from geodtr.runtime.errors import ConfigError
from geodtr.runtime.names import Dialect, Precision
from geodtr.runtime.progress import Track, untracked
from geodtr.runtime.spec import INPUT, Descriptors, Images

KEEP_COSINE: dict[Precision, float] = {"int8": 0.993, "fp8": 0.98}
"""What descriptors of sample images must keep of the float32 ones: for INT8 the promised 0.99, with some to spare. FP8
has three bits of mantissa where INT8 has up to seven.
"""

_FEW = 2
"""Images on which each operator is measured alone; what is chosen holds on all."""


class Quantiser(Protocol):
    """A float32 graph of which any choice of operators can be quantised; `rest` is what the others become."""

    graph: Any
    operators: list[Operator]
    optimisation: Optimisation
    dialect: Dialect
    rest: Precision

    def quantise(self, chosen: Collection[str]) -> Any:
        """A `ModelProto` with the `chosen` operators quantised, none where that is empty, and the others as `rest`."""
        ...


def keep_cosine(
    quantiser: Quantiser, sample: Images, smallest: float, *, what: str = "operators", track: Track = untracked
) -> frozenset[str]:
    """The names of as many operators as keep every `sample` descriptor at a cosine of `smallest` with the float32 one.

    All of them where that holds. Otherwise each is quantised alone, on the first images, and those that rotate
    descriptors least are taken: the longest run of them that holds on the whole sample, found by halving. Raises
    ConfigError when none is left: a file without INT8 is not called INT8.
    """
    expected = describe(quantiser.graph, sample)

    def cosine(chosen: Collection[str], images: int) -> float:
        got = describe(quantiser.quantise(chosen), sample[:images], quantiser.optimisation)
        return float(np.sum(expected[:images] * got, axis=1).min())

    names = [operator.name for operator in quantiser.operators]
    if cosine(names, len(sample)) >= smallest:
        return frozenset(names)
    alone = {name: cosine([name], _FEW) for name in track(names, f"Measuring each of the {what}", len(names))}
    ranked = sorted(names, key=lambda name: -alone[name])
    halvings = track(range(len(ranked).bit_length()), f"Choosing among the {what}", len(ranked).bit_length())
    count = longest_run(len(ranked), lambda count: cosine(ranked[:count], len(sample)) >= smallest, halvings)
    if not count:
        raise ConfigError(
            f"No operator can be quantised and keep a cosine of {smallest} on the calibration images. Lower "
            "--keep-cosine, or build --precision fp16."
        )
    return frozenset(ranked[:count])


def longest_run(most: int, holds: Callable[[int], bool], steps: Iterable[object]) -> int:
    """The largest count below `most` for which `holds`, as far as halving finds it; 0 where none was seen to hold.

    One step of `steps` is taken for each count that is tried. The count that is returned was tried.
    """
    held, failed = 0, most
    for _ in steps:
        if failed - held <= 1:
            continue
        middle = (held + failed) // 2
        if holds(middle):
            held = middle
        else:
            failed = middle
    return held


def describe(graph: Any, images: Images, optimisation: Optimisation = "all") -> Descriptors:
    """Descriptors of preprocessed images by a `ModelProto`."""
    session = open_session(graph.SerializeToString(), optimisation=optimisation)
    (descriptors,) = session.run(None, {INPUT: images})
    return np.asarray(descriptors, np.float32)
