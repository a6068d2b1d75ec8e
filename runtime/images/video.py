"""Frames of a video file, read with OpenCV, which is imported inside the calls.

Knows OpenCV and pixels; knows nothing of other sources of images.
"""

from collections.abc import Generator
from contextlib import contextmanager, redirect_stderr
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from geodtr.runtime.errors import ImageError, MissingDependency
from geodtr.runtime.installation import install_hint, pip
from geodtr.runtime.spec import Images

if TYPE_CHECKING:
    import cv2

VIDEO_SUFFIXES = frozenset({".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg"})


MAX_PIXELS = 7680 * 4320
"""Pixels of a frame. A decoder holds a dozen frames, of 50 MB each at this size."""


class Seen(NamedTuple):
    """One frame: its name, its pixels (uint8 RGB [h, w, 3]) or why there are none, and its time in seconds."""

    name: str
    image: Images | ImageError
    time: float | None


def check_opencv(what: str = "Videos and cameras need") -> None:
    """Raise MissingDependency, which names `what` needs it, unless OpenCV is installed."""
    try:
        with redirect_stderr(StringIO()):  # NumPy 2 writes a page there about modules that were built for NumPy 1
            import cv2  # noqa: F401 (only to see whether it can be imported)
    except ImportError as error:
        if "multiarray" in str(error):
            older = pip("install 'numpy<2'")
            raise MissingDependency(f"{what} OpenCV, and the one here was built for NumPy 1: {older}") from None
        raise MissingDependency(f"{what} OpenCV, which cannot be imported ({error}): {install_hint('video')}") from None


def read_video(path: Path, every: int = 1) -> Generator[Seen, None, None]:
    """Each `every`-th frame of a file, from the first on; `name` is `path#number`, `time` the file's timestamp.

    If the file cannot be opened, a frame cannot be decoded, or the file ends early, an ImageError takes the place of
    the missing frame. Containers only estimate their length, so one frame in a hundred may be missing.
    """
    import cv2

    if not path.is_file():
        yield Seen(str(path), ImageError(f"{path} does not exist. Check the path, or the list that names it."), None)
        return
    with opened(path) as capture:
        if not capture.isOpened():
            yield Seen(str(path), ImageError(f"{path} cannot be opened as a video: truncated, or not one."), None)
            return
        width, height = (int(capture.get(side)) for side in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT))
        if width * height > MAX_PIXELS:
            why = f"{path} has frames of {width}x{height}; at most {MAX_PIXELS:,} pixels (8K) are decoded. "
            yield Seen(str(path), ImageError(f"{why}Scale it down."), None)
            return
        expected = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
        number = 0
        while capture.grab():
            if number % every == 0:
                moment = capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
                yield retrieved(capture, f"{path}#{number}", moment)
            number += 1
        if number == 0 or expected - number > max(1, expected // 100):
            why = f"{path} breaks off after {number} of {expected} frames: truncated or corrupt. "
            yield Seen(f"{path}#{number}", ImageError(f"{why}Copy or convert it again."), None)


@contextmanager
def opened(source: Path | int | str, *, pipeline: bool = False) -> "Generator[cv2.VideoCapture, None, None]":
    """A capture, released at the end, of a file, a camera, or an address (a GStreamer `pipeline`); check whether it
    opened.

    A file is opened by FFmpeg under its absolute path: FFmpeg takes `http:/host` for an address, and lets a file name
    other files alone, no addresses (its protocol whitelist for files).
    """
    import cv2

    if isinstance(source, Path):
        # GStreamer follows a playlist into the network. It is left out only where it is there, for OpenCV warns on
        # standard error when a backend that was asked for cannot open a file.
        others = cv2.videoio_registry.hasBackend(cv2.CAP_GSTREAMER)
        capture = cv2.VideoCapture(str(source.absolute()), cv2.CAP_FFMPEG if others else cv2.CAP_ANY)
    elif isinstance(source, str):
        capture = cv2.VideoCapture(source, cv2.CAP_GSTREAMER if pipeline else cv2.CAP_FFMPEG)
    else:
        capture = cv2.VideoCapture(source)
    try:
        yield capture
    finally:
        capture.release()


def retrieved(capture: "cv2.VideoCapture", name: str, moment: float) -> Seen:
    """The last grabbed frame, converted from BGR to RGB."""
    import cv2

    there, pixels = capture.retrieve()
    if not there or pixels is None or not pixels.size:  # a damaged file may give a frame of no pixels
        return Seen(name, ImageError(f"{name} cannot be decoded: truncated or corrupt."), moment)
    return Seen(name, np.asarray(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB), np.uint8), moment)
