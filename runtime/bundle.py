"""A bundle opened: its manifest checked, its files' hashes verified, its engines ready to run.

Engines are executable artefacts: no byte of one is given to a backend before its hash is verified.
"""

from dataclasses import dataclass
from pathlib import Path

from geodtr.runtime.engines.onnxruntime import OnnxRuntimeEmbedder
from geodtr.runtime.errors import BundleError
from geodtr.runtime.files import sha256
from geodtr.runtime.manifest import FILE_NAME, Manifest, read_manifest
from geodtr.runtime.names import BRANCHES, Branch
from geodtr.runtime.spec import Embedder, EmbedderPair


@dataclass(frozen=True, slots=True)
class Bundle:
    """A bundle whose files are what its manifest says."""

    path: Path
    manifest: Manifest

    @property
    def bytes(self) -> int:
        """Size of both engine files together."""
        return sum(self.manifest.engine(branch).bytes for branch in BRANCHES)

    def embedder(self, branch: Branch) -> Embedder:
        """Open one branch's engine. Both backends of today are run by ONNX Runtime."""
        entry = self.manifest.engine(branch)
        return OnnxRuntimeEmbedder(self.path / entry.file, entry.spec)

    def embedders(self) -> EmbedderPair:
        """Open both engines."""
        return EmbedderPair(self.embedder("ground"), self.embedder("aerial"))


def open_bundle(path: Path) -> Bundle:
    """Read `path`'s manifest and verify every file. Raises BundleError naming what is missing or altered."""
    manifest = read_manifest(path)
    for branch in BRANCHES:
        entry = manifest.engine(branch)
        file = path / entry.file
        if Path(entry.file).name != entry.file:
            raise BundleError(f"{path / FILE_NAME} names {entry.file!r}, which lies outside the bundle.")
        if not file.is_file():
            raise BundleError(f"{file} is missing. Copy the bundle again, or build it again.")
        if sha256(file) != entry.sha256:
            raise BundleError(
                f"{file} was altered after the bundle was built: its SHA-256 is not the manifest's. It is not run. "
                "Copy the bundle again, or build it again."
            )
    return Bundle(path, manifest)
