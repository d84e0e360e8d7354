"""What a reader is not given though it is there: a value whose removal is owed, and one of a load begun too early."""

import asyncio
from pathlib import Path

import pytest
from tests.unit.remote_server import HeldStore, Server, until

from genesis_cache import Cache
from genesis_cache.model.clock import SystemClock
from genesis_cache.model.keys import Address
from genesis_cache.model.meter import LayerMeter
from genesis_cache.model.notice import Kind, Notice
from genesis_cache.model.settings import CacheSettings
from genesis_cache.testing.clock import FakeClock
from genesis_cache.tiers.base import Buffer, Kill, Remove
from genesis_cache.tiers.memory import MemoryTier
from genesis_cache.tiers.remote import RemoteTier


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


class Postponed(HeldStore):
    """A store whose reads see the server as it is when they are asked, however late they are answered."""

    async def get(self, address: Address) -> Buffer | None:
        found = self.server.values.get(address.digest)
        await self._ask("get", address.key)
        return found


@pytest.mark.parametrize("budget_s", [0.5, 30.0], ids=["late", "in time"])
async def test_a_change_heard_while_a_reply_is_awaited_keeps_it_out_of_memory(budget_s: float) -> None:
    """A value read before the change goes to who asked for it at most, not to those who ask later."""
    server, clock = Server(), SystemClock()
    tier = RemoteTier(
        lambda: Postponed(server), kind="redis", capacity_bytes=1 << 20, clock=clock, budget_s=budget_s, timeout_s=30.0,
        follow_s=0.02,
    )  # fmt: skip
    async with Cache(CacheSettings(), tiers=[MemoryTier(1 << 20, None, "LRU", LayerMeter()), tier]) as cache:
        assert await cache.set("k", "old")
        core = cache._engine.core
        assert core.memory is not None
        core.memory.flush("explicit")
        server.hold("get")
        if budget_s > 1:
            core.debtors.add(core.lanes[0])  # so that the plain road has to give up when the reply is there
        asking = asyncio.create_task(cache.get("k"))
        await until(lambda: server.times("get"))
        told = server.tell(Notice(Kind.KEY, "", None, "k"))
        await until(lambda: cache._engine.hearing.listen() or cache._engine.hearing.heard_seq >= told)
        if budget_s < 1:
            assert await asking is None
        server.let_go()
        await asking
        await until(lambda: not cache._engine.reading.late_replies._late)
        assert cache.peek("k") is None
