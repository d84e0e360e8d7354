"""Several far tiers at once: what is found below goes up, what others change goes, and a reader knows it is cut off."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from genesis_cache import Cache
from genesis_cache.engine.core import Lane
from genesis_cache.model.settings import CacheSettings
from genesis_cache.testing.proxy import Proxy
from genesis_cache.testing.servers import RedisServer
from genesis_cache.tiers.base import Drop

KEYS = "one:" + "11" * 32
SLOW_S = 0.5  # well past the far budget of 50 ms, and longer than a busy machine holds up an event loop
PATIENT = {"far_budget_ms": 20_000}  # no reader goes on without a busy machine's reply


async def until(condition: Callable[[], object], what: str) -> None:
    """Wait for what goes on behind."""
    end = asyncio.get_running_loop().time() + 10
    while not condition():
        assert asyncio.get_running_loop().time() < end, f"it never came about that {what}"
        await asyncio.sleep(0.005)


def lane_of(cache: Cache, kind: str) -> Lane:
    """The far tier of a kind."""
    (lane,) = (lane for lane in cache._engine.core.lanes if lane.tier.kind == kind)
    return lane


async def held(cache: Cache, kind: str, key: str) -> bool:
    """Whether that tier holds the key."""
    (row,) = (row for row in (await cache.explain(key)).tiers if row.tier == kind)
    return row.present


async def test_what_lies_below_goes_up_with_the_time_it_has_left(
    redis_url: str, postgres_url: str, cache_name: str
) -> None:
    """A value that only the database still has is found, and Redis and memory hold it again, while it has time left."""
    async with Cache.from_url("memory://", redis_url, postgres_url, name=cache_name) as cache:
        await cache.set("k", "v", ttl=60, tags=["t"])
        lane = lane_of(cache, "redis")
        await lane.tier.commit([Drop(cache._view.address("k"))])
        cache._engine.core.memory.flush("size")
        assert not await held(cache, "redis", "k")
        for _ in range(200):
            if await cache.get("k") == "v" and cache.peek("k") == "v":
                break
            await asyncio.sleep(0.01)  # a reply that is late goes up behind its reader
        assert cache.peek("k") == "v"
        for _ in range(200):
            if await held(cache, "redis", "k"):
                break
            await asyncio.sleep(0.01)
        rows = {row.tier: row for row in (await cache.explain("k")).tiers}
        assert set(rows) == {"memory", "redis", "database"}
        assert all(row.present and row.ttl_left is not None and 0 < row.ttl_left <= 60 for row in rows.values())
        await cache.delete_by_tag("t")
        assert await cache.get("k") is None


async def test_a_late_reply_is_taken_in(own_redis: RedisServer) -> None:
    """A reader does not wait for a slow Redis, and what that answers later is in memory for the next."""
    with Proxy(own_redis.port, redis=True) as proxy:
        async with Cache.from_url("memory://", own_redis.url_at(proxy.port)) as cache:
            await cache.set("k", "v")
            cache._engine.core.memory.flush("size")
            proxy.replies.latency_s = SLOW_S
            assert await cache.get("k", "not yet") == "not yet"
            await until(lambda: cache.peek("k") == "v", "the late reply is in memory")
            assert cache.analytics()["layer_statistics"]["l2"]["late"] == 1


async def test_a_late_reply_brings_nothing_back(own_redis: RedisServer) -> None:
    """What was deleted while a late reply was on its way stays deleted."""
    with Proxy(own_redis.port, redis=True) as proxy:
        async with Cache.from_url("memory://", own_redis.url_at(proxy.port)) as cache:
            await cache.set("k", "v")
            cache._engine.core.memory.flush("size")
            proxy.replies.latency_s = SLOW_S
            assert await cache.get("k", "not yet") == "not yet"
            await cache.delete("k")
            await asyncio.sleep(2 * SLOW_S)
            assert cache.peek("k") is None


async def test_another_hosts_change_reaches_this_hosts_disk(redis_url: str, cache_name: str, tmp_path: Path) -> None:
    """What one host deletes or sets anew is not read from another host's disk, nor after that host was away."""

    def host(name: str) -> Cache:
        urls = "memory://", f"disk://{tmp_path}/{name}?max_mb=10", redis_url
        return Cache.from_url(*urls, name=cache_name, **PATIENT)

    async with host("a") as a, host("b") as b:
        for key in ("gone", "new", "tagged"):
            await a.set(key, "old", tags=[key])
        told, heard = a._engine.core.authority.tier, b._engine.core.authority.tier
        await until(lambda: heard.position().seq >= told.seq(), "the other host has heard of them")
        for key in ("gone", "new", "tagged"):
            assert await b.get(key) == "old"
        for _ in range(200):
            if await held(b, "disk", "gone"):
                break
            await asyncio.sleep(0.01)
        assert await held(b, "disk", "gone")
        await a.delete("gone")
        await a.set("new", "newer")
        await a.delete_by_tag("tagged")
        await until(lambda: heard.position().seq >= told.seq(), "the other host has heard of all three")
        assert [await b.get("gone"), await b.get("new"), await b.get("tagged")] == [None, "newer", None]
        await a.set("away", "old")
        assert await b.get("away") == "old"
        await b.close()
        await a.delete("away")
        async with host("b") as back:
            assert await back.get("away") is None


@pytest.mark.parametrize("mode", ["serve", "bypass"])
async def test_a_reader_that_is_cut_off_does_what_its_owner_chose(own_redis: RedisServer, mode: str) -> None:
    """Cut off, `serve` goes on from memory and `bypass` does not; what is sensitive is never served; both recover."""
    settings = CacheSettings(
        cache_on_partition=mode, cache_max_staleness=0.4, cache_encryption_keys=KEYS, redis_socket_timeout=1.0
    )
    with Proxy(own_redis.port, redis=True) as proxy:
        cache = Cache(settings.with_urls("memory://", own_redis.url_at(proxy.port)))
        async with cache:
            await cache.set("plain", 1)
            await cache.set("secret", 2, sensitive=True)
            assert (await cache.get("plain"), await cache.get("secret")) == (1, 2)
            proxy.replies.black_hole = True
            core = cache._engine.core

            def is_cut_off() -> bool:
                cache.peek("plain")
                return core.is_cut_off

            await until(is_cut_off, "the process knows that it does not hear")
            assert cache.peek("plain") == (1 if mode == "serve" else None)
            assert cache.peek("secret") is None
            assert await cache.get_or_set("plain", lambda: 3) == (1 if mode == "serve" else 3)
            proxy.heal()
            await until(lambda: not is_cut_off(), "it hears again")
            assert await cache.get("secret") in (2, None)


async def test_who_is_cut_off_when_it_starts_hears_later(own_redis: RedisServer) -> None:
    """A process that starts while Redis is away works from memory, and forgets what it could not hear about."""
    with Proxy(own_redis.port, redis=True) as proxy:
        proxy.refuse()
        async with Cache.from_url("memory://", own_redis.url_at(proxy.port)) as cache:
            await cache.set("k", "mine")
            assert await cache.get("k") == "mine"
            proxy.accept()
            async with Cache.from_url("memory://", own_redis.url, **PATIENT) as other:
                await until(lambda: lane_of(cache, "redis").tier.down is None, "Redis is in use again")
                await until(lambda: not lane_of(cache, "redis").owed, "what was owed is paid")
                await cache.set("shared", 1)
                assert await other.get("shared") == 1
                await other.delete("shared")
                await until(lambda: cache.peek("shared") is None, "the deletion is heard")


@pytest.fixture(params=["redis_url", "postgres_url"])
def url(request: pytest.FixtureRequest) -> str:
    """Either server."""
    return str(request.getfixturevalue(request.param))


async def test_new_times_never_bring_back_an_old_value(url: str, cache_name: str) -> None:
    """`touch` and `expire` of a key that another process has just deleted or set anew leave that as it is."""

    def process() -> Cache:
        return Cache.from_url("memory://", url, name=cache_name)

    async with process() as a, process() as b, Cache.from_url(url, name=cache_name) as stored:
        for n in range(12):
            await a.set(f"deleted {n}", "old", ttl=60)
            await a.set(f"set {n}", "old", ttl=60, stale_if_error=60)
            assert await a.get(f"deleted {n}") == await a.get(f"set {n}") == "old"
            await b.delete(f"deleted {n}")
            await a.touch(f"deleted {n}", 500)
            await b.set(f"set {n}", "new", ttl=60, stale_if_error=60)
            await (a.expire(f"set {n}") if n % 2 else a.touch(f"set {n}", 500))
        await asyncio.sleep(0.1)
        for n in range(12):
            assert await stored.get(f"deleted {n}", allow_stale=True) is None
            assert await stored.get(f"set {n}", allow_stale=True) in ("new", None)


async def test_a_touched_value_stays_near(redis_url: str, cache_name: str) -> None:
    """New times leave the copy in memory where it is, also of a value that memory alone has."""
    async with Cache.from_url("memory://", redis_url, name=cache_name) as cache:
        await cache.set("shared", 1, ttl=60)
        await cache.set("near only", 2, ttl=60, tiers=["memory"])
        assert await cache.touch("shared", 500)
        assert await cache.touch("near only", 500)
        tier = cache._engine.core.authority.tier
        await until(lambda: tier.position().seq >= tier.seq(), "the process has heard what it told")
        cache._engine.hearing.listen()
        assert (cache.peek("shared"), cache.peek("near only")) == (1, 2)
        for key in ("shared", "near only"):
            (near, *_) = (await cache.explain(key)).tiers
            assert near.ttl_left is not None
            assert near.ttl_left > 60


async def test_who_leaves_in_the_middle_of_an_invalidation_flushes_nothing(redis_url: str, cache_name: str) -> None:
    """A caller of `delete_by_tag` that is cancelled takes nothing back, and costs no other entry its place near."""
    async with (
        Cache.from_url("memory://", redis_url, name=cache_name) as cache,
        Cache.from_url("memory://", redis_url, name=cache_name) as other,
    ):
        await cache.set("tagged", 1, tags=["t"])
        await cache.set_many({f"k{n}": n for n in range(50)})
        leaving = asyncio.create_task(cache.delete_by_tag("t"))
        await asyncio.sleep(0)
        leaving.cancel()
        await asyncio.gather(leaving, return_exceptions=True)
        await other.set("news", 1)
        tier, told = cache._engine.core.authority.tier, other._engine.core.authority.tier
        await until(lambda: tier.position().seq >= told.seq(), "the process has heard of the other's change")
        cache._engine.hearing.listen()
        assert [cache.peek(f"k{n}") for n in range(50)] == list(range(50))
        assert await cache.get("tagged") is None
        async with asyncio.timeout(10):
            while await other.get("tagged") is not None:  # noqa: ASYNC110  # it hears of that when the log was told
                await asyncio.sleep(0.005)


@pytest.mark.parametrize("near", [True, False])
async def test_a_plain_value_in_the_place_of_a_sealed_one(redis_url: str, cache_name: str, *, near: bool) -> None:
    """Whoever can write to Redis but has no key cannot plant a value where only sealed ones belong."""
    urls = ["memory://", redis_url] if near else [redis_url]
    async with Cache.from_url(redis_url, name=cache_name, **PATIENT) as stranger:
        await stranger.set("k", "planted")
        async with Cache.from_url(*urls, name=cache_name, encryption_keys=KEYS, **PATIENT) as cache:
            assert await cache.get_or_set("k", lambda: "real", sensitive=True) == "real"
            assert await cache.get_or_set("k", lambda: "again", sensitive=True) == "real"
        await stranger.namespace("secret").set("k", "planted")
        async with Cache.from_url(*urls, name=cache_name, encryption_keys=KEYS, **PATIENT) as cache:
            secret = cache.namespace("secret", sensitive=True)
            assert await secret.get("k") is None
            assert await secret.get_many(["k"]) == {}
            await secret.set("k", "real")
            if near:
                cache._engine.core.memory.flush("size")
            assert await secret.get("k") == "real"


def test_the_end_of_an_event_loop_takes_nothing_from_any_tier(
    redis_url: str, postgres_url: str, cache_name: str
) -> None:
    """Under WRITE_BEHIND what was set just before the loop ended reaches Redis too, which is told last."""
    cache = Cache.from_url("memory://", redis_url, postgres_url, name=cache_name, write_strategy="WRITE_BEHIND")
    keys = [f"k{n}" for n in range(50)]

    async def write() -> None:
        for key in keys:
            assert await cache.set(key, key)

    async def read() -> dict[str, object]:
        async with Cache.from_url(redis_url, name=cache_name, **PATIENT) as other:
            return {key: await other.get(key) for key in keys}

    asyncio.run(write())
    asyncio.run(cache.close())
    assert asyncio.run(read()) == {key: key for key in keys}
