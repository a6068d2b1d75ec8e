"""From a bundle's files to embedders: which backend runs them, and how.

A backend is one module with `check` (what must hold before a bundle of its is run), `installed` (what of it is there),
`open_embedders` and `layer_times`; a new one is its file, its name, and its lines here.
"""

from collections.abc import Iterator, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

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


def check(bundle: Path, manifest: Manifest) -> Iterator[Finding]:
    """Whether the backend at hand runs this bundle, found out without loading an engine; hashes are not its matter."""
    if manifest.backend.name in ("onnx", "onnxruntime"):
        from geodtr.runtime.engines.onnxruntime import check as check_onnxruntime

        return check_onnxruntime(bundle, manifest)
    if manifest.backend.name == "openvino":
        from geodtr.runtime.engines.openvino import check as check_openvino

        return check_openvino(bundle, manifest)
    if manifest.backend.name in ("tensorrt", "tensorrt-rtx"):
        from geodtr.runtime.engines.tensorrt.compatibility import check as check_tensorrt

        return check_tensorrt(bundle, manifest)
    raise AssertionError(manifest.backend.name)


def open_embedders(engines: Sequence[EngineFiles], backend: BackendEntry, options: EngineOptions) -> list[Embedder]:
    """Open the engines of one bundle together. Raises MissingDependency, or BundleError when they cannot run here."""
    if backend.name in ("onnx", "onnxruntime"):
        from geodtr.runtime.engines.onnxruntime import open_embedders as open_onnxruntime

        return open_onnxruntime(engines, backend, options)
    if backend.name == "openvino":
        from geodtr.runtime.engines.openvino import open_embedders as open_openvino

        return open_openvino(engines, backend, options)
    if backend.name in ("tensorrt", "tensorrt-rtx"):
        from geodtr.runtime.engines.tensorrt.runner import open_embedders as open_tensorrt

        return open_tensorrt(engines, backend, options)
    raise AssertionError(backend.name)


def layer_times(
    engine: EngineFiles, backend: BackendEntry, options: EngineOptions, images: Images, calls: int
) -> list[LayerTime]:
    """Time each layer over `calls` calls with `images`, the longest first."""
    if backend.name in ("onnx", "onnxruntime"):
        from geodtr.runtime.engines.onnxruntime import layer_times as layer_times_onnxruntime

        return layer_times_onnxruntime(engine, backend, options, images, calls)
    if backend.name == "openvino":
        from geodtr.runtime.engines.openvino import layer_times as layer_times_openvino

        return layer_times_openvino(engine, backend, options, images, calls)
    if backend.name in ("tensorrt", "tensorrt-rtx"):
        from geodtr.runtime.engines.tensorrt.runner import layer_times as layer_times_tensorrt

        return layer_times_tensorrt(engine, backend, options, images, calls)
    raise AssertionError(backend.name)
