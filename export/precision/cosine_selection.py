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
"""Operators: of a refused part no longer than this, each is tried by itself."""
_LARGE = 1 << 18
"""Bytes: smaller weights cost little to copy."""


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
    weights = _Weights(quantiser.graph)

    def good(chosen: Collection[str]) -> bool:
        session = weights.open(quantiser.quantise(chosen), quantiser.optimisation)
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
    selected = frozenset(name for name, accepted in decided if accepted)
    if not selected:
        raise ConfigError(
            f"No operator can be quantised and keep a cosine of {smallest} on the calibration images. Lower "
            "--keep-cosine, or build --precision fp16."
        )
    return selected


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


class _Weights:
    """A graph's large weights, shared by the sessions of graphs that were made from it: to copy and parse them for each
    takes as long as describing an image.
    """

    def __init__(self, graph: Any) -> None:
        from onnx import numpy_helper
        from onnxruntime import OrtValue

        self._held = {
            entry.name: (entry.raw_data, OrtValue.ortvalue_from_numpy(numpy_helper.to_array(entry)))
            for entry in graph.graph.initializer
            if len(entry.raw_data) >= _LARGE
        }

    def open(self, graph: Any, optimisation: Optimisation) -> Any:
        """A session of a `ModelProto`, from which the weights that are held are taken out."""
        from onnx import TensorProto

        shared = dict[str, Any]()
        for entry in graph.graph.initializer:
            content, value = self._held.get(entry.name, (None, None))
            if content is not None and entry.raw_data == content:
                entry.ClearField("raw_data")
                entry.data_location = TensorProto.EXTERNAL
                entry.external_data.add(key="location", value="held in memory")
                shared[entry.name] = value
        return open_session(graph.SerializeToString(), optimisation=optimisation, weights=shared)


def describe(graph: Any, images: Images, optimisation: Optimisation = "all") -> Descriptors:
    """Descriptors of preprocessed images by a `ModelProto`."""
    session = open_session(graph.SerializeToString(), optimisation=optimisation)
    (descriptors,) = session.run(None, {INPUT: images})
    return np.asarray(descriptors, np.float32)
