"""From a checkpoint to a bundle: export both branches, type them, build their engines, check what was built."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import numpy as np

import geodtr.export.build.onnxruntime as onnxruntime_backend
from geodtr.calibration.activations import METHOD, Activations, measure_activations
from geodtr.calibration.select import IMAGES, select
from geodtr.export.graph_checks import BATCHES, GraphError
from geodtr.export.int8 import KEEP_COSINE
from geodtr.runtime.bundle import Bundle, open_bundle
from geodtr.runtime.errors import BundleError, ConfigError
from geodtr.runtime.files import check_new_folder, new_folder, sha256
from geodtr.runtime.manifest import (
    FILE_NAME,
    BackendEntry,
    CalibrationEntry,
    EngineEntry,
    Manifest,
    SourceEntry,
    write_manifest,
)
from geodtr.runtime.names import BRANCHES, Branch, Precision
from geodtr.runtime.progress import Track, untracked
from geodtr.runtime.spec import BranchSpec, Embedder
from geodtr.training.data.pair_set import PairSet


def export_checkpoint(checkpoint: Path, out: Path, *, track: Track = untracked) -> Bundle:
    """Export both branches of a checkpoint to float32 ONNX files, compared with PyTorch, in a bundle `out`.

    Raises CheckpointError, OutputExists.
    """
    import onnx

    from geodtr.export.graph_checks import check_export
    from geodtr.export.onnx_graph import export_branch
    from geodtr.training.checkpoint import load_checkpoint
    from geodtr.training.models.embedder import embedders

    check_new_folder(out)
    loaded = load_checkpoint(checkpoint)
    references = embedders(loaded.model)
    with new_folder(out) as folder:
        entries: dict[Branch, EngineEntry] = {}
        for branch in track(BRANCHES, "Exporting to ONNX", len(BRANCHES)):
            file = folder / f"{branch}.onnx"
            onnx.save(export_branch(loaded.model, branch), str(file))
            check_export(file, references[branch])
            entries[branch] = _entry(file, loaded.model.specs[branch])
        manifest = Manifest(
            embedding_id=loaded.embedding_id,
            precision="fp32",
            backend=BackendEntry(name="onnx", version=onnx.__version__),
            ground=entries["ground"],
            aerial=entries["aerial"],
            source=SourceEntry(sha256=loaded.sha256, origin=loaded.info.origin, trained_on=loaded.info.trained_on),
        )
        write_manifest(folder, manifest)
    return open_bundle(out)


def build_engine(
    source: Path,
    out: Path,
    *,
    precision: Precision,
    calibration: PairSet | None = None,
    calibration_images: int = IMAGES,
    keep_cosine: float = KEEP_COSINE,
    track: Track = untracked,
) -> Bundle:
    """Build ONNX Runtime engines of both branches into a bundle `out`, whole or not at all.

    `source` is a checkpoint, or a float32 bundle that was exported from one; `calibration` holds the images that INT8
    ranges are measured on, and `keep_cosine` how closely the INT8 descriptors of the first of them must follow the
    float32 ones (see `to_int8`). Raises ConfigError when INT8 is asked for without them, BundleError when the source
    bundle is not float32, and what reading the source raises.
    """
    check_new_folder(out)
    backend = onnxruntime_backend.backend_entry()
    if precision == "int8" and calibration is None:
        raise ConfigError(
            "INT8 needs images to measure activation ranges on: add --calibration SPEC, for example "
            "--calibration cvusa:PATH#train (200 images are drawn from it)."
        )
    with _float32_bundle(source, track) as exported, new_folder(out) as folder:
        entry = None
        if calibration is not None and precision == "int8":
            entry = _build_int8(exported, calibration, calibration_images, keep_cosine, folder, track)
        else:
            _build_typed(exported, precision, folder, track)
        manifest = msgspec.structs.replace(
            exported.manifest,
            precision=precision,
            backend=backend,
            ground=_engine_entry(folder, exported.manifest.ground),
            aerial=_engine_entry(folder, exported.manifest.aerial),
            calibration=entry,
            parity=(),
        )
        write_manifest(folder, manifest)
        built = open_bundle(folder)
        for branch in BRANCHES:
            check_batch_invariance(built.embedder(branch))
    return open_bundle(out)


def _build_typed(exported: Bundle, precision: Precision, folder: Path, track: Track) -> None:
    for branch in track(BRANCHES, f"Building {precision} engines", len(BRANCHES)):
        file = exported.manifest.engine(branch).file
        onnxruntime_backend.build_typed(exported.path / file, precision, folder / file)


def _build_int8(
    exported: Bundle, calibration: PairSet, count: int, keep_cosine: float, folder: Path, track: Track
) -> CalibrationEntry:
    """Calibrate, then write both INT8 engine files into `folder`."""
    activations: dict[Branch, Activations] = {}
    for branch in BRANCHES:
        engine = exported.manifest.engine(branch)
        images = select(calibration.images(branch), count)
        activations[branch] = measure_activations(
            exported.path / engine.file, images, engine.spec.preprocessing, track=track
        )
    convolutions, kept_float = 0, list[str]()
    for branch in track(BRANCHES, "Building int8 engines", len(BRANCHES)):
        file = exported.manifest.engine(branch).file
        made = onnxruntime_backend.build_int8(exported.path / file, activations[branch], keep_cosine, folder / file)
        convolutions += made.convolutions
        kept_float += [f"{branch}/{name}" for name in made.kept_float]
    return CalibrationEntry(
        data=calibration.name,
        images=activations["ground"].images,
        ground_sha256=activations["ground"].images_sha256,
        aerial_sha256=activations["aerial"].images_sha256,
        method=METHOD,
        keep_cosine=keep_cosine,
        convolutions=convolutions,
        kept_float=tuple(kept_float),
    )


def check_batch_invariance(embedder: Embedder) -> None:
    """Run an engine at batch 1, 2 and 7: rows must be finite, of unit length, and the same whatever their company.

    Needs no reference model. Raises GraphError.
    """
    how = embedder.spec.preprocessing
    images = np.random.default_rng(0).integers(0, 256, (max(BATCHES), how.height, how.width, 3), np.uint8)
    alone = np.concatenate([embedder.embed(image[None]) for image in images])
    if not np.allclose(np.linalg.norm(alone, axis=1), 1, atol=1e-4):
        raise GraphError(f"the {embedder.spec.branch} engine gives rows that are not of unit length")
    for batch in BATCHES:
        cosine = np.sum(embedder.embed(images[:batch]) * alone[:batch], axis=1)
        if not cosine.min() > 0.9999:
            raise GraphError(f"the {embedder.spec.branch} engine gives other rows at batch {batch} than alone")


@contextmanager
def _float32_bundle(source: Path, track: Track) -> Iterator[Bundle]:
    """The exported form of `source`: itself when it is a float32 bundle, a temporary export when it is a checkpoint."""
    if (source / FILE_NAME).is_file():
        bundle = open_bundle(source)
        if bundle.manifest.precision != "fp32":
            raise BundleError(
                f"{source} is an {bundle.manifest.precision} bundle; engines are built from float32. Name the "
                "checkpoint, or what `geodtr-export export CKPT --out BUNDLE` made of it."
            )
        yield bundle
        return
    with tempfile.TemporaryDirectory() as folder:
        yield export_checkpoint(source, Path(folder) / "onnx", track=track)


def _engine_entry(folder: Path, exported: EngineEntry) -> EngineEntry:
    """The entry of an engine file in `folder`, which has the name and boundary of the `exported` one."""
    return _entry(folder / exported.file, exported.spec)


def _entry(file: Path, spec: BranchSpec) -> EngineEntry:
    return EngineEntry(spec=spec, file=file.name, bytes=file.stat().st_size, sha256=sha256(file))
