"""The public functions: each opens what its caller names, calls the room that does the work, and returns its result.

Models, data sets and sources may be given as the command line takes them (a path, `KIND:PATH`) or opened already.
"""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from geodtr.runtime.arguments import check_argument, check_several
from geodtr.runtime.bundle import Bundle, open_bundle
from geodtr.runtime.embed.pipeline import BATCH_SIZE, embed_files
from geodtr.runtime.errors import ConfigError
from geodtr.runtime.gallery import build as galleries
from geodtr.runtime.gallery.build import Added
from geodtr.runtime.gallery.location import GalleryLocation
from geodtr.runtime.gallery.manifest import made_by
from geodtr.runtime.images.frames import Frame
from geodtr.runtime.installation import naming_extras
from geodtr.runtime.names import Branch, Heading, Index, Storage
from geodtr.runtime.progress import Track, untracked
from geodtr.runtime.sources.registry import Options, open_source
from geodtr.runtime.sources.tile import TileSource
from geodtr.runtime.spec import Descriptors, Images

if TYPE_CHECKING:
    from geodtr.export.model import Model
    from geodtr.export.parity.gates import Gates
    from geodtr.export.parity.result import ParityResult
    from geodtr.training.config import TrainConfig
    from geodtr.training.data.pair_set import PairSet
    from geodtr.training.data.views import Views
    from geodtr.training.listener import Listener


def embed(
    bundle: Bundle | Path | str,
    images: Path | str | Iterable[Path | str | Images | Frame],
    *,
    branch: Branch = "ground",
    batch_size: int = BATCH_SIZE,
    track: Track = untracked,
) -> Descriptors:
    """Embed images with one branch of a bundle.

    Parameters
    ----------
    bundle
        A bundle folder, or an opened bundle.
    images
        A folder, an image, a video or a list of files (`@list.txt`); or any iterable of image files and of pixels,
        uint8 RGB [height, width, 3], of any size that the branch accepts.
    branch
        `ground` for queries, `aerial` for references.
    batch_size
        Images embedded at once.
    track
        Receives the progress; see `geodtr.runtime.progress`.

    Returns
    -------
    numpy.ndarray
        Descriptors, float32 [N, D], in the order of the images. Rows have unit length, so that the product of two rows
        is their cosine similarity.

    Raises
    ------
    ConfigError
        An argument has a value that is not allowed; the message names those that are.
    BundleError
        The bundle is damaged or does not run on this machine.
    ImageError
        An image cannot be read; the message names it.

    Examples
    --------
    >>> from geodtr import embed
    >>> queries = embed("bundle", ["street.png"])
    >>> queries.shape[0], queries.dtype
    (1, dtype('float32'))
    """
    check_argument("batch_size", batch_size, int, 1)
    embedder = _opened(bundle).embedder(branch)
    return embed_files(embedder, images, batch_size=batch_size, track=track)


def build_gallery(
    out: GalleryLocation | Path | str,
    source: TileSource | Path | str,
    bundle: Bundle | Path | str,
    *,
    options: Options | None = None,
    storage: Storage = "float32",
    index: Index = "flat",
    track: Track = untracked,
) -> Added:
    """Embed aerial tiles into a new gallery. A call that was stopped continues when it is repeated.

    Parameters
    ----------
    out
        A folder, a Milvus Lite file (`map.db`), or `milvus://HOST:PORT/COLLECTION`.
    source
        A folder of tiles, a map file, map tiles in a file or a folder (Z/X/Y), the tiles of a data set (`KIND:PATH`),
        or an opened source.
    bundle
        The bundle whose aerial branch embeds the tiles.
    options
        How the source is read: `FolderOptions`, `GeoTiffOptions` or `XyzOptions` of `geodtr.runtime.sources`. A map
        file needs them, as they hold the tile's size in metres.
    storage
        The type that is searched: float32, float16 or int8. The best are scored again in float32.
    index
        `flat` searches exactly; the others are Milvus's.
    track
        Receives the progress.

    Returns
    -------
    Added
        How many tiles were embedded, were held already, and were left out.

    Raises
    ------
    ConfigError
        An argument has a value that is not allowed; the message names those that are.
    OutputExists
        `out` holds something else, or a finished gallery.
    DataError, ImageError
        The source or one of its tiles cannot be read; the message names it.

    Examples
    --------
    >>> from geodtr import build_gallery
    >>> build_gallery("new-map", "tiles", "bundle").embedded
    9
    """
    check_argument("storage", storage, Storage)
    check_argument("index", index, Index)
    opened = _opened(bundle)
    return galleries.build_gallery(
        out,
        _tiles(source, options, track),
        opened.embedder("aerial"),
        made_by(opened.manifest),
        storage=storage,
        index=index,
        track=track,
    )


def train(
    config: "TrainConfig | Path | str",
    data: "PairSet | str",
    out: Path | str,
    *,
    validation: "PairSet | str | None" = None,
    settings: Sequence[str] = (),
    field_of_view: float | None = None,
    heading: Heading | None = None,
    track: Track = untracked,
    listener: "Listener | None" = None,
) -> Path:
    """Train a model. Needs the extra `train`.

    Parameters
    ----------
    config
        A preset's name, a TOML file, or a configuration.
    data
        Pairs to train on: a data set as `KIND:PATH`, or one that was read.
    out
        The run's folder, new or empty. It holds the configuration, the checkpoints and what `resume` needs.
    validation
        Pairs that decide which epoch is best.
    settings
        Changes to the preset, `KEY=VALUE`, for example `recipe.epochs=20`.
    field_of_view
        Degrees, to which the data's full panoramas are cut; the ground branch gets as many columns. None for what the
        configuration states.
    heading
        "unknown" rolls each panorama by a random angle, "known" leaves it as it is aligned; None as above.
    track, listener
        Receive the progress.

    Returns
    -------
    pathlib.Path
        The checkpoint after the last epoch, a safetensors file.

    Raises
    ------
    ConfigError
        A setting is unknown or out of range.
    DataError
        The data set is not what its kind requires.
    OutputExists
        `out` holds something.

    Examples
    --------
    >>> from geodtr import train
    >>> train("world-tiny", "pairs:world", "run", settings=["recipe.epochs=1"]).name
    'last.safetensors'
    """
    from geodtr.training import loop
    from geodtr.training.config import TrainConfig, limit_field
    from geodtr.training.data.spec import read_test_set, read_training_set
    from geodtr.training.presets.load import check_config, load_preset

    check_argument("config", config, TrainConfig | Path)
    check_several("settings", settings, "KEY=VALUE")
    if isinstance(config, TrainConfig) and settings:
        raise ConfigError("settings change a preset; change the configuration itself: msgspec.structs.replace.")
    check_argument("field_of_view", field_of_view, float | None)
    check_argument("heading", heading, Heading | None)
    read = check_config(config) if isinstance(config, TrainConfig) else load_preset(str(config), settings)
    return loop.train(
        limit_field(read, field_of_view, heading),
        _pairs(data, read_training_set),
        Path(out),
        validation=None if validation is None else _pairs(validation, read_test_set),
        track=track,
        listener=listener,
    )


def export_onnx(
    checkpoint: Path | str, out: Path | str, *, raw_tiles: int | None = None, track: Track = untracked
) -> Bundle:
    """Export both branches of a checkpoint to float32 ONNX files, compared with PyTorch. Needs `train` and `export`.

    Parameters
    ----------
    checkpoint
        A checkpoint of this toolkit, a safetensors file.
    out
        The bundle's folder, new or empty.
    raw_tiles
        The side of square tiles, in pixels, that the aerial graph takes; it then applies the polar transform itself.
        None leaves the transform to preprocessing.
    track
        Receives the progress.

    Returns
    -------
    Bundle
        The opened bundle. Its graphs take raw pixels, uint8 [B, H, W, 3], and return unit descriptors, float32 [B, D].

    Raises
    ------
    CheckpointError
        The file is no checkpoint, or another model's.
    OutputExists
        `out` holds something.

    Examples
    --------
    >>> from geodtr import export_onnx
    >>> export_onnx("model.safetensors", "onnx").manifest.precision
    'fp32'
    """
    from geodtr.export.build.source import export_checkpoint

    check_argument("checkpoint", checkpoint, Path)
    check_argument("raw_tiles", raw_tiles, int | None, 1)
    return export_checkpoint(Path(checkpoint), Path(out), raw_tiles=raw_tiles, track=track)


@naming_extras()
def compare(
    reference: "Model | Bundle | Path | str",
    candidates: "Model | Bundle | Path | str | Sequence[Model | Bundle | Path | str]",
    data: "PairSet | str",
    *,
    gates: "Gates | None" = None,
    views: "Views | None" = None,
    stages: bool = True,
    layers: bool = False,
    track: Track = untracked,
) -> "ParityResult":
    """Measure engines against a reference model on the same pairs, and judge each of them.

    Parameters
    ----------
    reference
        A checkpoint, a run's folder or a bundle.
    candidates
        Bundles made from the reference's checkpoint, or one.
    data
        A data set as `KIND:PATH`, or one that was read.
    gates
        The acceptance thresholds; None for the default of each precision.
    views
        What the models get of the data's full panoramas, `geodtr.training.data.views.Views`; None for all of them.
    stages
        Run the ONNX files between the reference and the engine as well, so that a loss is traced to its step.
    layers
        Compare the ONNX files node by node.
    track
        Receives the progress.

    Returns
    -------
    ParityResult
        `verdict` is `passed`, `failed` or `undecided`; `figures` holds recall at K, cosines and rank changes.

    Raises
    ------
    ConfigError
        An argument has a value that is not allowed; the message names those that are.
    BundleError
        A candidate is no bundle, or was made from another checkpoint.
    DataError
        Fewer than two pairs can be read.
    MissingDependency
        A checkpoint is compared without the extra `train`, or exported for `stages` without `export`.

    Examples
    --------
    >>> from geodtr import compare
    >>> compare("bundle", ["bundle"], "pairs:world", stages=False).verdict
    'passed'
    """
    from geodtr.export.model import Model, open_model
    from geodtr.export.parity import Gates
    from geodtr.export.parity import compare as compare_models
    from geodtr.training.data.spec import read_test_set
    from geodtr.training.data.views import Views

    def model(named: Model | Bundle | Path | str) -> Model:
        check_argument("a model", named, Model | Bundle | Path)
        return (
            named if isinstance(named, Model) else open_model(named.path if isinstance(named, Bundle) else Path(named))
        )

    check_argument("gates", gates, Gates | None)
    check_argument("views", views, Views | None)
    check_argument("stages", stages, bool)
    check_argument("layers", layers, bool)
    each_of = [candidates] if isinstance(candidates, Model | Bundle | Path | str) else candidates
    return compare_models(
        model(reference),
        [model(each) for each in each_of],
        _pairs(data, read_test_set) if views is None else _pairs(data, read_test_set).seen(views),
        gates=Gates() if gates is None else gates,
        stages=stages,
        layers=layers,
        track=track,
    )


def _tiles(source: TileSource | Path | str, options: Options | None, track: Track) -> TileSource:
    from geodtr.training.data.references import open_references
    from geodtr.training.data.spec import is_spec

    check_argument("options", options, Options | None)
    if not isinstance(source, str | Path):
        if not hasattr(source, "name"):  # the protocol alone is no check
            check_argument("source", source, Path)
        return source
    if is_spec(str(source)):
        return open_references(str(source), options)[0]
    return open_source(Path(source), options, track=track)


def _opened(bundle: Bundle | Path | str) -> Bundle:
    check_argument("bundle", bundle, Bundle | Path)
    return bundle if isinstance(bundle, Bundle) else open_bundle(Path(bundle))


def _pairs(data: "PairSet | str", read: "Callable[[str], PairSet]") -> "PairSet":
    from geodtr.training.data.pair_set import PairSet

    check_argument("data", data, PairSet | str)
    return read(data) if isinstance(data, str) else data
