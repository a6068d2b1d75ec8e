"""The backends that `--backend auto` tries on this machine, and why it does not try the others. Builds nothing."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from geodtr.export.backends.base import Builder
from geodtr.export.backends.options import BACKEND_OPTIONS, BackendOptions, OnnxRuntimeOptions
from geodtr.export.backends.registry import make_builder
from geodtr.runtime.errors import BuildError, UserError
from geodtr.runtime.manifest import BackendEntry, BackendTrialEntry, runs_by
from geodtr.runtime.names import BACKENDS, Backend, Dialect, Precision, Provider
from geodtr.runtime.preflight import find_gpu, require


@dataclass(frozen=True, slots=True)
class Candidate:
    """A backend that may be tried, with ONNX Runtime's provider."""

    backend: Backend
    provider: Provider = "cpu"

    @property
    def name(self) -> str:
        return runs_by(self.backend, self.provider)

    @property
    def options(self) -> BackendOptions:
        """The backend's default options, with this provider."""
        if self.backend == "onnxruntime":
            return OnnxRuntimeOptions(provider=self.provider)
        return BACKEND_OPTIONS[self.backend]()


CANDIDATES = (*(Candidate(backend) for backend in BACKENDS), Candidate("onnxruntime", "cuda"))
"""In order of preference: of those that are equally fast, the first is kept. ONNX Runtime is the smallest installation.

ONNX Runtime's TensorRT provider is not tried: it builds its engine at each opening, for minutes.
"""


@dataclass(frozen=True, slots=True)
class Able:
    """A candidate that is installed and takes the precision."""

    candidate: Candidate
    builder: Builder
    backend: BackendEntry


def find_able(
    precision: Precision,
    dialect: Dialect | None,
    check: Callable[[Builder], None] | None,
    notice: Callable[[str], None],
) -> tuple[list[Able], dict[Candidate, BackendTrialEntry]]:
    """The candidates that can be tried, before any work, and entries with the reasons why the others cannot.

    `check` raises a UserError for a builder that does not fit. Raises BuildError when no candidate is left.
    """
    able, entries = list[Able](), dict[Candidate, BackendTrialEntry]()
    for candidate in CANDIDATES:
        try:
            if candidate.provider != "cpu":  # which would find out late that there is no GPU
                require([find_gpu(needed=True)])
            builder = make_builder(candidate.options, dialect, notice=notice)
            backend = builder.check(precision)
            if not backend.executed:
                raise BuildError("It builds here and runs on another GPU: name it by --backend to have it built.")
            if check is not None:
                check(builder)
            able.append(Able(candidate, builder, backend))
        except UserError as error:
            entries[candidate] = not_timed(candidate, str(error))
    if not able:
        raise none_left(entries)
    return able, entries


def not_timed(candidate: Candidate, reason: str, version: str | None = None) -> BackendTrialEntry:
    """The manifest's entry of a candidate that was not timed."""
    return BackendTrialEntry(name=candidate.backend, provider=candidate.provider, version=version, reason=reason)


def none_left(entries: Mapping[Candidate, BackendTrialEntry]) -> BuildError:
    """The error when no candidate passed, with each one's reason."""
    reasons = "".join(f" {entry.runs_by}: {entry.reason}" for entry in entries.values())
    return BuildError(f"No backend is left to keep; nothing was written.{reasons}")
