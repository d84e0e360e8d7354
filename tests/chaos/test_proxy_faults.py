"""What networks do, between a cache and its server: slow, sliced, swallowed, cut at any byte, mixed up."""

import asyncio
from collections.abc import Iterator

import pytest
from tests.chaos.proof_cancellation import storm
from tests.chaos.traffic import downs, nothing_old, opened, owed, recovered, traffic, until

from genesis_cache.model.clock import SystemClock
from genesis_cache.model.keys import address_of, scope_of
from genesis_cache.model.settings import CacheSettings
from genesis_cache.testing.proxy import Proxy
from genesis_cache.testing.servers import PostgresServer, RedisServer
from genesis_cache.tiers.base import Put, Remove
from genesis_cache.tiers.redis.store import redis_store
from genesis_cache.tiers.remote_base import Outage

STORM = 2_000


class Behind:
    """A server behind a proxy."""

    def __init__(self, proxy: Proxy, url: str, direct: str) -> None:
        self.proxy = proxy
        self.url = url
        self.direct = direct


@pytest.fixture(params=["redis", "postgres"])
def behind(request: pytest.FixtureRequest) -> Iterator[Behind]:
    """Either server behind a proxy."""
    if request.param == "redis":
        redis: RedisServer = request.getfixturevalue("own_redis")
        with Proxy(redis.port, redis=True) as proxy:
            yield Behind(proxy, redis.url_at(proxy.port), redis.url)
    else:
        postgres: PostgresServer = request.getfixturevalue("own_postgres")
        with Proxy(postgres.port) as proxy:
            yield Behind(proxy, postgres.url_at(proxy.port), postgres.url)


async def after(behind: Behind, seconds: float, hurt: "Iterator[object]") -> None:
    """Traffic while one fault after the other is switched on, and all is well when it is over."""
    async with opened("memory://", behind.url) as cache, traffic(cache) as going:
        await asyncio.sleep(0.1)
        for _ in hurt:
            await asyncio.sleep(seconds)
        behind.proxy.heal()
        await recovered(cache)
        await going.stop()
        await until(lambda: not owed(cache), "what was owed is paid")
        async with opened("memory://", behind.direct) as other:
            await nothing_old(other, going)


async def test_replies_byte_by_byte(behind: Behind) -> None:
    """Sliced into single bytes, both ways, everything is the same and nothing is down."""
    behind.proxy.replies.slice_bytes = behind.proxy.requests.slice_bytes = 1
    patient = {"cache_far_budget_ms": 20_000, "redis_socket_timeout": 30, "redis_connection_timeout": 30}
    async with opened(behind.url, **patient) as cache:
        values = {f"k{n}": {"key": n, "filler": "x" * n} for n in range(40)}
        assert await cache.set_many(values)
        assert await cache.get_many(values) == values
        assert [await cache.get(key) for key in values] == list(values.values())
        assert await cache.delete_by_tag("t")
        assert downs(cache) == []


async def test_a_slow_server_is_not_a_dead_one(behind: Behind) -> None:
    """With 200 ms a reply, callers go on without it, changes are made, and nothing old or foreign is served."""

    def hurt() -> Iterator[object]:
        behind.proxy.replies.latency_s, behind.proxy.replies.jitter_s = 0.2, 0.05
        yield

    await after(behind, 1.5, hurt())


async def test_a_black_hole_is_noticed(behind: Behind) -> None:
    """Connections that stay open and bring nothing are given up; when the network is back, so is the cache."""

    def hurt() -> Iterator[object]:
        behind.proxy.requests.black_hole = True
        yield
        behind.proxy.requests.black_hole = False
        behind.proxy.replies.black_hole = True
        yield

    await after(behind, 1.2, hurt())


async def test_refused_and_reset(behind: Behind) -> None:
    """Resets in the middle of everything, then refusal, then all is well again."""

    def hurt() -> Iterator[object]:
        for _ in range(10):
            behind.proxy.cut()
            yield
        behind.proxy.refuse()
        behind.proxy.cut()
        yield
        yield

    await after(behind, 0.08, hurt())


async def test_connections_that_last_for_a_few_bytes(behind: Behind) -> None:
    """Every connection ends after so many bytes, more each time: no verb raises and no value is wrong."""

    def hurt() -> Iterator[object]:
        for limit in (0, 1, 10, 50, 200, 500, 1000, 3000):
            behind.proxy.replies.limit_bytes = limit
            behind.proxy.replies.reset = limit % 20 == 0
            behind.proxy.cut()
            yield

    await after(behind, 0.15, hurt())


async def test_a_reply_cut_at_every_byte(own_redis: RedisServer) -> None:
    """Whatever part of a reply arrives before the connection ends, a read is right or an outage, never wrong."""
    with Proxy(own_redis.port, redis=True) as proxy:
        settings = CacheSettings(redis_url=own_redis.url_at(proxy.port), redis_max_connections=2)
        store = redis_store(settings, 2**20, SystemClock())()
        await store.open()
        epoch = (await store.join(None)).position.epoch
        scope = scope_of("default")
        a, b, c = (address_of(scope, key) for key in "abc")
        values = {a: b"a" * 120, b: b"b" * 130}
        await store.commit([Put(address, value, float("inf")) for address, value in values.items()], epoch)
        outages = 0
        for offset in range(320):
            proxy.replies.cut_in(offset, reset=offset % 2 == 0)
            try:
                if offset % 4 == 3:
                    await store.commit([Remove(c), Put(c, b"c" * 99, float("inf"))], epoch)
                assert [bytes(found or b"") for found in await store.get_many([a, b, a])] == [
                    values[a], values[b], values[a]
                ]  # fmt: skip
            except Outage:
                outages += 1
            proxy.heal()
            assert bytes(await store.get(b) or b"") == values[b]
        assert outages < 320
        await store.close()


async def test_swapped_replies_are_never_served(own_redis: RedisServer) -> None:
    """Replies that change places are found out, each one: a miss, counted, and the connections are made anew."""
    with Proxy(own_redis.port, redis=True) as proxy:
        async with opened(own_redis.url_at(proxy.port), cache_far_budget_ms=5000) as cache:
            keys = [f"k{n}" for n in range(30)]
            assert await cache.set_many({key: f"value of {key}" for key in keys})
            assert await cache.get_many(keys) == {key: f"value of {key}" for key in keys}
            proxy.replies.swap = True
            found = 0
            for _ in range(10):
                for key in keys[:5]:
                    value = await cache.get(key)
                    assert value in (None, f"value of {key}")
                    found += value is not None
                for key, value in (await cache.get_many(keys)).items():
                    assert value == f"value of {key}"
                for value, key in zip(await asyncio.gather(*map(cache.get, keys)), keys, strict=True):
                    assert value in (None, f"value of {key}")
            tier = cache._engine.core.lanes[0].tier
            assert proxy.replies.swapped > 0
            assert tier.swapped > 0  # type: ignore[attr-defined]  # of a tier behind a server
            assert tier.stats().damaged >= tier.swapped  # type: ignore[attr-defined]  # as above
            proxy.heal()
            await recovered(cache)

            async def all_right() -> bool:
                return await cache.get_many(keys) == {key: f"value of {key}" for key in keys}

            await until(all_right, "all values are served again")


async def test_a_storm_of_cancellations() -> None:
    """Callers who leave at any moment, through a slow network that slices: nobody ever gets another key's value."""
    figures = await storm(STORM)
    assert figures["faults"] == []
    assert figures["cancelled"] >= STORM
    assert figures["right"] > STORM // 4
