"""Running an ONNX file with ONNX Runtime on the CPU."""

from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from geodtr.runtime.errors import BundleError, MissingDependency
from geodtr.runtime.spec import INPUT, OUTPUT, BranchSpec, Descriptors, Images

_BUILDS = ("onnxruntime", "onnxruntime-gpu")


class OnnxRuntimeEmbedder:
    """One branch's ONNX file in an ONNX Runtime session. Threads: as many as ONNX Runtime takes by default."""

    def __init__(self, path: Path, spec: BranchSpec) -> None:
        self._spec = spec
        self._session = open_session(path)
        size = (spec.preprocessing.height, spec.preprocessing.width)
        takes, gives = self._session.get_inputs(), self._session.get_outputs()
        if [entry.name for entry in (*takes, *gives)] != [INPUT, OUTPUT] or tuple(takes[0].shape[1:3]) != size:
            raise BundleError(
                f"{path} does not take uint8 images of {size[0]}x{size[1]} pixels. Build the bundle again."
            )
        if gives[0].shape[-1] != spec.descriptor_size:
            raise BundleError(f"{path} does not give descriptors of {spec.descriptor_size}. Build the bundle again.")

    @property
    def spec(self) -> BranchSpec:
        return self._spec

    def embed(self, images: Images) -> Descriptors:
        """[B, H, W, 3] -> [B, D], unit rows."""
        (descriptors,) = self._session.run(None, {INPUT: np.ascontiguousarray(images)})
        return np.asarray(descriptors, dtype=np.float32)


def open_session(model: Path | bytes) -> Any:
    """An `InferenceSession` on the CPU provider, of a file or a serialised model.

    Raises MissingDependency, or BundleError when ONNX Runtime refuses the model.
    """
    check_installation()
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    source, name = (model, "the model") if isinstance(model, bytes) else (str(model), str(model))
    try:
        return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's exceptions share no base class of their own
        raise BundleError(f"ONNX Runtime {onnxruntime.__version__} refuses {name}: {error}") from error


def check_installation() -> str:
    """The installed build's version. Raises MissingDependency when none is installed, or two that break each other."""
    installed = {}
    for name in _BUILDS:
        try:
            installed[name] = version(name)
        except PackageNotFoundError:
            continue
    if not installed:
        raise MissingDependency("ONNX Runtime is not installed: pip install 'geodtr-export[cpu]'.")
    if len(installed) > 1:
        raise MissingDependency(
            "onnxruntime and onnxruntime-gpu are both installed; they share one module and break each other. Keep one: "
            "pip uninstall -y onnxruntime onnxruntime-gpu && pip install 'geodtr-export[cpu]'"
        )
    return next(iter(installed.values()))
