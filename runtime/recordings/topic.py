"""What a recording holds: topics, and messages as bytes; and the bounds of what is read of one."""

from dataclasses import dataclass
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


def why_of(error: Exception) -> str:
    """The reason that a library gives for damaged data, on one line and not too long."""
    return " ".join(str(error).split())[:120] or type(error).__name__


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
