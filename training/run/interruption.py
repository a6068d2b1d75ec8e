"""Deferred signals: record SIGINT or SIGTERM so that training can finish its step, save and stop."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Interruption:
    """The signal that was received, if any."""

    signal: int | None = None

    def __bool__(self) -> bool:
        return self.signal is not None


@contextmanager
def defer_signals() -> Iterator[Interruption]:
    """Record the first SIGINT or SIGTERM instead of handling it; the second has its usual effect.

    Does nothing outside the main thread, because Python delivers signals only there.
    """
    interruption = Interruption()
    if threading.current_thread() is not threading.main_thread():
        yield interruption
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def record(number: int, frame: FrameType | None) -> None:
        del frame
        interruption.signal = number
        restore()

    for number in before:
        signal.signal(number, record)
    try:
        yield interruption
    finally:
        restore()
