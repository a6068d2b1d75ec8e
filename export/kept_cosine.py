"""Which operators may be quantised without turning descriptors: the cheap rule, for when there are no pairs to rank."""

from collections.abc import Callable, Collection, Sequence
from typing import Any, Protocol

import numpy as np

from geodtr.calibration.operators import Operator
from geodtr.runtime.engines.onnxruntime import Optimisation, open_session
from geodtr.runtime.errors import ConfigError
from geodtr.runtime.names import Dialect, Precision
from geodtr.runtime.spec import INPUT, Descriptors, Images

KEEP_COSINE: dict[Precision, float] = {"int8": 0.993, "fp8": 0.98}
"""What descriptors of sample images must keep of the float32 ones: for INT8 the promised 0.99, with some to spare. FP8
has three bits of mantissa where INT8 has up to seven.
"""


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


def keep_cosine(quantiser: Quantiser, sample: Images, smallest: float) -> frozenset[str]:
    """The names of as many operators as keep every `sample` descriptor at a cosine of `smallest` with the float32 one.

    All of them where that is so; else those that turn descriptors are found by halving the list. Raises ConfigError
    when none is left: a file without INT8 is not called INT8.
    """
    expected = describe(quantiser.graph, sample)

    def good(chosen: Collection[str]) -> bool:
        cosine = np.sum(expected * describe(quantiser.quantise(chosen), sample, quantiser.optimisation), axis=1)
        return bool(cosine.min() >= smallest)

    # Noise grows from layer to layer, so the layers next to the output are tried first.
    chosen = largest_good([operator.name for operator in reversed(quantiser.operators)], good)
    if not chosen:
        raise ConfigError(
            f"No operator can be quantised and keep a cosine of {smallest} on the calibration images. Lower "
            "--keep-cosine, or build --precision fp16."
        )
    return chosen


def largest_good(items: Sequence[str], good: Callable[[Collection[str]], bool]) -> frozenset[str]:
    """A large subset of `items` for which `good` holds, found by adaptive halving.

    One call where all of them together are good; a few for each one that is not. Every set it grows by was tried.
    """
    accepted: frozenset[str] = frozenset()

    def add(part: Sequence[str]) -> None:
        nonlocal accepted
        if good(accepted | set(part)):
            accepted |= set(part)
        elif len(part) > 1:
            middle = len(part) // 2
            add(part[:middle])
            add(part[middle:])

    add(items)
    return accepted


def describe(graph: Any, images: Images, optimisation: Optimisation = "all") -> Descriptors:
    """Descriptors of preprocessed images by a `ModelProto`."""
    session = open_session(graph.SerializeToString(), optimisation=optimisation)
    (descriptors,) = session.run(None, {INPUT: images})
    return np.asarray(descriptors, np.float32)
