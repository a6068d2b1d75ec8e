"""Which of NVIDIA's two libraries is meant: TensorRT, or TensorRT-RTX, which shows the same interface.

The only file that imports either. Both can be in use in one process.
"""

import platform
import re
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, cast

from geodtr.runtime.errors import MissingDependency
from geodtr.runtime.installation import install_hint
from geodtr.runtime.machine import is_jetson
from geodtr.runtime.names import Backend


class Interface:
    """What is used of both, in TensorRT's own types: `make check-tensorrt` holds every call against them."""

    __version__: str

    if TYPE_CHECKING:
        from tensorrt import (
            Builder,
            BuilderFlag,
            DeviceType,
            ExecutionContextAllocationStrategy,
            HardwareCompatibilityLevel,
            ILogger,
            IProfiler,
            IProgressMonitor,
            LayerInformationFormat,
            LayerType,
            MemoryPoolType,
            NetworkDefinitionCreationFlag,
            OnnxParser,
            OnnxParserFlag,
            OnnxParserRefitter,
            ProfilingVerbosity,
            Refitter,
            Runtime,
        )


@dataclass(frozen=True, slots=True)
class Library:
    """One of the two. `modules`: the names that its bindings have, of which the first that is installed is used.

    `oldest` to `newest_major`: the versions that are known here. `suffix`: of the files that hold its plans.
    """

    backend: Backend
    name: str
    modules: tuple[str, ...]
    oldest: tuple[int, ...]
    newest_major: int
    suffix: str

    @property
    def trt(self) -> Interface:
        """The module. Raises ImportError."""
        return cast(Interface, import_module(next(filter(_is_there, self.modules), self.modules[0])))

    @property
    def is_there(self) -> bool:
        """Whether its bindings are installed; they may still lack NVIDIA's libraries."""
        return any(map(_is_there, self.modules))

    @property
    def how_to_install(self) -> str:
        """What brings it to this machine, in words."""
        if self.backend == "tensorrt" and is_jetson():
            return (
                "a Jetson has it from JetPack, not from pip: sudo apt-get install python3-libnvinfer, and an "
                "environment made with python3 -m venv --system-site-packages"
            )
        if self.backend == "tensorrt-rtx" and _platform() not in _RTX_PLATFORMS:
            return f"NVIDIA has wheels of it for Linux on x86_64 and aarch64, and this is {' on '.join(_platform())}"
        return install_hint(self.backend)


_RTX_PLATFORMS = (("Linux", "x86_64"), ("Linux", "aarch64"))

TENSORRT = Library("tensorrt", "TensorRT", ("tensorrt",), (10, 3), 11, "plan")
RTX = Library("tensorrt-rtx", "TensorRT-RTX", ("tensorrt_rtx_bindings", "tensorrt_rtx"), (1, 7), 1, "rtx")


def library_of(backend: str) -> Library:
    """The library behind a backend that is one of the two."""
    return RTX if backend == RTX.backend else TENSORRT


def check_installation(library: Library) -> str:
    """The installed version. Raises MissingDependency when it is missing, incomplete or of another age."""
    try:
        version = str(library.trt.__version__)
    except ImportError as error:
        raise MissingDependency(
            f"{library.name} cannot be used here ({error}): {library.how_to_install}. To run without it: "
            "geodtr-export build-engine ... --backend onnxruntime"
        ) from None
    numbers = parse(version)
    if not (numbers >= library.oldest and numbers[0] <= library.newest_major):
        raise MissingDependency(
            f"{library.name} {version} is installed; {dots(library.oldest)} to {library.newest_major}.x are known "
            f"here: {library.how_to_install}"
        )
    return version


def parse(version: str) -> tuple[int, ...]:
    """As in: 10.16.1.11 is (10, 16, 1, 11)."""
    return tuple(int(part) for part in re.findall(r"\d+", version))


def dots(version: tuple[int, ...]) -> str:
    """As in: (8, 9) is 8.9."""
    return ".".join(map(str, version))


def _is_there(module: str) -> bool:
    return find_spec(module) is not None


def _platform() -> tuple[str, str]:
    return platform.system(), platform.machine()
