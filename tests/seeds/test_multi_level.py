"""The seed's third suite: what is found on disk comes up to memory, and survives a restart."""

from pathlib import Path

from genesis_cache import Cache
from genesis_cache.advanced_cache_manager import advanced_cache_manager, get_cached_value, set_cached_value
from genesis_cache.model.settings import CacheSettings
from genesis_cache.testing.clock import FakeClock


async def test_promotion(clock: FakeClock) -> None:
    """A value that memory has let go is found in L2 and is in L1 again."""
    await set_cached_value("k", "v", ttl=100)
    clock.advance(1)
    advanced_cache_manager._engine.core.memory.flush("size")
    assert [row.present for row in (await advanced_cache_manager.explain("k")).tiers] == [False, True]
    assert await get_cached_value("k") == "v"
    assert [row.present for row in (await advanced_cache_manager.explain("k")).tiers] == [True, True]
    assert advanced_cache_manager.peek("k") == "v"


async def test_more_than_memory_holds(clock: FakeClock) -> None:
    """Of 300 values memory keeps the 100 of the TESTING preset, and all are found."""
    for n in range(300):
        await set_cached_value(f"k{n}", n, ttl=100)
    clock.advance(1)
    assert advanced_cache_manager.analytics()["layer_statistics"]["l1"]["entries"] <= 100
    assert [await get_cached_value(f"k{n}") for n in range(300)] == list(range(300))


async def test_restart(clock: FakeClock, tmp_path: Path) -> None:
    """What was stored is there after a restart."""
    await set_cached_value("k", "v", ttl=100)
    await advanced_cache_manager.close()
    async with Cache(
        CacheSettings(cache_disk_path=str(tmp_path / "disk"), cache_environment="TESTING"), clock=clock
    ) as again:
        assert await again.get("k") == "v"
    await advanced_cache_manager.open()
