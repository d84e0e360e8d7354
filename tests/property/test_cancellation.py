"""Cancellation at every point of every public call harms nobody: the next call works, and nothing is left behind."""

import asyncio
import gc
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from genesis_cache import Cache

LINEUPS = {
    "memory": ["memory://"],
    "disk": ["disk://{}/disk?max_mb=10"],
    "memory+disk": ["memory://", "disk://{}/disk?max_mb=10"],
    "memory+database": ["memory://", "sqlite:///{}/cache.db?max_mb=10"],
}
MOST_TICKS = 60


async def slow(value: object) -> object:
    """A loader with some suspensions of its own."""
    for _ in range(3):
        await asyncio.sleep(0)
    return value


async def slow_many(keys: list[str]) -> dict[str, object]:
    """The same for many keys."""
    await slow(None)
    return {key: f"value of {key}" for key in keys}


def plain() -> str:
    """A loader that runs in a thread."""
    return "value of k"


CALLS: dict[str, Callable[[Cache], Awaitable[object]]] = {
    "get": lambda c: c.get("k"),
    "get_many": lambda c: c.get_many(["k", "l"]),
    "get_or_set": lambda c: c.get_or_set("k", lambda: slow("value of k")),
    "get_or_set plain": lambda c: c.get_or_set("k", plain),
    "get_or_set_many": lambda c: c.get_or_set_many(["k", "l"], slow_many),
    "set": lambda c: c.set("k", "value of k", tags=["t"]),
    "set_many": lambda c: c.set_many({"k": "value of k", "l": "value of l"}),
    "delete": lambda c: c.delete("k", "l"),
    "expire": lambda c: c.expire("k"),
    "touch": lambda c: c.touch("k", 50),
    "delete_by_tag": lambda c: c.delete_by_tag("t"),
    "delete_by_pattern": lambda c: c.delete_by_pattern("k*"),
    "clear": lambda c: c.clear(),
    "explain": lambda c: c.explain("k"),
    "optimize": lambda c: c.optimize_cache_distribution(),
    "open": lambda c: c.open(),
}


async def quiet(cache: Cache) -> None:
    """Wait until nothing goes on behind."""
    for _ in range(500):
        core = cache._engine.core
        if not cache._engine.background._tasks and not any(lane.owed for lane in core.lanes):
            return
        await asyncio.sleep(0.002)


async def cancelled_after(cache: Cache, call: Callable[[Cache], Awaitable[object]], ticks: int) -> bool:
    """Cancel a call after so many turns of the loop; whether it was still under way."""
    task = asyncio.ensure_future(call(cache))
    for _ in range(ticks):
        await asyncio.sleep(0)
        if task.done():
            break
    early = not task.done()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    return early


def left_behind(cache: Cache) -> list[str]:
    """What a call must not leave."""
    core = cache._engine.core
    left = [f"flights of {list(space.flights)}" for space in core.spaces.values() if space.flights]
    left += [f"{space.gate.running} places taken" for space in core.spaces.values() if space.gate.running]
    left += [f"{core.fills._active} fills"] if core.fills._active else []
    left += [f"{core.loads_abandoned} abandoned"] if core.loads_abandoned else []
    left += [f"leases {cache._engine.reading.leading._leased}"] if cache._engine.reading.leading._leased else []
    left += [f"writes expected {cache._engine.hearing._expected}"] if cache._engine.hearing._expected else []
    left += [f"{lane.label} is owed {lane.owed}" for lane in core.lanes if lane.owed]
    left += [fault for lane in core.lanes for fault in lane.tier.check()]
    return left


@pytest.mark.parametrize("lineup", list(LINEUPS))
@pytest.mark.parametrize("warm", [False, True], ids=["cold", "warm"])
async def test_cancelled_at_every_turn(lineup: str, warm: bool, tmp_path: Path, caplog: Any) -> None:
    """Every call, cancelled after each number of turns, leaves the next calls right and nothing behind."""
    cache = Cache.from_url(*(url.format(tmp_path) for url in LINEUPS[lineup]))
    async with cache:
        for name, call in CALLS.items():
            finished = 0
            for ticks in range(MOST_TICKS):
                await cache.delete("k", "l")
                if warm:
                    await cache.set_many({"k": "value of k", "l": "value of l"}, tags=["t"], stale_if_error=50)
                    if cache._engine.core.memory is not None:
                        cache._engine.core.memory.flush("size") if cache._engine.core.lanes else None
                finished += not await cancelled_after(cache, call, ticks)
                found = await asyncio.wait_for(cache.get_or_set("k", lambda: slow("value of k")), 5)
                assert found == "value of k", (name, ticks)
                outcome = await cache.set("l", "mine")  # not stored only while the tier is owed what was cancelled
                assert await cache.get("l") == ("mine" if outcome or len(LINEUPS[lineup]) > 1 else None), (name, ticks)
                if finished == 2:
                    break
            await quiet(cache)
            assert left_behind(cache) == [], name
    gc.collect()
    assert "never retrieved" not in caplog.text
    assert "background work failed" not in caplog.text


@pytest.mark.parametrize("lineup", ["memory", "memory+disk"])
async def test_a_storm_of_cancellations(lineup: str, tmp_path: Path) -> None:
    """Half of many concurrent calls cancelled at odd moments: the others get the value that is their own."""
    cache = Cache.from_url(*(url.format(tmp_path) for url in LINEUPS[lineup]))
    async with cache:
        for round_ in range(4):
            tasks = []
            for n in range(150):
                owner = f"user:{n % 3}"
                key = f"k{n % 10}"
                view = cache.owned_by(owner)
                tasks.append(
                    (
                        f"{owner} {key}",
                        asyncio.ensure_future(view.get_or_set(key, lambda o=owner, k=key: slow(f"{o} {k}"))),
                    )
                )
            for n, (_, task) in enumerate(tasks):
                if (n * 7 + round_) % 2:
                    task.cancel()
                if n % 5 == 0:
                    await asyncio.sleep(0)
            found = await asyncio.gather(*(task for _, task in tasks), return_exceptions=True)
            for (expected, _), value in zip(tasks, found, strict=True):
                assert isinstance(value, asyncio.CancelledError) or value == expected
            await cache.clear()
        await quiet(cache)
        assert left_behind(cache) == []
