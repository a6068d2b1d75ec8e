"""The SQLite files of ROS 2 bags, not trusted: their topics, and one topic's messages as bytes.

Source: rosbag2_storage_sqlite3's tables, the same in all of its versions as far as they are read here.
"""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from geodtr.runtime.errors import DataError
from geodtr.runtime.files.sqlite_file import ForeignFile
from geodtr.runtime.recordings.parts import FIRST, Part
from geodtr.runtime.recordings.topic import MAX_BYTES, Raw, Topic, unzipped_message

_SECONDS = 60.0
"""For a statement; that which orders a topic's messages may read the whole file."""
_MOST = 50_000_000
"""Messages of a topic."""
_COUNTS = "SELECT topic_id, count(*) FROM messages GROUP BY topic_id"
_TOPICS = "SELECT id, name, type, serialization_format FROM topics LIMIT 10000"


class SqliteBag:
    """A file's topics and messages; it is opened for each question."""

    def __init__(self, path: Path) -> None:
        """Raise DataError where there is no such file."""
        self._path = path
        self._open().close()

    def topics(self) -> list[Topic]:
        """All topics, and how many messages each has."""
        with closing(self._open()) as file:
            counts = {row: _whole(count) for row, count in file.rows(_COUNTS)}
            return [
                Topic(str(name), str(kind), str(how), counts.get(row, 0)) for row, name, kind, how in file.rows(_TOPICS)
            ]

    def parts(self, topic: str) -> list[Part]:
        """The file with a topic's messages, as one part."""
        return [Part(self._path, FIRST, lambda: self._messages(topic))]

    def _messages(self, topic: str) -> Iterator[Raw | DataError]:
        """Raises DataError where the file is damaged."""
        with closing(self._open()) as file:
            order = (
                "SELECT messages.id FROM messages JOIN topics ON messages.topic_id = topics.id "
                f"WHERE topics.name = ? ORDER BY messages.timestamp, messages.id LIMIT {_MOST}"
            )
            # First the numbers alone: a statement that yields while frames are localised would run out of time.
            for number in [row for (row,) in file.rows(order, topic)]:
                for time, data in file.rows("SELECT timestamp, data FROM messages WHERE id = ?", number):
                    try:
                        yield self._message(_whole(time), data)
                    except DataError as error:
                        yield error

    def _message(self, time: int, data: object) -> Raw:
        if not isinstance(data, bytes):
            raise DataError(f"{self._path} has a message that is no data: it is damaged. Copy it again.")
        return Raw(time, unzipped_message(self._path, data))

    def _open(self) -> ForeignFile:
        return ForeignFile(self._path, DataError, largest=MAX_BYTES, seconds=_SECONDS)


def _whole(value: object) -> int:
    return value if isinstance(value, int) else 0
