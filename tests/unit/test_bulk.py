"""Invalidations that come while a load is joined."""

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from genesis_cache import Cache


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
