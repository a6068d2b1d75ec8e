"""A TensorRT build by the fakes that meets Ctrl-C in its third step: python interrupted_build.py BUNDLE OUT

In a process of its own: a signal is the whole process's business. Prints how many steps were done.
"""

import os
import signal
import sys
import time
from pathlib import Path

import fake_cuda
import fake_tensorrt

from geodtr.export.backends.options import TensorRtOptions
from geodtr.export.build.engine import build_engine
from geodtr.export.build.request import BuildRequest


def main(bundle: str, out: str) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs are born to ignore it
    sys.modules["tensorrt"], sys.modules["cuda.bindings.runtime"] = fake_tensorrt, fake_cuda
    fake_cuda.fake_reset()
    wishes = fake_tensorrt.fake_reset("10.3.0")
    steps = list[int]()

    def interrupt() -> None:
        steps.append(1)
        if len(steps) == 3:
            os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.1)  # a step of a real build takes longer

    wishes.on_step = interrupt
    try:
        build_engine(BuildRequest(Path(bundle), Path(out), TensorRtOptions()))
    except KeyboardInterrupt:
        sys.stdout.write(f"{len(steps)}")


if __name__ == "__main__":
    main(*sys.argv[1:])
