"""A camera's newest frames, by OpenCV, which is imported inside the calls.

A thread of its own takes all that the camera gives and keeps none of it, so that the frame that is asked for is the
next one that is taken, however long the last one has kept the caller busy. A camera that falls silent is given up:
nobody waits for it without end.
"""

import time
from collections.abc import Generator
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from threading import Event, Thread

from geodtr.runtime.errors import ImageError
from geodtr.runtime.images.video import Seen, opened, retrieved

STARTING = 15.0
"""Seconds that a camera may take until its first frame."""
PATIENCE = 5.0
"""Seconds that it may take from one frame to the next."""


@dataclass(frozen=True, slots=True)
class _Given:
    seen: Seen
    last: bool = False


def read_camera(index: int, every: int = 1) -> Generator[Seen, None, None]:
    """The camera's next frame whenever one is asked for, of each `every`-th one, without end.

    `name` is `camera:index#number`, where numbers count what the camera gave: those that are missing came while the
    caller was busy. `time` is the clock's, in seconds since 1970-01-01T00:00Z. A camera that cannot be opened, gives no
    more frames, or has given none for PATIENCE, says so in the place of the frame that is missing.
    """
    wanted, stopped = Event(), Event()
    given: SimpleQueue[_Given] = SimpleQueue()
    taking = Thread(target=_take, args=(index, every, wanted, stopped, given), name="camera", daemon=True)
    taking.start()
    patience = STARTING
    try:
        while True:
            wanted.set()
            try:
                one = given.get(timeout=patience)
            except Empty:
                why = f"camera:{index} has given no frame for {patience:g} s: stalled, or lost."
                yield Seen(f"camera:{index}", ImageError(why), None)
                return
            yield one.seen
            if one.last:
                return
            patience = PATIENCE
    finally:
        stopped.set()
        taking.join(timeout=1)  # a camera that hangs keeps its thread, which ends with the process


def _take(index: int, every: int, wanted: Event, stopped: Event, given: SimpleQueue[_Given]) -> None:
    """The thread: decode those frames alone that are wanted."""
    import cv2

    name = f"camera:{index}"
    try:
        with opened(index) as capture:
            if not capture.isOpened():
                why = f"{name} cannot be opened. Is it plugged in, may you read it, does another program hold it?"
                given.put(_Given(Seen(name, ImageError(why), None), last=True))
                return
            number = 0
            while not stopped.is_set() and capture.grab():
                if number % every == 0 and wanted.is_set():
                    wanted.clear()
                    given.put(_Given(retrieved(capture, f"{name}#{number}", time.time())))
                number += 1
            why = f"{name} stopped after {number} frames: unplugged, or lost."
            given.put(_Given(Seen(f"{name}#{number}", ImageError(why), None), last=True))
    except cv2.error as error:
        given.put(_Given(Seen(name, ImageError(f"{name} failed ({error})."), None), last=True))
