"""Purges that spread: over every line-up what they reach is served for a while, loaded anew behind, and then dead."""

from typing import Any

from genesis_cache import Cache


async def test_a_purge_that_spreads(house: Any) -> None:
    """Both processes serve the old value until its turn or the deadline, whichever tier they have it from."""
    here, there = house.cache(), house.cache() if house.far else None
    caches: list[Cache] = [here] if there is None else [here, there]
    for cache in caches:
        await cache.open()
    await here.set("k", "old", ttl=3600, tags=["t"], stale_if_error=3600)
    await here.set("kept", "kept", ttl=3600, tags=["other"])
    assert [await cache.get("k") for cache in caches] == ["old"] * len(caches)
    await house.hear()
    assert await here.delete_by_tag("t", spread=60)
    await house.hear()
    house.pass_time(5)
    assert [await cache.get("k") for cache in caches] == ["old"] * len(caches)
    house.pass_time(56)
    for cache in caches:
        assert await cache.get("k", allow_stale=True) is None
        assert await cache.get("kept") == "kept"
    assert await here.get_or_set("k", lambda: "new", ttl=3600, tags=["t"]) == "new"
    await house.hear()
    assert [await cache.get("k") for cache in caches] == ["new"] * len(caches)


async def test_a_refresh_during_a_purge_that_spreads(house: Any, settled: Any) -> None:
    """Who asks late in the purge gets the old value once more, and the new one is loaded behind and stays."""
    cache = house.cache()
    if not house.near:
        return
    calls = []

    async def load() -> str:
        calls.append(1)
        return f"load {len(calls)}"

    options = {"ttl": 3600, "tags": ["t"]}
    assert await cache.get_or_set("k", load, **options) == "load 1"
    assert await cache.get("k") == "load 1"  # in use, so that its turn comes in the first half of the purge
    await house.hear()
    await cache.delete_by_tag("t", spread=60)
    house.pass_time(59.5)
    assert await cache.get_or_set("k", load, **options) == "load 1"

    async def renewed() -> bool:
        return await cache.get("k") == "load 2"

    await settled(renewed, 10)
    house.pass_time(5)
    assert await cache.get_or_set("k", load, **options) == "load 2"
    assert len(calls) == 2
