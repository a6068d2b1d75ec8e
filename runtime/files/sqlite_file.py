"""SQLite files that are not trusted: they may hold views that never end, values of gigabytes, and statements that reach
other files.
"""

import sqlite3
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from math import inf
from pathlib import Path
from typing import Any

from geodtr.runtime.errors import UserError
from geodtr.runtime.files.reading import check_file, readable, real_path

_ALLOWED = frozenset({sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION})
"""All that a statement may do; recursion, pragmas and other files are refused when it is prepared."""

_FUNCTIONS = frozenset({"length", "min", "max", "count", "typeof"})

_STEPS = 100_000
"""Of SQLite's machine between two looks at the clock: a few milliseconds."""

_LIMITS = {"SQLITE_LIMIT_SQL_LENGTH": 100_000, "SQLITE_LIMIT_ATTACHED": 0, "SQLITE_LIMIT_EXPR_DEPTH": 100}


class BoundedConnection(sqlite3.Connection):
    """One whose statements end: those that take too long raise sqlite3.OperationalError."""

    _seconds = _until = inf

    def limit(self, seconds: float) -> None:
        """Give each statement so many seconds."""
        self._seconds = seconds
        self.set_progress_handler(lambda: time.monotonic() > self._until, _STEPS)

    def execute(self, *asked: Any) -> sqlite3.Cursor:
        self._until = time.monotonic() + self._seconds
        return super().execute(*asked)

    def executemany(self, *asked: Any) -> sqlite3.Cursor:
        self._until = time.monotonic() + self._seconds
        return super().executemany(*asked)


def connect(path: Path, how: str, *, largest: int, seconds: float, **options: Any) -> BoundedConnection:
    """Open a SQLite file by a URI with the parameters `how`: no value may have more than `largest` bytes, no statement
    take more than `seconds`, and the file's own schema runs nothing that is not harmless. `options` are
    sqlite3.connect's.
    """
    uri = f"{real_path(path).as_uri()}?{how}"
    database = sqlite3.connect(uri, uri=True, factory=BoundedConnection, **options)
    try:
        database.limit(seconds)
        if sys.version_info >= (3, 11):  # before, a row takes the memory that its file asks for
            database.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, largest)
        database.execute("PRAGMA trusted_schema = OFF")
    except BaseException:
        database.close()
        raise
    return database


class ForeignFile:
    """A connection to a SQLite file that somebody else made, for one thread, to read it; `largest` and `seconds` as
    `connect` has them.
    """

    def __init__(self, path: Path, error_class: type[UserError], *, largest: int, seconds: float) -> None:
        """Raise `error_class` where there is no such file, or another program is writing to it."""
        self._path, self._error_class = path, error_class
        check_file(path, error_class)
        with readable(error_class):
            log = path.with_name(path.name + "-wal")
            if log.exists() and log.stat().st_size:
                raise error_class(f"{path} is being written, for {log.name} is not empty. Close what writes to it.")
        with self.explained():
            # Immutable: nothing is written, not even locks, and no journal of another's making is played back.
            self._connection = connect(path, "mode=ro&immutable=1", largest=largest, seconds=seconds)
            if sys.version_info >= (3, 11):
                for limit, most in _LIMITS.items():
                    self._connection.setlimit(getattr(sqlite3, limit), most)
            self._connection.set_authorizer(_authorize)

    def rows(self, statement: str, *values: object) -> Iterator[tuple[object, ...]]:
        """The statement's rows, one by one. Raises the file's error when it is damaged, or takes too long."""
        with self.explained():
            yield from self._connection.execute(statement, values)

    @contextmanager
    def explained(self) -> Iterator[None]:
        """Turn SQLite's errors into the file's."""
        try:
            yield
        # OverflowError: of a number that no column holds. UnicodeDecodeError: of a message with a damaged name in it.
        except (sqlite3.Error, OverflowError, MemoryError, UnicodeDecodeError) as error:
            why = "it takes too long to read" if str(error) == "interrupted" else str(error)[:200]
            raise self._error_class(
                f"{self._path} cannot be read as the SQLite file that it should be ({why}). Get it again."
            ) from None

    def close(self) -> None:
        self._connection.close()


def _authorize(action: int, _: object, name: object, *more: object) -> int:
    del more
    if action not in _ALLOWED or (action == sqlite3.SQLITE_FUNCTION and str(name).lower() not in _FUNCTIONS):
        return sqlite3.SQLITE_DENY
    return sqlite3.SQLITE_OK
