"""Versions of TensorRT that are known to fail or to compute wrongly with these engines, and the remedy."""

from collections.abc import Iterator
from dataclasses import dataclass

from geodtr.runtime.engines.tensorrt.library import TENSORRT, Library, parse
from geodtr.runtime.machine import Machine, is_jetson
from geodtr.runtime.names import Precision
from geodtr.runtime.preflight import Finding


@dataclass(frozen=True, slots=True)
class _Bug:
    """A bug since version `first`, fixed in `fixed` (None: not yet). `capabilities` and `precisions` are the affected
    ones, empty for all. `source`: the report.
    """

    first: tuple[int, ...]
    fixed: tuple[int, ...] | None
    problem: str
    remedy: str
    source: str
    capabilities: tuple[str, ...] = ()
    precisions: tuple[Precision, ...] = ()
    jetson: bool = False


_BUGS = (
    _Bug(
        (10, 3),
        (10, 7),
        "INT8 engines of 10.3, which JetPack 6 brings, can compute wrongly; fixed in 10.7",
        "Build in fp16, or upgrade to JetPack 7.2 (TensorRT 10.16); parity shows whether an engine is right.",
        "ultralytics/ultralytics#24368",
        precisions=("int8", "mixed"),
        jetson=True,
    ),
    _Bug(
        (10, 13, 3),
        (10, 16),
        'it refuses Orin ("Target GPU SM 87 is not supported"); 10.16 works',
        "Upgrade to JetPack 7.2 (TensorRT 10.16).",
        "NVIDIA-ISAAC-ROS/isaac-ros-cli#22",
        capabilities=("8.7",),
    ),
    _Bug(
        (11, 2),
        (11, 3),
        "11.2 compiles what it fuses across reductions wrongly (NaN or garbage, in every precision)",
        "Build with --expose-reductions; a build that fails its checks tries that by itself.",
        "rerun-io/examples-monorepo#87",
    ),
    _Bug(
        (10, 13),
        None,
        "on Thor, layers in FP8 and FP4 were seen to run in float32 unasked",
        "Build in fp16 or int8; a build whose layers are not in the precision asked for is refused.",
        "NVIDIA/TensorRT#4590",
        capabilities=("10.1", "11.0"),
        precisions=("fp8",),
        jetson=True,
    ),
)


def known_bugs(
    library: Library, version: str, here: Machine | None, precision: Precision | None = None
) -> Iterator[Finding]:
    """The bugs of `version` on the machine `here` (None: no known GPU), for engines in `precision` (None: any)."""
    if library != TENSORRT:
        return
    capability = None if here is None else here.compute_capability
    for bug in _BUGS:
        if (
            bug.first <= parse(version)
            and (bug.fixed is None or parse(version) < bug.fixed)
            and (not bug.capabilities or capability in bug.capabilities)
            and (not bug.precisions or precision is None or precision in bug.precisions)
            and (is_jetson() or not bug.jetson)
        ):
            yield Finding(
                what="known bug", found=f"TensorRT {version}: {bug.problem} ({bug.source}).", remedy=bug.remedy
            )
