"""What a backend is to the engine builder. Knows no backend: each backend's file imports this one."""

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
    """One backend with its options: compiles what it is given, and never changes a precision."""

    @property
    def dialect(self) -> Dialect:
        """How it wants quantised graphs."""
        ...

    def check(self, precision: Precision) -> BackendEntry:
        """This backend as it is installed. Raises MissingDependency when it is not, ConfigError when it cannot run
        `precision`: before any work is done.
        """
        ...

    def compile(
        self, graph: Path, spec: BranchSpec, precision: Precision, out: Path, *, track: Track
    ) -> Compiled | None:
        """Compile the typed ONNX file `graph` into a file of its own in the folder `out`; None where the graph itself
        is all that is run. Raises BuildError when a layer did not get the precision that the graph says.
        """
        ...

    def another_way(self, fault: str) -> "Builder | None":
        """What may build an engine that computes what its graph says where this one's did not (`fault`: in words); None
        where there is nothing else to try.
        """
        ...


def ignore_warning(text: str) -> None:
    """The default of who is warned of what a build has to say beside its result: nobody."""
    del text
