"""The interface between the engine builder and a backend. Knows no backend: each backend's file imports this one."""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from geodtr.runtime.manifest import BackendEntry
from geodtr.runtime.names import Dialect, Precision
from geodtr.runtime.progress import Track
from geodtr.runtime.spec import BranchSpec


@dataclass(frozen=True, slots=True)
class Compiled:
    """A file that a backend made of a typed graph.

    `layers` counts layers by the precision they got, where the backend reports it; `wider` names the operators that did
    not get the graph's precision.
    """

    file: Path
    layers: dict[str, int]
    wider: tuple[str, ...] = ()


class Builder(Protocol):
    """One backend with its options: it compiles typed graphs, and never changes a precision."""

    dialect: Dialect
    """Of the quantised graphs that it needs."""

    def check(self, precision: Precision) -> BackendEntry:
        """The installed backend. Raises MissingDependency when it is not installed, ConfigError when it cannot run
        `precision`, before any work.
        """
        ...

    def compile(
        self, graph: Path, spec: BranchSpec, precision: Precision, out: Path, *, track: Track
    ) -> Compiled | None:
        """Compile the typed ONNX file `graph` into a new file in the folder `out`; None where the backend runs the
        graph itself. Raises BuildError when a layer did not get the graph's precision.
        """
        ...

    def another_way(self, fault: str) -> "Builder | None":
        """Another builder to try after this one's engine did not match its graph (`fault`: the reason, in words); None
        if there is none.
        """
        del fault
        return None


def ignore_warning(text: str) -> None:
    """The default for warnings of a build: ignore them."""
    del text
