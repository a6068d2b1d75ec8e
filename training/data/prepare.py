"""Preparing: every image of a data set preprocessed once and kept, so that training need not do it in every epoch.

Whatever interrupts it, the same call goes on where it stopped: images are written durably one by one, the document that
makes the folder a data set last.
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

from geodtr.runtime.errors import DataError, ImageError, OutputExists
from geodtr.runtime.files import check_new_folder, locked, make_folder, new_file, write_bytes
from geodtr.runtime.images.decode import PREPARED_KEY
from geodtr.runtime.images.preprocess import describe, load_image
from geodtr.runtime.names import BRANCHES, Branch
from geodtr.runtime.prefetch import work_ahead
from geodtr.runtime.progress import Track, untracked
from geodtr.runtime.spec import Preprocessing
from geodtr.training.data.pair_set import PairSet, Skipped
from geodtr.training.data.prepared import DOCUMENT, UNFINISHED, Origin, encode_document, read_origin, read_prepared

# Stored, not deflated: 0.9 ms to read a 122x671 image instead of 2.0 ms at level 1, and 2.5 ms to write instead of 5.6,
# for 246 kB instead of 159. Level 1 would pay on a disk that reads less than 80 MB/s.
_PNG_LEVEL = 0


@dataclass(frozen=True, slots=True)
class Prepared:
    """What `prepare` did: images it `made`, images that it `kept` of an earlier run, and the pairs it was for.

    `pair_set` is what could be read of the source; its `skipped` names what could not.
    """

    pair_set: PairSet
    made: int
    kept: int


@dataclass(frozen=True, slots=True)
class _Job:
    branch: Branch
    source: Path
    target: Path
    how: Preprocessing


def prepare(
    out: Path,
    pair_set: PairSet,
    preprocessing: Mapping[Branch, Preprocessing],
    *,
    jobs: int | None = None,
    track: Track = untracked,
) -> Prepared:
    """Write every image of `pair_set` into folder `out`, preprocessed, and make `out` a `prepared:` data set.

    Images that an earlier call finished are not made again. Images that cannot be read are left out, with their pairs.
    `jobs` threads work at once, one a core by default. Raises OutputExists when `out` holds something else, DataError
    when it holds another data set, another preprocessing, or is being written by another process.
    """
    origin = Origin(
        source=pair_set.name,
        ground=preprocessing["ground"].geometry,
        aerial=preprocessing["aerial"].geometry,
    )
    work = [
        _Job(branch, path, out / _place(branch, path), preprocessing[branch])
        for branch in BRANCHES
        for path in pair_set.images(branch)
    ]
    # Threads, not processes: decoding, the transform and syncing release the interpreter's lock, and nothing has to
    # start up. On two cores one thread made 111 to 116 images/s, two 150 to 192, four no more, two processes 48 to 142.
    threads = jobs or os.cpu_count() or 1
    bad: dict[Path, Skipped] = {}
    made = 0
    with _claimed(out, origin), closing(work_ahead(_make, work, threads=threads, ahead=4 * threads)) as results:
        for job, result in track(results, "Preparing images", len(work)):
            try:
                made += result.result()
            except ImageError as error:
                bad[job.source] = Skipped(job.source, str(error))
        left = pair_set.without(bad.values())
        _refuse_to_shrink(out, left)
        write_bytes(out / DOCUMENT, encode_document(origin, left, _place))
        (out / UNFINISHED).unlink(missing_ok=True)
    return Prepared(left, made, len(work) - len(bad) - made)


def _refuse_to_shrink(out: Path, pair_set: PairSet) -> None:
    """Leave a finished folder as it is rather than drop pairs from it, as a smaller limit would."""
    if (out / DOCUMENT).is_file() and len(before := read_prepared(out)) > len(pair_set):
        raise OutputExists(
            f"{out} is finished with {len(before)} pairs, and this would leave {len(pair_set)}. Name another folder, "
            "or remove it yourself."
        )


def _make(job: _Job) -> bool:
    """Make one image; False where it is there already. Raises ImageError."""
    note = describe(job.how.geometry)
    if _is_made(job.target, note):
        return False
    info = PngInfo()
    info.add_text(PREPARED_KEY, note)
    image = Image.fromarray(load_image(job.source, job.how))
    with new_file(job.target) as file:
        image.save(file, "png", compress_level=_PNG_LEVEL, pnginfo=info)
    return True


def _is_made(path: Path, note: str) -> bool:
    """Whether an image that says `note` is there. It is whole then: images take their place in one step."""
    try:
        with Image.open(path) as image:
            return image.info.get(PREPARED_KEY) == note
    except (OSError, UnidentifiedImageError, SyntaxError, ValueError):
        return False


def _place(branch: Branch, source: Path) -> str:
    """Where an image lies below the folder: by its own path and nothing else, so that a later run finds it again."""
    name = re.sub(r"[^\w.-]", "_", source.stem)[:40]
    return f"{branch}/{name}-{hashlib.sha256(os.fsencode(source)).hexdigest()[:12]}.png"


@contextmanager
def _claimed(out: Path, origin: Origin) -> Iterator[None]:
    """Make `out` ours to write, for one process at a time, and clear away what a killed one left half-written."""
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
                f"{out} holds {_differences(begun, origin)}. Name another folder, or remove it yourself."
            )
        _remove(out.glob(f".{DOCUMENT}.*"))
        for branch in BRANCHES:
            _remove((out / branch).glob(".*.png.*.png"))
        yield


def _remove(left_over: Iterable[Path]) -> None:
    """Remove what a killed write left beside its place."""
    for path in left_over:
        path.unlink()


def _differences(begun: Origin, wanted: Origin) -> str:
    """In words, what of a folder's origin is not what is wanted."""
    found = []
    if begun.source != wanted.source:
        found.append(f"images of {begun.source}, not of {wanted.source}")
    for branch in BRANCHES:
        geometry, other = getattr(begun, branch), getattr(wanted, branch)
        if geometry != other:
            found.append(f"{branch} images prepared as {describe(geometry)}, not as {describe(other)}")
    return "; ".join(found)
