"""Check ONNX Runtime's CUDA provider: build engines, compare them with PyTorch, and time them."""

from geodtr.runtime.engines.onnxruntime import check_provider
from geodtr.runtime.errors import MissingDependency
from gpu.engines import Backend, run_engines
from gpu.report import Report, Skipped
from gpu.setting import Setting


def run(report: Report, setting: Setting) -> None:
    if setting.dry:
        run_engines(report, setting, Backend("onnxruntime", (), ("fp32",)))
        return
    try:
        check_provider("cuda")
    except MissingDependency as reason:
        raise Skipped(str(reason)) from None
    # The provider has no FP8 kernels, and computes Q/DQ in float32 if it has no INT8 kernel.
    run_engines(report, setting, Backend("onnxruntime-cuda", ("--provider", "cuda"), ("fp32", "fp16", "int8")))
