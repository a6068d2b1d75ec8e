"""Print a description of this machine as JSON: python -m gpu.machine. `GPU` is missing if PyTorch finds none."""

import json
import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version

import torch

_PACKAGES = ("torch", "onnxruntime", "onnxruntime-gpu", "tensorrt-rtx-cu12-libs", "cuda-bindings", "numpy", "onnx")


def main() -> None:
    machine = {"processor cores": str(os.cpu_count()), "Python": platform.python_version()}
    if torch.cuda.is_available():
        properties = torch.cuda.get_device_properties(0)
        machine["GPU"] = properties.name
        machine["compute capability"] = f"{properties.major}.{properties.minor}"
        machine["GPU memory"] = f"{properties.total_memory / 2**30:.0f} GiB"
        machine["CUDA"] = str(torch.version.cuda)
        command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        machine["driver"] = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    for package in _PACKAGES:
        try:
            machine[package] = version(package)
        except PackageNotFoundError:
            continue
    print(json.dumps(machine))


if __name__ == "__main__":
    main()
