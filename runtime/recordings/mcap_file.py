"""MCAP files that are not trusted, record by record: their topics, and one topic's messages as bytes.

A file that breaks off, as one whose recorder was killed does, is read up to there. The package `mcap` parses records;
sizes are bounded here, because it allocates what a file asks for. Source: mcap.dev/spec.
"""

import zlib
from collections.abc import Iterator, Mapping, Set
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

from mcap.reader import SeekingReader
from mcap.records import Channel, Chunk, DataEnd, Message, Schema
from mcap.stream_reader import StreamReader
from mcap.summary import Summary
from mcap.writer import MCAP0_MAGIC

from geodtr.runtime.errors import DataError
from geodtr.runtime.files import check_file, readable
from geodtr.runtime.recordings.parts import FIRST, Part
from geodtr.runtime.recordings.topic import MAX_BYTES, Raw, Topic, too_large, unzipped, why_of

_FOOTER = 8 + 1 + 8 + 8 + 8 + 4
"""Bytes from the footer's start to the end of the file: the record, and the magic bytes behind it."""


class McapFile:
    """A file's topics and messages; it is opened for each question."""

    def __init__(self, path: Path) -> None:
        """Raise DataError where there is no such file, or it is no MCAP."""
        check_file(path, DataError)
        self._path = path
        with _opened(path) as stream:
            self._summary = _summary_of(stream)

    def topics(self) -> list[Topic]:
        """All topics, and how many messages each has."""
        summary = self._summary
        if summary is not None and summary.statistics is not None and summary.channels:
            counts = summary.statistics.channel_message_counts
            schemas = summary.schemas
            return [_topic(each, schemas, counts.get(each.id, 0)) for each in summary.channels.values()]
        # The recorder was killed, or wrote no summary: what there is only the records tell.
        schemas, channels, counts = dict[int, Schema](), dict[int, Channel](), dict[int, int]()
        try:
            for record in self._records():
                if isinstance(record, Schema):
                    schemas[record.id] = record
                elif isinstance(record, Channel):
                    channels[record.id] = record
                elif isinstance(record, Message):
                    counts[record.channel_id] = counts.get(record.channel_id, 0) + 1
        except DataError:
            if not channels:
                raise
        return [_topic(channel, schemas, counts.get(channel.id, 0)) for channel in channels.values()]

    def parts(self, topic: str) -> list[Part]:
        """The chunks that have messages of a topic; where the file has no index of them, all of it as one part."""
        summary = self._summary
        indexes = [] if summary is None else summary.chunk_indexes
        if summary is None or not indexes or not all(index.message_index_offsets for index in indexes):
            return [Part(self._path, FIRST, lambda: self._messages(topic))]
        ours = {channel.id for channel in summary.channels.values() if channel.topic == topic}
        return [
            Part(self._path, index.message_start_time, partial(self._messages_of, index.chunk_start_offset, ours))
            for index in indexes
            if ours & set(index.message_index_offsets)
        ]

    def _messages(self, topic: str) -> Iterator[Raw]:
        """A topic's messages in the file's order. Raises DataError where the file breaks off, after those before."""
        ours = set[int]()
        for record in self._records():
            if isinstance(record, Channel) and record.topic == topic:
                ours.add(record.id)
            elif isinstance(record, Message) and record.channel_id in ours:
                yield Raw(record.log_time, record.data)

    def _messages_of(self, offset: int, ours: Set[int]) -> Iterator[Raw]:
        """The messages of some channels in the chunk at `offset`, in time. Raises DataError where it is damaged, after
        those that can be read.
        """
        messages, damage = list[Raw](), None
        try:
            with _opened(self._path) as stream:
                stream.seek(min(offset, stream.size))
                chunk = next(_records_of(stream), None)
            if not isinstance(chunk, Chunk):
                raise DataError(f"{self._path} has an index that is damaged. Mend the file: mcap recover")
            for record in self._inside(chunk):
                if isinstance(record, Message) and record.channel_id in ours:
                    messages.append(Raw(record.log_time, record.data))
        except DataError as error:
            damage = error
        yield from sorted(messages, key=lambda raw: raw.time)
        if damage is not None:
            raise damage

    def _records(self) -> Iterator[Any]:
        """Schemas, channels and messages, in the file's order."""
        with _opened(self._path) as stream:
            for record in _records_of(stream, magic=True):
                if isinstance(record, DataEnd):
                    return
                if isinstance(record, Chunk):
                    yield from self._inside(record)
                else:
                    yield record

    def _inside(self, chunk: Chunk) -> Iterator[Any]:
        """A chunk's records."""
        data = self._unpacked(chunk)
        inside = _Bounded(BytesIO(data), self._path, len(data))
        records = _records_of(inside)
        while inside.left and (record := next(records, None)) is not None:
            yield record

    def _unpacked(self, chunk: Chunk) -> bytes:
        """A chunk's records. Raises DataError for one that is too large or damaged."""
        if chunk.uncompressed_size > MAX_BYTES:
            raise too_large(self._path, "a chunk", chunk.uncompressed_size)
        data = unzipped(self._path, chunk.data, chunk.compression)
        if len(data) != chunk.uncompressed_size or (
            chunk.uncompressed_crc and zlib.crc32(data) != chunk.uncompressed_crc
        ):
            begin, end = (f"{time / 1e9:.3f}" for time in (chunk.message_start_time, chunk.message_end_time))
            raise DataError(
                f"{self._path}: the chunk with the messages from {begin} to {end} s is not as it was written: it was "
                "damaged. Copy the file again."
            )
        return data


def _topic(channel: Channel, schemas: Mapping[int, Schema], count: int) -> Topic:
    schema = schemas.get(channel.schema_id)
    return Topic(channel.topic, "" if schema is None else schema.name, channel.message_encoding, count)


def _summary_of(stream: "_Bounded") -> Summary | None:
    """The summary at the end of a whole file; None where there is none, or it cannot be read."""
    _check_magic(stream)
    if stream.size < _FOOTER:
        return None
    try:
        return SeekingReader(stream, record_size_limit=MAX_BYTES).get_summary()  # type: ignore[arg-type] # as it reads
    except Exception:  # of a file that was cut or damaged it raises errors of many types
        return None


def _check_magic(stream: "_Bounded") -> None:
    stream.seek(0)
    if stream.size < len(MCAP0_MAGIC) or stream.read(len(MCAP0_MAGIC)) != MCAP0_MAGIC:
        raise DataError(f"{stream.path} is not an MCAP file: it does not begin as one. Check the path.")
    stream.seek(0)


def _records_of(stream: "_Bounded", *, magic: bool = False) -> Iterator[Any]:
    """The records of a stream. Raises DataError where it breaks off or is damaged."""
    reader = StreamReader(
        stream,  # type: ignore[arg-type] # of a file, it only reads
        skip_magic=not magic,
        emit_chunks=True,
        record_size_limit=MAX_BYTES,
    )
    try:
        yield from reader.records
    except DataError:
        raise
    except Exception as error:  # of a damaged file it raises errors of many types
        raise DataError(
            f"{stream.path} cannot be read beyond byte {stream.position:,} ({why_of(error)}): truncated or corrupt. "
            "Copy it again, or mend it: mcap recover"
        ) from None


class _Bounded:
    """A file whose reads give all that was asked for, or raise: nothing is allocated for what is not there."""

    def __init__(self, file: BinaryIO, path: Path, size: int) -> None:
        self.path, self._file, self.size = path, file, size
        self.position = 0

    @property
    def left(self) -> int:
        return self.size - self.position

    def read(self, count: int) -> bytes:
        data = self._file.read(count) if count <= self.left else b""
        if len(data) < count:
            raise DataError(
                f"{self.path} breaks off: it asks for {count:,} bytes where {max(self.left, 0):,} are left. It is "
                "truncated or corrupt. Copy it again, or mend it: mcap recover"
            )
        self.position += count
        return data

    def seek(self, offset: int, whence: int = 0) -> int:
        self.position = self._file.seek(offset, whence)
        return self.position

    def tell(self) -> int:
        return self.position

    def seekable(self) -> bool:
        return True

    def __enter__(self) -> "_Bounded":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


def _opened(path: Path) -> _Bounded:
    with readable(DataError, path):
        return _Bounded(path.open("rb"), path, path.stat().st_size)
