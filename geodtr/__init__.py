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
    from geodtr.export.build.precisions import Auto, Calibration, Float, Quantized, Recompile
    from geodtr.export.build.request import BuildRequest, FastestBackend
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

_NAMES = {
    "geodtr.api": "build_gallery compare embed export_onnx train",
    "geodtr.export.backends.options": "OnnxRuntimeOptions OpenVinoOptions TensorRtOptions TensorRtRtxOptions",
    "geodtr.export.build.compact": "Compact",
    "geodtr.export.build.engine": "build_engine",
    "geodtr.export.build.precisions": "Auto Calibration Float Quantized Recompile",
    "geodtr.export.build.request": "BuildRequest FastestBackend",
    "geodtr.runtime.bundle": "Bundle open_bundle",
    "geodtr.runtime.errors": "UserError",
    "geodtr.runtime.gallery.registry": "open_gallery",
    "geodtr.runtime.localization.localizer": "Localizer",
}
_MODULES = {name: module for module, names in _NAMES.items() for name in names.split()}

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
