"""Progress reports of long work, independent of the display: commands draw bars, library calls are silent."""

from collections.abc import Iterable, Iterator
from typing import Protocol, TypeVar

T = TypeVar("T")


class Track(Protocol):
    """Wrap an iterable so that each item taken from it counts as one step of `total`, which None leaves open."""

    def __call__(self, items: Iterable[T], description: str, total: int | None) -> Iterator[T]: ...


def untracked(items: Iterable[T], description: str, total: int | None) -> Iterator[T]:
    """The default: pass every item on and report nothing."""
    del description, total
    return iter(items)
