"""Building engines from Python: one request, one bundle."""

from collections.abc import Callable

from geodtr.export.backends.base import ignore_warning
from geodtr.export.build.auto import build_fastest
from geodtr.export.build.request import BuildRequest, FastestBackend
from geodtr.export.build.single import build_single
from geodtr.runtime.arguments import check_argument
from geodtr.runtime.bundle import Bundle, open_bundle
from geodtr.runtime.files import check_new_folder
from geodtr.runtime.installation import naming_extras
from geodtr.runtime.progress import Track, untracked


@naming_extras()
def build_engine(
    request: BuildRequest, *, track: Track = untracked, warn: Callable[[str], None] = ignore_warning
) -> Bundle:
    """Compile both branches of a model into a bundle of engines, whole or not at all.

    Every engine is checked before the bundle is kept: its descriptors match its graph's, it computes in the requested
    precision, and it gives the same rows in every batch.

    Parameters
    ----------
    request
        What to build, of what, for which backend.
    track
        Receives the progress; see `geodtr.runtime.progress`.
    warn
        Called with what the caller should know and need not mend; by default ignored.

    Returns
    -------
    Bundle
        The new bundle in `request.out`, opened and verified.

    Raises
    ------
    ConfigError
        The backend cannot run the precision here, or runs no graphs of the INT8 dialect; or the model's descriptors
        cannot be projected to the size of `Compact`.
    MissingDependency
        The backend is not installed, or has no GPU; or the source is a checkpoint, without the extra `train`.
    CheckpointError, BundleError
        The source cannot be read, or a bundle holds other graphs than are needed.
    DataError
        Images or pairs cannot be read, or the pairs are too few for `Compact`.
    OutputExists
        `request.out` is taken.
    BuildError, GraphError
        What was compiled is not right; nothing was written.
    GateNotMet
        `require_faster`, and a branch is not faster than in float32.
    Undecided
        `Auto`, and the pairs are too few to decide.

    Examples
    --------
    >>> from pathlib import Path
    >>> from geodtr import BuildRequest, Float, build_engine
    >>> request = BuildRequest(Path("model.safetensors"), Path("engine"), plan=Float("fp16"))
    >>> build_engine(request).manifest.precision
    'fp16'
    """
    check_argument("request", request, BuildRequest)
    check_new_folder(request.out)
    if isinstance(request.backend, FastestBackend):
        build_fastest(request, warn, track)
    else:
        build_single(request, request.backend, warn, track)
    return open_bundle(request.out)
