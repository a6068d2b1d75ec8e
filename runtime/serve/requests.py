"""The requests at work, each of which can be refused while it waits for something.

Knows tasks of one event loop; knows nothing of what they answer.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from starlette.requests import Request

from geodtr.runtime.errors import UserError

T = TypeVar("T")


class Refused(UserError):
    """A request that is answered with `status`, and worth another try after `seconds`, if they are given."""

    def __init__(self, status: int, message: str, seconds: int | None = None) -> None:
        super().__init__(message)
        self.status, self.seconds = status, seconds


class Requests:
    """From the event loop alone."""

    def __init__(self) -> None:
        self._refusals: dict[asyncio.Task[object], Refused | None] = {}

    async def answer(self, request: Request, endpoint: Callable[[Request], Awaitable[T]]) -> T:
        """What `endpoint` answers. Raises what it raises, and what the request is refused with meanwhile."""
        task = _this()
        self._refusals[task] = None
        try:
            return await endpoint(request)
        except asyncio.CancelledError:
            refused = self._refusals[task]
            if refused is None:
                raise
            raise refused from None
        finally:
            del self._refusals[task]

    def refuse_all(self, refused: Refused) -> None:
        """Refuse what is not answered yet."""
        for task in self._refusals:
            self._refuse(task, refused)

    @contextmanager
    def within(self, seconds: float, refused: Refused) -> Iterator[None]:
        """Refuse the request whose block takes longer."""
        timer = asyncio.get_running_loop().call_later(seconds, self._refuse, _this(), refused)
        try:
            yield
        finally:
            timer.cancel()

    def _refuse(self, task: asyncio.Task[object], refused: Refused) -> None:
        self._refusals[task] = refused
        task.cancel()


def _this() -> asyncio.Task[object]:
    task = asyncio.current_task()
    assert task is not None
    return task
