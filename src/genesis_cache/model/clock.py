"""Time, injected: a monotonic reading for ages in this process, a steady wall reading for what outlives it."""

import time
from collections.abc import Callable
from typing import Protocol


class Clock(Protocol):
    """Two readings in seconds. Tests pass their own; nothing else in the package reads the time."""

    @property
    def now(self) -> Callable[[], float]:
        """A function giving monotonic seconds; it never goes back."""

    @property
    def wall(self) -> Callable[[], float]:
        """A function giving seconds since 1970 that does not jump while the process lives."""


class SystemClock:
    """The machine's clock.

    ``wall`` is the wall time at construction plus the monotonic time since then, so that a clock that is set
    while the process runs makes no entry expire early or late.
    """

    __slots__ = ("_offset", "now")

    now: Callable[[], float]

    def __init__(self) -> None:
        self.now = time.monotonic
        self._offset = time.time() - time.monotonic()

    def wall(self) -> float:
        """Seconds since 1970, steady against changes of the system clock."""
        return self.now() + self._offset
