"""The ranges file: what was measured on which images of which model; readable, and reused when all of it matches."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np

from geodtr.calibration.activations import Activations, Range, measure_activations
from geodtr.calibration.operators import operators
from geodtr.calibration.select import IMAGES, Pool, at_random, coreset, first, stratified
from geodtr.calibration.thresholds import PERCENTILE, threshold_of
from geodtr.calibration.views import check_view
from geodtr.runtime.bundle import Bundle
from geodtr.runtime.embed.pipeline import embed_files
from geodtr.runtime.errors import UserError
from geodtr.runtime.files import check_writable, sha256, write_bytes
from geodtr.runtime.names import BRANCHES, Branch, Choice, Method
from geodtr.runtime.progress import Track, untracked

SCHEMA = 1


class RangesError(UserError):
    """A ranges file that cannot be used."""


class RangeOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How many images, how they are chosen, and how values make ranges; `percentile` is that method's own."""

    images: int = IMAGES
    choice: Choice = "random"
    seed: int = 0
    method: Method = "minmax"
    percentile: float = PERCENTILE


class ImageEntry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An image that was measured on; `file` is its place below the folder that all images of the branch lie in."""

    file: str
    sha256: str


class BranchRanges(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One branch: of which graph, on which images, with what result (see Activations)."""

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
    """Ranges, the images they are of, and why they were measured anew; None where the file's were reused."""

    ranges: Ranges
    images: dict[Branch, list[Path]]
    why_anew: str | None


def calibrate(
    exported: Bundle,
    pool: Pool,
    options: RangeOptions,
    file: Path | None = None,
    *,
    track: Track = untracked,
) -> Calibrated:
    """Measure both branches of the float32 bundle `exported` on images of `pool`; kept in `file`, if given.

    What `file` holds is reused when model, options, and every image are the same. Raises CalibrationError, ImageError,
    DataError when images are of the other branch, and RangesError when `file` is something else.
    """
    if file is not None:
        check_writable(file)
    why = "nothing was measured yet"
    if file is not None and file.exists():
        held = read_ranges(file)
        difference = _difference(held, exported, pool, options)
        if difference is None:
            return Calibrated(held, {branch: _lying(held, pool, branch) for branch in BRANCHES}, None)
        why = difference
    images = {branch: list(_choose(exported, pool, options, branch, track)) for branch in BRANCHES}
    for branch in BRANCHES:
        check_view(branch, images[branch], exported.manifest.engine(branch).spec.preprocessing)
    measured = {branch: _measure(exported, pool, images[branch], options, branch, track) for branch in BRANCHES}
    ranges = Ranges(data=pool.name, options=options, ground=measured["ground"], aerial=measured["aerial"])
    if file is not None:
        write_bytes(file, msgspec.json.format(msgspec.json.encode(ranges), indent=1) + b"\n")
    return Calibrated(ranges, images, why)


def read_ranges(file: Path) -> Ranges:
    """Read and validate a ranges file. Raises RangesError naming what is wrong."""
    try:
        ranges = msgspec.json.decode(file.read_bytes(), type=Ranges)
    except OSError as error:
        raise RangesError(f"{file} cannot be read ({error.strerror}). Check the path.") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise RangesError(f"{file} is not a ranges file: {error}. Name another file, or remove it yourself.") from None
    if ranges.schema != SCHEMA:
        raise RangesError(
            f"{file} has schema {ranges.schema}; this version reads {SCHEMA}. Remove it, and calibrate again."
        )
    return ranges


def _difference(held: Ranges, exported: Bundle, pool: Pool, options: RangeOptions) -> str | None:
    """What of the file does not match, in words."""
    import onnx

    for name in RangeOptions.__struct_fields__:
        before, now = getattr(held.options, name), getattr(options, name)
        if before != now:
            return f"{name} was {before} and is {now}"
    for branch in BRANCHES:
        engine = exported.manifest.engine(branch)
        if held[branch].graph_sha256 != engine.sha256:
            return f"the {branch} branch is another model's"
        found = operators(onnx.load(str(exported.path / engine.file)))
        if set(held[branch].ranges) != {name for operator in found for name in (operator.reads, operator.writes)}:
            return f"its {branch} ranges are not of all tensors that are quantised"
        if held[branch].pool_sha256 != pool.names_sha256(branch):
            return f"{pool.name} lists other {branch} images than then"
        for path, entry in zip(_lying(held, pool, branch), held[branch].images, strict=True):
            if not path.is_file() or sha256(path) != entry.sha256:
                return f"the image {path} is not what it was"
    return None


def _lying(held: Ranges, pool: Pool, branch: Branch) -> list[Path]:
    """Where the images that were measured on lie now: the same data set may have moved."""
    known = dict(zip(pool.names(branch), pool.images[branch], strict=True))
    return [known.get(entry.file, Path(entry.file)) for entry in held[branch].images]


def _measure(
    exported: Bundle, pool: Pool, images: Sequence[Path], options: RangeOptions, branch: Branch, track: Track
) -> BranchRanges:
    engine = exported.manifest.engine(branch)
    names = dict(zip(pool.images[branch], pool.names(branch), strict=True))
    activations = measure_activations(
        exported.path / engine.file,
        images,
        engine.spec.preprocessing,
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


def _choose(exported: Bundle, pool: Pool, options: RangeOptions, branch: Branch, track: Track) -> Sequence[Path]:
    paths, count, seed = pool.images[branch], options.images, options.seed
    if options.choice == "first":
        return first(paths, count)
    if options.choice == "stratified":
        return stratified(paths, pool.strata[branch], count, seed)
    if options.choice == "coreset" and len(paths) > count:
        described = embed_files(
            exported.embedder(branch), paths, description=f"Describing {branch} images", track=track
        )
        return coreset(paths, described, count)
    return at_random(paths, count, seed)
