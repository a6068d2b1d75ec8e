"""A SQLite file that somebody else made, opened to be read and not to be trusted: it may hold views that never end,
values of gigabytes, and statements that reach other files.
"""

import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from geodtr.runtime.errors import UserError
from geodtr.runtime.files import check_file, readable

_ALLOWED = frozenset({sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION})
"""All that a statement may do; recursion, pragmas and other files are refused when it is prepared."""

_FUNCTIONS = frozenset({"length", "min", "max", "count", "typeof"})

_STEPS = 100_000
"""Of SQLite's machine between two looks at the clock: a few milliseconds."""

_LIMITS = {"SQLITE_LIMIT_SQL_LENGTH": 100_000, "SQLITE_LIMIT_ATTACHED": 0, "SQLITE_LIMIT_EXPR_DEPTH": 100}


class ForeignFile:
    """A connection to a SQLite file, for one thread. `largest` is the most bytes that a value may have; each statement
    ends after `seconds`.
    """

    def __init__(self, path: Path, error_class: type[UserError], *, largest: int, seconds: float) -> None:
        """Raise `error_class` where there is no such file, or another program is writing to it."""
        self._path, self._error_class, self._seconds = path, error_class, seconds
        self._deadline = 0.0
        check_file(path, error_class)
        with readable(error_class):
            log = path.with_name(path.name + "-wal")
            if log.exists() and log.stat().st_size:
                raise error_class(f"{path} is being written, for {log.name} is not empty. Close what writes to it.")
        with self.explained():
            # Immutable: nothing is written, not even locks, and no journal of another's making is played back.
            self._connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro&immutable=1", uri=True)
            self._connection.execute("PRAGMA trusted_schema = OFF")
            if hasattr(self._connection, "setlimit"):  # Python 3.11
                for name, limit in {**_LIMITS, "SQLITE_LIMIT_LENGTH": largest}.items():
                    self._connection.setlimit(getattr(sqlite3, name), limit)
            self._connection.set_authorizer(_authorize)
            self._connection.set_progress_handler(self._is_late, _STEPS)

    def rows(self, statement: str, *values: object) -> Iterator[tuple[object, ...]]:
        """The statement's rows, one by one. Raises the file's error when it is damaged, or takes too long."""
        self._deadline = time.monotonic() + self._seconds
        with self.explained():
            yield from self._connection.execute(statement, values)

    @contextmanager
    def explained(self) -> Iterator[None]:
        """Turn SQLite's errors into the file's."""
        try:
            yield
        # OverflowError: of a number that no column holds. DataError: of a value that is too large.
        except (sqlite3.Error, OverflowError, MemoryError) as error:
            late = self._deadline and time.monotonic() > self._deadline
            why = f"it takes longer than {self._seconds:g} s to read" if late else str(error)[:200]
            raise self._error_class(
                f"{self._path} cannot be read as the SQLite file that it should be ({why}). Get it again."
            ) from None

    def _is_late(self) -> int:
        return time.monotonic() > self._deadline

    def close(self) -> None:
        self._connection.close()


def _authorize(action: int, _: object, name: object, *more: object) -> int:
    del more
    if action not in _ALLOWED or (action == sqlite3.SQLITE_FUNCTION and str(name).lower() not in _FUNCTIONS):
        return sqlite3.SQLITE_DENY
    return sqlite3.SQLITE_OK
