"""Which operators may be quantised without turning descriptors: the cheap rule, for when there are no pairs to rank."""

from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
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

_SHORT = 11


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

    All of them where that is so; else those that rotate descriptors are found by halving the list. Raises ConfigError
    when none is left: a file without INT8 is not called INT8.
    """
    expected = describe(quantiser.graph, sample)
    order = deque(range(len(sample)))

    def good(chosen: Collection[str]) -> bool:
        session = open_session(quantiser.quantise(chosen).SerializeToString(), optimisation=quantiser.optimisation)
        # The image that refused the last choice comes first: it refuses most others, and the rest need not be run.
        for index in tuple(order):
            (got,) = session.run(None, {INPUT: sample[index : index + 1]})
            if not float(got[0] @ expected[index]) >= smallest:
                order.remove(index)
                order.appendleft(index)
                return False
        return True

    # Noise grows from layer to layer, so the layers next to the output are tried first.
    names = [operator.name for operator in reversed(quantiser.operators)]
    decided = track(largest_good(names, good), f"Choosing {what}", len(names))
    chosen = frozenset(name for name, accepted in decided if accepted)
    if not chosen:
        raise ConfigError(
            f"No operator can be quantised and keep a cosine of {smallest} on the calibration images. Lower "
            "--keep-cosine, or build --precision fp16."
        )
    return chosen


def largest_good(items: Sequence[str], good: Callable[[Collection[str]], bool]) -> Iterator[tuple[str, bool]]:
    """Each of `items`, as soon as it is decided, and whether it belongs to a large subset for which `good` holds, found
    by adaptive halving, and one by one in short parts.

    One call where all of them together are good; a few for each one that is not. Every set it grows by was tried, none
    of them twice. Where one in two is refused, as around arg-maxes that flip, trying each costs less than halving.
    """
    accepted = frozenset[str]()
    refused = set[frozenset[str]]()
    parts = [tuple(items)]
    while parts:
        part = parts.pop()
        tried = accepted | set(part)
        if tried not in refused and good(tried):
            accepted = tried
            yield from ((name, True) for name in part)
            continue
        refused.add(tried)
        if len(part) > _SHORT:
            middle = len(part) // 2
            parts += [part[middle:], part[:middle]]
        elif len(part) > 1:
            parts += [(item,) for item in reversed(part)]
        else:
            yield part[0], False


def describe(graph: Any, images: Images, optimisation: Optimisation = "all") -> Descriptors:
    """Descriptors of preprocessed images by a `ModelProto`."""
    session = open_session(graph.SerializeToString(), optimisation=optimisation)
    (descriptors,) = session.run(None, {INPUT: images})
    return np.asarray(descriptors, np.float32)
