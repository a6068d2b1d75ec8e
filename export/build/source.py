"""Where a build's float32 graphs come from: a checkpoint that is exported now, or a bundle that was exported before."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from geodtr.export.build.compile import engine_entry
from geodtr.export.graph.checks import check_ours
from geodtr.runtime.build_command import export_command
from geodtr.runtime.bundle import Bundle, open_bundle
from geodtr.runtime.errors import BundleError
from geodtr.runtime.files import check_new_folder, new_folder
from geodtr.runtime.manifest import (
    FILE_NAME,
    BackendEntry,
    EngineEntry,
    Manifest,
    SourceEntry,
    write_manifest,
)
from geodtr.runtime.names import BRANCHES, Branch
from geodtr.runtime.progress import Track, untracked
from geodtr.runtime.spec import BranchSpec

if TYPE_CHECKING:
    from torch import nn


def export_checkpoint(checkpoint: Path, out: Path, *, raw_tiles: int | None = None, track: Track = untracked) -> Bundle:
    """Export both branches of a checkpoint to float32 ONNX files, compared with PyTorch, in a bundle `out`.

    With `raw_tiles`, the aerial graph takes square tiles of that side and polar-transforms them itself. Raises
    CheckpointError, OutputExists, ConfigError when there is no polar transform.
    """
    import onnx

    from geodtr.export.backends.tensorrt.parser import check_operators
    from geodtr.export.graph.checks import check_export
    from geodtr.export.graph.export import export_network
    from geodtr.export.graph.raw_tiles import FromRawTiles, raw_tile_spec
    from geodtr.export.graph.shared_weights import share_weights
    from geodtr.training.models.checkpoint import load_checkpoint
    from geodtr.training.models.embedder import TorchEmbedder, from_pixels

    check_new_folder(out)
    loaded = load_checkpoint(checkpoint)
    specs: dict[Branch, BranchSpec] = dict(loaded.model.specs)
    networks: dict[Branch, nn.Module] = {branch: from_pixels(loaded.model, branch) for branch in BRANCHES}
    if raw_tiles is not None:
        aerial = specs["aerial"]
        specs["aerial"] = raw_tile_spec(aerial, raw_tiles)
        networks["aerial"] = FromRawTiles(loaded.model.branch("aerial"), aerial.preprocessing, raw_tiles)
    with new_folder(out) as folder:
        entries: dict[Branch, EngineEntry] = {}
        for branch in track(BRANCHES, "Exporting to ONNX", len(BRANCHES)):
            file = folder / f"{branch}.onnx"
            onnx.save(export_network(networks[branch], specs[branch].preprocessing), str(file))
            check_operators(onnx.load(str(file)))
        if loaded.model.branch("ground") is loaded.model.branch("aerial"):
            share_weights([folder / f"{branch}.onnx" for branch in BRANCHES])
        for branch in BRANCHES:
            file = folder / f"{branch}.onnx"
            check_export(file, TorchEmbedder(networks[branch], specs[branch]))
            entries[branch] = engine_entry(file, specs[branch])
        manifest = Manifest(
            command=export_command(str(checkpoint), str(out), raw_tiles),
            embedding_id=loaded.embedding_id,
            precision="fp32",
            backend=BackendEntry(name="onnx", version=onnx.__version__),
            ground=entries["ground"],
            aerial=entries["aerial"],
            source=SourceEntry(
                sha256=loaded.sha256,
                origin=loaded.info.origin,
                trained_on=loaded.info.trained_on,
                raw_tiles=raw_tiles,
            ),
        )
        write_manifest(folder, manifest)
    return open_bundle(out)


@contextmanager
def float32_bundle(source: Path, track: Track, scratch: Path | None = None) -> Iterator[Bundle]:
    """The exported form of `source`: itself when it is a float32 bundle, a temporary export when it is a checkpoint, in
    the folder `scratch` or the system's own.

    Raises BundleError for another bundle, GraphError when a bundle's graphs are none of this project's.
    """
    if source.suffix == ".onnx":
        raise BundleError(
            f"{source} is an ONNX file. Name the bundle folder that it lies in, or the checkpoint that it was exported "
            "from."
        )
    if (source / FILE_NAME).is_file():
        bundle = open_bundle(source)
        if bundle.manifest.precision != "fp32":
            raise BundleError(
                f"{source} is {bundle.manifest.precision}; engines are built from float32. Name the "
                "checkpoint, or what `geodtr-export export CKPT --out BUNDLE` made of it; or compile its own graphs "
                "again by --precision same."
            )
        for branch in BRANCHES:
            entry = bundle.manifest.engine(branch)
            check_ours(source / entry.file, entry.spec)
        yield bundle
        return
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        yield export_checkpoint(source, Path(folder) / "onnx", track=track)
