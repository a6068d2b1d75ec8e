"""A flight's messages as a .tlog, the record that ground stations and pymavlink read: each after its time, 8 bytes,
microseconds since 1970, big-endian.

Knows bytes; knows nothing of what they mean.
"""

import os
import struct
import time
from contextlib import suppress
from pathlib import Path

from geodtr.runtime.errors import UserError
from geodtr.runtime.files import check_new_file, make_folder

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
        make_folder(path.parent)
        self.path = path
        self.error: str | None = None
        self._size = 0
        try:
            self._file: int | None = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        except OSError as error:
            raise UserError(f"{path} cannot be written ({error.strerror}).") from None

    def write(self, message: bytes) -> None:
        """Add a message, at this moment."""
        if self._file is None:
            return
        # The last two bits are the link's number to readers.
        record = struct.pack(">Q", int(time.time() * 1e6) & ~3) + message
        try:
            written = os.write(self._file, record)
            if written < len(record):
                written += os.write(self._file, record[written:])  # raises the reason, where the rest did not fit
            self._size += written
        except OSError as error:
            self.error = f"{self.path} ends here ({error.strerror}); what was written before stays."
            with suppress(OSError):
                os.ftruncate(self._file, self._size)  # without a part of a message
            self.close()

    def close(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None
