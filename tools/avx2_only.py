"""Run a command as on a CPU with AVX2 but without AVX-512, VNNI and AMX.

    python tools/avx2_only.py geodtr-export bench fp32 int8
    python tools/avx2_only.py python benchmarks/engines.py WORK

Speed and overflow on such CPUs depend on the kernels that a library selects, so this makes the libraries select them.
PyTorch has environment variables for it. ONNX Runtime and OpenVINO have none that covers everything: in copies of their
libraries, a handler (avx2_only.c) replaces the CPUID instruction. This project reads /proc/cpuinfo; a file without
these flags is mounted over it, in a mount namespace for the command. Needs gcc, objdump, unshare, and the right to
mount. The preparation takes a minute.
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
PATCHED = {
    "onnxruntime": ("capi/onnxruntime_pybind11_state*.so",),
    "openvino": ("libs/libopenvino.so*", "libs/libopenvino_intel_cpu_plugin.so"),
}
"""Packages, and their libraries that use CPUID."""
CPUID, TRAP = b"\x0f\xa2", b"\xcc\x90"
HIDDEN = re.compile(r"\b(avx512\w*|avx_vnni\w*|amx_\w+|avx_ifma|avx10\w*)\s?")
ENVIRONMENT = {
    "ATEN_CPU_CAPABILITY": "avx2",
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    "MKL_ENABLE_INSTRUCTIONS": "AVX2",
    "GEODTR_AVX2_ONLY": "1",
}
"""Benchmarks read the last variable and print a note."""


def main(command: list[str]) -> int:
    if not command:
        sys.exit(__doc__)
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        cpuinfo = work / "cpuinfo"
        cpuinfo.write_text(HIDDEN.sub("", Path("/proc/cpuinfo").read_text()))
        handler = work / "handler.so"
        subprocess.run(["gcc", "-O2", "-shared", "-fPIC", "-o", handler, HANDLER], check=True)
        for package, libraries in PATCHED.items():
            copy_package(package, libraries, work / "packages")
        environment = {**os.environ, **ENVIRONMENT, "LD_PRELOAD": str(handler), "PYTHONPATH": str(work / "packages")}
        run = f"mount --bind {shlex.quote(str(cpuinfo))} /proc/cpuinfo && exec {shlex.join(command)}"
        return subprocess.run(["unshare", "--mount", "sh", "-c", run], env=environment, check=False).returncode


def copy_package(package: str, libraries: tuple[str, ...], packages: Path) -> None:
    """Copy an installed package by links, except for `libraries`: these are written with every cpuid replaced."""
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
        if any(path.relative_to(installed).match(pattern) for pattern in libraries):
            content = bytearray(path.read_bytes())
            for offset in cpuid_offsets(path):
                assert content[offset : offset + 2] == CPUID
                content[offset : offset + 2] = TRAP
            copy.write_bytes(content)
        else:
            copy.symlink_to(path)


def cpuid_offsets(library: Path) -> list[int]:
    """File offsets of the cpuid instructions, by disassembly, because other bytes can look like them."""
    headers = subprocess.run(["objdump", "-h", library], capture_output=True, text=True, check=True).stdout
    text = next(line.split() for line in headers.splitlines() if " .text " in line)
    shift = int(text[5], 16) - int(text[3], 16)
    listing = subprocess.run(
        ["objdump", "-d", "-j", ".text", "--no-show-raw-insn", library], capture_output=True, text=True, check=True
    ).stdout
    addresses = re.findall(r"^\s*([0-9a-f]+):\s+cpuid", listing, re.MULTILINE)
    return [int(address, 16) + shift for address in addresses]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
