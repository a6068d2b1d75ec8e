"""The interface of the runtime's backends. Knows no backend: each backend's file imports this one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from geodtr.runtime.names import Precision
from geodtr.runtime.spec import BranchSpec


@dataclass(frozen=True, slots=True)
class EngineFiles:
    """One branch's engine on disk, hashes verified: its typed ONNX graph, and the backend's compiled file."""

    spec: BranchSpec
    precision: Precision
    graph: Path
    compiled: Path | None = None


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """Options for running engines.

    Attributes
    ----------
    threads
        CPU threads for one embedder; None leaves the number to the backend.
    trust_host_code
        Allow version-compatible TensorRT plans to run the program code that they contain.
    keep_compiled
        Cache the code that TensorRT-RTX compiles on loading, in the bundle's folder.
    """

    threads: int | None = None
    trust_host_code: bool = False
    keep_compiled: bool = True


DEFAULT_OPTIONS = EngineOptions()
"""The backend's defaults."""


@dataclass(frozen=True, slots=True)
class LayerTime:
    """One layer of an engine: its name, its kind ("" if the backend does not report it), its median time per call."""

    name: str
    kind: str
    milliseconds: float


def longest_first(taken: Mapping[tuple[str, str], Sequence[float]]) -> list[LayerTime]:
    """Layer times from the milliseconds of each call, by name and kind. The first call is a warm-up and does not count;
    layers that only it has are left out.
    """
    times = [LayerTime(name, kind, median(each[1:])) for (name, kind), each in taken.items() if len(each) > 1]
    return sorted(times, key=lambda layer: -layer.milliseconds)
