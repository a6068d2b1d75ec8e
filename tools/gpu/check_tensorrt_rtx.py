"""Plans of TensorRT-RTX: built, run, held against PyTorch, and timed."""

from typing import get_args

from geodtr.runtime.names import Backend as BackendName
from gpu.engines import Backend, run_engines
from gpu.report import Report, Skipped
from gpu.setting import Setting

_NAME = "tensorrt-rtx"


def run(report: Report, setting: Setting) -> None:
    if _NAME not in get_args(BackendName):
        raise Skipped(f"this version has no backend {_NAME}")
    if setting.dry:
        raise Skipped("a plan runs on no CPU")
    run_engines(report, setting, Backend(_NAME, ("--backend", _NAME)))
