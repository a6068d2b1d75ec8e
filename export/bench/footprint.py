"""What opening a model costs a process that does nothing else: time to the first descriptor, and memory.

Run as a program by `measure_footprint`, so that nothing is loaded yet when its clock starts.
"""

import json
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from geodtr.runtime.names import Branch

_STATUS = Path("/proc/self/status")


@dataclass(frozen=True, slots=True)
class Footprint:
    """Cost of opening a model and embedding one batch in a new process.

    `seconds` until the first descriptor, including the loading of libraries and the hashing of files; `bytes` of peak
    processor memory beyond an empty Python process.
    """

    seconds: float
    bytes: int


def measure_footprint(model: Path, branch: "Branch", batch: int, threads: int | None = None) -> Footprint:
    """Open one branch of a bundle or a checkpoint in a fresh process and embed one batch of noise.

    Raises UserError when that process fails, with its last line of output.
    """
    from geodtr.runtime.errors import UserError

    line = [sys.executable, "-m", "geodtr.export.bench.footprint", str(model), branch, str(batch), str(threads or 0)]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    if done.returncode:
        message = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise UserError(f"{model} could not be opened in a new process: {message}")
    return Footprint(**json.loads(done.stdout))


def _main(model: str, branch: "Branch", batch: str, threads: str) -> None:
    start, empty = time.perf_counter(), _peak_memory()
    from geodtr.export.model import open_branch
    from geodtr.runtime.engines.base import EngineOptions
    from geodtr.runtime.spec import noise

    embedder = open_branch(Path(model), branch, EngineOptions(threads=int(threads) or None))
    embedder.embed(noise(embedder.spec, int(batch)))
    seconds = time.perf_counter() - start
    sys.stdout.write(json.dumps({"seconds": seconds, "bytes": _peak_memory() - empty}))


def _peak_memory() -> int:
    """Bytes. Linux's getrusage would count the process that started this one: its own status is read instead."""
    if _STATUS.is_file():
        (line,) = [line for line in _STATUS.read_text().splitlines() if line.startswith("VmHWM:")]
        return int(line.split()[1]) * 1024
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


if __name__ == "__main__":
    _main(sys.argv[1], "ground" if sys.argv[2] == "ground" else "aerial", *sys.argv[3:])
