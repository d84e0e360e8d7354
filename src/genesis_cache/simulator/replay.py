"""Replay a trace through the real memory tier, as the read path uses it."""

from collections.abc import Callable, Sequence
from pathlib import Path
from time import perf_counter_ns
from typing import Any

import msgspec

from genesis_cache.model.entry import Entry
from genesis_cache.model.meter import LayerMeter
from genesis_cache.model.weigh import WEIGHT_BYTES
from genesis_cache.simulator.belady import belady_hits
from genesis_cache.simulator.trace import Trace, read_trace
from genesis_cache.tiers.memory import MemoryTier

OPT = "OPT"
DEFAULT_SHARE = 0.1  # of the different keys
_STRIDE = 1 << 16  # requests between two reports of progress

Progress = Callable[[str, int, int], None]
"""Told policy, requests done and requests in all."""


class Result(msgspec.Struct, frozen=True, gc=False):
    """One policy at one size. ``capacity`` is in entries, or in bytes where the limit was."""

    policy: str
    capacity: int
    hit_ratio: float
    """From 0 to 1."""
    ns_per_op: float
    prefetch_precision: float | None = None
    prefetch_issued: int | None = None


def simulate(
    trace: str | Path,
    *,
    capacity: int | None = None,
    max_bytes: int | None = None,
    policies: Sequence[str] = ("ADAPTIVE",),
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Hit ratios of policies on a trace, as a JSON-ready dict: ``trace``, ``requests``, ``results``.

    ``capacity`` in entries or ``max_bytes`` limits the cache (a trace with sizes is needed for bytes); with neither the
    capacity is a tenth of the different keys, at least 16. ``OPT`` among the policies is Belady's bound, in entries
    only. Raises `TraceError` for a trace that cannot be read, `ValueError` for limits and policies that cannot be.
    """
    _refuse(capacity, max_bytes)
    loaded = read_trace(trace)
    if max_bytes is not None and not loaded.sizes:
        raise ValueError(f"{trace} has no sizes, so a limit in bytes says nothing: give a capacity in entries")
    if max_bytes is None and capacity is None:
        capacity = loaded.share(DEFAULT_SHARE)
    results = [replay(loaded, policy, capacity, max_bytes, progress) for policy in policies]
    return {
        "trace": str(trace),
        "requests": len(loaded.keys),
        "results": [msgspec.to_builtins(result) for result in results],
    }


def replay(
    trace: Trace, policy: str, capacity: int | None, max_bytes: int | None, progress: Progress | None = None
) -> Result:
    """One policy on one trace."""
    began = perf_counter_ns()
    if policy.upper() == OPT:
        if capacity is None or max_bytes is not None:
            raise ValueError("Belady's bound is known for a capacity in entries only: leave OPT out or give a capacity")
        hits = belady_hits(trace.keys, capacity)
    else:
        tier = MemoryTier(max_bytes, capacity, policy, LayerMeter())
        hits = _hits(trace, tier, progress or _silent, policy.upper())
    spent = perf_counter_ns() - began
    size = capacity if capacity is not None else max_bytes or 0
    return Result(policy.upper(), size, hits / len(trace.keys), spent / len(trace.keys))


def _hits(trace: Trace, tier: MemoryTier, progress: Progress, policy: str) -> int:
    hits, total = 0, len(trace.keys)
    for start in range(0, total, _STRIDE):
        sizes = trace.sizes[start : start + _STRIDE] if tier.max_bytes is not None else None
        hits += _run(trace.keys[start : start + _STRIDE], sizes, tier)
        progress(policy, min(start + _STRIDE, total), total)
    return hits


def _run(keys: list[str], sizes: list[int] | None, tier: MemoryTier) -> int:
    """Hits of some requests: the near look-up, the mark or the touch, and a put on a miss."""
    space = tier.space("")
    near, full, touch = tier.table(space).get, tier.get, tier.touch if tier.needs_touch else None
    hits = 0
    for at, key in enumerate(keys):
        entry = near(key) or full(space, key)
        if entry is not None:
            hits += 1
            if touch is not None:
                touch(entry)
            elif not entry.mark:
                entry.mark = True
            continue
        weight = 1 if sizes is None else max(-(-sizes[at] // WEIGHT_BYTES), 1)
        tier.put(Entry(key, None, 0.0, 0.0, None, None, 0, space, weight=weight))
    return hits


def _refuse(capacity: int | None, max_bytes: int | None) -> None:
    for name, limit in (("capacity", capacity), ("max_bytes", max_bytes)):
        if limit is not None and limit < 1:
            raise ValueError(f"{name} is {limit}: give at least 1")


def _silent(_policy: str, _done: int, _total: int) -> None:
    """Report to nobody."""
