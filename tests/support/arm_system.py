"""A Debian for aarch64 in a folder, with the lean runtime; QEMU runs its programs. A stand-in for a vehicle's computer.

Its packages are unpacked and not configured, so that little has to be emulated.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from checkout import ROOT

RELEASE, PYTHON, GLIBC = "bookworm", "3.11", 36
"""Debian's release, its Python, and the last number of its glibc's version."""
_OLD = "fp asimd evtstrm aes pmull sha1 sha2 crc32 cpuid"
_NEW = f"{_OLD} atomics fphp asimdhp asimdrdm lrcpc dcpop asimddp"
CPUS = {
    "cortex-a72": ("0x41", "0xd08", _OLD),
    "cortex-a76": ("0x41", "0xd0b", _NEW),
    "max": ("0x00", "0x051", f"{_NEW} sve sve2 i8mm bf16"),
}
"""QEMU's names of processors: implementer, part and features as Linux lists them. Without a dot product, as a Raspberry
Pi 4; with it and half precision, as a Jetson Orin; and with everything that QEMU knows, SVE and SME included."""
_BINFMT = Path("/proc/sys/fs/binfmt_misc/qemu-aarch64")
_PLACES = Path("usr/local/lib") / f"python{PYTHON}" / "dist-packages"
_ENTER = """
mount -t proc proc "$0/proc"; mount --bind "$1" "$0/proc/cpuinfo"
mount --bind /dev "$0/dev"; mount --bind /sys "$0/sys"
mount --bind "$2" "$0/data"; mount --bind "$3" "$0/src"
root=$0; folder=$4; shift 4
exec chroot "$root" /bin/sh -ec 'cd "$0"; exec "$@"' "$folder" "$@"
"""


@dataclass(frozen=True, slots=True)
class ArmSystem:
    """The system's root. Its /data is `data`, its /src the checkout."""

    root: Path
    data: Path

    def run(self, command: Sequence[str], cpu: str, folder: str = "/data") -> "subprocess.CompletedProcess[str]":
        """Run a command on one of `CPUS`, in this folder of the system."""
        cpu_info = self.root / f"cpuinfo-{cpu}"
        cpu_info.write_text(_cpu_info(*CPUS[cpu]))
        environment = {
            "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME": "/root",
            "LC_ALL": "C.UTF-8",
            "COLUMNS": "200",
            "QEMU_CPU": cpu,
        }
        places = [str(path) for path in (self.root, cpu_info, self.data, ROOT)]
        line = ["unshare", "--mount", "sh", "-ec", _ENTER, *places, folder, *command]
        return subprocess.run(
            line, env={**environment, "PYTHONDONTWRITEBYTECODE": "1"}, capture_output=True, text=True, check=False
        )

    def program(self, line: str, cpu: str) -> "subprocess.CompletedProcess[str]":
        """Run `geodtr-export` with the words of `line` in /data."""
        return self.run(["python3", "-m", "geodtr", *line.split()], cpu)


def make_system(work: Path, data: Path) -> ArmSystem:
    """Make the system in the folder `work`; skip the test where that is impossible."""
    if shutil.which("debootstrap") is None or os.geteuid() != 0:
        pytest.skip("this needs debootstrap (apt-get install debootstrap) and root")
    if not _BINFMT.exists():
        pytest.skip(
            "programs for aarch64 do not run here: apt-get install qemu-user-static binfmt-support; "
            "mount -t binfmt_misc binfmt_misc /proc/sys/fs/binfmt_misc; update-binfmts --enable qemu-aarch64"
        )
    archive, root = work / "archive", work / "root"
    packages = ("--arch=arm64", "--variant=minbase", "--include=python3")
    _call("debootstrap", "--download-only", *packages, RELEASE, archive)
    for folder in ("usr/bin", "usr/sbin", "usr/lib", "proc", "dev", "sys", "tmp", "root", "data", "src"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for folder in ("bin", "sbin", "lib"):
        (root / folder).symlink_to(f"usr/{folder}")
    for package in sorted((archive / "var/cache/apt/archives").glob("*.deb")):
        with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", package], stdout=subprocess.PIPE) as unpacked:
            tar: list[str | Path] = ["tar", "--extract", "--keep-directory-symlink", "--directory", root]
            subprocess.run(tar, stdin=unpacked.stdout, check=True)
    pip = (sys.executable, "-m", "pip", "--quiet")
    _call(*pip, "wheel", "--no-deps", "--wheel-dir", work, ROOT)
    (wheel,) = work.glob("geodtr_export-*.whl")
    tags = ("2014", *(f"_2_{minor}" for minor in range(17, GLIBC + 1)))
    platforms = (f"--platform=manylinux{tag}_aarch64" for tag in tags)
    abis = (f"--abi={abi}" for abi in (f"cp{PYTHON.replace('.', '')}", "abi3", "none"))
    where: list[str | Path] = ["--target", root / _PLACES, "--python-version", PYTHON, *platforms, *abis]
    tests = ("pytest", "pytest-timeout", "hypothesis", "onnx")
    only = ("--only-binary=:all:", "--constraint", ROOT / "constraints.txt")
    _call(*pip, "install", *where, *only, f"{wheel}[cpu,search,sign]", *tests)
    return ArmSystem(root, data)


def _cpu_info(implementer: str, part: str, features: str) -> str:
    """Text of /proc/cpuinfo: QEMU 7.2 shows the host's. ONNX Runtime needs each line, and as many cores as in /sys."""
    lines = (
        f"Features\t: {features}",
        f"CPU implementer\t: {implementer}",
        "CPU architecture: 8",
        "CPU variant\t: 0x0",
        f"CPU part\t: {part}",
        "CPU revision\t: 0",
    )
    about = "\n".join(lines)
    return "".join(f"processor\t: {core}\n{about}\n\n" for core in range(os.cpu_count() or 1))


def _call(*command: str | Path) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{command}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")
