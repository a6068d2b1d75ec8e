"""Check TensorRT-RTX: build plans, compare them with PyTorch, and time them."""

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
        raise Skipped("plans do not run on CPUs")
    run_engines(report, setting, Backend(_NAME, ("--backend", _NAME)))
