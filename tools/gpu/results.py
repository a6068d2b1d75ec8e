"""Results of the checks in one file, gpu.json, which is valid at any time."""

import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

FILE_NAME = "gpu.json"
Status = Literal["passed", "failed", "skipped", "crashed", "out of time", "interrupted", "not run"]
"""failed: a figure is out of bounds. crashed: the check ended with an error."""


@dataclass(frozen=True)
class Outcome:
    """One check. `facts`: figures by name; `tables`: rows, each with values by column name.

    Includes figures from before a crash or timeout. `message` is the reason if the check did not pass.
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
    """A run. `dry_run`: on a CPU with small sizes. `machine`: description of the machine and its packages."""

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
    """Write atomically: a reader sees the old file or the new one, even if this process is killed."""
    temporary = path.with_name(f".{path.name}")
    with temporary.open("w") as file:
        json.dump(values, file, indent=1)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
