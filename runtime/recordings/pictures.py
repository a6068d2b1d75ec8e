"""Small pictures of the frames that are localised, kept until a frame's answer comes."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from threading import Lock

import numpy as np
from PIL import Image

from geodtr.runtime.errors import ImageError
from geodtr.runtime.images.decode import decode, encoded
from geodtr.runtime.images.frames import Frame, Frames

SIDE = 640
"""Pixels of the longer side, at most."""


class Pictures:
    """JPEG files by the names of frames. A frame of memory is drawn when it passes, because its pixels are dropped
    after use; a file is read when it is asked for.
    """

    def __init__(self) -> None:
        self._drawn = dict[str, bytes]()
        self._lock = Lock()

    def of(self, frames: Frames) -> Frames:
        """The same frames, each drawn as it passes."""
        return replace(frames, frames=self._passing(frames.frames))

    def take(self, name: str) -> bytes | None:
        """The JPEG of a frame, once; None where it cannot be read. Frames before it have no answer, and are dropped."""
        with self._lock:
            if name in self._drawn:
                while (first := next(iter(self._drawn))) != name:
                    del self._drawn[first]
                return self._drawn.pop(name)
        try:
            return encoded(decode(Path(name)).image, "JPEG", SIDE)
        except ImageError:
            return None

    def _passing(self, frames: Iterator[Frame]) -> Iterator[Frame]:
        for frame in frames:
            if isinstance(frame.image, np.ndarray):
                drawn = encoded(Image.fromarray(frame.image), "JPEG", SIDE)
                with self._lock:
                    self._drawn[frame.name] = drawn
            yield frame
