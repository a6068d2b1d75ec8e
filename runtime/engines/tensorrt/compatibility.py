"""Whether plans of TensorRT and TensorRT-RTX run on the machine at hand, checked before any of a plan is loaded."""

from collections.abc import Iterator
from pathlib import Path

import msgspec

from geodtr.runtime.build_command import recompile_bundle, recompile_for
from geodtr.runtime.engines.tensorrt.cuda import find_cuda, open_cuda
from geodtr.runtime.engines.tensorrt.known_bugs import known_bugs
from geodtr.runtime.engines.tensorrt.library import Library, check_installation, library_of, parse
from geodtr.runtime.errors import MissingDependency
from geodtr.runtime.machine import Machine, this_gpu
from geodtr.runtime.manifest import BackendEntry, Manifest, TensorRtEntry
from geodtr.runtime.names import BRANCHES
from geodtr.runtime.preflight import Finding, looked_at


def mismatches(backend: BackendEntry, version: str, here: Machine) -> list[str]:
    """The reasons why plans of `backend` cannot run with `version` of its library on the machine `here`; empty if they
    can.
    """
    built, how = backend.machine, backend.tensorrt
    if built is None or how is None:
        return ["the manifest does not record the machine and version it was built for"]
    name = library_of(backend.name).name
    reasons = _other_machine(built, here, how)
    theirs, ours = parse(backend.version), parse(version)
    if how.version_compatible:
        if theirs[0] != ours[0] or theirs > ours:
            reasons.append(
                f"it runs with {name} {backend.version} and later ones of version {theirs[0]}, here is {version}"
            )
    elif theirs != ours:
        reasons.append(f"it was built by {name} {backend.version}, here is {version}")
    return reasons


def _other_machine(built: Machine, here: Machine, how: TensorRtEntry) -> list[str]:
    if how.compute_capabilities:
        # Of TensorRT-RTX: what depends on the processor and the very GPU is made when the plan is loaded.
        if here.compute_capability in how.compute_capabilities:
            return []
        return [
            f"it was built for GPUs of compute capability {', '.join(how.compute_capabilities)}, this one is "
            f"{here.gpu} ({here.compute_capability})"
        ]
    reasons = []
    if built.architecture != here.architecture:
        reasons.append(f"it was built for {built.architecture} processors, this is {here.architecture}")
    if not _same_gpu(built, here, how):
        reasons.append(
            f"it was built for {built.gpu} (compute capability {built.compute_capability}, {how.hardware}), this GPU "
            f"is {here.gpu} ({here.compute_capability})"
        )
    return reasons


def _same_gpu(built: Machine, here: Machine, how: TensorRtEntry) -> bool:
    if how.hardware == "same-gpu":
        return (built.gpu, built.compute_capability) == (here.gpu, here.compute_capability)
    if how.hardware == "same-capability":
        return built.compute_capability == here.compute_capability
    return parse(here.compute_capability or "") >= (8, 0)


def check(bundle: Path, manifest: Manifest) -> Iterator[Finding]:
    """A plan runs with the version and on the kind of GPU it was built for, or as far as it was built compatible."""
    library = library_of(manifest.backend.name)
    there = looked_at(library.backend, lambda: check_installation(library))
    yield there
    if manifest.backend.targets is not None:
        yield Finding(what="engines", found=manifest.backend.targets)
    gpu = looked_at("GPU", _gpu)
    yield msgspec.structs.replace(gpu, remedy=recompile_for(bundle, manifest, "onnxruntime") if gpu.failed else None)
    if there.failed or gpu.failed:
        return
    here = open_cuda().machine
    yield from known_bugs(library, there.found, here, manifest.precision)
    wrong = mismatches(manifest.backend, there.found, here)
    if any(manifest.engine(branch).compiled is None for branch in BRANCHES):
        wrong.append("the bundle holds no plan")
    for reason in wrong:
        yield Finding(
            what="plan", found=f"The plan is not run: {reason}.", failed=True, remedy=recompile_bundle(bundle, manifest)
        )
    if not wrong:
        yield Finding(what="plan", found="built for this version and GPU, or compatible")


def _gpu() -> str:
    cuda = find_cuda()
    if cuda is None:
        raise MissingDependency(
            "The plan runs on an NVIDIA GPU, and none answers here: there is none, or no driver. Its graphs run on the "
            "processor when they are built for that."
        )
    return f"{cuda.machine.gpu}, compute capability {cuda.machine.compute_capability}"


def installed(library: Library) -> Iterator[Finding]:
    """What of a library is installed, and what is known to go wrong with it here. Failed only where it is broken."""
    if not library.is_there:
        yield Finding(what=library.backend, found="not installed", remedy=library.how_to_install)
        return
    there = looked_at(library.backend, lambda: check_installation(library))
    yield there
    if not there.failed:
        yield from known_bugs(library, there.found, this_gpu())
