"""A bundle opened: its manifest checked, its files' hashes verified, its engines ready to run.

Engines are executable artefacts: no byte of one is given to a backend before its hash is verified. A bundle of another
machine can be opened and looked into; its engines are opened only where they run rightly.
"""

from dataclasses import dataclass
from pathlib import Path

from geodtr.runtime.engines.base import DEFAULT_OPTIONS, EngineFiles, EngineOptions, LayerTime
from geodtr.runtime.engines.registry import check, layer_times, open_embedders
from geodtr.runtime.manifest import Manifest, read_manifest
from geodtr.runtime.names import BRANCHES, Branch
from geodtr.runtime.preflight import check_files, require
from geodtr.runtime.spec import Embedder, EmbedderPair, Images


@dataclass(frozen=True, slots=True)
class Bundle:
    """A bundle whose files match its manifest.

    Attributes
    ----------
    path
        The bundle's folder.
    manifest
        Shapes, preprocessing, precision, backend, hashes, calibration and measured parity.

    Examples
    --------
    >>> from geodtr import Bundle, open_bundle
    >>> bundle: Bundle = open_bundle("bundle")
    >>> engine = bundle.embedder("ground")
    >>> engine.spec.preprocessing.height, engine.spec.preprocessing.width
    (32, 128)
    """

    path: Path
    manifest: Manifest

    @property
    def bytes(self) -> int:
        """Size of all engine files together."""
        return sum(entry.bytes for branch in BRANCHES for entry in self.manifest.engine(branch).files)

    def embedder(self, branch: Branch, options: EngineOptions = DEFAULT_OPTIONS) -> Embedder:
        """Open one branch's engine. Raises BundleError when it would not run here, or not rightly."""
        self._require_it_runs()
        (embedder,) = open_embedders([self._files(branch)], self.manifest.backend, options)
        return embedder

    def embedders(self, options: EngineOptions = DEFAULT_OPTIONS) -> EmbedderPair:
        """Open both engines; they share what memory the backend lets them. Raises BundleError likewise."""
        self._require_it_runs()
        ground, aerial = open_embedders([self._files(branch) for branch in BRANCHES], self.manifest.backend, options)
        return EmbedderPair(ground, aerial)

    def layer_times(
        self, branch: Branch, images: Images, calls: int, options: EngineOptions = DEFAULT_OPTIONS
    ) -> list[LayerTime]:
        """What each layer of one branch's engine takes for a call with `images`, the longest first.

        Raises BundleError as above.
        """
        self._require_it_runs()
        return layer_times(self._files(branch), self.manifest.backend, options, images, calls)

    def _require_it_runs(self) -> None:
        require(check(self.path, self.manifest))

    def _files(self, branch: Branch) -> EngineFiles:
        entry = self.manifest.engine(branch)
        compiled = None if entry.compiled is None else self.path / entry.compiled.file
        return EngineFiles(entry.spec, self.manifest.precision, self.path / entry.file, compiled)


def open_bundle(path: Path | str) -> Bundle:
    """Read a bundle's manifest and verify the hash of every file. No engine is loaded.

    Parameters
    ----------
    path
        The bundle's folder.

    Returns
    -------
    Bundle
        Its engines are opened by `embedder("ground")` and `embedder("aerial")`.

    Raises
    ------
    BundleError
        A file is missing or altered; the message names it.

    Examples
    --------
    >>> from geodtr import open_bundle
    >>> open_bundle("bundle").manifest.precision
    'fp32'
    """
    folder = Path(path)
    manifest = read_manifest(folder)
    require(check_files(folder, manifest))
    return Bundle(folder, manifest)
