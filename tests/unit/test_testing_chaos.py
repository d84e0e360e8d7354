"""Chaos around a tier: each fault does what it says, and a cache over it keeps its promises."""

import asyncio
import inspect
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from tests.chaos.traffic import traffic, until

from genesis_cache import Cache, CacheSettings
from genesis_cache.model.clock import SystemClock
from genesis_cache.testing.chaos import ChaosTier
from genesis_cache.tiers.build import build_tiers

Made = tuple[Cache, ChaosTier]


@pytest_asyncio.fixture(params=["disk", "redis"])
async def made(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Made]:
    """A cache over memory and a tier in chaos; of each kind, one embedded and one over a server."""
    url = f"disk://{tmp_path}/disk" if request.param == "disk" else str(request.getfixturevalue("redis_url"))
    said = {"cache_name": f"chaos-{tmp_path.name}", "cache_max_staleness": 0.4, "cache_canary_interval": 0.05}
    settings = CacheSettings().with_urls("memory://", url).with_overrides(**said)
    memory, far, _ = build_tiers(settings, SystemClock())
    assert memory is not None
    tier = ChaosTier(far[0], seed=1)
    chaotic: Any = tier
    async with Cache(settings, tiers=[memory, chaotic]) as cache:
        yield cache, tier


async def forget_near(cache: Cache) -> None:
    """Have the next read ask the tier."""
    await cache.clear(tier="memory")


async def test_without_chaos_nothing_happens(made: Made) -> None:
    """A wrapped tier is as the tier itself."""
    cache, tier = made
    assert await cache.set("k", 1, tags=["t"])
    await forget_near(cache)
    assert await cache.get("k") == 1
    assert await cache.delete_by_tag("t")
    assert await cache.get("k") is None
    assert not any(tier.counts.values())


async def test_an_answer_by_a_coroutine_may_be_looked_at_twice(made: Made) -> None:
    """A tier may answer by a coroutine, which can be awaited once: a miss stays a miss, and no error."""
    cache, tier = made
    await cache.set("k", 1)
    outer = await cache.explain("k")
    assert [row.present for row in outer.tiers] == [True, True]
    tier.chaos.latency_s = 0.001
    assert inspect.iscoroutine(answer := tier.get(cache._view.address("k")))
    assert await answer is not None
    assert await cache.get("nothing") is None
    await forget_near(cache)
    assert await cache.get("k") == 1
    await cache.delete("k")
    assert await cache.get("k") is None


async def test_failing_reads_are_misses_and_failing_writes_are_owed(made: Made) -> None:
    """A read that fails finds nothing; a change that fails is told as degraded, and paid when the tier takes it."""
    cache, tier = made
    assert await cache.set("k", 1)
    await forget_near(cache)
    tier.chaos.failing_reads = 1.0
    assert await cache.get("k") is None
    tier.chaos.heal()
    assert await cache.get("k") == 1
    tier.chaos.failing_writes = 1.0
    outcome = await cache.delete("k")
    assert outcome.degraded
    assert await cache.get("k") is None
    tier.chaos.heal()
    await until(lambda: not cache._engine.core.lanes[0].owed, "it is paid")
    assert tier.counts["read"] == 1
    assert tier.counts["write"] >= 1


async def test_latency_is_waited_for_no_longer_than_the_budget(made: Made) -> None:
    """A slow tier costs a reader its budget at most, where it keeps one; what it says is still right."""
    cache, tier = made
    assert await cache.set("k", 1)
    await forget_near(cache)
    tier.chaos.latency_s = 0.01
    assert await cache.get("k") in {1, None}
    assert tier.counts["slow"] >= 1


async def test_traffic_in_chaos_sees_nothing_wrong(made: Made) -> None:
    """Every verb at once while reads and writes fail at random and are slow: nothing raises, nothing old is read."""
    cache, tier = made
    tier.chaos.failing_reads, tier.chaos.failing_writes = 0.3, 0.2
    tier.chaos.latency_s, tier.chaos.jitter_s = 0.001, 0.003
    async with traffic(cache) as going:
        await until(lambda: going.done > 200, "some traffic")
        tier.chaos.heal()
    await until(lambda: not cache._engine.core.lanes[0].owed, "it is paid")


async def test_a_deaf_and_a_quiet_log(redis_url: str, tmp_path: Path) -> None:
    """A deaf process is cut off within the bound; a quiet one finds it out by its canary; both catch up."""
    said = {"cache_name": f"chaos-{tmp_path.name}", "cache_max_staleness": 0.4, "cache_canary_interval": 0.05}
    settings = CacheSettings().with_urls("memory://", redis_url).with_overrides(**said)
    memory, far, _ = build_tiers(settings, SystemClock())
    tier = ChaosTier(far[0])
    chaotic: Any = tier
    assert memory is not None

    def status() -> str:
        return str(two.analytics()["coherence"]["status"])

    async with Cache(settings) as one, Cache(settings, tiers=[memory, chaotic]) as two:
        for fault, expected in (("is_deaf", "cut off"), ("is_quiet", "quiet")):
            await one.set("k", 1)
            await until(lambda: two.get("k"), "it is read")
            setattr(tier.chaos, fault, True)
            two.peek("k")
            await until(lambda: status() == expected, expected)  # noqa: B023  # awaited here
            assert await one.set("k", 2)
            tier.chaos.heal()
            await until(lambda: status() == "hearing", "it hears again")
            await until(lambda: _reads(two, 2), "it has caught up")
            await asyncio.sleep(0)


async def _reads(cache: Cache, value: int) -> bool:
    return bool(await cache.get("k") == value)
