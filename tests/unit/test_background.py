"""Work behind the callers goes on when an event loop ends and another begins."""

import asyncio

from genesis_cache import Cache
from genesis_cache.model.settings import CacheSettings
from genesis_cache.testing.clock import FakeClock

TURNS = 2_000  # of a thousandth of a second, for what happens within a few


async def entries_left(cache: Cache, most: int) -> int:
    """How many entries memory holds once there are few enough, or after all patience."""
    for _ in range(TURNS):
        held = cache.analytics()["layer_statistics"]["l1"]["entries"]
        if held <= most:
            break
        await asyncio.sleep(0.001)
    return held


def test_the_clean_up_goes_on_with_the_next_event_loop() -> None:
    """A program that calls asyncio.run() again and again has its expired entries removed in each."""
    clock = FakeClock()
    cache = Cache(CacheSettings(cache_tiers=("memory",), cache_cleanup_interval=0.005), clock=clock)

    async def expire() -> int:
        await cache.set("key", 1, ttl=10)
        clock.advance(11)
        await cache.get("another")
        return await entries_left(cache, 0)

    assert asyncio.run(expire()) == 0
    assert asyncio.run(expire()) == 0
    asyncio.run(cache.close())


def test_the_clean_up_goes_on_after_a_close_and_an_open() -> None:
    """A cache that was closed and opened again on the same event loop still removes what expired."""
    clock = FakeClock()
    cache = Cache(CacheSettings(cache_tiers=("memory",), cache_cleanup_interval=0.005), clock=clock)

    async def run() -> int:
        async with cache:
            await cache.set("first", 1)
        async with cache:
            await cache.set("key", 1, ttl=10)
            clock.advance(11)
            return await entries_left(cache, 0)

    assert asyncio.run(run()) == 0
