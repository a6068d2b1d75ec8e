"""What a recording holds: topics, and messages as bytes, in parts, files and the chunks of files, merged in time; and
the bounds of what is read of one.

Each part is read for itself: where one is damaged, the others give their messages all the same.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from heapq import heappop, heappush
from pathlib import Path

from geodtr.runtime.errors import DataError

MAX_BYTES = 512 << 20
"""Of a message, and of a chunk of them: an image of MAX_PIXELS takes 360 MB."""

_ZSTD = b"\x28\xb5\x2f\xfd"


@dataclass(frozen=True, slots=True)
class Topic:
    """A topic's name, its messages' type (`sensor_msgs/msg/Image`), how they are encoded (`cdr`), and their number."""

    name: str
    type: str
    encoding: str
    count: int


@dataclass(frozen=True, slots=True)
class Raw:
    """A message as bytes, and when it was recorded: nanoseconds."""

    time: int
    data: bytes


def too_large(path: Path, what: str, size: int) -> DataError:
    """The error of what is larger than anything that is read."""
    return DataError(f"{path} has {what} of {size:,} bytes; at most {MAX_BYTES:,} are read.")


def unzipped(path: Path, data: bytes, compression: str) -> bytes:
    """Data that was compressed by "zstd" or "lz4", at most MAX_BYTES; "" for what was not. Raises DataError."""
    if not compression:
        return data
    try:
        if compression == "zstd":
            import zstandard

            content = zstandard.ZstdDecompressor().stream_reader(data).read(MAX_BYTES + 1)
        elif compression == "lz4":
            import lz4.frame

            content = lz4.frame.LZ4FrameDecompressor().decompress(data, max_length=MAX_BYTES + 1)
        else:
            raise DataError(f"{path} is compressed by {compression[:20]!r}; allowed: lz4, zstd.")
    except DataError:
        raise
    except Exception as error:  # each has an error of its own
        raise DataError(f"{path} holds data that cannot be decompressed ({error}): damaged. Copy it again.") from None
    if len(content) > MAX_BYTES:
        raise too_large(path, "a message or chunk", len(content))
    return content


def unzipped_message(path: Path, data: bytes) -> bytes:
    """A message of a bag that compresses each by itself: it begins as zstd does, and no other message can."""
    return unzipped(path, data, "zstd" if data.startswith(_ZSTD) else "")


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
