"""Run the checks one by one, each in its own process with a time limit, and update gpu.json.

A check that hangs or crashes, or crashes the driver, does not affect the figures of others.
"""

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path

from gpu.checks import Check
from gpu.results import FILE_NAME, Outcome, Results, Status, write_results

TOOLS = Path(__file__).resolve().parents[1]
_INTERVAL = 0.5
"""Seconds between two reads of a running check's results."""
_MESSAGE_LENGTH = 500
"""Maximum length of a crashed check's last line in the results; its log has the full output."""


@dataclass(frozen=True)
class Plan:
    """`python`: interpreter with the project installed. `work`: folder for the checks. `seconds`: time limit in total;
    in a dry run, for each check.
    """

    python: Path
    out: Path
    work: Path
    dry_run: bool
    seconds: float
    notes: tuple[str, ...] = ()


def find_machine(python: Path) -> dict[str, str]:
    """The output of `gpu.machine`. Raises subprocess errors when PyTorch cannot be imported."""
    command = [str(python), "-m", "gpu.machine"]
    done = subprocess.run(command, env=_environment(), check=True, stdout=subprocess.PIPE, text=True, timeout=120)
    return {str(name): str(value) for name, value in json.loads(done.stdout.splitlines()[-1]).items()}


def run_checks(checks: Sequence[Check], plan: Plan, machine: dict[str, str]) -> Results:
    """Run `checks` in order. SIGINT or SIGTERM ends the running check, records it, and ends the run."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    outcomes = [Outcome(check.name, check.title) for check in checks]
    date = datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
    end = time.monotonic() + plan.seconds

    def results() -> Results:
        return Results(date, plan.dry_run, machine, plan.notes, tuple(outcomes))

    (plan.out / "logs").mkdir(parents=True, exist_ok=True)
    write_results(plan.out / FILE_NAME, results())
    for row, check in enumerate(checks):

        def note(outcome: Outcome, row: int = row) -> None:
            outcomes[row] = outcome
            write_results(plan.out / FILE_NAME, results())

        left = end - time.monotonic()
        note(_run(check, plan, left if plan.dry_run else min(check.seconds, left), note))
        print(
            f"{check.name}: {outcomes[row].status}, {outcomes[row].seconds:.0f} s {outcomes[row].message}", flush=True
        )
        if outcomes[row].status == "interrupted":
            break
    return results()


def _run(check: Check, plan: Plan, seconds: float, note: Callable[[Outcome], None]) -> Outcome:
    """Run one check. `note` stores its results whenever they change, so that nothing is lost on a kill."""
    begin, result = Outcome(check.name, check.title), plan.work / f"{check.name}.json"
    if seconds <= 0:
        return replace(begin, message="the total time limit was reached")
    command = [str(plan.python), "-m", "gpu.child", check.module, str(result), str(plan.work)]
    command.append("dry" if plan.dry_run else "full")
    log = plan.out / "logs" / f"{check.name}.log"
    start, seen = time.monotonic(), begin
    with log.open("w") as output:
        process = subprocess.Popen(
            command, cwd=plan.work, env=_environment(), stdout=output, stderr=output, start_new_session=True
        )
        ending: Status | None = None
        try:
            while process.poll() is None and time.monotonic() - start < seconds:
                with suppress(subprocess.TimeoutExpired):
                    process.wait(_INTERVAL)
                current = _read(begin, result)
                if current != seen:
                    seen = current
                    note(replace(seen, status="interrupted", seconds=round(time.monotonic() - start, 1)))
            ending = "out of time" if process.poll() is None else None
        except KeyboardInterrupt:
            ending = "interrupted"
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    last = replace(_read(begin, result), seconds=round(time.monotonic() - start, 1))
    if ending == "out of time":
        last = replace(last, status=ending, message=f"ended after {seconds:.0f} s")
    elif ending is not None:
        last = replace(last, status=ending, message="the run was ended")
    elif process.returncode:
        words = ["", *log.read_text(errors="replace").splitlines()][-1][-_MESSAGE_LENGTH:]
        last = replace(last, status="crashed", message=f"exit code {process.returncode}: {words}")
    return last


def _read(begin: Outcome, result: Path) -> Outcome:
    """The results that the check has written so far."""
    return replace(begin, **json.loads(result.read_text())) if result.is_file() else begin


def _environment() -> dict[str, str]:
    """The environment with the checks' modules on the path."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(TOOLS), os.environ.get("PYTHONPATH", "")])}
