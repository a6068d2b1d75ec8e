"""From a bundle's files to embedders: which backend runs them, and how.

A backend is one module with `check` (what must hold before a bundle of its is run), `installed` (what of it is there),
`open_embedders` and `layer_times`; a new one is its file, its name, and its lines here.
"""

from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import NamedTuple

from geodtr.runtime.engines.base import EngineFiles, EngineOptions, LayerTime
from geodtr.runtime.installation import install_hint
from geodtr.runtime.manifest import BackendEntry, Manifest
from geodtr.runtime.names import Backend
from geodtr.runtime.preflight import Finding
from geodtr.runtime.spec import Embedder, Images


def installed(backend: Backend) -> Iterator[Finding]:
    """What of a backend is installed, and what is known to go wrong with it. Failed only where it is broken."""
    if backend == "onnxruntime":
        from geodtr.runtime.engines.onnxruntime import installed as installed_onnxruntime

        yield installed_onnxruntime()
    elif backend in ("tensorrt", "tensorrt-rtx"):
        from geodtr.runtime.engines.tensorrt.compatibility import installed as installed_tensorrt
        from geodtr.runtime.engines.tensorrt.library import library_of

        yield from installed_tensorrt(library_of(backend))
    else:
        try:
            yield Finding(what=backend, found=version(backend))
        except PackageNotFoundError:
            yield Finding(what=backend, found="not installed", remedy=install_hint(backend))


class _Runner(NamedTuple):
    """What runs a backend's engines."""

    check: Callable[[Path, Manifest], Iterator[Finding]]
    open_embedders: Callable[[Sequence[EngineFiles], BackendEntry, EngineOptions], list[Embedder]]
    layer_times: Callable[[EngineFiles, BackendEntry, EngineOptions, Images, int], list[LayerTime]]


def _runner(backend: str) -> _Runner:
    if backend in ("onnx", "onnxruntime"):
        from geodtr.runtime.engines import onnxruntime

        return _Runner(onnxruntime.check, onnxruntime.open_embedders, onnxruntime.layer_times)
    if backend == "openvino":
        from geodtr.runtime.engines import openvino

        return _Runner(openvino.check, openvino.open_embedders, openvino.layer_times)
    from geodtr.runtime.engines.tensorrt import compatibility, runner

    return _Runner(compatibility.check, runner.open_embedders, runner.layer_times)


def check(bundle: Path, manifest: Manifest) -> Iterator[Finding]:
    """Whether the backend at hand runs this bundle, found out without loading an engine; hashes are not its matter."""
    return _runner(manifest.backend.name).check(bundle, manifest)


def open_embedders(engines: Sequence[EngineFiles], backend: BackendEntry, options: EngineOptions) -> list[Embedder]:
    """Open the engines of one bundle together. Raises MissingDependency, or BundleError when they cannot run here."""
    return _runner(backend.name).open_embedders(engines, backend, options)


def layer_times(
    engine: EngineFiles, backend: BackendEntry, options: EngineOptions, images: Images, calls: int
) -> list[LayerTime]:
    """Time each layer over `calls` calls with `images`, the longest first."""
    return _runner(backend.name).layer_times(engine, backend, options, images, calls)
