"""Backends that fail or are slow: stand-ins around the real builders and engines."""

import time
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from faulty_builder import Faulty

from geodtr.export.backends.base import Builder, Compiled
from geodtr.export.backends.options import BackendOptions
from geodtr.export.backends.registry import make_builder
from geodtr.runtime.engines.base import EngineFiles, EngineOptions
from geodtr.runtime.engines.registry import open_embedders
from geodtr.runtime.manifest import BackendEntry
from geodtr.runtime.names import Backend
from geodtr.runtime.spec import Descriptors, Embedder, Images


class Crashing(Faulty):
    """Fails as a vendor's library does."""

    def compile(self, *_arguments: Any, **_more: Any) -> Compiled | None:
        raise RuntimeError("out of luck")


class Slow:
    """The engine `of`, each call more than 100 ms longer."""

    def __init__(self, of: Embedder) -> None:
        self._of, self.spec = of, of.spec

    def embed(self, images: Images) -> Descriptors:
        start = time.perf_counter()
        embedded = self._of.embed(images)
        time.sleep(0.1 + 3 * (time.perf_counter() - start))  # slower on a busy machine, too, where any call may wait
        return embedded


def stand_in(monkeypatch: pytest.MonkeyPatch, wrappers: dict[Backend, Callable[[Builder], Builder]]) -> None:
    """Put each wrapper around the real builder of its backend."""

    def wrapped(options: BackendOptions, *dialect: Any, **more: Any) -> Builder:
        real = make_builder(options, *dialect, **more)
        return wrappers[options.backend](real) if options.backend in wrappers else real

    monkeypatch.setattr("geodtr.export.build.candidates.make_builder", wrapped)


def delay(monkeypatch: pytest.MonkeyPatch, slow: Backend) -> None:
    """Make the real engines of one backend slower."""

    def opened(engines: Sequence[EngineFiles], backend: BackendEntry, options: EngineOptions) -> list[Embedder]:
        embedders = open_embedders(engines, backend, options)
        return [Slow(embedder) for embedder in embedders] if backend.name == slow else embedders

    monkeypatch.setattr("geodtr.runtime.bundle.open_embedders", opened)
