"""Old values that serve while a load fails; tiers that are none."""

from pathlib import Path
from typing import Any

import pytest

from genesis_cache import Cache, CacheSettings, SettingsError
from genesis_cache.testing.clock import FakeClock


@pytest.mark.parametrize("near", [["memory://"], []])
async def test_a_failing_load_rests_whichever_tier_holds_the_old_value(tmp_path: Path, near: list[str]) -> None:
    """While an old value serves, a failing source is asked once per retry_after, without a memory tier too."""
    clock, calls = FakeClock(), 0
    settings = CacheSettings().with_urls(*near, f"disk://{tmp_path}/disk?max_mb=20")

    async def load() -> int:
        nonlocal calls
        calls += 1
        raise OSError

    async with Cache(settings, clock=clock) as cache:
        await cache.set("k", 7, ttl=10, stale_if_error=100)
        clock.advance(10)
        for _ in range(3):
            assert await cache.get_or_set("k", load, ttl=10, stale_if_error=100, retry_after=1) == 7
        assert calls == 1
        clock.advance(1)
        assert await cache.get_or_set("k", load, ttl=10, stale_if_error=100, retry_after=1) == 7
        assert calls == 2


@pytest.mark.parametrize("wrong", ["memory", 5, None])
def test_what_is_no_tier_is_refused(wrong: Any) -> None:
    """tiers= takes tiers, and says so where it is given something else."""
    with pytest.raises(SettingsError, match="tiers takes tiers"):
        Cache(CacheSettings(), tiers=[wrong])
