"""Invalidations that come while a load is joined."""

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from genesis_cache import Cache, CacheSettings
from genesis_cache.testing.clock import FakeClock


@pytest_asyncio.fixture
async def cache() -> AsyncIterator[Cache]:
    """Memory only."""
    cache = Cache.from_url("memory://")
    yield cache
    await cache.close()


@pytest.mark.parametrize("many", [False, True])
async def test_a_later_invalidation_does_not_hide_an_earlier_one(cache: Cache, *, many: bool) -> None:
    """Who asks after a tag was invalidated never gets what was read before, whatever is invalidated meanwhile."""
    go, loads = asyncio.Event(), 0

    async def load() -> int:
        nonlocal loads
        loads += 1
        mine = loads
        await go.wait()
        return mine

    async def ask() -> object:
        if not many:
            return await cache.get_or_set("k", load, tags=["t"])

        async def load_many(keys: list[str]) -> dict[str, int]:
            value = await load()
            return dict.fromkeys(keys, value)

        return (await cache.get_or_set_many(["k"], load_many, tags=["t"]))["k"]

    early = asyncio.create_task(ask())
    await asyncio.sleep(0)
    while not loads:  # noqa: ASYNC110  # the loader tells by its list
        await asyncio.sleep(0)
    await cache.delete_by_tag("t")
    late = asyncio.create_task(ask())
    for _ in range(5):
        await asyncio.sleep(0)
    await cache.delete_by_tag("t")
    go.set()
    assert await early == 1
    assert await late == 2


async def test_many_keys_serve_old_values_while_new_ones_load(cache: Cache) -> None:
    """Past their ttl, many keys asked for at once answer at once, and are loaded once behind."""
    calls: list[list[str]] = []

    async def load(keys: list[str]) -> dict[str, str]:
        calls.append(keys)
        return dict.fromkeys(keys, "new")

    await cache.set_many({"a": "old", "b": "old"}, ttl=0.01, stale_while_revalidate=60)
    await asyncio.sleep(0.02)
    assert await cache.get_or_set_many(["a", "b"], load, stale_while_revalidate=60) == {"a": "old", "b": "old"}
    for _ in range(20):
        await asyncio.sleep(0)
    assert await cache.get_many(["a", "b"]) == {"a": "new", "b": "new"}
    assert calls == [["a", "b"]]


async def test_many_keys_fall_back_on_old_values_when_the_load_fails(cache: Cache) -> None:
    """When the loader of many keys fails, the old values serve where stale_if_error allows it."""

    async def fail(keys: list[str]) -> dict[str, str]:
        raise OSError(f"{len(keys)} keys, and no answer")

    await cache.set_many({"a": "old"}, ttl=0.01, stale_if_error=60)
    await asyncio.sleep(0.02)
    assert await cache.get_or_set_many(["a"], fail) == {"a": "old"}
    with pytest.raises(OSError, match="no answer"):
        await cache.get_or_set_many(["a", "b"], fail)


async def test_many_keys_take_no_more_patience_than_one() -> None:
    """A caller of many keys whose loads all hang has the old values after one soft_timeout, not one for each key."""
    clock = FakeClock()
    cache = Cache(CacheSettings().with_urls("memory://"), clock=clock)
    keys = [f"k{n}" for n in range(200)]
    async with cache:
        await cache.set_many(dict.fromkeys(keys, "old"), ttl=1, stale_if_error=100)
        clock.advance(2)
        hung = asyncio.Event()

        async def hang(missing: list[str]) -> dict[str, str]:
            await hung.wait()
            return dict.fromkeys(missing, "new")

        began = asyncio.get_running_loop().time()
        found = await cache.get_or_set_many(keys, hang, soft_timeout=0.1)
        assert asyncio.get_running_loop().time() - began < 10  # with 0.1 for each key it takes 20
        assert set(found.values()) == {"old"}
        hung.set()
