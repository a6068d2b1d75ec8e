"""An open bundle: its manifest is checked, its files' hashes are verified, its engines are ready to run.

Engines are executable: a backend gets no byte of one before its hash is verified. A bundle for another machine can be
opened and inspected; its engines open only where they run correctly.
"""

from dataclasses import dataclass
from pathlib import Path

from geodtr.runtime.arguments import check_argument
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
        return sum(entry.bytes for entry in self.manifest.files)

    def embedder(self, branch: Branch, options: EngineOptions = DEFAULT_OPTIONS) -> Embedder:
        """Open one branch's engine. Raises BundleError when it would not run correctly here, ConfigError for another
        branch's name.
        """
        files = self._files(branch, options)
        self._require_it_runs()
        (embedder,) = open_embedders([files], self.manifest.backend, options)
        return embedder

    def embedders(self, options: EngineOptions = DEFAULT_OPTIONS) -> EmbedderPair:
        """Open both engines, which share memory as far as the backend allows. Raises BundleError as `embedder`."""
        files = [self._files(branch, options) for branch in BRANCHES]
        self._require_it_runs()
        ground, aerial = open_embedders(files, self.manifest.backend, options)
        return EmbedderPair(ground, aerial)

    def layer_times(
        self, branch: Branch, images: Images, calls: int, options: EngineOptions = DEFAULT_OPTIONS
    ) -> list[LayerTime]:
        """The time of each layer of one branch's engine for a call with `images`, the longest first.

        Raises BundleError as `embedder`.
        """
        files = self._files(branch, options)
        check_argument("calls", calls, int, 1)
        self._require_it_runs()
        return layer_times(files, self.manifest.backend, options, images, calls)

    def _require_it_runs(self) -> None:
        require(check(self.path, self.manifest))

    def _files(self, branch: Branch, options: EngineOptions) -> EngineFiles:
        check_argument("options", options, EngineOptions)
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
        `embedder("ground")` and `embedder("aerial")` open its engines.

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
    check_argument("path", path, Path)
    folder = Path(path)
    manifest = read_manifest(folder)
    require(check_files(folder, manifest))
    return Bundle(folder, manifest)
