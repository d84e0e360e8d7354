"""Carrying: a Redis that lost its memory does not cost the database its entries, and brings nothing dead back."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import asyncpg
import pytest

from genesis_cache import Cache
from genesis_cache.testing.servers import PostgresServer, RedisServer

PATIENCE_S = 60.0


@asynccontextmanager
async def opened(redis: RedisServer, postgres: PostgresServer) -> AsyncIterator[Cache]:
    """A process of its own, as far as a cache can tell."""
    budget_ms = 10_000  # a busy machine is no dead server
    async with Cache.from_url("memory://", redis.url, postgres.url, cache_far_budget_ms=budget_ms) as cache:
        yield cache


async def until(condition: Callable[[], object]) -> None:
    """Wait for something that comes about by itself."""
    async with asyncio.timeout(PATIENCE_S):
        while not condition():  # noqa: ASYNC110  # what is waited for has no event
            await asyncio.sleep(0.01)


async def forgets(cache: Cache, redis: RedisServer) -> None:
    """Redis loses its memory, and the cache has noticed."""
    before = cache._engine.core.log_epoch
    await asyncio.to_thread(redis.kill)
    await asyncio.to_thread(redis.start)
    await hears(cache, before)


async def hears(cache: Cache, before: int = 0) -> None:
    """The cache has a log that is another one than before, and hears it."""
    core = cache._engine.core

    def is_there() -> bool:
        cache._engine.hearing.listen()
        return core.log_epoch != before and not core.is_cut_off and all(lane.tier.down is None for lane in core.lanes)

    await until(is_there)


async def fill(cache: Cache) -> None:
    """Values in every place, and a kill of each kind."""
    shop = cache.namespace("shop")
    for view in (cache, shop, cache.owned_by("user:1")):
        await view.set_many({"plain": 1, "sold": 2, "order:1": 3}, ttl="1h")
        await view.set("tagged", 4, ttl="1h", tags=["red"])
        await view.get_or_set("loaded", lambda: 5, ttl="1h", tags=["blue"])
    assert await cache.delete("sold")
    assert await cache.delete_by_tag("red")
    assert await cache.delete_by_pattern("order:*")
    assert await shop.clear()
    await shop.set("anew", 6, ttl="1h", tags=["red"])


async def check(cache: Cache) -> None:
    """Whatever lived lives, whatever was dead is dead."""
    owned, shop = cache.owned_by("user:1"), cache.namespace("shop")
    assert await cache.get_many(["plain", "sold", "order:1", "tagged", "loaded"]) == {"plain": 1, "loaded": 5}
    for key, value in {"plain": 1, "sold": 2, "order:1": None, "tagged": None, "loaded": 5}.items():
        assert await owned.get(key) == value
    for key, value in {"plain": None, "sold": None, "loaded": None, "anew": 6}.items():
        assert await shop.get(key) == value


async def test_the_database_keeps_what_redis_forgot(own_redis: RedisServer, own_postgres: PostgresServer) -> None:
    """After an empty restart of Redis its values are still there, for old processes and for new ones; dead ones not."""
    async with opened(own_redis, own_postgres) as cache:
        await fill(cache)
        await forgets(cache, own_redis)
        async with opened(own_redis, own_postgres) as other:
            await check(other)
        await check(cache)


async def test_what_was_carried_over_dies_like_any_other(own_redis: RedisServer, own_postgres: PostgresServer) -> None:
    """A kill under the new log reaches what was made under the old one, here, elsewhere, and after another loss."""
    async with opened(own_redis, own_postgres) as cache, opened(own_redis, own_postgres) as other:
        await cache.set_many({"a": 1, "b": 2}, ttl="1h", tags=["red"])
        await cache.set("c", 3, ttl="1h", tags=["blue"])
        epoch = cache._engine.core.log_epoch
        await forgets(other, own_redis)
        await hears(cache, epoch)
        assert await other.get("a") == 1
        assert await cache.get("a") == 1
        assert await cache.delete_by_tag("red")
        assert await cache.get_many(["a", "b", "c"]) == {"c": 3}
        await until(lambda: other.peek("a") is None)
        assert await other.get_many(["a", "b", "c"]) == {"c": 3}
        epoch = cache._engine.core.log_epoch
        await forgets(other, own_redis)
        await hears(cache, epoch)
        assert await other.get_many(["a", "b", "c"]) == {"c": 3}
        assert await cache.get_many(["a", "b", "c"]) == {"c": 3}


async def test_a_kill_that_the_database_missed_is_owed(own_redis: RedisServer, own_postgres: PostgresServer) -> None:
    """The caller is told; who made it does not see what it killed; once paid, nobody does, whatever Redis forgets."""
    async with opened(own_redis, own_postgres) as cache, opened(own_redis, own_postgres) as other:
        await cache.set("a", 1, ttl="1h", tags=["red"])
        await asyncio.to_thread(own_postgres.kill)
        await until(lambda: cache._engine.core.lanes[1].tier.down)
        outcome = await cache.delete_by_tag("red")
        assert not outcome
        assert outcome.degraded == ("database",)
        await asyncio.to_thread(own_postgres.start)
        await hears(other)
        assert await cache.get("a") is None
        await until(lambda: not any(lane.owed for lane in cache._engine.core.lanes))
        await forgets(other, own_redis)
        assert await other.get("a") is None


async def test_books_that_are_not_whole_vouch_for_nothing(own_redis: RedisServer, own_postgres: PostgresServer) -> None:
    """Where the database has lost what it was told, what Redis forgot is gone too."""
    async with opened(own_redis, own_postgres) as cache:
        await cache.set("a", 1, ttl="1h", tags=["red"])
        await cache.set("b", 2, ttl="1h")
        assert await cache.delete_by_tag("red")
        connection = await asyncpg.connect(own_postgres.url)
        await connection.execute("DELETE FROM genesis_cache.floors")
        await connection.close()
        await forgets(cache, own_redis)
        assert await cache.get_many(["a", "b"]) == {}


@pytest.mark.parametrize("verb", ["touch", "expire"])
async def test_a_copy_is_not_younger_than_its_value(
    own_redis: RedisServer, own_postgres: PostgresServer, verb: str
) -> None:
    """What is only written again with other times is not taken for a value that was made after the kills before."""
    async with opened(own_redis, own_postgres) as cache:
        await cache.set("a", 1, ttl="1h", tags=["red"], stale_if_error="1h")
        assert await (cache.touch("a", "2h") if verb == "touch" else cache.expire("a"))
        address = cache._view.address("a")
        tier = cache._engine.core.keepers[0].tier
        assert await tier.kept(address) is None
