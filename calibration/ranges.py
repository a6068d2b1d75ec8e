"""The ranges file: measured ranges with their model, options and images. Readable; reused when everything matches."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import msgspec
import numpy as np

from geodtr.calibration.activations import Activations, Range, measure_activations
from geodtr.calibration.operators import operators
from geodtr.calibration.select import IMAGES, Pool, at_random, coreset, stratified
from geodtr.calibration.thresholds import PERCENTILE, threshold_of
from geodtr.runtime.bundle import Bundle
from geodtr.runtime.embed.pipeline import BATCH_SIZE, check_finite, in_batches
from geodtr.runtime.errors import DataError, UserError
from geodtr.runtime.files import check_writable, sha256, write_bytes
from geodtr.runtime.files.documents import decode_json, read_document
from geodtr.runtime.images.decode import image_size
from geodtr.runtime.images.intake import doubt_of
from geodtr.runtime.names import BRANCHES, Branch, Choice, Method
from geodtr.runtime.progress import Track, untracked
from geodtr.runtime.spec import Preprocessing

SCHEMA = 1
_SAMPLE = 8
_WIDE = 1.5
"""Aspect ratio (width by height) from which an image is not a tile."""


class RangesError(UserError):
    """A ranges file that cannot be used."""


class RangeOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Number of images, their selection, and the range method; `percentile` applies to that method only."""

    images: int = IMAGES
    choice: Choice = "random"
    seed: int = 0
    method: Method = "minmax"
    percentile: float = PERCENTILE


class ImageEntry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A calibration image; `file` is its path relative to the common folder of the branch's images."""

    file: str
    sha256: str


class BranchRanges(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Results of one branch (see Activations), with its graph and images."""

    graph_sha256: str
    pool_sha256: str
    images: tuple[ImageEntry, ...]
    ranges: dict[str, Range]
    means: dict[str, tuple[float, ...]]

    @property
    def activations(self) -> Activations:
        return Activations(self.ranges, {name: np.array(means) for name, means in self.means.items()})


class Ranges(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Both branches of one model, calibrated on `data`."""

    schema: int = SCHEMA
    data: str
    options: RangeOptions
    ground: BranchRanges
    aerial: BranchRanges

    def __getitem__(self, branch: Branch) -> BranchRanges:
        return self.ground if branch == "ground" else self.aerial


@dataclass(frozen=True, slots=True)
class Calibrated:
    """Ranges and their images, with the `pool` that these are from, and the `reason` for measuring them; None if the
    file was reused. `doubt`: why the ground images, by their first, are none that the model was trained on; None where
    nothing speaks against them, or where the views of panoramas are stated.
    """

    ranges: Ranges
    pool: Pool
    images: dict[Branch, list[Path]]
    reason: str | None
    doubt: str | None


def calibrate(
    exported: Bundle,
    pool: Pool,
    options: RangeOptions,
    file: Path | None = None,
    *,
    track: Track = untracked,
) -> Calibrated:
    """Measure both branches of the float32 bundle `exported` on images of `pool`, and write `file` if given.

    An existing `file` is reused if the model, the options and all images match.

    Raises
    ------
    CalibrationError
        There are no images, or values are not finite.
    ImageError
        An image cannot be read.
    DataError
        The images show the other view.
    RangesError
        `file` is not a ranges file.
    """
    if file is not None:
        check_writable(file)
    reason = "nothing was measured yet"
    if file is not None and file.exists():
        stored = read_ranges(file)
        difference = _difference(stored, exported, pool, options)
        if difference is None:
            images = {branch: _locate(stored, pool, branch) for branch in BRANCHES}
            return Calibrated(stored, pool, images, None, _doubt(exported, pool, images))
        reason = difference
    images = {branch: list(_select(exported, pool, options, branch, track)) for branch in BRANCHES}
    for branch in BRANCHES:
        check_view(branch, images[branch], exported.manifest.engine(branch).spec.preprocessing)
    measured = {branch: _measure(exported, pool, images[branch], options, branch, track) for branch in BRANCHES}
    ranges = Ranges(data=pool.name, options=options, ground=measured["ground"], aerial=measured["aerial"])
    if file is not None:
        write_bytes(file, msgspec.json.format(msgspec.json.encode(ranges), indent=1) + b"\n")
    return Calibrated(ranges, pool, images, reason, _doubt(exported, pool, images))


def read_ranges(file: Path) -> Ranges:
    """Read and validate a ranges file. Raises RangesError when it is invalid."""
    try:
        ranges = decode_json(read_document(file), Ranges)
    except OSError as error:
        raise RangesError(f"{file} cannot be read ({error.strerror}). Check the path.") from None
    except msgspec.DecodeError as error:
        raise RangesError(f"{file} is not a ranges file: {error}. Give another file, or remove it yourself.") from None
    if ranges.schema != SCHEMA:
        raise RangesError(
            f"{file} has schema {ranges.schema}; this version reads {SCHEMA}. Remove the file and calibrate again."
        )
    return ranges


def _difference(stored: Ranges, exported: Bundle, pool: Pool, options: RangeOptions) -> str | None:
    """The first difference between the file and the request, in words; None if they match."""
    import onnx

    for name in RangeOptions.__struct_fields__:
        before, now = getattr(stored.options, name), getattr(options, name)
        if before != now:
            return f"{name} changed from {before} to {now}"
    for branch in BRANCHES:
        engine = exported.manifest.engine(branch)
        if stored[branch].graph_sha256 != engine.sha256:
            return f"the {branch} branch belongs to another model"
        quantisable = operators(onnx.load(str(exported.path / engine.file)))
        tensors = {name for operator in quantisable for name in (operator.reads, operator.writes)}
        if set(stored[branch].ranges) != tensors:
            return f"its {branch} ranges do not cover all quantised tensors"
        if stored[branch].pool_sha256 != pool.names_sha256(branch):
            return f"the list of {branch} images of {pool.name}, or what is seen of them, changed"
        for path, entry in zip(_locate(stored, pool, branch), stored[branch].images, strict=True):
            if not path.is_file() or sha256(path) != entry.sha256:
                return f"the image {path} changed"
    return None


def _locate(stored: Ranges, pool: Pool, branch: Branch) -> list[Path]:
    """Current paths of the measured images; the data set may have moved."""
    known = dict(zip(pool.names(branch), pool.images[branch], strict=True))
    return [known.get(entry.file, Path(entry.file)) for entry in stored[branch].images]


def _measure(
    exported: Bundle, pool: Pool, images: Sequence[Path], options: RangeOptions, branch: Branch, track: Track
) -> BranchRanges:
    engine = exported.manifest.engine(branch)
    names = dict(zip(pool.images[branch], pool.names(branch), strict=True))
    activations = measure_activations(
        exported.path / engine.file,
        images,
        partial(pool.load, engine.spec),
        threshold_of(options.method, options.percentile),
        track=track,
    )
    return BranchRanges(
        graph_sha256=engine.sha256,
        pool_sha256=pool.names_sha256(branch),
        images=tuple(ImageEntry(file=names[path], sha256=sha256(path)) for path in images),
        ranges=activations.ranges,
        means={name: tuple(means.tolist()) for name, means in activations.means.items()},
    )


def _select(exported: Bundle, pool: Pool, options: RangeOptions, branch: Branch, track: Track) -> Sequence[Path]:
    paths, count, seed = pool.images[branch], options.images, options.seed
    if options.choice == "first":
        return paths[:count]
    if options.choice == "stratified":
        return stratified(paths, pool.strata[branch], count, seed)
    if options.choice == "coreset" and len(paths) > count:
        embedder = exported.embedder(branch)
        loaded = in_batches(paths, partial(pool.load, embedder.spec))
        batches = track(loaded, f"Embedding {branch} images", -(-len(paths) // BATCH_SIZE))
        descriptors = np.concatenate([embedder.embed(images) for images in batches])
        check_finite(descriptors, list(map(str, paths)))
        return coreset(paths, descriptors, count)
    return at_random(paths, count, seed)


def _doubt(exported: Bundle, pool: Pool, images: Mapping[Branch, Sequence[Path]]) -> str | None:
    if pool.seen:
        return None
    doubt = doubt_of(images["ground"][0], exported.manifest.engine("ground").spec.preprocessing.imagery)
    return doubt and (
        f"{doubt}. The ranges may not suit what the model sees in use: calibrate on images like those. "
        "`geodtr-export data prepare --rows FROM,TO` cuts panoramas."
    )


def check_view(branch: Branch, paths: Sequence[Path], how: Preprocessing) -> None:
    """Check the sizes of the first images in `paths` against the input of `branch`: preprocessing accepts any shape, so
    swapped views would silently corrupt the ranges.

    Raises DataError when all are square but panoramas are needed, or all are wide but square tiles are needed.
    """
    sizes = [image_size(path) for path in paths[:_SAMPLE]]
    seen = ", ".join(sorted({f"{width}x{height}" for height, width in sizes}))
    if branch == "ground" and how.width >= _WIDE * how.height and all(height == width for height, width in sizes):
        raise DataError(
            f"The images for the ground branch are square ({seen}; first {paths[0]}), like aerial tiles. Name the "
            "folder of panoramas ground/ and the folder of tiles aerial/."
        )
    if branch == "aerial" and how.width == how.height and all(width >= _WIDE * height for height, width in sizes):
        raise DataError(
            f"The images for the aerial branch are wide ({seen}; first {paths[0]}), like panoramas. Name the folder of "
            "panoramas ground/ and the folder of tiles aerial/."
        )
