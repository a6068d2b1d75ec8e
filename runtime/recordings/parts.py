"""The parts of a recording, files and the chunks of files, and a topic's messages over all of them in time.

Each part is read for itself: where one is damaged, the others give their messages all the same.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from heapq import heappop, heappush
from pathlib import Path

from geodtr.runtime.errors import DataError
from geodtr.runtime.recordings.topic import Raw

FIRST, LAST = -1, 1 << 64
"""Starts of parts that do not say when they begin."""


@dataclass(frozen=True, slots=True)
class Part:
    """A topic's messages in one part.

    Attributes
    ----------
    path
        The file.
    start
        No message is earlier, in nanoseconds.
    messages
        Open the part, and read its messages in the order of their times. A message that cannot be read is a DataError
        in its place; one that is raised ends the part.
    """

    path: Path
    start: int
    messages: Callable[[], Iterator[Raw | DataError]]


def in_time(parts: Iterable[Part]) -> Iterator[tuple[Path, Raw | DataError]]:
    """The messages of all parts, and the errors of those that are damaged, each with its file, in the order of their
    times. A part is opened when its time has come, so that no more are in memory than overlap.
    """
    waiting = deque(sorted(parts, key=lambda part: part.start))
    opened = list[tuple[int, int, Path, Raw | DataError, Iterator[Raw | DataError]]]()  # the next one of each, a heap

    def take(number: int, path: Path, stream: Iterator[Raw | DataError], time: int) -> None:
        try:
            item = next(stream, None)
        except DataError as error:
            item = error
        if item is not None:
            heappush(opened, (item.time if isinstance(item, Raw) else time, number, path, item, stream))

    number = 0
    while opened or waiting:
        while waiting and (not opened or waiting[0].start <= opened[0][0]):
            part = waiting.popleft()
            take(number, part.path, part.messages(), part.start)
            number += 1
        if opened:
            time, place, path, item, stream = heappop(opened)
            yield path, item
            take(place, path, stream, time)
