"""A bundle opened: its manifest checked, its files' hashes verified, its engines ready to run.

Engines are executable artefacts: no byte of one is given to a backend before its hash is verified.
"""

from dataclasses import dataclass
from pathlib import Path

from geodtr.runtime.engines.opening import AS_IT_LIKES, EngineFiles, EngineOptions, open_embedders
from geodtr.runtime.errors import BundleError
from geodtr.runtime.files import sha256
from geodtr.runtime.manifest import FILE_NAME, FileEntry, Manifest, read_manifest
from geodtr.runtime.names import BRANCHES, Branch
from geodtr.runtime.spec import Embedder, EmbedderPair


@dataclass(frozen=True, slots=True)
class Bundle:
    """A bundle whose files are what its manifest says."""

    path: Path
    manifest: Manifest

    @property
    def bytes(self) -> int:
        """Size of all engine files together."""
        return sum(entry.bytes for branch in BRANCHES for entry in self.manifest.engine(branch).files)

    def embedder(self, branch: Branch, options: EngineOptions = AS_IT_LIKES) -> Embedder:
        """Open one branch's engine."""
        (embedder,) = open_embedders([self._files(branch)], self.manifest.backend, options)
        return embedder

    def embedders(self, options: EngineOptions = AS_IT_LIKES) -> EmbedderPair:
        """Open both engines; they share what memory the backend lets them."""
        ground, aerial = open_embedders([self._files(branch) for branch in BRANCHES], self.manifest.backend, options)
        return EmbedderPair(ground, aerial)

    def _files(self, branch: Branch) -> EngineFiles:
        entry = self.manifest.engine(branch)
        compiled = None if entry.compiled is None else self.path / entry.compiled.file
        return EngineFiles(entry.spec, self.manifest.precision, self.path / entry.file, compiled)


def open_bundle(path: Path) -> Bundle:
    """Read `path`'s manifest and verify every file. Raises BundleError naming what is missing or altered."""
    manifest = read_manifest(path)
    for branch in BRANCHES:
        for entry in manifest.engine(branch).files:
            _verify(path, entry)
    return Bundle(path, manifest)


def _verify(bundle: Path, entry: FileEntry) -> None:
    file = bundle / entry.file
    if Path(entry.file).name != entry.file:
        raise BundleError(f"{bundle / FILE_NAME} names {entry.file!r}, which lies outside the bundle.")
    if not file.is_file():
        raise BundleError(f"{file} is missing. Copy the bundle again, or build it again.")
    if sha256(file) != entry.sha256:
        raise BundleError(
            f"{file} was altered after the bundle was built: its SHA-256 is not the manifest's. It is not run. "
            "Copy the bundle again, or build it again."
        )
