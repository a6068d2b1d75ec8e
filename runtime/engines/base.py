"""The interface of the runtime's backends. Knows no backend: each backend's file imports this one."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from geodtr.runtime.arguments import check_fields
from geodtr.runtime.errors import BundleError, ImageError, UserError
from geodtr.runtime.machine import check_threads
from geodtr.runtime.names import Precision
from geodtr.runtime.spec import INPUT, OUTPUT, BranchSpec, Descriptors, Images

_LONGEST = 300
"""Characters of a library's message that are shown."""


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
        CPU threads for one embedder, up to THREADS_A_CORE for each core; None leaves the number to the backend.
    trust_host_code
        Allow version-compatible TensorRT plans to run the program code that they contain.
    keep_compiled
        Cache the code that TensorRT-RTX compiles on loading, in the bundle's folder.
    spin
        Threads of ONNX Runtime that wait for each other keep their cores busy meanwhile. A call that has its cores to
        itself is faster so; where others need them, such as threads that decode, it takes several times as long.
    """

    threads: int | None = None
    trust_host_code: bool = False
    keep_compiled: bool = True
    spin: bool = True

    def __post_init__(self) -> None:
        """Raises ConfigError for a value that is not allowed."""
        check_fields(self)
        check_threads("threads", self.threads)


DEFAULT_OPTIONS = EngineOptions()
"""The backend's defaults."""


@dataclass(frozen=True, slots=True)
class Port:
    """An input or output of an engine: name, element type as NumPy's, and shape, None where any size is allowed."""

    name: str
    dtype: str
    shape: tuple[int | None, ...]

    def __str__(self) -> str:
        sides = ", ".join("any" if side is None else str(side) for side in self.shape)
        return f"{self.name[:_LONGEST]}: {self.dtype} [{sides}]"


def check_ports(takes: Sequence[Port], gives: Sequence[Port], spec: BranchSpec, name: Path) -> None:
    """Raise BundleError unless an engine takes and gives exactly what its manifest states, in any batch size."""
    how = spec.preprocessing
    expected = [Port(INPUT, "uint8", (None, *how.shape))]
    returned = [Port(OUTPUT, "float32", (None, spec.descriptor_size))]
    if (list(takes), list(gives)) != (expected, returned):
        raise BundleError(
            f"{name} takes {_listed(takes)} and returns {_listed(gives)}; its manifest states {_listed(expected)} and "
            f"{_listed(returned)}. Build the bundle again."
        )


def _listed(ports: Sequence[Port]) -> str:
    more = f" and {len(ports) - 3} more" if len(ports) > 3 else ""
    return (", ".join(map(str, ports[:3])) or "nothing") + more


@contextmanager
def explained(library: str, name: Path) -> Iterator[None]:
    """Turn an error that an engine's library raises while it runs into a BundleError of one line."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # the libraries' exceptions share no base class
        reason = " ".join(str(error).split())[:_LONGEST] or type(error).__name__
        raise BundleError(f"{library} cannot run {name}: {reason}. Build the bundle again.") from error


def check_images(images: Images, spec: BranchSpec) -> None:
    """Raise ImageError unless `images` are what an engine takes, uint8 [B, H, W, 3] of its branch's size."""
    how = spec.preprocessing
    if not isinstance(images, np.ndarray) or images.dtype != np.uint8 or images.shape[1:] != how.shape:
        height, width, _ = how.shape
        form = f"{images.dtype} {list(images.shape)}" if isinstance(images, np.ndarray) else type(images).__name__
        raise ImageError(
            f"The {spec.branch} engine takes preprocessed images, uint8 [B, {height}, {width}, 3]; given is "
            f"{form}. geodtr.embed takes files, and pixels of any size."
        )


def as_descriptors(rows: Any, images: Images, spec: BranchSpec, name: Path) -> Descriptors:
    """An engine's output as descriptors. Raises BundleError unless it has a row for each image: graphs can promise one
    shape and compute another.
    """
    descriptors = np.asarray(rows)
    if descriptors.dtype != np.float32 or descriptors.shape != (len(images), spec.descriptor_size):
        raise BundleError(
            f"{name} returned {descriptors.dtype} {list(descriptors.shape)} for {len(images)} images; its manifest "
            f"states float32 {[len(images), spec.descriptor_size]}. Build the bundle again."
        )
    return descriptors


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
