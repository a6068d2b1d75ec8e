"""Graphs that permute the pixels' bytes before they cast them, as all were exported once: TensorRT refuses them.

It takes uint8 as an input that is cast at once; the other backends compute either order.
Source: TensorRT's guide, the type UINT8: network inputs and outputs only, converted by a cast.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import msgspec

from geodtr.runtime.build_command import from_checkpoint
from geodtr.runtime.doctor.diagnosis import Diagnosis
from geodtr.runtime.manifest import BackendEntry, Manifest, read_manifest
from geodtr.runtime.names import BRANCHES
from geodtr.runtime.preflight import Finding, require
from geodtr.runtime.spec import INPUT


def check_readable(source: Path, manifest: Manifest, backend: BackendEntry) -> None:
    """Raise BundleError when TensorRT is to compile graphs of the bundle `source` whose input it cannot read."""
    if backend.name.startswith("tensorrt"):
        require(msgspec.structs.replace(finding, failed=True) for finding in _old_graphs(source, manifest))


def with_old_graphs(diagnosis: Diagnosis) -> Diagnosis:
    """A bundle's diagnosis with a note on each of its graphs that TensorRT refuses. They run as ever elsewhere."""
    damaged = {finding.what for finding in diagnosis.findings if finding.failed}
    names = {finding.what for finding in diagnosis.findings}
    if diagnosis.bundle is None or not {f"{branch}.onnx" for branch in BRANCHES} <= names - damaged:
        return diagnosis
    notes = tuple(_old_graphs(diagnosis.bundle, read_manifest(diagnosis.bundle)))
    return replace(diagnosis, findings=(*diagnosis.findings, *notes))


def _old_graphs(bundle: Path, manifest: Manifest) -> Iterator[Finding]:
    import onnx
    from google.protobuf.message import DecodeError

    for branch in BRANCHES:
        entry = manifest.engine(branch)
        try:
            graph = onnx.load(str(bundle / entry.file), load_external_data=False).graph
        except DecodeError:
            continue  # not a graph: opening the engine reports it
        reader = next((node.op_type for node in graph.node if INPUT in node.input), "Cast")
        if reader != "Cast":
            yield Finding(
                what=entry.file,
                found=f"{bundle / entry.file} was exported by an older version: its first operator is {reader} on "
                "uint8, which TensorRT refuses; other backends compute it.",
                remedy=from_checkpoint(bundle, manifest),
            )
