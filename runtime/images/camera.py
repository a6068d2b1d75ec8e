"""A camera's newest frames, by OpenCV, which is imported inside the calls.

A thread of its own takes all that the camera gives and keeps none of it, so that the frame that is asked for is the
next one that is taken, however long the last one has kept the caller busy. A camera that falls silent is given up:
nobody waits for it without end.
"""

import time
from collections.abc import Generator, Iterator
from threading import Event

from geodtr.runtime.errors import ImageError
from geodtr.runtime.images.video import Seen, opened, retrieved
from geodtr.runtime.prefetch import BackgroundReader

STARTING = 15.0
"""Seconds that a camera may take until its first frame."""
PATIENCE = 5.0
"""Seconds that it may take from one frame to the next."""


def read_camera(index: int, every: int = 1) -> Generator[Seen, None, None]:
    """The camera's next frame whenever one is asked for, of each `every`-th one, without end.

    `name` is `camera:index#number`, where numbers count what the camera gave: those that are missing came while the
    caller was busy. `time` is the clock's, in seconds since 1970-01-01T00:00Z. A camera that cannot be opened, gives no
    more frames, or has given none for PATIENCE, says so in the place of the frame that is missing.
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
    """For the thread: decode those frames alone that are wanted."""
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
