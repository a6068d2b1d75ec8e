"""Where the frames of the live view come from: a camera, a video at its own pace, or a folder that grows; with odometry
as a track.

A thread answers one frame after the other through the batcher, ahead of what clients ask.
"""

import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Event, Thread

from geodtr.runtime.errors import ConfigError, ImageError, UserError
from geodtr.runtime.gallery.base import Gallery
from geodtr.runtime.geodesy import Near
from geodtr.runtime.images.decode import SUFFIXES
from geodtr.runtime.images.frames import Frame, decode_frame
from geodtr.runtime.localization.result import Localisation
from geodtr.runtime.localization.waypoint import Waypoint
from geodtr.runtime.serve.batching import Batcher, Overloaded, SearchOptions
from geodtr.runtime.serve.current import Current, Replacing
from geodtr.runtime.serve.live import Live
from geodtr.runtime.serve.replies import FrameEvent, Reply
from geodtr.runtime.tracking.filter import TrackOptions
from geodtr.runtime.tracking.run import track_moments
from geodtr.runtime.tracking.synchronize import Moment

LOOK = 0.5
"""Seconds between two looks at a folder; a file counts when two find it the same."""
AGAIN = 5.0
"""Seconds until a source that was lost is opened again."""
_HEAT = 256
_ENDING = 10.0

OpenFrames = Callable[[Event], Iterable[Frame]]


@dataclass(frozen=True, slots=True)
class Sourced:
    """A source: `name` for people, `frames` opens it until an event is set. Viewers read the frames' names, too.

    `moments` joins the frames with odometry, for a track; it is called once, and gets the frames of a source that is
    opened again as well. `again`: open it again after it was lost, while there is odometry. `skip`: a frame that cannot
    be read is left out, where it otherwise ends the source.
    """

    name: str
    frames: OpenFrames
    moments: Callable[[Iterable[Frame]], Iterator[Moment]] | None = None
    near: Near | None = None
    again: bool = False
    skip: bool = False


def paced(frames: Iterable[Frame], stopped: Event) -> Iterator[Frame]:
    """The frames of a video, none before its time."""
    began: float | None = None
    for frame in frames:
        if frame.time is not None:
            began = time.monotonic() - frame.time if began is None else began
            if stopped.wait(max(0.0, began + frame.time - time.monotonic())):
                return
        yield frame


def watched(folder: Path, stopped: Event) -> Iterator[Frame]:
    """The images of a folder by name, and each that comes or changes, when it has been written whole.

    Raises ConfigError when the folder is none, or is gone.
    """
    done, seen = set[tuple[str, int, int]](), set[tuple[str, int, int]]()
    while not stopped.is_set():
        now = _images_in(folder)
        done &= now
        for image in sorted((now & seen) - done):
            done.add(image)
            yield Frame(image[0], folder / image[0])
        seen = now
        stopped.wait(LOOK)


def _images_in(folder: Path) -> set[tuple[str, int, int]]:
    images = set[tuple[str, int, int]]()
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if Path(entry.name).suffix.lower() not in SUFFIXES or not entry.is_file(follow_symlinks=False):
                    continue
                with suppress(FileNotFoundError):
                    held = entry.stat(follow_symlinks=False)
                    images.add((entry.name, held.st_mtime_ns, held.st_size))
    except OSError as error:
        raise ConfigError(f"{folder} cannot be watched ({error.strerror}). Name a folder of images.") from None
    return images


class Source:
    """The thread of one source. `start` it when the server is ready; closing waits for the frame that it is at."""

    def __init__(
        self, sourced: Sourced, current: Current, batcher: Batcher, live: Live, report: Callable[[str], object]
    ) -> None:
        self._sourced, self._live, self._report = sourced, live, report
        self._served = _Served(current, batcher, live)
        self._frames: Iterator[Frame] = iter(())  # of the source as it was opened last
        self._moments: Iterator[Moment] | None = None
        self._over = False
        if sourced.moments is not None:
            self._served.require_positions("a track")
            self._moments = self._joined(sourced.moments(iter(lambda: next(self._frames, None), None)))
        self._stopped = Event()
        self._thread = Thread(target=self._run, name="source", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        self._stopped.set()
        if self._thread.ident is not None:
            self._thread.join(_ENDING)  # a camera that hangs keeps its thread, which ends with the process

    def _run(self) -> None:
        name, last = self._sourced.name, ""
        while True:
            self._live.tell_source(name, "starting")
            try:
                self._play()
                message, lost = f"{name} has ended.", False
            except Overloaded:
                return  # the server ends
            except UserError as error:
                message, lost = str(error), True
            except Exception as error:  # a bug must not end the view without a word
                message, lost = f"{name} failed ({type(error).__name__}: {error}).", True
            if self._stopped.is_set():
                return
            again = self._sourced.again and not self._over
            self._live.tell_source(name, "lost" if lost else "ended", message)
            if message != last:
                self._report(f"{message} It is tried again every {AGAIN:g} s." if again else message)
                last = message
            if not again or self._stopped.wait(AGAIN):
                return

    def _play(self) -> None:
        sourced = self._sourced
        self._frames = self._opened(sourced.frames(self._stopped))
        if self._moments is None:
            for frame in self._frames:
                try:
                    self._show(self._served.locate(frame, near=sourced.near).waypoint, located=True)
                except (ImageError, Replacing) as error:
                    self._leave_out(frame, error)
            return
        for tracked in track_moments(
            self._served, self._moments, TrackOptions(), near=sourced.near, on_error=self._leave_out
        ):
            self._show(tracked.waypoint, located=tracked.located is not None)
            if self._stopped.is_set():
                return

    def _joined(self, moments: Iterator[Moment]) -> Iterator[Moment]:
        try:
            yield from moments
        finally:
            self._over = True

    def _opened(self, frames: Iterable[Frame]) -> Iterator[Frame]:
        running = False
        for frame in frames:
            if self._stopped.is_set():
                return
            if not running and not isinstance(frame.image, ImageError):
                running = True
                self._live.tell_source(self._sourced.name, "running")
            yield frame

    def _leave_out(self, frame: Frame, error: UserError) -> None:
        if not self._sourced.skip and isinstance(frame.image, ImageError):
            raise error
        self._report(f"Left out: {error}")

    def _show(self, waypoint: Waypoint, *, located: bool) -> None:
        number, picture, answer = self._served.last if located else (self._served.number, None, None)
        self._live.show(
            FrameEvent(
                number=number,
                image=waypoint.image,
                time_s=waypoint.time_s,
                state=waypoint.state,
                lat=waypoint.lat,
                lon=waypoint.lon,
                heading=waypoint.heading,
                within_68_m=waypoint.within_68_m,
                within_95_m=waypoint.within_95_m,
                frame=picture,
                answer=answer,
            )
        )


class _Served:
    """What a track needs of a localizer, answered through the batcher; `last` is the number, the picture and the answer
    of the latest frame.
    """

    def __init__(self, current: Current, batcher: Batcher, live: Live) -> None:
        self._current, self._batcher, self._live = current, batcher, live
        self.number = 0
        self.last: tuple[int, str | None, Reply | None] = (0, None, None)

    @property
    def gallery(self) -> Gallery:
        return self._current().localizer.gallery

    def require_positions(self, what: str) -> None:
        self._current().localizer.require_positions(what)

    def locate(self, image: Frame, top: int = 5, *, near: Near | None = None) -> Localisation:
        decoded = decode_frame(image)
        self.number += 1
        picture = self._live.keep(self.number, decoded.image)
        located, reply = self._batcher.locate(image, decoded, SearchOptions(self._live.top, near, max(_HEAT, top)))
        self.last = self.number, picture, reply
        return replace(located, candidates=located.candidates[:top])
