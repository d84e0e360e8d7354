"""The seed's own names over memory and disk in a folder of the test."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest_asyncio

from genesis_cache import Cache
from genesis_cache.advanced_cache_manager import advanced_cache_manager
from genesis_cache.model.settings import CacheSettings
from genesis_cache.testing.clock import FakeClock


@pytest_asyncio.fixture
async def clock(tmp_path: Path) -> AsyncIterator[FakeClock]:
    """The clock of the process-wide cache, which is a new one for each test."""
    clock = FakeClock()
    settings = CacheSettings(cache_disk_path=str(tmp_path / "disk"), cache_environment="TESTING")
    cache = Cache(settings, clock=clock)
    advanced_cache_manager.use(cache)
    yield clock
    advanced_cache_manager.use(None)
    await cache._engine.background.drain()
    faults = cache._engine.core.memory.check() + cache._engine.core.lanes[0].tier.check()
    await cache.close()
    assert faults == []
