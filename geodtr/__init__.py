"""Cross-view geo-localisation: train a model, compile it to engines, compare them, localise images.

The names in `__all__` are the public API and follow semantic versioning. Each is imported when it is first used, so
that `import geodtr` costs nothing and an installation without PyTorch has all that needs none.
"""

import os
from importlib import import_module
from importlib.util import find_spec
from pkgutil import extend_path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from geodtr.api import build_gallery, compare, embed, export_onnx, train
    from geodtr.export.backends.options import (
        OnnxRuntimeOptions,
        OpenVinoOptions,
        TensorRtOptions,
        TensorRtRtxOptions,
    )
    from geodtr.export.build.compact import Compact
    from geodtr.export.build.engine import build_engine
    from geodtr.export.build.request import (
        Auto,
        BuildRequest,
        Calibration,
        FastestBackend,
        Float,
        Quantized,
        Recompile,
    )
    from geodtr.runtime.bundle import Bundle, open_bundle
    from geodtr.runtime.errors import UserError
    from geodtr.runtime.gallery.registry import open_gallery
    from geodtr.runtime.localization.localizer import Localizer

# In a checkout this folder, which holds no sub-packages, hides the installed package: theirs are found as well.
__path__ = extend_path(__path__, __name__)

# ONNX Runtime reads this when it is first imported, and would otherwise report to its maker.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

__version__ = "0.1.0"

__all__ = [
    "Auto",
    "BuildRequest",
    "Bundle",
    "Calibration",
    "Compact",
    "FastestBackend",
    "Float",
    "Localizer",
    "OnnxRuntimeOptions",
    "OpenVinoOptions",
    "Quantized",
    "Recompile",
    "TensorRtOptions",
    "TensorRtRtxOptions",
    "UserError",
    "__version__",
    "build_engine",
    "build_gallery",
    "compare",
    "embed",
    "export_onnx",
    "open_bundle",
    "open_gallery",
    "train",
]

_MODULES = {
    "Auto": "geodtr.export.build.request",
    "BuildRequest": "geodtr.export.build.request",
    "Bundle": "geodtr.runtime.bundle",
    "Calibration": "geodtr.export.build.request",
    "Compact": "geodtr.export.build.compact",
    "FastestBackend": "geodtr.export.build.request",
    "Float": "geodtr.export.build.request",
    "Localizer": "geodtr.runtime.localization.localizer",
    "OnnxRuntimeOptions": "geodtr.export.backends.options",
    "OpenVinoOptions": "geodtr.export.backends.options",
    "Quantized": "geodtr.export.build.request",
    "Recompile": "geodtr.export.build.request",
    "TensorRtOptions": "geodtr.export.backends.options",
    "TensorRtRtxOptions": "geodtr.export.backends.options",
    "UserError": "geodtr.runtime.errors",
    "build_engine": "geodtr.export.build.engine",
    "build_gallery": "geodtr.api",
    "compare": "geodtr.api",
    "embed": "geodtr.api",
    "export_onnx": "geodtr.api",
    "open_bundle": "geodtr.runtime.bundle",
    "open_gallery": "geodtr.runtime.gallery.registry",
    "train": "geodtr.api",
}

_NEEDS = {"build_engine": ("onnx",), "export_onnx": ("torch", "onnx"), "train": ("torch",)}
"""The packages that a name cannot do without."""


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it has {', '.join(__all__)}")
    missing = [package for package in _NEEDS.get(name, ()) if find_spec(package) is None]
    if missing:
        from geodtr.runtime.errors import MissingDependency
        from geodtr.runtime.installation import EXTRA_OF, install_hint

        hint = install_hint(*(EXTRA_OF[package] for package in missing))
        raise MissingDependency(f"geodtr.{name} needs {', '.join(missing)}, which is not installed: {hint}")
    value = getattr(import_module(_MODULES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
