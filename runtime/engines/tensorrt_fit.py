"""Whether TensorRT plans run on the machine at hand, found out before a byte of one is loaded."""

from collections.abc import Iterator
from pathlib import Path

from geodtr.runtime.checks import Finding, looked_at
from geodtr.runtime.engines.cuda import open_cuda
from geodtr.runtime.engines.tensorrt_versions import check_installation, parse
from geodtr.runtime.machine import Machine
from geodtr.runtime.manifest import BackendEntry, Manifest, TensorRtEntry
from geodtr.runtime.names import BRANCHES
from geodtr.runtime.rebuilding import rebuild


def mismatches(backend: BackendEntry, version: str, here: Machine) -> list[str]:
    """Why plans of `backend` cannot run with TensorRT `version` on the machine `here`; empty when they can."""
    built, how = backend.machine, backend.tensorrt
    if built is None or how is None:
        return ["the manifest does not say which machine and version it was built for"]
    found = []
    if built.architecture != here.architecture:
        found.append(f"it was built for {built.architecture} processors, this is {here.architecture}")
    if not _same_gpu(built, here, how):
        found.append(
            f"it was built for {built.gpu} (compute capability {built.compute_capability}, {how.hardware}), this GPU "
            f"is {here.gpu} ({here.compute_capability})"
        )
    theirs, ours = parse(backend.version), parse(version)
    if how.version_compatible:
        if theirs[0] != ours[0] or theirs > ours:
            found.append(
                f"it runs with TensorRT {backend.version} and later ones of version {theirs[0]}, here is {version}"
            )
    elif theirs != ours:
        found.append(f"it was built by TensorRT {backend.version}, here is {version}")
    return found


def _same_gpu(built: Machine, here: Machine, how: TensorRtEntry) -> bool:
    if how.hardware == "same-gpu":
        return (built.gpu, built.compute_capability) == (here.gpu, here.compute_capability)
    if how.hardware == "same-capability":
        return built.compute_capability == here.compute_capability
    return parse(here.compute_capability or "") >= (8, 0)


def check(bundle: Path, manifest: Manifest) -> Iterator[Finding]:
    """A plan runs with the version and on the kind of GPU it was built for, or as far as it was built compatible."""
    there = looked_at("tensorrt", check_installation)
    yield there
    if there.failed:
        return
    gpu = looked_at("GPU", lambda: str(open_cuda().machine.gpu))
    yield gpu
    if gpu.failed:
        return
    remedy = rebuild(bundle, manifest, from_graphs=True)
    wrong = mismatches(manifest.backend, there.found, open_cuda().machine)
    if any(manifest.engine(branch).compiled is None for branch in BRANCHES):
        wrong.append("the bundle holds no plan")
    for reason in wrong:
        yield Finding(what="plan", found=f"The plan is not run: {reason}.", failed=True, remedy=remedy)
    if not wrong:
        yield Finding(what="plan", found="built for this version and GPU, or compatible")
