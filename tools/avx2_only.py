"""Run a command as on a processor that has AVX2 and neither AVX-512, VNNI nor AMX.

    python tools/avx2_only.py geodtr-export bench fp32 int8
    python tools/avx2_only.py python benchmarks/engines.py WORK

Speed and overflow on such processors hang on which kernels a library picks, and not on the chip's age: this makes them
picked. PyTorch and OpenVINO are told by their environment variables. ONNX Runtime knows none: where it would ask the
processor, a copy of its library asks a handler (avx2_only.c). Over /proc/cpuinfo, which this project reads, lies a file
without these flags, in a mount namespace of the command's own. Needs gcc, objdump, unshare, and the right to mount.
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
LIBRARY = "onnxruntime_pybind11_state*.so"
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
        copy_onnxruntime(work / "packages")
        environment = {**os.environ, **TOLD, "LD_PRELOAD": str(handler), "PYTHONPATH": str(work / "packages")}
        run = f"mount --bind {shlex.quote(str(told))} /proc/cpuinfo && exec {shlex.join(command)}"
        return subprocess.run(["unshare", "--mount", "sh", "-c", run], env=environment, check=False).returncode


def copy_onnxruntime(packages: Path) -> None:
    """The installed onnxruntime by links, but for its library, which is written anew with every cpuid replaced."""
    spec = find_spec("onnxruntime")
    if spec is None or spec.origin is None:
        sys.exit("onnxruntime is not installed here: pip install onnxruntime")
    installed = Path(spec.origin).parent
    (library,) = installed.glob(f"capi/{LIBRARY}")
    for path in installed.rglob("*"):
        link = packages / "onnxruntime" / path.relative_to(installed)
        if path.is_dir() or path == library:
            (link if path.is_dir() else link.parent).mkdir(parents=True, exist_ok=True)
        else:
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(path)
    content = bytearray(library.read_bytes())
    for place in cpuid_places(library):
        assert content[place : place + 2] == CPUID
        content[place : place + 2] = TRAP
    (packages / "onnxruntime" / library.relative_to(installed)).write_bytes(content)


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
