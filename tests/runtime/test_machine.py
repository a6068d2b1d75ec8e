"""What a processor is asked for, from files as Linux writes them on other machines."""

import platform
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from geodtr.runtime import machine
from geodtr.runtime.machine import Machine
from geodtr.runtime.preflight import check_cpu_dialect

X86 = "processor\t: 0\nflags\t\t: fpu avx2 avx512_vnni\n"
ORIN = "processor\t: 0\nFeatures\t: fp asimd atomics fphp asimdhp asimdrdm lrcpc dcpop asimddp\n"
RASPBERRY_PI_4 = "processor\t: 0\nFeatures\t: fp asimd evtstrm crc32 cpuid\n"

Seen = Callable[[str, str], Machine]


@pytest.fixture
def seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Seen]:
    """The processor of a machine of this architecture that shows this /proc/cpuinfo."""

    def processor(architecture: str, text: str) -> Machine:
        (tmp_path / "cpuinfo").write_text(text)
        monkeypatch.setattr(machine, "_CPU_INFO", tmp_path / "cpuinfo")
        monkeypatch.setattr(platform, "machine", lambda: architecture)
        machine.this_cpu.cache_clear()
        return machine.this_cpu()

    yield processor
    machine.this_cpu.cache_clear()


def test_each_architecture_lists_its_instructions_in_its_own_line(seen: Seen) -> None:
    assert seen("x86_64", X86).cpu_flags == ("avx2", "avx512_vnni")
    assert seen("aarch64", ORIN).cpu_flags == ("asimddp",)


def test_an_emulated_processor_has_no_instructions_of_its_host(seen: Seen) -> None:
    assert seen("aarch64", X86).cpu_flags == ()
    assert seen("x86_64", ORIN).cpu_flags == ()
    assert machine.cpu_dialect() == "cpu-7bit"


@pytest.mark.parametrize("text", [ORIN, RASPBERRY_PI_4])
def test_arm_runs_8_bit_weights_with_and_without_a_dot_product(seen: Seen, text: str) -> None:
    seen("aarch64", text)
    assert machine.cpu_dialect() == "cpu-8bit"
    assert not check_cpu_dialect("cpu-8bit").failed
