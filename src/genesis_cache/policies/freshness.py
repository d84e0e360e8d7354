"""Freshness: what may be done with an entry at a moment. Time passed in, a verdict out (RFC 5861 for stale ones)."""

from enum import Enum

from genesis_cache.model.entry import Entry, Extra, Record
from genesis_cache.model.options import Plan

FOREVER = float("inf")


class Verdict(Enum):
    """What an entry is good for."""

    FRESH = "fresh"
    REFRESH = "refresh"
    """Fresh, and past the share of its ttl from which it is refreshed ahead."""
    WHILE_REVALIDATE = "stale-while-revalidate"
    """May be served while a new one is fetched behind."""
    IF_ERROR = "stale-if-error"
    """May be served if the loader fails or is slow."""
    GONE = "gone"


def judge(entry: Entry, now: float) -> Verdict:
    """The verdict on an entry in memory; ``now`` in monotonic seconds."""
    extra = entry.extra
    if now < entry.until:
        return Verdict.REFRESH if extra is not None and now >= extra.refresh_at else Verdict.FRESH
    if extra is not None:
        if now < extra.swr_until:
            return Verdict.WHILE_REVALIDATE
        if now < extra.sie_until:
            return Verdict.IF_ERROR
    return Verdict.GONE


def gone(entry: Entry, now: float) -> bool:
    """Whether no rule can serve the entry any more, so that its memory may be freed."""
    extra = entry.extra
    return now >= entry.until and (extra is None or (now >= extra.swr_until and now >= extra.sie_until))


def gone_at(ttl: float | None, plan: Plan, wall: float) -> float:
    """Wall seconds after which a value stored now with this plan serves nobody."""
    return FOREVER if ttl is None else wall + ttl + max(plan.swr, plan.sie)


def remaining(record: Record, wall: float) -> float:
    """Seconds of freshness a stored value has left, never more than it was given whatever the wall clock did."""
    ttl = record.ttl
    return FOREVER if ttl is None else min(record.created + ttl - wall, ttl)


def quick_until(until: float, extra: Extra | None, *, always_judge: bool) -> float:
    """Until when a hit on the entry needs no judgement at all; 0.0 where each must be judged."""
    if always_judge or (extra is not None and extra.isolate):
        return 0.0
    return until if extra is None else min(until, extra.refresh_at)


def let_expire(entry: Entry, due: float, end: float) -> None:
    """Have an entry be refreshed from ``due`` on and be gone by ``end`` (monotonic seconds), if not before anyway."""
    extra = entry.extra
    if extra is None:
        return
    extra.refresh_at = min(extra.refresh_at, due)
    extra.swr_until = min(extra.swr_until, end)
    extra.sie_until = min(extra.sie_until, end)
    entry.until = min(entry.until, end)
    entry.quick_until = min(entry.quick_until, due)
