"""The seed's second suite: values expire by themselves, by the ttl of their kind."""

from genesis_cache.advanced_cache_manager import advanced_cache_manager, get_cached_value, set_cached_value
from genesis_cache.testing.clock import FakeClock

TYPES = {"search_results": 600, "llm_responses": 1800, "productos": 3600, "embeddings": 86400}


async def test_expiry(clock: FakeClock) -> None:
    """A value is there until its ttl is over, and not after."""
    await set_cached_value("k", 1, ttl=2)
    clock.advance(1.9)
    assert await get_cached_value("k") == 1
    clock.advance(0.2)
    assert await get_cached_value("k") is None


async def test_ttl_by_content_type(clock: FakeClock) -> None:
    """Each content type has the seed's ttl."""
    for name, ttl in TYPES.items():
        await advanced_cache_manager.set(name, name, content_type=name, ttl=f"{ttl}s")
        await advanced_cache_manager.set(f"default {name}", name, content_type=name)
    passed = 0
    for name, ttl in TYPES.items():
        clock.advance(ttl - passed - 1)
        assert await get_cached_value(name) == await get_cached_value(f"default {name}") == name
        clock.advance(2)
        passed = ttl + 1
        assert await get_cached_value(name) is await get_cached_value(f"default {name}") is None


async def test_without_expiry(clock: FakeClock) -> None:
    """ttl=None keeps a value for ever."""
    await set_cached_value("config:app_settings", {"a": 1}, ttl=None)
    clock.advance(1e9)
    assert await get_cached_value("config:app_settings") == {"a": 1}
