"""What the checks found, in one file that is right whenever it is read: gpu.json."""

import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

FILE_NAME = "gpu.json"
Status = Literal["passed", "failed", "skipped", "crashed", "out of time", "interrupted", "not run"]
"""failed: a figure is not what it should be. crashed: the check itself ended with an error."""


@dataclass(frozen=True)
class Outcome:
    """One check. `facts`: single figures by their names; `tables`: rows, each a value by the column's name.

    What a check had found before it crashed or ran out of time is here as well. `message` says why it has not passed.
    """

    name: str
    title: str
    status: Status = "not run"
    seconds: float = 0.0
    message: str = ""
    facts: dict[str, Any] = field(default_factory=dict)
    tables: dict[str, list[dict[str, Any]]] = field(default_factory=dict)


@dataclass(frozen=True)
class Results:
    """A run. `dry_run`: on a CPU, with sizes that measure nothing. `machine`: what it ran on, with which packages."""

    date: str
    dry_run: bool
    machine: dict[str, str]
    notes: tuple[str, ...]
    outcomes: tuple[Outcome, ...]


def write_results(path: Path, results: Results) -> None:
    write_json(path, asdict(results))


def read_results(path: Path) -> Results:
    values = json.loads(path.read_text())
    outcomes = tuple(Outcome(**outcome) for outcome in values["outcomes"])
    return Results(values["date"], values["dry_run"], values["machine"], tuple(values["notes"]), outcomes)


def write_json(path: Path, values: Any) -> None:
    """In one step: a reader sees the old file or the new one, however this process ends."""
    temporary = path.with_name(f".{path.name}")
    with temporary.open("w") as file:
        json.dump(values, file, indent=1)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
