"""Write descriptors to a .npy file, with a table that maps rows to images.

Memory does not grow with the number of images: each row is written as soon as it is computed.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from geodtr.runtime.embed.pipeline import BATCH_SIZE, OnBadFrame, OnDoubt, embed_frames, ignored, stop
from geodtr.runtime.errors import ConfigError, ImageError
from geodtr.runtime.files import check_new_file, new_pair
from geodtr.runtime.files.text_rows import new_csv
from geodtr.runtime.images.frames import Frame, Frames
from geodtr.runtime.images.intake import Intake
from geodtr.runtime.progress import Track, untracked
from geodtr.runtime.spec import Descriptors, Embedder

SUFFIX = ".npy"
COLUMNS = ("row", "name", "time", "left_out")


@dataclass(frozen=True, slots=True)
class Written:
    """What came of embedding into a file: `rows` descriptors in it, `left_out` images that are bad."""

    rows: int
    left_out: int


def table_of(out: Path) -> Path:
    """Where the table of the file of descriptors `out` lies."""
    return out.with_suffix(".csv")


def check_out(out: Path) -> None:
    """Ask before the work: raise ConfigError unless `out` ends in .npy, OutputExists when it or its table is there."""
    check_new_file(out, (SUFFIX,))
    check_new_file(table_of(out))


def embed_to(
    out: Path,
    embedder: Embedder,
    source: Frames,
    *,
    batch_size: int = BATCH_SIZE,
    on_error: OnBadFrame = stop,
    intake: Intake | None = None,
    on_doubt: OnDoubt = ignored,
    track: Track = untracked,
) -> Written:
    """Write the descriptors of `source`, float32 [N, D], to `out`, and a table of row, name and time in seconds.

    The table lists an image that `on_error` skipped without a row number, after the rest of its batch, with the reason.

    Both files are there whole, or neither is; the table is there first. Raises ConfigError when the source has no end,
    ImageError when no image of it could be embedded, and as embed_frames does.
    """
    if source.endless:
        raise ConfigError("A camera has no end, and the file would never be written. Say how many images: --limit N")
    check_out(out)
    rows = left_out = 0
    bad = list[tuple[Frame, ImageError]]()

    def leave_out(frame: Frame, error: ImageError) -> None:
        on_error(frame, error)
        bad.append((frame, error))

    with new_pair(out, table_of(out)) as (numbers, table):
        with _npy_rows(numbers, embedder.spec.descriptor_size) as write, new_csv(table) as lines:
            lines.write(COLUMNS)

            def list_bad() -> int:
                for frame, error in bad:
                    lines.write(("", frame.name, _seconds(frame), str(error)))
                listed = len(bad)
                bad.clear()
                return listed

            for embedded in embed_frames(
                embedder,
                source.frames,
                batch_size=batch_size,
                count=source.count,
                on_error=leave_out,
                intake=intake,
                on_doubt=on_doubt,
                track=track,
            ):
                write(embedded.descriptors)
                for row, each in enumerate(embedded.frames, rows):
                    lines.write((row, each.name, _seconds(each), ""))
                rows += len(embedded.frames)
                left_out += list_bad()
            left_out += list_bad()
        if not rows:
            raise ImageError(f"None of {left_out} images could be embedded: nothing is written.")
    return Written(rows, left_out)


def _seconds(frame: Frame) -> str:
    return "" if frame.time is None else f"{frame.time:.3f}"


@contextmanager
def _npy_rows(path: Path, width: int) -> Iterator[Callable[[Descriptors], None]]:
    """A .npy of float32 [N, width] that grows by what the yielded function is given.

    Source: NEP 1; NumPy's header leaves room to write a larger number of rows in its place.
    """
    written = 0

    with path.open("wb") as file:

        def head() -> None:
            what = {"descr": "<f4", "fortran_order": False, "shape": (written, width)}
            np.lib.format.write_array_header_1_0(file, what)

        def write(rows: Descriptors) -> None:
            nonlocal written
            file.write(np.ascontiguousarray(rows, "<f4").tobytes())
            written += len(rows)

        head()
        yield write
        file.seek(0)
        head()
