"""What a bundle needs, and what this machine has: every check that opening makes, all of them, and no engine loaded.

Knows no check of its own: `checks` and the backends' files in `engines/` hold them.
"""

import itertools
import os
import platform
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from geodtr import __version__
from geodtr.runtime.build_command import unread_command
from geodtr.runtime.doctor.self_check import check_arithmetic
from geodtr.runtime.engines.registry import check, installed
from geodtr.runtime.errors import BundleError
from geodtr.runtime.installation import install_hint
from geodtr.runtime.machine import cpu_dialect, this_cpu
from geodtr.runtime.manifest import FILE_NAME, NewerManifest, UnreadManifest, read_manifest
from geodtr.runtime.names import BACKENDS
from geodtr.runtime.preflight import Finding, check_choice, check_files, find_gpu, find_pages

_PACKAGES = {"torch": "train", "onnx": "export"}
"""Packages beside the backends that decide which commands work, and the extra that brings each."""


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """All findings about a bundle, or about the machine; `passed` when none failed."""

    bundle: Path | None
    findings: tuple[Finding, ...]
    passed: bool


def examine_bundle(bundle: Path) -> Diagnosis:
    """Whether `bundle` would run here and why not. Raises BundleError when the folder is no bundle at all."""
    if not (bundle / FILE_NAME).is_file():
        read_manifest(bundle)  # raises: the user named no bundle, which is not a finding
    return _diagnosis(bundle, _bundle_findings(bundle))


def examine_machine() -> Diagnosis:
    """What can be run here: Python, processor, GPU, backends, and whether they compute exactly. Failed when no backend
    works, or one is wrong.
    """
    return _diagnosis(None, _machine_findings())


def _diagnosis(bundle: Path | None, findings: Iterator[Finding]) -> Diagnosis:
    results = tuple(findings)
    return Diagnosis(bundle, results, not any(finding.failed for finding in results))


def _bundle_findings(bundle: Path) -> Iterator[Finding]:
    try:
        manifest = read_manifest(bundle)
    except NewerManifest as error:
        yield Finding(what=FILE_NAME, found=error.problem, failed=True, remedy=error.remedy)
        return
    except BundleError as error:
        problem = error.problem if isinstance(error, UnreadManifest) else str(error)
        yield Finding(what=FILE_NAME, found=problem, failed=True, remedy=unread_command(bundle))
        return
    made_by = f"{manifest.backend.name} {manifest.backend.version}"
    yield Finding(what=FILE_NAME, found=f"schema {manifest.schema}, {manifest.precision}, built with {made_by}")
    yield from check_files(bundle, manifest)
    yield from check(bundle, manifest)
    choice = check_choice(bundle, manifest)
    if choice is not None:
        yield choice


def _machine_findings() -> Iterator[Finding]:
    yield Finding(what="geodtr-export", found=__version__)
    yield Finding(what="Python", found=f"{platform.python_version()}, {platform.system()}")
    cpu = this_cpu()
    flags = ", ".join(cpu.cpu_flags) or "instruction set unknown"
    yield Finding(
        what="processor", found=f"{cpu.architecture}, {os.cpu_count()} cores, {flags}; INT8 as {cpu_dialect()}"
    )
    pages = find_pages()
    if pages is not None:
        yield pages
    yield find_gpu(needed=False)
    backends = [list(installed(backend)) for backend in BACKENDS]
    yield from itertools.chain.from_iterable(backends)
    if all(there.failed or there.remedy for there, *_ in backends):
        yield Finding(what="backends", found="No backend works here: no bundle can be run.", failed=True)
    yield from check_arithmetic()
    for package, extra in _PACKAGES.items():
        try:
            yield Finding(what=package, found=version(package))
        except PackageNotFoundError:
            yield Finding(what=package, found="not installed", remedy=f"{install_hint(extra)}")
