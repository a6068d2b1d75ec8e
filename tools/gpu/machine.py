"""What this machine is, as JSON: python -m gpu.machine. `GPU` is missing where PyTorch finds none."""

import json
import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version

import torch

_PACKAGES = ("torch", "onnxruntime", "onnxruntime-gpu", "tensorrt-rtx-cu12-libs", "cuda-bindings", "numpy", "onnx")


def main() -> None:
    found = {"processor cores": str(os.cpu_count()), "Python": platform.python_version()}
    if torch.cuda.is_available():
        properties = torch.cuda.get_device_properties(0)
        found["GPU"] = properties.name
        found["compute capability"] = f"{properties.major}.{properties.minor}"
        found["GPU memory"] = f"{properties.total_memory / 2**30:.0f} GiB"
        found["CUDA"] = str(torch.version.cuda)
        asked = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        found["driver"] = subprocess.run(asked, capture_output=True, text=True, check=False).stdout.strip()
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    print(json.dumps(found))


if __name__ == "__main__":
    main()
