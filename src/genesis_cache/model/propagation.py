"""Propagation: counters of how soon changes reach other processes, and of memories that were found to be behind."""

from genesis_cache.model.meter import Latency

CHECKED_AFTER_S = (1.0, 10.0, 60.0)
"""How long after it was found a difference is looked at again."""


class Lag(Latency):
    """A histogram of how long notices took, and the longest."""

    __slots__ = ("longest_s",)

    def __init__(self) -> None:
        super().__init__()
        self.longest_s = 0.0

    def add(self, seconds: float) -> None:
        """Count one notice."""
        super().add(seconds)
        self.longest_s = max(self.longest_s, seconds)


class Propagation:
    """What the canaries and the samples of one cache have shown so far."""

    __slots__ = (
        "behind", "canaries_heard", "canaries_missed", "canaries_sent", "clocks_lag", "compared", "differed",
        "inconsistent", "interval_s", "lag", "own_lag", "quiet_since", "senders",
    )  # fmt: skip

    def __init__(self) -> None:
        self.interval_s: float | None = None
        """Seconds between two canaries of this process; None: it sends none."""
        self.canaries_sent = 0
        self.canaries_heard = 0
        self.canaries_missed = 0
        """Canaries of other processes that never came, though the log said that nothing was missing."""
        self.senders = 0
        """Other processes heard of late."""
        self.own_lag = Lag()
        """From the beginning of a change here to its notice here, through the server."""
        self.lag = Lag()
        """The same from another process of this host to here; both read the same clock."""
        self.clocks_lag = Lag()
        """The same from other hosts; the difference of the two wall clocks is in it."""
        self.quiet_since: float | None = None
        """Monotonic seconds since when the log has kept back a change of this process that it had taken."""
        self.compared = 0
        """Entries in memory that were compared with the shared tier's."""
        self.differed = 0
        """Of these, the ones whose value was another and older than the shared tier's."""
        self.behind = dict.fromkeys(CHECKED_AFTER_S, 0)
        """Of these, the ones still served so many seconds later, though no notice had named them."""
        self.inconsistent = dict.fromkeys(CHECKED_AFTER_S, 0)
        """The same though a notice had named them: what this cache promises never to do."""
