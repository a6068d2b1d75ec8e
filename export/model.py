"""MODEL: whatever a user names to be run, a checkpoint (PyTorch float32) or a bundle of engines."""

from dataclasses import dataclass
from pathlib import Path

from geodtr.runtime.bundle import open_bundle
from geodtr.runtime.errors import CheckpointError
from geodtr.runtime.manifest import FILE_NAME
from geodtr.runtime.names import Precision
from geodtr.runtime.spec import EmbedderPair


@dataclass(frozen=True, slots=True)
class Model:
    """Both branches ready to run. `name` is for tables: a bundle's folder, or PyTorch; `bytes` is the files' size.

    `trained_on` is the SPEC of the training set; None where the model does not say.
    """

    name: str
    precision: Precision
    embedders: EmbedderPair
    embedding_id: str
    bytes: int
    trained_on: str | None


def open_model(path: Path) -> Model:
    """Open a bundle folder, a checkpoint file, or a training run's folder. PyTorch runs on a GPU where there is one.

    Raises CheckpointError or BundleError when it is neither, or not whole. A checkpoint needs the `train` extra.
    """
    if (path / FILE_NAME).is_file():
        bundle = open_bundle(path)
        manifest = bundle.manifest
        return Model(
            name=path.resolve().name,
            precision=manifest.precision,
            embedders=bundle.embedders(),
            embedding_id=manifest.embedding_id,
            bytes=bundle.bytes,
            trained_on=manifest.source.trained_on,
        )
    if not path.exists():
        raise CheckpointError(
            f"{path} is neither a bundle (a folder with {FILE_NAME}) nor a checkpoint (a .safetensors file). "
            "Check the path."
        )
    from geodtr.training.checkpoint import load_checkpoint, resolve_checkpoint
    from geodtr.training.models.embedder import embedders
    from geodtr.training.ranks import Ranks

    checkpoint = load_checkpoint(path)
    checkpoint.model.to(Ranks().device)
    return Model(
        name="PyTorch",
        precision="fp32",
        embedders=embedders(checkpoint.model),
        embedding_id=checkpoint.embedding_id,
        bytes=resolve_checkpoint(path).stat().st_size,
        trained_on=checkpoint.info.trained_on,
    )
