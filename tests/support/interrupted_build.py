"""A build of TensorRT-RTX plans that gets a signal in its midst: python interrupted_build.py BUNDLE OUT SIGNAL

In a process of its own: a signal is the whole process's business. It comes from NVIDIA's builder, in the third step of
the second engine, when the first one's plan is written. Where the process survives, it prints how many steps were done.
"""

import os
import signal
import sys
import time
from pathlib import Path

from geodtr import BuildRequest, TensorRtRtxOptions, build_engine
from geodtr.export.backends.tensorrt.watched import Phases


def main(bundle: str, out: str, name: str) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs are born to ignore it
    engines, steps = list[str](), list[str]()
    begun, done = Phases.start, Phases.step

    def start(phases: Phases, phase: str, parent: str | None, count: int) -> None:
        begun(phases, phase, parent, count)
        engines.extend([phase] * (parent is None))

    def step(phases: Phases, phase: str) -> None:
        done(phases, phase)
        if len(engines) == 2:
            steps.append(phase)
            if len(steps) == 3:
                os.kill(os.getpid(), signal.Signals[name])
            time.sleep(0.1)  # a step of a larger build takes longer

    Phases.start, Phases.step = start, step  # type: ignore[assignment, method-assign]
    try:
        build_engine(BuildRequest(Path(bundle), Path(out), TensorRtRtxOptions()))
    except KeyboardInterrupt:
        sys.stdout.write(f"{len(steps)}")


if __name__ == "__main__":
    main(*sys.argv[1:])
