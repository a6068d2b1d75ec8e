"""The newest frames of a camera, a network stream or a GStreamer pipeline, read with OpenCV inside the calls.

A separate thread grabs every frame and drops it unless one is requested, so a requested frame is always new, regardless
of how long the caller took for the last one. Waiting for a silent camera ends after a timeout.
"""

import os
import re
import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from threading import Event

from geodtr.runtime.errors import ConfigError, ImageError, MissingDependency
from geodtr.runtime.images.video import Seen, check_opencv, opened, retrieved
from geodtr.runtime.prefetch import BackgroundReader

STARTING = 15.0
"""Timeout for the first frame, in seconds."""
PATIENCE = 5.0
"""Timeout between frames, in seconds."""


_INDEX = re.compile(r"camera:(\d{1,3})")
_STREAM = re.compile(r"(rtsps?|udp)://.+", re.DOTALL)
_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)
_PIPELINE = "gst:"
_SECRET = re.compile(r"(?<=://)[^/@]*@")


@dataclass(frozen=True, slots=True)
class Camera:
    """Where frames come from without end: `source` is a device's index, the address of a stream, or a pipeline.

    `name` is what messages and results call it: without the password of an address, and of a pipeline its source.
    """

    name: str
    source: int | str
    pipeline: bool = False


def camera_of(place: str) -> Camera | None:
    """The camera that `camera:INDEX`, an address (rtsp, rtsps, udp) or `gst:PIPELINE` names; None for another place."""
    index = _INDEX.fullmatch(place)
    if index is not None:
        return Camera(place, int(index[1]))
    if _STREAM.fullmatch(place):
        return Camera(_SECRET.sub("", place), place)
    if not place.startswith(_PIPELINE):
        return None
    pipeline = place.removeprefix(_PIPELINE)
    return Camera(_PIPELINE + (pipeline.split() or [""])[0], pipeline, pipeline=True)


def check_place(place: str) -> None:
    """Raise ConfigError for what is no file and no camera, but an address of another kind, or a bare pipeline."""
    if os.path.lexists(place) or camera_of(place) is not None:
        return
    named = _SECRET.sub("", place)
    if _ADDRESS.match(place):
        raise ConfigError(
            f"{named} is an address of another kind than rtsp://, rtsps:// and udp://. Read it by GStreamer, with "
            "gst:PIPELINE, or save it to a file."
        )
    if " ! " in place:
        raise ConfigError(f"{named} is no file. A GStreamer pipeline begins with gst: write 'gst:{named}'.")


def has_gstreamer() -> bool:
    """Whether OpenCV was built with GStreamer; the wheels on PyPI are not."""
    import cv2

    return bool(cv2.videoio_registry.hasBackend(cv2.CAP_GSTREAMER))


def check_camera(camera: Camera) -> None:
    """Raise MissingDependency where OpenCV is not installed, or lacks what the camera needs."""
    check_opencv()
    if camera.pipeline and not has_gstreamer():
        raise MissingDependency(
            f"{camera.name} needs an OpenCV that was built with GStreamer, which pip's is not. Take the system's: "
            "apt-get install python3-opencv, in an environment with --system-site-packages, without the extra video."
        )


def read_camera(camera: Camera, every: int = 1) -> Generator[Seen, None, None]:
    """The camera's next frame at each request, among every `every`-th one, without end.

    `name` is `camera#number`; numbers count the camera's frames, so a gap means that the caller was busy. `time`
    is the clock's, in seconds since 1970-01-01T00:00Z. If the camera cannot be opened, stops, or is silent for
    PATIENCE, the last item holds an ImageError in place of the image.
    """
    wanted, stopped = Event(), Event()
    wanted.set()
    frames = BackgroundReader(_frames(camera, every, wanted, stopped), "camera", stopped.set)
    patience = STARTING
    try:
        while (seen := frames.next(patience)) is not None:
            yield seen
            patience = PATIENCE
            wanted.set()
    except TimeoutError:
        why = f"{camera.name} has given no frame for {patience:g} s: stalled, or lost."
        yield Seen(camera.name, ImageError(why), None)
    finally:
        frames.end()  # a camera that hangs keeps its thread, which ends with the process


def _why(camera: Camera) -> str:
    if camera.pipeline:
        return "Does it run outside of this program, with fakesink for appsink? gst-launch-1.0 PIPELINE"
    if isinstance(camera.source, int):
        return "Is it plugged in, may you read it, does another program hold it?"
    return "Does it send, is it in reach, are the address and the password right?"


def _frames(camera: Camera, every: int, wanted: Event, stopped: Event) -> Iterator[Seen]:
    """Run in the thread: decode only the requested frames."""
    import cv2

    name = camera.name
    try:
        with opened(camera.source, pipeline=camera.pipeline) as capture:
            if not capture.isOpened():
                why = f"{name} cannot be opened. {_why(camera)}"
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
