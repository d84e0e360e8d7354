"""The canary: over real servers, changes are timed from process to process, and a log that lies is found out."""

import asyncio
import secrets
from collections.abc import Callable
from typing import Any

import pytest
from tests.chaos.traffic import until

from genesis_cache import Cache, CacheSettings
from genesis_cache.insight.canary import NAMESPACE, Canary
from genesis_cache.model.clock import SystemClock
from genesis_cache.model.notice import Kind, Notice
from genesis_cache.model.settings import OnPartition
from genesis_cache.tiers.base import Kill
from genesis_cache.tiers.build import build_tiers
from genesis_cache.tiers.remote_base import RemoteStore

QUICK = {"cache_canary_interval": 0.05}


@pytest.fixture(params=["redis", "postgres"])
def url(request: pytest.FixtureRequest) -> str:
    """A real server of each kind."""
    return str(request.getfixturevalue(f"{request.param}_url"))


def settings_for(url: str, **settings: object) -> CacheSettings:
    """A cache of its own name over memory and a server."""
    name = f"canary-{secrets.token_hex(4)}"
    return CacheSettings().with_urls("memory://", url).with_overrides(**{"cache_name": name, **QUICK, **settings})


def heard(cache: Cache) -> dict[str, Any]:
    """What the cache tells of its own coherence."""
    told: dict[str, Any] = cache.analytics()["coherence"]
    return told


async def test_processes_time_each_others_changes(url: str) -> None:
    """Each hears its own canaries and the other's, misses none, and says how long they took."""
    settings = settings_for(url)
    async with Cache(settings) as one, Cache(settings) as two:
        for cache in (one, two):
            await until(lambda: heard(cache)["lag"]["this_host"]["count"] >= 3, "canaries of the other")  # noqa: B023  # awaited here
            await until(lambda: heard(cache)["lag"]["own"]["count"] >= 3, "its own canaries")  # noqa: B023  # awaited here
        told = heard(one)
        assert told["status"] == "hearing"
        assert told["canaries"]["missed"] == 0
        assert told["canaries"]["other_processes"] == 1
        assert 0 < told["lag"]["this_host"]["p50_ms"] <= told["lag"]["this_host"]["longest_ms"] * 2
        assert told["lag"]["other_hosts"]["count"] == 0
        measures = one.measures()
        assert sum(measures.propagation.counts) == measures.canaries["heard"] > 0
        assert await one.set("k", 1)
        assert await two.get("k") == 1


async def test_no_canary_without_an_interval(redis_url: str) -> None:
    """``CACHE_CANARY_INTERVAL=none`` sends nothing, and neither does a cache without a server."""
    async with Cache(settings_for(redis_url, cache_canary_interval="none")) as cache:
        assert heard(cache)["canaries"]["interval_s"] is None
        assert cache._engine.core.settings.cache_canary_interval is None
    async with Cache.from_url("memory://") as alone:
        assert heard(alone)["status"] == "alone"


class Lying:
    """A store whose log can be made to say that there is nothing new, as one that is read from a replica does."""

    def __init__(self, store: RemoteStore, lies: asyncio.Event) -> None:
        self._store = store
        self._lies = lies

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def follow(self, after: Any, wait_s: float) -> list[Notice] | None:
        """The truth, or nothing new."""
        if not self._lies.is_set():
            return await self._store.follow(after, wait_s)
        await asyncio.sleep(0.01)
        return []


async def holds(cache: Cache) -> bool:
    """Whether the value was read, and then is in memory."""
    return await cache.get("k") == 1 and cache.peek("k") == 1


def lying_cache(settings: CacheSettings, lies: asyncio.Event) -> Cache:
    """A cache over such a store."""
    memory, far, _ = build_tiers(settings, SystemClock())
    tier: Any = far[0]
    make: Callable[[], RemoteStore] = tier._make
    tier._make = lambda: Lying(make(), lies)
    assert memory is not None
    return Cache(settings, tiers=[memory, tier])


async def test_a_log_that_keeps_changes_back_is_found_out(url: str) -> None:
    """The status says ``quiet``, health says why, near copies are bypassed where so chosen, and all is well again."""
    settings = settings_for(url, cache_max_staleness=0.4, cache_on_partition=OnPartition.BYPASS)
    lies = asyncio.Event()
    async with Cache(settings) as one, lying_cache(settings, lies) as two:
        await one.set("k", 1)
        await until(lambda: holds(two), "the value is near")
        lies.set()
        assert await one.set("k", 2)
        await until(lambda: heard(two)["status"] == "quiet", "the log is found out")
        assert heard(two)["quiet_for_ms"] >= 0
        health = await two.health()
        assert not health.is_well
        assert "quiet" in health.tiers["l2"]["reason"]
        assert two.peek("k") is None
        lies.clear()
        await until(lambda: heard(two)["status"] == "hearing", "the log tells again")
        assert await two.get("k") == 2
        assert (await two.health()).is_well


async def test_a_lost_canary_is_missed_and_a_foreign_one_disturbs_nobody(redis_url: str) -> None:
    """A number left out counts as missed; what cannot be read does not count at all."""
    settings = settings_for(redis_url, cache_canary_interval=600)
    async with Cache(settings) as one, Cache(settings) as two:
        sender = sent_by(one)
        assert await sender.send()
        sender._number += 2  # as if two had been taken and never told
        assert await sender.send()
        authority = one._engine.core.authority
        assert authority is not None
        assert await authority.tier.commit([nonsense()])
        assert await sender.send()
        await until(lambda: heard(two)["canaries"]["heard"] == 3, "all that were told")
        assert heard(two)["canaries"]["missed"] == 2


def sent_by(cache: Cache) -> Canary:
    """A sender of the test's own."""
    engine = cache._engine
    assert engine.core.authority is not None
    return Canary(engine.core, engine.hearing, engine.core.authority.tier)


def nonsense() -> Any:
    """A change in the canaries' namespace that is none."""
    return Kill(Notice(Kind.KEY, NAMESPACE, None, "no canary"))
