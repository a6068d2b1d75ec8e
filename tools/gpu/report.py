"""The report of a check: each figure is on disk before the next one is measured."""

from pathlib import Path
from typing import Any

from gpu.results import write_json


class Skipped(Exception):
    """The check does not apply here; the message is the reason."""


class Report:
    """Facts, table rows and faults, in the file `path`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._faults = list[str]()
        self._facts = dict[str, Any]()
        self._tables = dict[str, list[dict[str, Any]]]()
        self._write("crashed")

    def fact(self, name: str, value: Any) -> None:
        self._facts[name] = value
        self._write("crashed")

    def row(self, table: str, **cells: Any) -> None:
        """Add a row; `cells` by column name, in which underscores become spaces."""
        self._tables.setdefault(table, []).append({name.replace("_", " "): value for name, value in cells.items()})
        self._write("crashed")

    def require(self, holds: bool, otherwise: str) -> None:
        """Record the fault `otherwise` unless `holds`; the check continues and ends as failed."""
        if not holds:
            self._faults.append(otherwise)
            self._write("crashed")

    def end(self) -> None:
        self._write("failed" if self._faults else "passed")

    def skip(self, why: str) -> None:
        self._faults = [why]
        self._write("skipped")

    def _write(self, status: str) -> None:
        """Write the file. The status is "crashed" until the check ends."""
        message = ". ".join(self._faults)
        write_json(self._path, {"status": status, "message": message, "facts": self._facts, "tables": self._tables})
