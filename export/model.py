"""The command line's MODEL: a checkpoint (PyTorch float32) or a bundle of engines."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from geodtr.runtime.bundle import Bundle, open_bundle
from geodtr.runtime.engines.base import DEFAULT_OPTIONS, EngineOptions
from geodtr.runtime.errors import CheckpointError
from geodtr.runtime.manifest import FILE_NAME
from geodtr.runtime.names import Branch, Precision
from geodtr.runtime.spec import Embedder, EmbedderPair
from geodtr.training.run_files import find_checkpoint, resolve_checkpoint


@dataclass(frozen=True, slots=True)
class Model:
    """Both branches ready to run. `name` is for tables: a bundle's folder, or PyTorch; `bytes` is the files' size.

    `runs_by` is the backend, with ONNX Runtime's provider where that is not the CPU, or torch. `trained_on` is the SPEC
    of the training set; None where the model does not record it. `tolerance`: the tolerance in points of R@1 of the
    search that chose its blocks; None without a search. `bundle`: None for a checkpoint.
    """

    path: Path
    name: str
    runs_by: str
    precision: Precision
    embedders: EmbedderPair
    embedding_id: str
    bytes: int
    trained_on: str | None
    tolerance: float | None = None
    bundle: Bundle | None = None


def distinct_names(models: Sequence[Model]) -> list[str]:
    """The name of each model, with as many parent folders as make it unique."""
    names = [model.name for model in models]
    folders = [model.path.resolve().parts for model in models]
    for depth in range(2, max(map(len, folders)) + 1):
        alike = {name for name in names if names.count(name) > 1}
        names = [
            str(Path(*parts[-depth:])) if name in alike else name for name, parts in zip(names, folders, strict=True)
        ]
    return names


def is_bundle(path: Path) -> bool:
    """Whether a MODEL means a bundle; otherwise it means a checkpoint."""
    return (path / FILE_NAME).is_file()


def check_source(path: Path) -> None:
    """Raise CheckpointError when `path` is neither a checkpoint nor a bundle. Needs no PyTorch."""
    if not is_bundle(path) and path.suffix != ".onnx":  # an ONNX file is refused with its bundle's name
        find_checkpoint(path)


def open_model(path: Path, options: EngineOptions = DEFAULT_OPTIONS) -> Model:
    """Open a bundle folder, a checkpoint file, or a training run's folder. PyTorch runs on a GPU where there is one.

    Raises CheckpointError or BundleError when it is neither, or incomplete. A checkpoint needs the `train` extra.
    """
    if is_bundle(path):
        bundle = open_bundle(path)
        manifest = bundle.manifest
        entry = manifest.quantisation
        return Model(
            path=path,
            name=path.resolve().name,
            runs_by=manifest.backend.runs_by,
            precision=manifest.precision,
            embedders=bundle.embedders(options),
            embedding_id=manifest.embedding_id,
            bytes=bundle.bytes,
            trained_on=manifest.source.trained_on,
            tolerance=None if entry is None or entry.search is None else entry.search.tolerance,
            bundle=bundle,
        )
    if not path.exists():
        raise CheckpointError(
            f"{path} is neither a bundle (a folder with {FILE_NAME}) nor a checkpoint (a .safetensors file). "
            "Check the path."
        )
    import torch

    from geodtr.training.models.checkpoint import load_checkpoint
    from geodtr.training.models.embedder import embedders
    from geodtr.training.parallel.distributed import Ranks

    if options.threads is not None:
        torch.set_num_threads(options.threads)
    checkpoint = load_checkpoint(path)
    checkpoint.model.to(Ranks().device)
    return Model(
        path=path,
        name="PyTorch",
        runs_by="torch",
        precision="fp32",
        embedders=embedders(checkpoint.model),
        embedding_id=checkpoint.embedding_id,
        bytes=resolve_checkpoint(path).stat().st_size,
        trained_on=checkpoint.info.trained_on,
    )


def open_branch(path: Path, branch: Branch, options: EngineOptions = DEFAULT_OPTIONS) -> Embedder:
    """One branch alone: of a bundle, no other engine is loaded. Raises as `open_model` does."""
    return (
        open_bundle(path).embedder(branch, options) if is_bundle(path) else open_model(path, options).embedders[branch]
    )
