"""Emptying one tier: its copies go, the values stay valid wherever else they are. No sequence, no notice."""

import asyncio
from collections.abc import Sequence
from time import perf_counter

from genesis_cache.codecs.envelope import named
from genesis_cache.coherence.floors import reach_of
from genesis_cache.engine.core import Core, Lane, View
from genesis_cache.model.keys import address_of, scope_of
from genesis_cache.model.outcome import Outcome
from genesis_cache.tiers.base import Change, Drop, Found

SLICE_S = 0.0005  # of the event loop, between two breaths
DROPPED_AT_ONCE = 500
SCANNED_AT_FIRST = 1_000
SCANNED_AT_MOST = 64_000  # envelopes of others met before one of ours: a tier that holds more is not searched through


async def empty(core: Core, view: View, tier: str) -> Outcome:
    """Drop what a tier, named by its kind or its layer, holds within reach of the view.

    ValueError where there is no such tier. The outcome is degraded where the tier is down, or where what is meant lies
    behind too much that is not.
    """
    if core.memory is not None and tier in ("memory", core.near_label):
        await _empty_memory(core, view)
        return Outcome()
    for lane in core.lanes:
        if tier in (lane.tier.kind, lane.label):
            return Outcome() if await _empty_lane(core, view, lane) else Outcome((lane.tier.kind,))
    known = ([core.near_label, "memory"] if core.memory is not None else []) + [
        name for lane in core.lanes for name in (lane.label, lane.tier.kind)
    ]
    msg = f"there is no tier {tier!r:.80}: this cache has {', '.join(known)}"
    raise ValueError(msg)


async def _empty_memory(core: Core, view: View) -> None:
    memory = core.memory
    if memory is None:
        return
    slice_end = perf_counter() + SLICE_S
    for entry in memory.items():
        if perf_counter() >= slice_end:
            await asyncio.sleep(0)
            slice_end = perf_counter() + SLICE_S
        owner = None if type(entry.key) is str else entry.key[0]
        if _within(view, core.namespace_of(entry), owner):
            memory.drop(entry, "explicit")


async def _empty_lane(core: Core, view: View, lane: Lane) -> bool:
    limit = SCANNED_AT_FIRST
    while lane.tier.down is None:
        found = await lane.tier.scan(limit)
        drops = _drops(core, view, found)
        for start in range(0, len(drops), DROPPED_AT_ONCE):
            if await lane.tier.commit(drops[start : start + DROPPED_AT_ONCE]) is None:
                return False
        if len(found) < limit:
            return True
        if not drops:
            if limit >= SCANNED_AT_MOST:
                return False
            limit *= 4
    return False


def _drops(core: Core, view: View, found: Sequence[Found]) -> list[Change]:
    drops: list[Change] = []
    for one in found:
        names = named(one.envelope)
        if names is None or names[0] != core.settings.cache_name:
            continue
        _, namespace, owner, key = names
        if _within(view, namespace, owner):
            drops.append(Drop(address_of(scope_of(core.settings.cache_name, namespace, owner), key)))
    return drops


def _within(view: View, namespace: str, owner: str | None) -> bool:
    return (view.space.name, view.owner) in reach_of(namespace, owner)
