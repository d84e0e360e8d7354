"""Origin: what the lengths and the ends of loads say about the source behind a namespace; and how a rush is let in.

Pure: times and outcomes passed in, verdicts out. Averages are exponential, so that no load is remembered.
"""

from math import ceil

RECENT = 0.2  # weight of the newest load in the recent averages: about the last ten loads count
USUAL = 0.01  # and in the usual length: about the last two hundred
SLOW_TIMES = 3.0  # the usual length
SLOW_S = 0.02  # below it nothing is slow
FAILING_SHARE = 0.5  # of the recent loads
JUDGED_FROM = 20  # loads

RAMP_S = 2.0  # until all places are open again
RAMP_FROM = 0.25  # of the places, at its beginning
RAMP_LEAST = 16  # places: a source that was given fewer is protected enough

MOURNED = 1.0  # times the places: so many entries found dead within RAMP_S are a mass invalidation


class Origin:
    """The health of a source, as its loads tell."""

    __slots__ = ("_failing", "_loads", "_recent_s", "_usual_s")

    def __init__(self) -> None:
        self._loads = 0
        self._failing = 0.0
        self._recent_s = 0.0
        self._usual_s = 0.0

    def add(self, seconds: float, *, failed: bool) -> None:
        """A load is over."""
        self._failing += RECENT * (failed - self._failing)
        if not failed:  # how long a failure takes says nothing of how long a load takes
            self._loads += 1
            weight = 1.0 / self._loads  # a plain average until there is more to go by
            self._recent_s += max(RECENT, weight) * (seconds - self._recent_s)
            self._usual_s += max(USUAL, weight) * (seconds - self._usual_s)

    @property
    def trouble(self) -> str | None:
        """What is wrong with it: ``failing``, ``slow``, or None."""
        if self._failing > FAILING_SHARE:
            return "failing"
        is_slow = self._recent_s > SLOW_S and self._recent_s > SLOW_TIMES * self._usual_s
        return "slow" if is_slow and self._loads >= JUDGED_FROM else None


def ramp(limit: int, since_s: float) -> int:
    """How many of the places are open so many seconds after a cold start or a mass invalidation.

    A quarter at first (16 at least), then evenly more, all of them after two seconds.
    """
    if since_s >= RAMP_S:
        return limit
    share = RAMP_FROM + (1.0 - RAMP_FROM) * max(since_s, 0.0) / RAMP_S
    return min(limit, max(RAMP_LEAST, ceil(share * limit)))
