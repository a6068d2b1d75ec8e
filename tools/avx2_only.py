"""Run a command as on a processor that has AVX2 and neither AVX-512, VNNI nor AMX.

    python tools/avx2_only.py geodtr-export bench fp32 int8
    python tools/avx2_only.py python benchmarks/engines.py WORK

Speed and overflow on such processors hang on which kernels a library picks, and not on the chip's age: this makes them
picked. PyTorch is told by its environment variables. ONNX Runtime and OpenVINO know none that holds for all of them:
where they would ask the processor, copies of their libraries ask a handler (avx2_only.c). Over /proc/cpuinfo, which
this project reads, lies a file without these flags, in a mount namespace of the command's own. Needs gcc, objdump,
unshare, and the right to mount. A minute passes before the command begins.
"""

import os
import re
import shlex
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

HANDLER = Path(__file__).with_suffix(".c")
ASKING = {
    "onnxruntime": ("capi/onnxruntime_pybind11_state*.so",),
    "openvino": ("libs/libopenvino.so*", "libs/libopenvino_intel_cpu_plugin.so"),
}
"""Packages, and which of their libraries ask the processor."""
CPUID, TRAP = b"\x0f\xa2", b"\xcc\x90"
HIDDEN = re.compile(r"\b(avx512\w*|avx_vnni\w*|amx_\w+|avx_ifma|avx10\w*)\s?")
TOLD = {
    "ATEN_CPU_CAPABILITY": "avx2",
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    "MKL_ENABLE_INSTRUCTIONS": "AVX2",
    "GEODTR_AVX2_ONLY": "1",
}
"""The last one tells benchmarks that they should say so."""


def main(command: list[str]) -> int:
    if not command:
        sys.exit(__doc__)
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        told = work / "cpuinfo"
        told.write_text(HIDDEN.sub("", Path("/proc/cpuinfo").read_text()))
        handler = work / "handler.so"
        subprocess.run(["gcc", "-O2", "-shared", "-fPIC", "-o", handler, HANDLER], check=True)
        for package, asking in ASKING.items():
            copy_package(package, asking, work / "packages")
        environment = {**os.environ, **TOLD, "LD_PRELOAD": str(handler), "PYTHONPATH": str(work / "packages")}
        run = f"mount --bind {shlex.quote(str(told))} /proc/cpuinfo && exec {shlex.join(command)}"
        return subprocess.run(["unshare", "--mount", "sh", "-c", run], env=environment, check=False).returncode


def copy_package(package: str, asking: tuple[str, ...], packages: Path) -> None:
    """An installed package by links, but for those libraries, which are written anew with every cpuid replaced."""
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        return
    installed = Path(spec.origin).parent
    for path in installed.rglob("*"):
        copy = packages / package / path.relative_to(installed)
        if path.is_dir():
            copy.mkdir(parents=True, exist_ok=True)
            continue
        copy.parent.mkdir(parents=True, exist_ok=True)
        if any(path.relative_to(installed).match(pattern) for pattern in asking):
            content = bytearray(path.read_bytes())
            for place in cpuid_places(path):
                assert content[place : place + 2] == CPUID
                content[place : place + 2] = TRAP
            copy.write_bytes(content)
        else:
            copy.symlink_to(path)


def cpuid_places(library: Path) -> list[int]:
    """Where in the file its cpuid instructions lie: true ones, by disassembly, not bytes that look like them."""
    headers = subprocess.run(["objdump", "-h", library], capture_output=True, text=True, check=True).stdout
    text = next(line.split() for line in headers.splitlines() if " .text " in line)
    shift = int(text[5], 16) - int(text[3], 16)
    listing = subprocess.run(
        ["objdump", "-d", "-j", ".text", "--no-show-raw-insn", library], capture_output=True, text=True, check=True
    ).stdout
    return [int(found, 16) + shift for found in re.findall(r"^\s*([0-9a-f]+):\s+cpuid", listing, re.MULTILINE)]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
