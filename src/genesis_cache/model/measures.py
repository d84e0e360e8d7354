"""Measures: every counter of a cache at one moment, as plain data that can be sent to other processes and added up."""

from collections.abc import Iterable

import msgspec

from genesis_cache.model.meter import BUCKETS


class Histogram(msgspec.Struct, gc=False):
    """Durations in powers of two of a nanosecond: ``counts[n]`` took less than 2^n ns, not less than half."""

    counts: list[int]
    total_s: float

    def add(self, other: "Histogram") -> None:
        """Count another's durations too."""
        self.counts = [mine + theirs for mine, theirs in zip(self.counts, other.counts, strict=True)]
        self.total_s += other.total_s


class LayerMeasures(msgspec.Struct, gc=False, kw_only=True):
    """One layer. What it holds, its bytes and its evictions are the tier's own; the rest is of this process."""

    tier: str
    hits: int
    misses: int
    entries: int
    size_bytes: int
    capacity_bytes: int | None
    evictions: dict[str, int]
    latency: Histogram
    """Of some reads only: timing each would cost more than reading."""
    up: bool
    circuit: str
    """``closed``, ``half_open`` or ``open``: then the tier is not asked."""

    def add(self, other: "LayerMeasures") -> None:
        """Count another process' layer too: memories add up, and a tier that all processes share is one tier."""
        own = self.tier == "memory"
        self.hits += other.hits
        self.misses += other.misses
        self.latency.add(other.latency)
        self.up = self.up and other.up
        self.circuit = max(self.circuit, other.circuit, key=CIRCUITS.index)
        self.entries = _together(self.entries, other.entries, is_sum=own)
        self.size_bytes = _together(self.size_bytes, other.size_bytes, is_sum=own)
        if self.capacity_bytes is not None and other.capacity_bytes is not None:
            self.capacity_bytes = _together(self.capacity_bytes, other.capacity_bytes, is_sum=own)
        for reason, number in other.evictions.items():
            self.evictions[reason] = _together(self.evictions.get(reason, 0), number, is_sum=own)


class Measures(msgspec.Struct, gc=False, kw_only=True):
    """A whole cache in one process, or several processes added up. Never a key, a user or a tag."""

    layers: dict[str, LayerMeasures]
    """By layer, in look-up order."""
    loads: dict[str, int]
    """Loads by result: ``ok``, ``error``, ``timeout``."""
    load_latency: Histogram
    coalesced: int
    """Callers that waited for a load of another caller."""
    stale_served: int
    invalidations: dict[str, int]
    """By scope: ``key``, ``tag``, ``pattern``, ``clear``."""
    invalidation_lag_s: float
    """How long ago it was last known what other processes have invalidated."""
    propagation: Histogram = msgspec.field(default_factory=lambda: Histogram([0] * BUCKETS, 0.0))
    """From the beginning of a change in a process of this host to its notice in another, or its own."""
    canaries: dict[str, int] = {}
    """By what became of them: ``sent``, ``heard``, ``missed``."""
    behind: dict[str, int] = {}
    """Entries that were older than the shared tier's and still served after ``1s``, ``10s``, ``60s``."""
    inconsistent: dict[str, int] = {}
    """The same though a notice had named them."""

    def add(self, other: "Measures") -> None:
        """Count another process too."""
        for label, layer in other.layers.items():
            if label in self.layers:
                self.layers[label].add(layer)
            else:
                self.layers[label] = layer
        _add(self.loads, other.loads)
        _add(self.invalidations, other.invalidations)
        _add(self.canaries, other.canaries)
        _add(self.behind, other.behind)
        _add(self.inconsistent, other.inconsistent)
        self.load_latency.add(other.load_latency)
        self.propagation.add(other.propagation)
        self.coalesced += other.coalesced
        self.stale_served += other.stale_served
        self.invalidation_lag_s = max(self.invalidation_lag_s, other.invalidation_lag_s)


CIRCUITS = ("closed", "half_open", "open")


def summed(all_measures: Iterable[Measures]) -> Measures:
    """Several processes' measures as one; ValueError for none. The first is changed."""
    total: Measures | None = None
    for measures in all_measures:
        if total is None:
            total = measures
        else:
            total.add(measures)
    if total is None:
        msg = "there is nothing to add up"
        raise ValueError(msg)
    return total


def _together(mine: int, theirs: int, *, is_sum: bool) -> int:
    return mine + theirs if is_sum else max(mine, theirs)


def _add(mine: dict[str, int], theirs: dict[str, int]) -> None:
    for name, number in theirs.items():
        mine[name] = mine.get(name, 0) + number
