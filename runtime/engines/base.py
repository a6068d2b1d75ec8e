"""What a backend of the runtime is given and returns. Knows no backend: each backend's file imports this one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from geodtr.runtime.names import Precision
from geodtr.runtime.spec import BranchSpec


@dataclass(frozen=True, slots=True)
class EngineFiles:
    """One branch's engine on disk, hashes verified: its typed ONNX graph, and what the backend compiled it to."""

    spec: BranchSpec
    precision: Precision
    graph: Path
    compiled: Path | None = None


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """How engines are run. `threads`: of the processor, for one embedder; None leaves the number to the backend.
    `trust_host_code`: version-compatible TensorRT plans may run the program code that they carry. `keep_compiled`: what
    TensorRT-RTX compiles on loading is kept beside the bundle, and read from there.
    """

    threads: int | None = None
    trust_host_code: bool = False
    keep_compiled: bool = True


DEFAULT_OPTIONS = EngineOptions()
"""Everything is left to the backend."""


@dataclass(frozen=True, slots=True)
class LayerTime:
    """One layer of an engine as its backend runs it: what it is called, what it computes ("" where the backend does not
    tell), its median time a call.
    """

    name: str
    kind: str
    milliseconds: float


def longest_first(taken: Mapping[tuple[str, str], Sequence[float]]) -> list[LayerTime]:
    """Of layers by name and kind, with the milliseconds of each call. The first warms up, and is left out, with the
    layers that it alone has.
    """
    times = [LayerTime(name, kind, median(each[1:])) for (name, kind), each in taken.items() if len(each) > 1]
    return sorted(times, key=lambda layer: -layer.milliseconds)
