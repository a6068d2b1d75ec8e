"""The checks, the most valuable first, with time limits in seconds; less than ten minutes in total."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Check:
    """`module` has a function `run(report, setting)`."""

    name: str
    title: str
    module: str
    seconds: float


CHECKS = (
    Check("steps", "The first training steps on the GPU are the CPU's", "gpu.check_steps", 60),
    Check("training", "Training at full size", "gpu.check_training", 170),
    Check("reference", "Evaluating and exporting from the GPU", "gpu.check_reference", 70),
    Check("tensorrt-rtx", "TensorRT-RTX", "gpu.check_tensorrt_rtx", 180),
    Check("onnxruntime", "ONNX Runtime's CUDA provider", "gpu.check_onnxruntime", 100),
)
