"""The GPUs that TensorRT-RTX builds a plan for, by compute capability: no GPU is needed for it.

In the words of the manifest "8.9"; a user may type 89 as well.
"""

import re
from collections.abc import Sequence
from typing import Any

from geodtr.runtime.engines.tensorrt.library import RTX, dots, parse
from geodtr.runtime.errors import ArgumentError
from geodtr.runtime.names import Precision

_LEAST: dict[Precision, tuple[int, int]] = {"fp32": (8, 0), "fp8": (8, 9)}
"""Below, its builder refuses: Turing has no float32 products there, and nothing before Ada has FP8 (1.7.1)."""
_NAME = "compute_capabilities"
_BY_DEFAULT = (8, 0)
"""From Ampere on, as NVIDIA's own default: a plan for Turing as well is slower on the others."""


def chosen(asked: Sequence[str], precision: Precision) -> tuple[str, ...]:
    """Those asked for, or all from Ampere on that compute in `precision`. Raises ConfigError for one that cannot be."""
    known = sorted(map(parse, _members()))
    least = _LEAST.get(precision, known[0])
    if not asked:
        return tuple(dots(each) for each in known if each >= max(least, _BY_DEFAULT))
    wanted = sorted({_parsed(text) for text in asked})
    for each in wanted:
        if each not in known:
            raise ArgumentError(
                _NAME,
                f"has {dots(each)}: TensorRT-RTX {RTX.trt.__version__} builds for {', '.join(map(dots, known))}. Other "
                "GPUs, Hopper's 9.0 among them, take the backend tensorrt, which builds where the GPU is.",
            )
        if each < least:
            raise ArgumentError(
                _NAME,
                f"has {dots(each)}: TensorRT-RTX computes {precision} from {dots(least)} on. Name another precision, "
                "or leave this GPU out.",
            )
    return tuple(map(dots, wanted))


def set_targets(config: Any, capabilities: Sequence[str]) -> None:
    """Have an IBuilderConfig of TensorRT-RTX build for these."""
    members = _members()
    config.num_compute_capabilities = len(capabilities)
    for index, each in enumerate(capabilities):
        config.set_compute_capability(members[each], index)


def _members() -> dict[str, Any]:
    """What the installed version knows, by the manifest's words."""
    trt: Any = RTX.trt  # TensorRT itself has no such names
    known: dict[str, Any] = trt.ComputeCapability.__members__
    return {dots(_parsed(name[2:])): member for name, member in known.items() if re.fullmatch(r"SM\d+", name)}


def _parsed(text: str) -> tuple[int, ...]:
    """89 or 8.9 -> (8, 9). Raises ConfigError."""
    digits = text.replace(".", "", 1)
    if not re.fullmatch(r"\d{2,3}", digits):
        raise ArgumentError(_NAME, f"has {text!r}: name one like 89 or 8.9.")
    return int(digits[:-1]), int(digits[-1])
