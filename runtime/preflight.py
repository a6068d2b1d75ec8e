"""The checks before a bundle runs: `doctor` shows all results, and opening a bundle stops at the first failure.

Knows manifests and files; loads no engine. What one backend needs is found by its own file in `engines/`.
"""

import os
import platform
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import msgspec

from geodtr.runtime.build_command import rebuild_command, recompile_bundle, recompile_for
from geodtr.runtime.errors import BundleError, UserError
from geodtr.runtime.files import check_regular, sha256
from geodtr.runtime.machine import this_cpu, this_gpu
from geodtr.runtime.manifest import FILE_NAME, FileEntry, Manifest
from geodtr.runtime.names import BRANCHES, Dialect

ASKS_FOR_HUGE_PAGES = "glibc.malloc.hugetlb=1"
"""What the environment's GLIBC_TUNABLES has to hold, where a program must ask for them."""

_HUGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that was looked at, and what was found.

    `failed`: the bundle would not run correctly here. `remedy` is the command that corrects a failure, or what
    merely costs time.
    """

    what: str
    found: str
    failed: bool = False
    remedy: str | None = None


def require(findings: Iterable[Finding]) -> None:
    """Raise BundleError at the first failed finding; later checks do not run."""
    for finding in findings:
        if finding.failed:
            remedy = "" if finding.remedy is None else f" To build it again: {finding.remedy}"
            raise BundleError(finding.found + remedy)


def looked_at(what: str, look: Callable[[], str]) -> Finding:
    """The result of `look` as a finding; a UserError that it raises becomes a failed finding with its message."""
    try:
        return Finding(what=what, found=look())
    except UserError as error:
        return Finding(what=what, found=str(error), failed=True)


def check_files(bundle: Path, manifest: Manifest) -> Iterator[Finding]:
    """Every file of the bundle: there, and by its SHA-256 the one that was built."""
    graphs = list(check_graphs(bundle, manifest))
    yield from graphs
    # Only what is whole can be compiled again.
    remedy = rebuild_command if any(finding.failed for finding in graphs) else recompile_bundle
    for branch in BRANCHES:
        compiled = manifest.engine(branch).compiled
        if compiled is not None:
            yield _check_file(bundle, compiled, lambda: remedy(bundle, manifest))


def check_graphs(bundle: Path, manifest: Manifest) -> Iterator[Finding]:
    """Both branches' typed graphs alone: all that a backend compiles from."""
    whole = True
    for entry in manifest.graph_files:
        finding = _check_file(bundle, entry, lambda: rebuild_command(bundle, manifest))
        whole = whole and not finding.failed
        yield finding
    if whole and any(manifest.engine(branch).weights for branch in BRANCHES):
        yield _check_shared(bundle, manifest)


def check_cpu_dialect(dialect: Dialect | None, remedy: Callable[[], str] | None = None) -> Finding:
    """Whether the processor at hand computes graphs of this INT8 `dialect` rightly; None is a graph without INT8.
    `remedy` gives the command that corrects it.
    """
    cpu = this_cpu()
    flags = ", ".join(cpu.cpu_flags) or "no instructions that decide"
    if dialect == "cpu-8bit" and not cpu.exact_8bit:
        return Finding(
            what="INT8",
            found=f"The INT8 weights have 8 bits (cpu-8bit). This CPU ({cpu.architecture}: {flags}) has no VNNI: it "
            "adds their products in 16 bits, which overflow, and descriptors would be wrong.",
            failed=True,
            remedy=None if remedy is None else remedy(),
        )
    return Finding(
        what="processor", found=f"{cpu.architecture}: {flags}{'' if dialect is None else f', runs {dialect}'}"
    )


def check_choice(bundle: Path, manifest: Manifest) -> Finding | None:
    """Whether the bundle's backend was chosen by speed on this machine; None where it was not chosen by speed."""
    choice = manifest.backend_choice
    if choice is None:
        return None
    timed = [trial.runs_by for trial in choice.trials if trial.speeds]
    choice_text = f"{manifest.backend.runs_by}, chosen by speed among {', '.join(timed)}"
    if choice.machine == (this_gpu() or this_cpu()):
        return Finding(what="backend choice", found=f"{choice_text} on this machine")
    return Finding(
        what="backend choice",
        found=f"{choice_text} with another processor, GPU or driver: another backend may be faster here",
        remedy=recompile_for(bundle, manifest, "auto"),
    )


def find_gpu(*, needed: bool) -> Finding:
    """The GPU at hand; that there is none is a failure where one is `needed`."""
    gpu = this_gpu()
    if gpu is not None:
        text = f"{gpu.gpu}, compute capability {gpu.compute_capability}, driver for CUDA {gpu.driver}"
        return Finding(what="GPU", found=text)
    return Finding(
        what="GPU",
        found="No GPU answers: there is none, or no driver of NVIDIA's." if needed else "none",
        failed=needed,
    )


def find_pages() -> Finding | None:
    """The size of memory pages, which decides how often a processor looks up where they lie. None where the system does
    not say.

    Source: Linux, Documentation/admin-guide/mm/transhuge.rst; glibc's manual, Memory Allocation Tunables.
    """
    if not _HUGE_PAGES.is_file():
        return None
    given = _HUGE_PAGES.read_text(encoding="ascii")
    library, version = platform.libc_ver()
    can_ask = library == "glibc" and tuple(map(int, version.split("."))) >= (2, 35)
    asks = can_ask and ASKS_FOR_HUGE_PAGES in os.environ.get("GLIBC_TUNABLES", "")
    if "[always]" in given or ("[madvise]" in given and asks):
        return Finding(what="memory pages", found="huge")
    small = f"{os.sysconf('SC_PAGE_SIZE') >> 10} kB"
    if "[madvise]" not in given:
        return Finding(what="memory pages", found=f"{small}; huge ones are switched off")
    if not can_ask:
        return Finding(what="memory pages", found=f"{small}; asking for huge ones needs glibc 2.35 or newer")
    return Finding(
        what="memory pages",
        found=f"{small}; huge ones where a program asks, in which engines can be faster",
        remedy=f"export GLIBC_TUNABLES={ASKS_FOR_HUGE_PAGES}",
    )


def _check_shared(bundle: Path, manifest: Manifest) -> Finding:
    """Whether both branches are of one model. The name of shared weights has their hash, and graphs hold the name."""
    first, *others = (each.file for branch in BRANCHES if (each := manifest.engine(branch).weights) is not None)
    if others != [first]:
        replaced = "ground or aerial"
    else:
        graphs = {branch: (bundle / manifest.engine(branch).file).read_bytes() for branch in BRANCHES}
        replaced = " and ".join(branch for branch, graph in graphs.items() if first.encode() not in graph)
    if replaced:
        return Finding(
            what="shared weights",
            found=f"The branches of {bundle} share their weights, {first}, and {replaced} was replaced by another "
            "model's branch. Copy the whole bundle again, or build it again.",
            failed=True,
            remedy=rebuild_command(bundle, manifest),
        )
    return Finding(what="shared weights", found=f"both graphs refer to {first}")


def _check_file(bundle: Path, entry: FileEntry, remedy: Callable[[], str]) -> Finding:
    file = bundle / entry.file

    def failed(found: str) -> Finding:
        return Finding(what=entry.file, found=found, failed=True, remedy=remedy())

    if Path(entry.file).name != entry.file:
        return failed(f"{bundle / FILE_NAME} names {entry.file!r}, which is outside the bundle.")
    try:
        if not check_regular(file, BundleError):
            return failed(f"{file} is missing. Copy the bundle again, or build it again.")
    except BundleError as error:
        return failed(str(error))
    if sha256(file) != entry.sha256:
        return failed(
            f"{file} was altered after the bundle was built: its SHA-256 differs from the manifest's. It will not run. "
            "Copy the bundle again, or build it again."
        )
    return Finding(what=entry.file, found=f"{entry.bytes / 1e6:.1f} MB, SHA-256 as built")
