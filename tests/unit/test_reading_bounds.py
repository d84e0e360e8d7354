"""What a reader is not given though it is there: a value whose removal is owed, and one of a load begun too early."""

import asyncio
from pathlib import Path

from genesis_cache import Cache
from genesis_cache.model.notice import Kind, Notice
from genesis_cache.model.settings import CacheSettings
from genesis_cache.testing.clock import FakeClock
from genesis_cache.tiers.base import Kill, Remove


class Gated:
    """A loader that goes on only when it is let."""

    def __init__(self, value: str) -> None:
        self.value = value
        self.begun, self.go = asyncio.Event(), asyncio.Event()

    async def __call__(self) -> str:
        self.begun.set()
        await self.go.wait()
        return self.value


async def test_while_a_tier_is_owed_a_removal_no_other_serves_the_key(tmp_path: Path) -> None:
    """Another process may have brought the old value up from the tier that was not told: it is a miss till that is."""
    async with Cache.from_url(f"disk://{tmp_path}/disk?max_mb=10", f"sqlite:///{tmp_path}/cache.db") as cache:
        await cache.set_many({"k": "old", "other": "well"})
        address = cache._view.address("k")
        cache._engine.core.lanes[1].owe([Remove(address)])
        assert await cache.get("k") is None
        assert await cache.get_many(["k", "other"]) == {"other": "well"}
        assert await cache._engine.writing.pay()
        await cache.set("k", "new")
        assert await cache.get("k") == "new"


async def test_who_does_not_hear_joins_no_load_from_before_the_bound() -> None:
    """Deaf, a caller may have missed the change of what a load older than CACHE_MAX_STALENESS will bring."""
    clock = FakeClock()
    async with Cache(CacheSettings().with_urls("memory://"), clock=clock) as cache:
        old = Gated("old")
        early = asyncio.create_task(cache.get_or_set("k", old))
        await old.begun.wait()
        cache._engine.core.is_deaf = True
        young = Gated("young")
        joined = asyncio.create_task(cache.get_or_set("k", young))
        await asyncio.sleep(0)
        clock.advance(cache._engine.core.settings.cache_max_staleness + 0.1)
        assert await cache.get_or_set("k", lambda: "new") == "new"
        old.go.set()
        assert await early == await joined == "old"
        assert not young.begun.is_set()


async def test_a_log_begun_anew_may_have_forgotten_what_killed_a_load(tmp_path: Path) -> None:
    """A caller that joined a load after others had changed things loads for itself if the log is then begun anew."""
    async with Cache.from_url("memory://", f"disk://{tmp_path}/disk?max_mb=10") as cache:
        old = Gated("old")
        early = asyncio.create_task(cache.get_or_set("k", old))
        await old.begun.wait()
        await cache.delete_by_tag("something")
        late = asyncio.create_task(cache.get_or_set("k", lambda: "new"))
        await asyncio.sleep(0.005)
        cache._engine.hearing.start_over()
        old.go.set()
        assert await early == "old"
        assert await late == "new"


async def test_new_times_that_the_log_does_not_take_are_none(tmp_path: Path) -> None:
    """While the tier whose log counts takes nothing, `touch` says so, and `expire` leaves no value that looks fresh."""
    async with Cache.from_url("memory://", f"disk://{tmp_path}/disk?max_mb=10") as cache:
        await cache.set_many({"a": 1, "b": 2}, ttl=60, stale_if_error=60)
        lane = cache._engine.core.lanes[0]
        lane.owe([Kill(Notice(Kind.TAG, "", None, "owed"))])
        assert not await cache.touch("a", 500)
        assert cache.peek("a") == 1
        outcome = await cache.expire("b")
        assert outcome.degraded == ("disk",)
        assert cache.peek("b") is None
        assert await cache.get("b") is None
