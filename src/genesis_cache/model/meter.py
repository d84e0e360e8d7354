"""Figures: plain integers counted where things happen and read when somebody asks."""

from collections import Counter

SAMPLE_EVERY = 1024  # hits in memory of which one is timed

BUCKETS = 64  # powers of two of a nanosecond: up to 584 years


class Latency:
    """A histogram of durations in powers of two of a nanosecond; adding costs one list store."""

    __slots__ = ("counts", "total_s")

    def __init__(self) -> None:
        self.counts = [0] * BUCKETS
        self.total_s = 0.0

    def add(self, seconds: float) -> None:
        """Count one duration."""
        nanoseconds = int(seconds * 1e9)
        self.counts[min(max(nanoseconds, 0).bit_length(), BUCKETS - 1)] += 1
        self.total_s += seconds

    @property
    def count(self) -> int:
        """How many durations were added."""
        return sum(self.counts)

    def quantile(self, share: float) -> float:
        """Seconds below which that share of durations lies, read from the middle of its bucket; 0.0 with none."""
        wanted = share * self.count
        seen = 0
        for bits, number in enumerate(self.counts):
            seen += number
            if number and seen >= wanted:
                return float(0.75 * 2**bits) * 1e-9
        return 0.0


class LayerMeter:
    """What one layer did."""

    __slots__ = ("errors", "evictions", "hits", "late", "latency", "misses")

    def __init__(self) -> None:
        self.hits = 0
        self.misses = 0
        self.errors = 0
        self.late = 0  # replies that did not come within the budget; these reads count as misses too
        self.evictions: Counter[str] = Counter()
        self.latency = Latency()


class SpaceMeter:
    """What happened in one namespace."""

    __slots__ = (
        "coalesced",
        "fallbacks",
        "far_hits",
        "invalidations",
        "load_errors",
        "loads",
        "loads_given_up",
        "misses",
        "near_hits",
        "negatives_served",
        "not_modified",
        "refreshes",
        "refreshes_put_off",
        "seconds_saved",
        "stale_served",
        "stale_waited",
        "streams_live",
        "streams_replayed",
        "unencodable",
    )

    def __init__(self) -> None:
        self.near_hits = 0
        self.far_hits = 0
        self.misses = 0
        self.loads = 0
        self.load_errors = 0
        self.loads_given_up = 0  # because all their callers had left before there was a place
        self.coalesced = 0
        self.stale_served = 0
        self.stale_waited = 0  # of these, by callers that waited for a load first and so count as misses
        self.refreshes = 0  # loads that were begun behind, ahead of need or after the ttl
        self.refreshes_put_off = 0  # because the source was slow, failing or busy
        self.not_modified = 0  # loads that kept the old value
        self.negatives_served = 0  # callers who got an error or an absence that was found out before
        self.fallbacks = 0
        self.seconds_saved = 0.0
        self.streams_live = 0  # readers of a stream that read it while it ran
        self.streams_replayed = 0  # and of one that was stored
        self.unencodable = 0
        self.invalidations: Counter[str] = Counter()
