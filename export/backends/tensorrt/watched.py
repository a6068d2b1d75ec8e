"""A TensorRT build with progress and interruption: it runs in a thread, its phases move a bar, Ctrl-C ends it.

The build calls back from its own threads, and an exception must never pass through it. So the main thread, which only
waits, receives the signals, and sets a flag that stops the build at its next step.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue
from threading import Lock
from typing import TYPE_CHECKING, Any, TypeVar

from geodtr.runtime.engines.tensorrt.library import Library
from geodtr.runtime.progress import Track

if TYPE_CHECKING:
    import tensorrt as trt

T = TypeVar("T")

_PARTS = 100
"""Steps of a bar: percent of an outermost phase."""


def run_watched(library: Library, build: "Callable[[trt.IProgressMonitor], T]", what: str, track: Track) -> T:
    """The result of `build`, with its phases reported to `track`. An exception meanwhile, such as Ctrl-C, stops the
    build at its next step and is raised afterwards.
    """
    phases = Phases()
    with ThreadPoolExecutor(1) as pool:
        building = pool.submit(build, _monitor(library, phases))
        building.add_done_callback(lambda _: phases.end())
        try:
            for phase in phases.outermost():
                for _ in track(phases.percent(), f"{what}: {phase}", _PARTS):
                    pass
        except BaseException:
            phases.stopped = True
            raise
    return building.result()


class Phases:
    """Nested phases, reported by the build's threads and read by the main thread. `stopped`: the build should end."""

    def __init__(self) -> None:
        self.stopped = False
        self._lock = Lock()
        self._open = dict[str, _Phase]()
        self._events = SimpleQueue[str | int | None]()

    def start(self, name: str, parent: str | None, steps: int) -> None:
        with self._lock:
            self._open[name] = _Phase(parent if parent in self._open else None, steps)
            if self._open[name].parent is None:
                self._events.put(name)

    def step(self, name: str) -> None:
        with self._lock:
            if name in self._open:
                self._open[name].done += 1
                outermost = self._outermost(name)
                self._events.put(int(_PARTS * self._share(outermost)))

    def finish(self, name: str) -> None:
        with self._lock:
            phase = self._open.pop(name, None)
            if phase is not None and phase.parent is None:
                self._events.put(_PARTS)

    def end(self) -> None:
        """The build is over, successfully or not."""
        self._events.put(None)

    def outermost(self) -> Iterator[str]:
        """The names of outermost phases as they start; read `percent` in between."""
        while (event := self._events.get()) is not None:
            if isinstance(event, str):
                yield event

    def percent(self) -> Iterator[int]:
        """One item for each percent of the phase that has just started, up to 100 unless the build ends early."""
        reached = 0
        while reached < _PARTS:
            event = self._events.get()
            if event is None:
                self._events.put(None)
                return
            if isinstance(event, int):
                while reached < event:
                    reached += 1
                    yield reached

    def _outermost(self, name: str) -> str:
        while (parent := self._open[name].parent) is not None and parent in self._open:
            name = parent
        return name

    def _share(self, name: str) -> float:
        """The finished share of a phase, including its open inner phases."""
        phase = self._open[name]
        inner = max((self._share(other) for other, held in self._open.items() if held.parent == name), default=0.0)
        return min(1.0, (phase.done + inner) / max(1, phase.steps))


class _Phase:
    def __init__(self, parent: str | None, steps: int) -> None:
        self.parent, self.steps, self.done = parent, steps, 0


def _monitor(library: Library, phases: Phases) -> "trt.IProgressMonitor":
    base: Any = library.trt.IProgressMonitor

    class Monitor(base):  # type: ignore[misc] # its class is the library's, found at run time
        def __init__(self) -> None:
            base.__init__(self)

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            phases.start(phase_name, parent_phase, num_steps)

        def step_complete(self, phase_name: str, step: int) -> bool:
            del step
            phases.step(phase_name)
            return not phases.stopped

        def phase_finish(self, phase_name: str) -> None:
            phases.finish(phase_name)

    return Monitor()
