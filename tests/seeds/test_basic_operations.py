"""The seed's first suite: set, get, miss, namespaces, and each of its four strategies."""

from typing import Any

import pytest

from genesis_cache.advanced_cache_manager import (
    CachePriority,
    advanced_cache_manager,
    get_cache_analytics,
    get_cached_value,
    set_cached_value,
)
from genesis_cache.cache_strategies import cached, personalized_cache, standard_cache, swr_cache, tagged_cache
from genesis_cache.testing.clock import FakeClock


@pytest.mark.usefixtures("clock")
async def test_set_get_and_miss() -> None:
    """A value set by the seed's functions is read by them; what was never set is the default."""
    profile = {"name": "John", "age": 30}
    assert await set_cached_value(key="user:123:profile", value=profile, ttl=3600, priority=CachePriority.HIGH)
    assert await get_cached_value("user:123:profile") == profile
    assert await get_cached_value("nobody") is None
    assert await get_cached_value("nobody", 5) == 5


@pytest.mark.usefixtures("clock")
async def test_namespaces() -> None:
    """One key in two namespaces is two entries."""
    await advanced_cache_manager.namespace("a").set("k", 1)
    await advanced_cache_manager.namespace("b").set("k", 2)
    assert await advanced_cache_manager.namespace("a").get("k") == 1
    assert await advanced_cache_manager.namespace("b").get("k") == 2
    assert await get_cached_value("k") is None


@pytest.mark.usefixtures("clock")
async def test_standard_and_decorated() -> None:
    """standard_cache sets, gets and deletes; a decorated function runs on a miss only."""
    await standard_cache.set("key", "value", ttl=3600)
    assert await standard_cache.get("key") == "value"
    await standard_cache.delete("key")
    assert await standard_cache.get("key") is None
    calls: list[str] = []

    @cached(ttl=1800, key_prefix="agent_response")
    async def get_expensive_data(param: str) -> dict[str, str]:
        calls.append(param)
        return {"param": param}

    assert [await get_expensive_data("a"), await get_expensive_data("a")] == [{"param": "a"}] * 2
    assert calls == ["a"]


async def test_stale_while_revalidate(clock: FakeClock) -> None:
    """swr_cache serves the old value past its ttl and fetches the new one behind."""
    loads: list[int] = []

    async def fetch() -> int:
        loads.append(1)
        return len(loads)

    assert await swr_cache.get("metrics", revalidate_func=fetch) == 1
    clock.advance(301)
    assert await swr_cache.get("metrics", revalidate_func=fetch) == 1
    await advanced_cache_manager._engine.background.drain()
    assert await swr_cache.get("metrics", revalidate_func=fetch) == 2
    clock.advance(3901)
    assert await swr_cache.get("metrics", revalidate_func=fetch) == 3


@pytest.mark.usefixtures("clock")
async def test_personalized() -> None:
    """Nobody gets another user's value; a user's comes before the segment's; nobody's name is an error."""
    await personalized_cache.set("preferences", "ana's", user_id="ana")
    await personalized_cache.set("preferences", "premium", segment="premium_users")
    assert await personalized_cache.get("preferences", user_id="ana") == "ana's"
    assert await personalized_cache.get("preferences", user_id="bob") is None
    assert await personalized_cache.get("preferences", user_id="ana", segment="premium_users") == "ana's"
    assert await personalized_cache.get("preferences", user_id="bob", segment="premium_users") == "premium"
    assert await personalized_cache.get("preferences", segment="ana") is None
    assert await advanced_cache_manager.owned_by("user:ana").get("preferences") == "ana's"
    nobody: list[dict[str, str]] = [{}, {"user_id": ""}, {"segment": ""}, {"user_id": "", "segment": "premium_users"}]
    for names in nobody:
        with pytest.raises(TypeError):
            await personalized_cache.get("k", **names)
        with pytest.raises(TypeError):
            await personalized_cache.set("k", 1, **names)
    await personalized_cache.delete_user_cache("ana")
    assert await personalized_cache.get("preferences", user_id="ana") is None
    assert await personalized_cache.get("preferences", segment="premium_users") == "premium"


@pytest.mark.usefixtures("clock")
async def test_tagged_and_figures() -> None:
    """tagged_cache forgets by tag; the figures have the words that the seed prints."""
    await tagged_cache.set("article:1", {"title": "x"}, tags=["sports", "nutrition"])
    await tagged_cache.set("article:2", {"title": "y"}, tags=["sports"])
    await tagged_cache.delete_by_tag("nutrition")
    assert await tagged_cache.get("article:1") is None
    assert await tagged_cache.get("article:2") == {"title": "y"}
    stats: dict[str, Any] = await get_cache_analytics()
    assert f"{stats['global_statistics']['global_hit_ratio']:.2%}" == "50.00%"
    assert stats["global_statistics"]["average_response_time_ms"] >= 0
    assert [f"{layer}: {row['hit_ratio']:.2%}" for layer, row in stats["layer_statistics"].items()] == [
        "l1: 50.00%",
        "l2: 0.00%",
    ]
    assert (await advanced_cache_manager.optimize_cache_distribution()).applied
