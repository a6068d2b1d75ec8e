"""Prepare a data set: preprocess every image once and store it, so that training does not repeat it every epoch.

The same call resumes an interrupted one: images are written durably one by one. The document that makes the folder a
data set comes last.
"""

import hashlib
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec
from PIL import Image, UnidentifiedImageError
from PIL.PngImagePlugin import PngInfo

from geodtr.runtime.errors import ArgumentError, DataError, ImageError, OutputExists
from geodtr.runtime.files import check_new_folder, locked, make_folder, new_file, write_bytes
from geodtr.runtime.images.camera_model import CameraModel, describe_camera, undistort
from geodtr.runtime.images.decode import PREPARED_KEY, decode
from geodtr.runtime.images.preprocess import as_input, describe
from geodtr.runtime.machine import check_threads
from geodtr.runtime.names import BRANCHES, Branch
from geodtr.runtime.prefetch import work_ahead
from geodtr.runtime.progress import Track, untracked
from geodtr.runtime.spec import Correlation, Preprocessing
from geodtr.training.data.pair_set import PairSet, Skipped
from geodtr.training.data.readers.prepared import (
    DOCUMENT,
    UNFINISHED,
    Origin,
    encode_document,
    read_origin,
    read_prepared,
)
from geodtr.training.data.views import View, load_query

# Not compressed: a 122x671 image takes 0.9 ms to read instead of 2.0 at level 1, 2.5 ms to write instead of 5.6, and
# 246 kB instead of 159. Level 1 is faster on a disk that reads less than 80 MB/s.
_PNG_LEVEL = 0


@dataclass(frozen=True, slots=True)
class Prepared:
    """Result of `prepare`: the readable pairs of the source, and the number of images `written` and `reused`.

    `reused` images are from an earlier run. `pair_set.skipped` holds the unreadable files.
    """

    pair_set: PairSet
    written: int
    reused: int


@dataclass(frozen=True, slots=True)
class _Job:
    branch: Branch
    source: Path
    target: Path
    how: Preprocessing
    camera: CameraModel | None
    view: View | None
    scorer: Correlation | None


def prepare(
    out: Path,
    pair_set: PairSet,
    preprocessing: Mapping[Branch, Preprocessing],
    *,
    camera: CameraModel | None = None,
    scorer: Correlation | None = None,
    jobs: int | None = None,
    track: Track = untracked,
) -> Prepared:
    """Write the preprocessed images of `pair_set` into folder `out`, as a `prepared:` data set; of panoramas, what
    is seen of them.

    Images of an earlier call are reused. Unreadable images are left out with their pairs.

    Parameters
    ----------
    camera
        Calibration that ground images are undistorted by, as `localize --undistort` does.
    scorer
        Of the model, where the set has views.
    jobs
        Number of threads, by default one per core.

    Raises
    ------
    OutputExists
        `out` holds something else, another data set, or another preprocessing or camera.
    DataError
        Another process writes `out`.
    ConfigError
        Views are asked for of images from a camera, or such as the model does not take.
    """
    if camera is not None and not pair_set.views.as_they_are:
        raise ArgumentError("camera", "is for images of a camera, and views are cut of full panoramas. Choose one.")
    origin = Origin(
        source=pair_set.name,
        ground=preprocessing["ground"].geometry,
        aerial=preprocessing["aerial"].geometry,
        camera=None if camera is None else describe_camera(camera),
        views=None if pair_set.views.as_they_are else f"{pair_set.views}, seed {pair_set.views.seed}",
    )
    seen = dict.fromkeys((pair.ground, pair.view) for pair in pair_set.pairs)
    work = [
        _Job("ground", path, out / _target("ground", path, view), preprocessing["ground"], camera, view, scorer)
        for path, view in seen
    ]
    work += [
        _Job("aerial", path, out / _target("aerial", path), preprocessing["aerial"], None, None, None)
        for path in pair_set.references
    ]
    # Threads, not processes: decoding, the transform and syncing release the GIL, and threads start at once. On two
    # cores, one thread prepares 111 to 116 images/s, two threads 150 to 192, four no more, two processes 48 to 142.
    check_threads("jobs", jobs)
    threads = jobs or os.cpu_count() or 1
    bad: dict[Path, Skipped] = {}
    written = reused = 0
    with _claimed(out, origin), closing(work_ahead(_write_image, work, threads=threads, ahead=4 * threads)) as results:
        for job, result in track(results, "Preparing images", len(work)):
            try:
                if result.result():
                    written += 1
                else:
                    reused += 1
            except ImageError as error:
                bad[job.source] = Skipped(job.source, str(error))
        readable = pair_set.without(bad.values())
        _check_not_smaller(out, readable)
        write_bytes(out / DOCUMENT, encode_document(origin, readable, _target))
        (out / UNFINISHED).unlink(missing_ok=True)
    return Prepared(readable, written, reused)


def _check_not_smaller(out: Path, pair_set: PairSet) -> None:
    """Raise OutputExists rather than drop pairs from a finished folder, for example by a smaller limit."""
    if (out / DOCUMENT).is_file() and len(before := read_prepared(out)) > len(pair_set):
        raise OutputExists(
            f"{out} is finished with {len(before)} pairs; this call would reduce them to {len(pair_set)}. Choose "
            "another folder, or remove it yourself."
        )


def _write_image(job: _Job) -> bool:
    """Write one image; return False if it exists already. Raises ImageError."""
    note = describe(job.how.geometry)
    if _exists(job.target, note):
        return False
    info = PngInfo()
    info.add_text(PREPARED_KEY, note)
    if job.camera is None:
        pixels = load_query(job.source, job.view, job.how, job.scorer)
    else:
        pixels = as_input(undistort(decode(job.source), job.camera, str(job.source)), job.how)
    image = Image.fromarray(pixels)
    with new_file(job.target) as file:
        image.save(file, "png", compress_level=_PNG_LEVEL, pnginfo=info)
    return True


def _exists(path: Path, note: str) -> bool:
    """Whether an image with this `note` exists. It is complete, because images are written atomically."""
    try:
        with Image.open(path) as image:
            return image.info.get(PREPARED_KEY) == note
    except (OSError, UnidentifiedImageError, SyntaxError, ValueError):
        return False


def _target(branch: Branch, source: Path, view: View | None = None) -> str:
    """The relative path of a prepared image. It depends only on the source path and the view, so that a later run can
    reuse it.
    """
    name = re.sub(r"[^\w.-]", "_", source.stem)[:40]
    made_of = os.fsencode(source) + (b"" if view is None else f"#{view.field_of_view!r},{view.roll!r}".encode())
    return f"{branch}/{name}-{hashlib.sha256(made_of).hexdigest()[:12]}.png"


@contextmanager
def _claimed(out: Path, origin: Origin) -> Iterator[None]:
    """Lock `out` for this process and remove the partial files of a killed one."""
    make_folder(out)
    with locked(out) as lock:
        if lock == "another's":
            raise DataError(f"{out} is being written by another process. Wait for it, or stop it.")
        _remove(out.glob(f".{UNFINISHED}.*"))
        begun = read_origin(out)
        if begun is None:
            check_new_folder(out)
            write_bytes(out / UNFINISHED, msgspec.json.format(msgspec.json.encode(origin), indent=1) + b"\n")
        elif begun != origin:
            raise OutputExists(
                f"{out} holds {_differences(begun, origin)}. Choose another folder, or remove it yourself."
            )
        _remove(out.glob(f".{DOCUMENT}.*"))
        for branch in BRANCHES:
            _remove((out / branch).glob(".*.png.*.png"))
        yield


def _remove(left_over: Iterable[Path]) -> None:
    """Remove the temporary files of a killed write."""
    for path in left_over:
        path.unlink()


def _differences(begun: Origin, wanted: Origin) -> str:
    """Describe how the folder's origin differs from the wanted one."""
    differences = []
    if begun.source != wanted.source:
        differences.append(f"images of {begun.source}, not of {wanted.source}")
    for branch in BRANCHES:
        geometry, other = getattr(begun, branch), getattr(wanted, branch)
        if geometry != other:
            differences.append(f"{branch} images prepared as {describe(geometry)}, not as {describe(other)}")
    if begun.camera != wanted.camera:
        differences.append(f"ground images {_undistorted(begun.camera)}, not {_undistorted(wanted.camera)}")
    if begun.views != wanted.views:
        differences.append(f"panoramas seen {begun.views or 'as they are'}, not {wanted.views or 'as they are'}")
    return "; ".join(differences)


def _undistorted(camera: str | None) -> str:
    return "as they are" if camera is None else f"undistorted by {camera}"
