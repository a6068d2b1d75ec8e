"""The argument of `build_engine`: the source, the precision plan and the backend's options.

A plan determines the precision of the graphs (`precisions`); the options of a backend are in `backends/options`. Reads
no file and imports nothing heavy, because the command line derives its options from these fields.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from geodtr.export.backends.options import BackendOptions, OnnxRuntimeOptions
from geodtr.export.build.compact import Compact
from geodtr.export.build.precisions import Auto, Float, Plan, Recompile
from geodtr.export.options import check_options, option
from geodtr.runtime.errors import ArgumentError
from geodtr.runtime.names import Dialect, Precision


@dataclass(frozen=True, slots=True)
class FastestBackend:
    """Build with every backend that runs on this machine, and keep the fastest that passes its checks."""

    backend: ClassVar[Literal["auto"]] = "auto"


@dataclass(frozen=True, slots=True)
class BuildRequest:
    """A bundle of engines to be built.

    Parameters
    ----------
    source
        A checkpoint, or a bundle that was exported from one. With `Recompile`, any bundle.
    out
        Folder of the new bundle; must be new or empty.
    backend
        The backend with its options, or `FastestBackend()`.
    plan
        The precision of the graphs and how it is found: `Float`, `Quantized`, `Auto` or `Recompile`.
    compact
        How descriptors are made shorter; None leaves them as they are.
    require_faster
        Measure the engines beside float32 ones of the same backend; write nothing when a branch is not faster.
    speed_batch
        Batch size when engines are timed, by default 1.

    Raises
    ------
    ConfigError
        A value is not allowed, or two parts exclude each other; the message names the option to leave out.

    Examples
    --------
    >>> from geodtr import BuildRequest, Calibration, Quantized
    >>> calibration = Calibration("pairs:world#train")
    >>> BuildRequest(Path("model.safetensors"), Path("bundle"), plan=Quantized(calibration)).plan.precision
    'int8'
    """

    source: Path
    out: Path
    backend: BackendOptions | FastestBackend = OnnxRuntimeOptions()
    plan: Plan = Float()
    compact: Compact | None = None
    require_faster: bool = option(
        False, "Measure beside fp32 of the same backend; write nothing and exit 1 when a branch is not faster."
    )
    speed_batch: int | None = option(
        None, "auto, --require-faster: batch size when engines are timed.", shown="1", minimum=1
    )

    def __post_init__(self) -> None:
        check_options(self)
        fastest, searched = isinstance(self.backend, FastestBackend), isinstance(self.plan, Auto)
        if fastest and searched:
            raise ArgumentError(
                "backend",
                "is auto, which does not search for blocks (precision auto): a search measures recall and speed on one "
                "backend's engines, and takes minutes for each. Build int8 with auto first; then search with the "
                "backend that it keeps.",
            )
        if self.require_faster and isinstance(self.plan, Recompile):
            raise ArgumentError("require_faster", "is not for the precision same. Leave it out.")
        if self.compact is not None and isinstance(self.plan, Recompile):
            raise ArgumentError(
                "descriptor_size",
                "is not for the precision same, which compiles a bundle's graphs as they are. Name a checkpoint or a "
                "float32 bundle, and another precision.",
            )
        if self.require_faster and self.plan == Float("fp32"):
            raise ArgumentError("require_faster", "is not for fp32, which others are compared with. Leave it out.")
        if self.speed_batch is not None and not (self.require_faster or fastest or searched):
            raise ArgumentError(
                "speed_batch", "is given, and nothing is timed. Leave it out, or add {}.", "require_faster"
            )

    @property
    def dialect(self) -> Dialect | None:
        """How the target wants INT8 graphs; None leaves it to the machine, or is no matter."""
        return None if isinstance(self.plan, Float) else self.plan.dialect

    @property
    def precision(self) -> Precision | None:
        """What the bundle's graphs are in; None where they stay as they are."""
        if isinstance(self.plan, Recompile):
            return None
        return "mixed" if isinstance(self.plan, Auto) else self.plan.precision
