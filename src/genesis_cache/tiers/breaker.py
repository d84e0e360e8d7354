"""A circuit breaker: after a failure nothing is tried until a delay has passed, then one attempt decides.

Pure: time is passed in. The delay doubles with each failed attempt and is spread by a random share, so that the
processes that met one outage do not all come back in the same instant (Brooker, "Exponential Backoff And Jitter",
2015, the variant called full jitter, kept to the upper half so that a delay is never next to nothing).
"""

import random
from collections.abc import Callable
from enum import StrEnum

FIRST_DELAY_S = 0.1
LONGEST_DELAY_S = 10.0


class Circuit(StrEnum):
    """The state of a breaker; the values are those shown in the figures."""

    CLOSED = "closed"
    """Everything is let through."""
    OPEN = "open"
    """Nothing is let through until the delay has passed."""
    HALF_OPEN = "half_open"
    """One attempt is under way and decides."""


class Breaker:
    """Whether to try at all. Not locked: its owner serialises the calls, or bears an attempt too many."""

    __slots__ = ("_delay_s", "_failures", "_random", "_retry_at", "reason", "state")

    def __init__(self, share: Callable[[], float] = random.random) -> None:
        self._random = share
        self._failures = 0
        self._delay_s = 0.0
        self._retry_at = 0.0
        self.state = Circuit.CLOSED
        self.reason: str | None = None
        """Why it is not closed, in a sentence; None while it is."""

    def is_shut(self, now: float) -> bool:
        """Whether an attempt at ``now`` would be refused; asking changes nothing."""
        return self.state is not Circuit.CLOSED and now < self._retry_at

    def wait_s(self, now: float) -> float:
        """Seconds from ``now`` until an attempt may be made; 0 where it may be made at once."""
        return max(self._retry_at - now, 0.0) if self.state is not Circuit.CLOSED else 0.0

    def allows(self, now: float) -> bool:
        """Whether to try at ``now`` (monotonic seconds). Unless it is CLOSED, True means: you are the one attempt.

        An attempt whose outcome is never told gives its place to another after the same delay again.
        """
        if self.state is Circuit.CLOSED:
            return True
        if self.is_shut(now):
            return False
        self.state = Circuit.HALF_OPEN
        self._retry_at = now + self._delay_s
        return True

    def failed(self, now: float, reason: str) -> bool:
        """Note a failure; True if it opened a breaker that was closed."""
        opened = self.state is Circuit.CLOSED
        self._failures += 1
        longest = min(FIRST_DELAY_S * 2.0 ** min(self._failures, 32), LONGEST_DELAY_S)
        self._delay_s = longest * (0.5 + 0.5 * self._random())
        self._retry_at = now + self._delay_s
        self.state = Circuit.OPEN
        self.reason = reason
        return opened

    def worked(self) -> bool:
        """Note a success; True if it closed a breaker that was not closed."""
        closed = self.state is not Circuit.CLOSED
        self._failures = 0
        self.state = Circuit.CLOSED
        self.reason = None
        return closed
