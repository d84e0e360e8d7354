"""The short benchmark that users run on their own machine and tiers: every price as a ratio to an empty coroutine."""

import os
from collections.abc import Callable
from typing import Any

from genesis_cache.cache import Cache
from genesis_cache.cli.measure import Case, Timing, awaited, awaited_over, awaited_with, measure

NAMESPACE = "genesis-cache-bench"
ROUNDS = 7
NEAR = "near"
KEYS = [f"key:{number}" for number in range(256)]
VALUE_BYTES = 1024


async def benchmark(cache: Cache, report: Callable[[int, int], None]) -> dict[str, Any]:
    """Measure the cache in a namespace of its own, which is cleared at the end.

    ``report`` is told after each batch how many are done, and how many there are.
    """
    view = cache.namespace(NAMESPACE)
    try:
        cases = await _near_cases(view)
        for layer, row in cache.analytics()["layer_statistics"].items():
            if layer != "l1" or row.get("tier", "memory") != "memory":
                cases += await _far_cases(view, str(row.get("tier", layer)))
        timings = await measure(cases, rounds=ROUNDS, report=report)
    finally:
        await view.delete(NEAR, *KEYS)  # a clear alone would leave their bytes until the next sweep
        await view.clear()
    return {"value_bytes": VALUE_BYTES, "rounds": ROUNDS, "results": [_row(timing, timings[0]) for timing in timings]}


def _row(timing: Timing, floor: Timing) -> dict[str, Any]:
    return {
        "case": timing.name,
        "ns_per_op": timing.ns,
        "ratio": timing.ns / floor.ns,
        "fastest_ns": timing.fastest_ns,
        "slowest_ns": timing.slowest_ns,
    }


async def _empty() -> None:
    """The floor: what awaiting anything at all costs."""


async def _near_cases(view: Cache) -> list[Case]:
    @view.cached("item:{number}", tags=["item:{number}"])
    async def item(number: str) -> str:
        return number

    await item("7")
    await view.set(NEAR, os.urandom(VALUE_BYTES))
    return [
        Case("empty coroutine", awaited(_empty)),
        Case("near hit: await cache.get(key)", awaited_with(view.get, NEAR)),
        Case("near hit: decorated, tagged", awaited_with(item, "7")),
        Case("invalidate by tag", awaited_with(view.delete_by_tag, "item:none"), most=2_000),
    ]


async def _far_cases(view: Cache, tier: str) -> list[Case]:
    value = os.urandom(VALUE_BYTES)

    async def store(key: str) -> object:
        return await view.set(key, value, tiers=[tier])

    for key in KEYS:
        await store(key)
    return [
        Case(f"{tier}: get", awaited_over(view.get, KEYS), most=5_000),
        Case(f"{tier}: set", awaited_over(store, KEYS), most=1_000),
    ]
