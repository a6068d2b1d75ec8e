"""How a check reports what it finds: each figure is on the disk before the next one is measured."""

from pathlib import Path
from typing import Any

from gpu.results import write_json


class Skipped(Exception):
    """There is nothing here to check, and why."""


class Report:
    """Facts, rows of tables, and faults, in the file `path`."""

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
        """`cells` by the column's name, a blank for each underscore."""
        self._tables.setdefault(table, []).append({name.replace("_", " "): value for name, value in cells.items()})
        self._write("crashed")

    def require(self, holds: bool, otherwise: str) -> None:
        """Unless it `holds`, the check has failed; it goes on all the same."""
        if not holds:
            self._faults.append(otherwise)
            self._write("crashed")

    def end(self) -> None:
        self._write("failed" if self._faults else "passed")

    def skip(self, why: str) -> None:
        self._faults = [why]
        self._write("skipped")

    def _write(self, status: str) -> None:
        """Until its end a check counts as crashed."""
        message = ". ".join(self._faults)
        write_json(self._path, {"status": status, "message": message, "facts": self._facts, "tables": self._tables})
