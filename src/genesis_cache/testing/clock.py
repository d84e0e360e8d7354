"""A clock that stands still until a test moves it."""

import threading


class FakeClock:
    """Both readings of a `genesis_cache.model.clock.Clock`, moved by hand.

    ``start`` is the wall reading in seconds since 1970; the monotonic reading starts at 1,000 seconds, so that a mix-up
    of the two shows. Safe from any thread.
    """

    __slots__ = ("_guard", "_now", "_wall")

    def __init__(self, start: float = 1_700_000_000.0) -> None:
        self._guard = threading.Lock()
        self._now = 1_000.0
        self._wall = start

    def now(self) -> float:
        """Monotonic seconds."""
        return self._now

    def wall(self) -> float:
        """Seconds since 1970."""
        return self._wall

    def advance(self, seconds: float) -> None:
        """Let so many seconds pass; `ValueError` for a negative number, because time does not go back."""
        if seconds < 0:
            raise ValueError(f"a clock does not go back, got {seconds}: use a second clock for an earlier time")
        with self._guard:
            self._now += seconds
            self._wall += seconds
