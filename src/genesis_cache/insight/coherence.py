"""Coherence as figures: whether this process hears of the others' changes, how soon, and what was found behind."""

from typing import Any

from genesis_cache.engine.core import Core
from genesis_cache.model.propagation import Lag


def coherence(core: Core) -> dict[str, Any]:
    """The live proof, ready for JSON; lags in milliseconds."""
    told, authority = core.propagation, core.authority
    now = core.clock.now()
    heard_at = None if authority is None else authority.tier.heard_at
    return {
        "status": status(core),
        "log": None if authority is None else authority.tier.kind,
        "heard_ago_ms": None if heard_at is None else 1000 * max(0.0, now - heard_at),
        "quiet_for_ms": None if told.quiet_since is None else 1000 * (now - told.quiet_since),
        "canaries": {
            "interval_s": told.interval_s,
            "sent": told.canaries_sent,
            "heard": told.canaries_heard,
            "missed": told.canaries_missed,
            "other_processes": told.senders,
        },
        "lag": {
            "own": _lag(told.own_lag),
            "this_host": _lag(told.lag),
            "other_hosts": _lag(told.clocks_lag),
        },
        "samples": {
            "compared": told.compared,
            "differed": told.differed,
            "behind_after": {f"{seconds:g}s": number for seconds, number in told.behind.items()},
            "inconsistent_after": {f"{seconds:g}s": number for seconds, number in told.inconsistent.items()},
        },
    }


def status(core: Core) -> str:
    """``hearing``, ``cut off`` or ``quiet``; ``alone`` where there is no log that others could write to."""
    if core.authority is None:
        return "alone"
    if core.is_quiet:
        return "quiet"
    tier = core.authority.tier
    if not tier.is_shared:
        return "hearing"
    proven_until = 0.0 if tier.heard_at is None else tier.heard_at + core.settings.cache_max_staleness
    return "hearing" if core.clock.now() < proven_until else "cut off"


def _lag(lag: Lag) -> dict[str, float | int]:
    return {
        "count": lag.count,
        "p50_ms": 1000 * lag.quantile(0.5),
        "p99_ms": 1000 * lag.quantile(0.99),
        "longest_ms": 1000 * lag.longest_s,
    }
