"""Placement and strategies: which tiers hold a value after a write or a load, by priority, strategy and option."""

import asyncio
from collections.abc import Awaitable
from typing import Any

from genesis_cache import Cache, CachePriority
from genesis_cache.engine.entries import make_record, near_entry
from genesis_cache.tiers.base import Drop


async def where(cache: Cache, key: str) -> list[str]:
    """The kinds of tiers that hold a key."""
    return [row.tier for row in (await cache.explain(key)).tiers if row.present]


async def test_write_through_goes_everywhere(cache: Cache, house: Any) -> None:
    """By default a written value is in every tier before set returns."""
    await cache.set("k", 1)
    assert await where(cache, "k") == list(house.tiers)


async def test_low_priority_skips_memory_until_asked_for_again(cache: Cache, house: Any) -> None:
    """LOW goes below memory, comes up when it is read, and goes to memory where there is nothing else."""
    await cache.set("k", 1, priority=CachePriority.LOW)
    assert await where(cache, "k") == [tier for tier in house.tiers if tier != "memory" or not house.far]
    assert await cache.get("k") == 1
    assert await where(cache, "k") == list(house.tiers)
    await cache.set("k", 2, priority=CachePriority.LOW)
    assert await where(cache, "k") == [tier for tier in house.tiers if tier != "memory" or not house.far]
    assert await cache.get("k") == 2


async def test_critical_stays_while_anything_else_can_go(house: Any) -> None:
    """When memory is full CRITICAL entries stay, LOW ones go first."""
    if not house.near:
        return
    cache = house.cache(l1_cache_max_entries=20)
    for n in range(10):
        await cache.set(f"critical {n}", n, priority=CachePriority.CRITICAL)
    for n in range(100):
        await cache.set(f"normal {n}", n)
    assert [cache.peek(f"critical {n}") for n in range(10)] == list(range(10))
    assert len(cache._engine.core.memory) <= 20
    await cache._engine.background.drain()


async def test_tiers_option_restricts_where_a_value_goes(cache: Cache, house: Any) -> None:
    """tiers= names where a value may be; older copies elsewhere go."""
    for tier in house.tiers:
        await cache.set("k", "everywhere")
        await cache.set("k", tier, tiers=[tier])
        assert await where(cache, "k") == [tier]
        assert await cache.get("k") == tier
        assert await where(cache, "k") == [tier], "reading it does not move it where it may not be"
    await cache.get_or_set("l", lambda: 1, tiers=[house.tiers[-1]])
    assert await where(cache, "l") == [house.tiers[-1]]


async def test_write_around(house: Any) -> None:
    """WRITE_AROUND writes to the last tier and drops nearer copies; what is loaded goes to every tier."""
    cache = house.cache(write_strategy="write_around")
    assert await cache.get_or_set("k", lambda: "loaded") == "loaded"
    assert await where(cache, "k") == list(house.tiers)
    await cache.set("k", "written")
    assert await where(cache, "k") == [house.tiers[-1]]
    assert await cache.get("k") == "written"


async def test_write_behind_reads_its_own_writes(house: Any) -> None:
    """Under WRITE_BEHIND set and delete return at once, reads see them at once, and the rest follows."""
    cache = house.cache(write_strategy="WRITE_BEHIND")
    await cache.open()
    for n in range(20):
        assert await cache.set("k", n)
        assert await cache.get("k") == n
    await cache.set("low", 1, priority="LOW")
    assert await cache.get("low") == 1
    await cache.set("low", 2, priority="LOW")
    assert await cache.get("low") == 2
    assert await cache.get_many(["low", "k"]) == {"low": 2, "k": 19}
    await cache._engine.background.drain()
    assert await where(cache, "k") == list(house.tiers)
    assert await cache.delete("k", "low")
    house.forget_near(cache)
    assert await cache.get("k") is None
    assert await cache.get_many(["k", "low"]) == {}
    await cache._engine.background.drain()
    assert await where(cache, "k") == []
    await cache.set("k", "last")
    await cache.close()
    if house.far:
        assert await house.cache().get("k") == "last"


async def test_cache_aside_loads_nothing_on_its_own(house: Any) -> None:
    """Under CACHE_ASIDE nothing is fetched behind a caller's back."""
    cache = house.cache(read_strategy="CACHE_ASIDE")
    calls: list[int] = []
    options: dict[str, Any] = {"ttl": 10, "stale_while_revalidate": 60, "refresh_ahead": 0.5}

    async def load() -> int:
        calls.append(1)
        return len(calls)

    assert await cache.get_or_set("k", load, **options) == 1
    house.pass_time(6)
    assert await cache.get_or_set("k", load, **options) == 1
    await cache._engine.background.drain()
    assert len(calls) == 1
    house.pass_time(6)
    assert await cache.get_or_set("k", load, **options) == 2


async def test_refresh_ahead_strategy(house: Any) -> None:
    """REFRESH_AHEAD refreshes past 0.8 of the ttl without being asked by an option."""
    cache = house.cache(read_strategy="REFRESH_AHEAD")
    calls: list[int] = []

    async def load() -> int:
        calls.append(1)
        return len(calls)

    assert await cache.get_or_set("k", load, ttl=100) == 1
    house.pass_time(79)
    assert await cache.get_or_set("k", load, ttl=100) == 1
    await cache._engine.background.drain()
    assert len(calls) == 1
    house.pass_time(2)
    assert await cache.get_or_set("k", load, ttl=100) == 1
    await cache._engine.background.drain()
    assert await cache.get("k") == 2


async def test_a_promoted_value_keeps_the_ttl_it_has_left(cache: Cache, house: Any) -> None:
    """What is found below comes up with the ttl that is left, not with a new one."""
    if not (house.far and house.near):
        return
    await cache.set("k", 1, ttl=100)
    house.pass_time(60)
    house.forget_near(cache)
    assert await cache.get("k") == 1
    row = (await cache.explain("k")).tiers[0]
    assert row.present
    assert abs(row.ttl_left - 40) < 1
    house.pass_time(41)
    assert await cache.get("k") is None


async def test_a_victim_of_memory_is_kept_below(house: Any) -> None:
    """What memory had to let go is still found below, and what was deleted meanwhile does not come back."""
    if not (house.far and house.near):
        return
    cache = house.cache(l1_cache_max_entries=10)
    await cache.open()
    for n in range(60):
        await cache.set(f"k{n}", n, ttl=100)
    await cache._engine.background.drain()
    assert await cache.get_many([f"k{n}" for n in range(60)]) == {f"k{n}": n for n in range(60)}
    await cache._engine.background.drain()
    for n in range(60, 120):
        await cache.set(f"k{n}", n, ttl=100)
        await cache.delete(f"k{n}", f"k{n - 60}")
    await cache._engine.background.drain()
    assert await cache.get_many([f"k{n}" for n in range(120)]) == {}


async def test_a_victim_that_was_deleted_on_its_way_down(house: Any) -> None:
    """An entry evicted from memory just before its delete is not written below after it."""
    if not (house.far and house.near):
        return
    cache = house.cache(l1_cache_max_entries=10)
    await cache.open()
    for round_ in range(5):
        for n in range(10):
            await cache.set(f"v{n}", round_)
        core = cache._engine.core
        for lane in core.lanes:  # only memory holds them, as after an eviction below
            await lane.tier.commit([Drop(cache._view.address(f"v{n}")) for n in range(10)])
        for n in range(10):
            cache._engine.writing.admit(_copy(cache, f"filler {round_} {n}"))
        cache._engine.writing._after_puts()
        await cache.delete(*(f"v{n}" for n in range(10)))
        await cache._engine.background.drain()
        house.forget_near(cache)
        assert await cache.get_many([f"v{n}" for n in range(10)]) == {}


def _copy(cache: Cache, key: str) -> Any:
    """An entry made as a load would make one."""
    core, view = cache._engine.core, cache._view
    plan = core.plan_of(view, {})
    record = make_record(
        view.address(key), 1, plan, ttl=60, wall=core.clock.wall(), seq=core.floors.seq, epoch=core.log_epoch
    )
    return near_entry(core, view, key, record)


async def test_eviction_policies_all_work(house: Any) -> None:
    """Each policy keeps within its entries and serves what it holds."""
    if house.tiers not in (("memory",), ("memory", "disk")):
        return
    for policy in ("LRU", "lfu", "S3FIFO", "TinyLFU", "ADAPTIVE"):
        cache = house.cache(eviction_policy=policy, l1_cache_max_entries=30, cache_name=policy.lower())
        for n in range(200):
            assert await cache.get_or_set(f"k{n % 50}", lambda n=n: n % 50) == n % 50
        assert len(cache._engine.core.memory) <= 30
        await cache._engine.background.drain()
        await cache.close()


async def test_concurrent_sets_of_one_key(cache: Cache, house: Any) -> None:
    """After sets of one key at once every tier holds the same one of them."""
    await asyncio.gather(*(cache.set("k", n) for n in range(50)))
    near = await cache.get("k")
    for lane in cache._engine.core.lanes:
        answer = lane.get(cache._view.address("k"))
        envelope = await answer if isinstance(answer, Awaitable) else answer
        record = cache._engine.core.codec.decode(envelope, cache._view.address("k"))
        assert record is not None
        assert record.value == near
