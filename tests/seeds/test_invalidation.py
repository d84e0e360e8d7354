"""The seed's fifth suite: by key and by pattern, and by namespace and user."""

import pytest

from genesis_cache.advanced_cache_manager import advanced_cache_manager, get_cached_value, set_cached_value
from genesis_cache.cache_strategies import personalized_cache, standard_cache


@pytest.mark.usefixtures("clock")
async def test_by_key_and_pattern() -> None:
    """A deleted key is gone, and so is all that a pattern matches; the rest stays."""
    for key in ("user:1", "user:2", "agent:1"):
        await set_cached_value(key, key)
    await standard_cache.delete("user:1")
    assert await get_cached_value("user:1") is None
    await advanced_cache_manager.delete_by_pattern("user:*")
    assert await get_cached_value("user:2") is None
    assert await get_cached_value("agent:1") == "agent:1"


@pytest.mark.usefixtures("clock")
async def test_by_namespace_and_user() -> None:
    """clear() of a namespace and delete_user_cache() stay inside what they name."""
    await advanced_cache_manager.namespace("a").set("k", 1)
    await advanced_cache_manager.namespace("b").set("k", 2)
    await personalized_cache.set("k", 3, user_id=7)
    await personalized_cache.set("k", 4, user_id=77)
    await advanced_cache_manager.clear("a")
    await personalized_cache.delete_user_cache(7)
    assert await advanced_cache_manager.namespace("a").get("k") is None
    assert await advanced_cache_manager.namespace("b").get("k") == 2
    assert await personalized_cache.get("k", user_id=7) is None
    assert await personalized_cache.get("k", user_id=77) == 4
