"""A camera's newest frames, read with OpenCV, which is imported inside the calls.

A separate thread grabs every frame and drops it unless one is requested, so a requested frame is always new, regardless
of how long the caller took for the last one. Waiting for a silent camera ends after a timeout.
"""

import time
from collections.abc import Generator, Iterator
from threading import Event

from geodtr.runtime.errors import ImageError
from geodtr.runtime.images.video import Seen, opened, retrieved
from geodtr.runtime.prefetch import BackgroundReader

STARTING = 15.0
"""Timeout for the first frame, in seconds."""
PATIENCE = 5.0
"""Timeout between frames, in seconds."""


def read_camera(index: int, every: int = 1) -> Generator[Seen, None, None]:
    """The camera's next frame at each request, among every `every`-th one, without end.

    `name` is `camera:index#number`; numbers count the camera's frames, so a gap means that the caller was busy. `time`
    is the clock's, in seconds since 1970-01-01T00:00Z. If the camera cannot be opened, stops, or is silent for
    PATIENCE, the last item holds an ImageError in place of the image.
    """
    wanted, stopped = Event(), Event()
    wanted.set()
    frames = BackgroundReader(_frames(index, every, wanted, stopped), "camera")
    patience = STARTING
    try:
        while (seen := frames.next(patience)) is not None:
            yield seen
            patience = PATIENCE
            wanted.set()
    except TimeoutError:
        why = f"camera:{index} has given no frame for {patience:g} s: stalled, or lost."
        yield Seen(f"camera:{index}", ImageError(why), None)
    finally:
        stopped.set()
        frames.join(1)  # a camera that hangs keeps its thread, which ends with the process


def _frames(index: int, every: int, wanted: Event, stopped: Event) -> Iterator[Seen]:
    """Run in the thread: decode only the requested frames."""
    import cv2

    name = f"camera:{index}"
    try:
        with opened(index) as capture:
            if not capture.isOpened():
                why = f"{name} cannot be opened. Is it plugged in, may you read it, does another program hold it?"
                yield Seen(name, ImageError(why), None)
                return
            number = 0
            while not stopped.is_set() and capture.grab():
                if number % every == 0 and wanted.is_set():
                    wanted.clear()
                    yield retrieved(capture, f"{name}#{number}", time.time())
                number += 1
            why = f"{name} stopped after {number} frames: unplugged, or lost."
            yield Seen(f"{name}#{number}", ImageError(why), None)
    except cv2.error as error:
        yield Seen(name, ImageError(f"{name} failed ({error})."), None)
