"""A flight's messages as a .tlog, the record that ground stations and pymavlink read: each after its time, 8 bytes,
microseconds since 1970, big-endian.

Knows bytes; knows nothing of what they mean.
"""

import struct
import time
from pathlib import Path

from geodtr.runtime.errors import UserError
from geodtr.runtime.files import GrowingFile, check_new_file

SUFFIX = ".tlog"


def check_tlog(path: Path) -> None:
    """Raise ConfigError when `path` does not end in .tlog, OutputExists when it is taken."""
    check_new_file(path, (SUFFIX,))


class Tlog:
    """A new file that grows by whole messages, each written at once, so that it stays after a crash, too.

    A disk that refuses one ends the record and not the flight: `error` is then the reason.
    """

    def __init__(self, path: Path) -> None:
        """Raises what `check_tlog` does, UserError when the file cannot be made."""
        check_tlog(path)
        self.error: str | None = None
        self._file = GrowingFile(path)

    def write(self, message: bytes) -> None:
        """Add a message, at this moment."""
        if self.error is not None:
            return
        # The last two bits are the link's number to readers.
        record = struct.pack(">Q", int(time.time() * 1e6) & ~3) + message
        try:
            self._file.write(record)
        except UserError as error:
            self.error = str(error)

    def close(self) -> None:
        self._file.close()
