"""A file that grows by whole records, each readable as soon as it is written.

Knows bytes; knows nothing of what they mean.
"""

import os
from contextlib import suppress
from pathlib import Path

from geodtr.runtime.errors import UserError
from geodtr.runtime.files.writing import make_folder


class GrowingFile:
    """A new file; each record is written at once, so that it stays after a crash, too. One without a record is removed
    in the end.
    """

    def __init__(self, path: Path) -> None:
        """Raises UserError when the file cannot be made, or something is there."""
        make_folder(path.parent)
        self.path = path
        self._size = 0
        try:
            self._file: int | None = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        except OSError as error:
            raise UserError(f"{path} cannot be written ({error.strerror}).") from None

    def write(self, record: bytes) -> None:
        """Add a record whole. Raises UserError when the disk refuses: the file then ends before it, and is closed."""
        if self._file is None:
            raise UserError(f"{self.path} is closed.")
        try:
            written = os.write(self._file, record)
            while written < len(record):
                written += os.write(self._file, record[written:])  # raises the reason, where the rest did not fit
            self._size += written
        except OSError as error:
            with suppress(OSError):
                os.ftruncate(self._file, self._size)  # without a part of a record
            self.close()
            raise UserError(f"{self.path} ends here ({error.strerror}); what was written before stays.") from None

    def close(self) -> None:
        if self._file is None:
            return
        if not self._size:
            with suppress(OSError):  # it was removed meanwhile, or its folder is closed to us
                if os.path.samestat(os.fstat(self._file), self.path.lstat()):
                    self.path.unlink()
        os.close(self._file)
        self._file = None
