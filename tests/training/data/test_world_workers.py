"""Worker processes that render: what was started ends, and no more is begun."""

import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from threading import Timer

from geodtr.training.world.workers import run_jobs


@dataclass(frozen=True, slots=True)
class Job:
    folder: Path
    number: int


def begin_and_wait(job: Job) -> int:
    """The first job returns at once, each other when there is a file `go`."""
    (job.folder / f"begun-{job.number}").touch()
    while job.number and not (job.folder / "go").exists():
        time.sleep(0.02)
    return job.number


def test_after_a_stop_queued_jobs_do_not_start(tmp_path: Path) -> None:
    with closing(run_jobs(begin_and_wait, [Job(tmp_path, number) for number in range(9)], 2)) as done:
        assert next(done) == 0
        let_go = Timer(1.0, (tmp_path / "go").touch)
        let_go.start()
    begun = list(tmp_path.glob("begun-*"))
    assert 1 <= len(begun) <= 3, begun
    let_go.join()
