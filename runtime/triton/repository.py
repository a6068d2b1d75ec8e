"""A model repository for Triton, of a bundle and a gallery: each branch as a model of its own, and a model that decodes
images, embeds and searches them.

Sources: Triton's model repository and model configuration (model_config.proto); its Python backend.
"""

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from msgspec import Meta

from geodtr.runtime.arguments import check_fields
from geodtr.runtime.bundle import Bundle, open_bundle
from geodtr.runtime.files import check_apart, check_new_folder, new_folder
from geodtr.runtime.gallery.folder.access import held_to_copy
from geodtr.runtime.gallery.location import FolderLocation, GalleryLocation, MilvusLocation
from geodtr.runtime.gallery.manifest import require_space
from geodtr.runtime.gallery.regions import open_undamaged
from geodtr.runtime.gallery.registry import open_gallery
from geodtr.runtime.manifest import FILE_NAME as MANIFEST
from geodtr.runtime.names import BRANCHES, Branch
from geodtr.runtime.progress import Track, untracked
from geodtr.runtime.spec import INPUT, OUTPUT

LOCALIZE = "geodtr_localize"
"""The model that answers images."""
BUNDLE, GALLERY = "bundle", "gallery"
"""Folders beside its model.py."""


@dataclass(frozen=True, slots=True)
class TritonOptions:
    """How Triton serves: the largest batch, how long a request may wait for others in microseconds, and of the answers
    the number of tiles and of headings to search. Raises ConfigError naming a value out of range.
    """

    max_batch: Annotated[int, Meta(ge=1, le=1024)] = 32
    delay_us: Annotated[int, Meta(ge=0, le=10_000_000, description="microseconds")] = 2000
    top: Annotated[int, Meta(ge=1, le=1000)] = 5
    headings: Annotated[int, Meta(ge=1, le=360)] = 1

    def __post_init__(self) -> None:
        check_fields(self)


def write_repository(
    bundle: Path,
    gallery: GalleryLocation | None,
    out: Path,
    options: TritonOptions | None = None,
    *,
    track: Track = untracked,
) -> list[str]:
    """Write the new folder `out`; the names of its models. Without a gallery it has the branches alone.

    A branch is its TensorRT plan where the bundle has one for any batch size, otherwise its ONNX graph. Bundle and
    gallery folder are copied into the repository; a gallery in Milvus stays where it is. Raises OutputExists,
    BundleError and GalleryError for what is damaged, EmbeddingSpaceMismatch.
    """
    options = options or TritonOptions()
    check_apart(out, bundle, *((gallery.path,) if isinstance(gallery, FolderLocation) else ()))
    check_new_folder(out)
    opened = open_bundle(bundle)
    if gallery is not None:
        with open_gallery(gallery) as held:
            manifest = opened.manifest
            require_space(held.name, held.manifest, manifest.embedding_id, manifest.ground.spec.scorer)
    with new_folder(out) as folder:
        for branch in BRANCHES:
            _write_branch(opened, branch, folder / f"geodtr_{branch}", options)
        if gallery is not None:
            _write_localize(opened, gallery, folder / LOCALIZE, options, track)
        return sorted(each.name for each in folder.iterdir())


def _write_branch(bundle: Bundle, branch: Branch, folder: Path, options: TritonOptions) -> None:
    entry, how = bundle.manifest.engine(branch), bundle.manifest.backend.tensorrt
    plan = None
    if bundle.manifest.backend.name == "tensorrt" and how is not None and how.min_batch == 1 and not how.stripped:
        plan = entry.compiled
    version = folder / "1"
    version.mkdir(parents=True)
    shutil.copyfile(bundle.path / (plan or entry).file, version / ("model.onnx" if plan is None else "model.plan"))
    if plan is None and entry.weights is not None:  # Triton looks for them beside each graph
        shutil.copyfile(bundle.path / entry.weights.file, version / entry.weights.file)
    most = options.max_batch if plan is None or how is None else min(options.max_batch, how.max_batch)
    _write_config(
        folder,
        {"backend": "onnxruntime"} if plan is None else {"platform": "tensorrt_plan"},
        most,
        options.delay_us,
        inputs=[(INPUT, "TYPE_UINT8", list(entry.spec.preprocessing.shape), "")],
        outputs=[(OUTPUT, "TYPE_FP32", [entry.spec.descriptor_size], "")],
    )


_MODEL = '''"""Images in, positions out: the model of geodtr, which must be installed in the Python that Triton runs."""

from geodtr.runtime.triton.model import TritonPythonModel

__all__ = ["TritonPythonModel"]
'''


def _copy_gallery(gallery: Path, out: Path, track: Track) -> None:
    """Copy all of a gallery as it is: its calibrations apply to the copy."""
    open_undamaged(gallery, track).close()
    out.mkdir()
    with held_to_copy(gallery) as files:
        for name, source in files.items():
            shutil.copyfile(source, out / name)


def _write_localize(
    bundle: Bundle, gallery: GalleryLocation, folder: Path, options: TritonOptions, track: Track
) -> None:
    version = folder / "1"
    (version / BUNDLE).mkdir(parents=True)
    (version / "model.py").write_text(_MODEL)
    for name in (MANIFEST, *(each.file for each in bundle.manifest.files)):
        shutil.copyfile(bundle.path / name, version / BUNDLE / name)
    if isinstance(gallery, FolderLocation):
        _copy_gallery(gallery.path, version / GALLERY, track)
    file = gallery.file if isinstance(gallery, MilvusLocation) else None
    place = GALLERY if isinstance(gallery, FolderLocation) else str(gallery if file is None else file.absolute())
    _write_config(
        folder,
        {"backend": "python"},
        options.max_batch,
        options.delay_us,
        inputs=[("IMAGE", "TYPE_STRING", [1], ""), ("NEAR", "TYPE_FP64", [3], "optional: true")],
        outputs=[
            ("ANSWER", "TYPE_STRING", [1], ""),
            ("POSITION", "TYPE_FP64", [2], ""),
            ("WITHIN", "TYPE_FP32", [2], ""),
            ("TILE", "TYPE_STRING", [options.top], ""),
            ("SCORE", "TYPE_FP32", [options.top], ""),
        ],
        parameters={
            "gallery": place,
            "top": str(options.top),
            "headings": str(options.headings),
        },
    )


_Tensor = tuple[str, str, list[int], str]
"""Name, type, shape without the batch, and what else its entry has."""


def _write_config(
    folder: Path,
    kind: Mapping[str, str],
    max_batch: int,
    delay_us: int,
    *,
    inputs: list[_Tensor],
    outputs: list[_Tensor],
    parameters: Mapping[str, str] | None = None,
) -> None:
    """config.pbtxt: the text form of model_config.proto's ModelConfig."""
    lines = [f"name: {json.dumps(folder.name)}"]
    lines += [f"{key}: {json.dumps(value)}" for key, value in kind.items()]
    lines.append(f"max_batch_size: {max_batch}")
    for what, tensors in (("input", inputs), ("output", outputs)):
        for name, tensor_type, shape, more in tensors:
            dims = ", ".join(map(str, shape))
            lines.append(
                f"{what} {{ name: {json.dumps(name)} data_type: {tensor_type} dims: [ {dims} ] {more}".rstrip()
            )
            lines[-1] += " }"
    lines.append(f"dynamic_batching {{ max_queue_delay_microseconds: {delay_us} }}")
    if kind.get("backend") == "python":  # it runs where its bundle's backend does
        lines.append("instance_group { count: 1 kind: KIND_CPU }")
    for key, value in (parameters or {}).items():
        lines.append(f"parameters {{ key: {json.dumps(key)} value: {{ string_value: {json.dumps(value)} }} }}")
    (folder / "config.pbtxt").write_text("\n".join(lines) + "\n")
