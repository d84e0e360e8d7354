"""Debts: what a far tier could not be told is remembered within a bound, and nothing dead comes back for it."""

import asyncio
from pathlib import Path

import pytest
from tests.unit.remote_server import HeldStore, Server, until

from genesis_cache import Cache
from genesis_cache.engine import delivery
from genesis_cache.engine.core import Lane
from genesis_cache.model.clock import SystemClock
from genesis_cache.model.meter import LayerMeter
from genesis_cache.model.settings import CacheSettings
from genesis_cache.tiers.base import Put, Remove, Tier
from genesis_cache.tiers.build import disk_tier
from genesis_cache.tiers.memory import MemoryTier
from genesis_cache.tiers.remote import RemoteTier


async def test_a_flood_of_debts_becomes_one_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """More owed deletions than can be remembered end as one clear, after which no deleted value is there."""
    monkeypatch.setattr(delivery, "MAX_OWED", 50)
    async with Cache.from_url(f"disk://{tmp_path}/disk?max_mb=10") as cache:
        keys = [f"k{n}" for n in range(60)]
        await cache.set_many(dict.fromkeys(keys, 1))
        core = cache._engine.core
        lane = core.lanes[0]
        for key in keys:
            cache._engine.writing._delivery.owe(lane, [Remove(cache._view.address(key))])
        assert lane.owed <= 51
        await until(lambda: not lane.owed)  # paid by the work behind, and by nobody else at the same time
        assert await cache.get_many(keys) == {}
        await cache.set("k1", 2)
        assert await cache.get("k1") == 2


async def test_a_value_that_was_not_written_is_owed_as_a_removal(tmp_path: Path) -> None:
    """A set that a tier could not take must not leave the value before it there."""
    async with Cache.from_url(f"disk://{tmp_path}/disk?max_mb=10") as cache:
        lane: Lane = cache._engine.core.lanes[0]
        address = cache._view.address("k")
        lane.owe([Put(address, b"", 0.0)])
        assert isinstance(lane.removes[address.digest], Remove)
        assert lane.owed == 1
        lane.forgive()
        assert lane.owed == 0


async def test_what_is_on_its_way_is_counted(tmp_path: Path) -> None:
    """Under WRITE_BEHIND the figures tell how many changes have not reached the tier yet; closing leaves none."""
    cache = Cache.from_url("memory://", f"disk://{tmp_path}/disk?max_mb=10", write_strategy="WRITE_BEHIND")
    await cache.open()
    assert await cache.set_many({"a": 1, "b": 2})
    assert cache.analytics()["layer_statistics"]["l2"]["queued"] == 2
    assert await cache.get("a") == 1
    await cache.close()
    assert cache.analytics()["layer_statistics"]["l2"]["queued"] == 0


def tier_over(server: Server, kind: str) -> RemoteTier:
    """A tier whose times do not pass while a test runs."""
    return RemoteTier(
        lambda: HeldStore(server), kind=kind, capacity_bytes=1 << 20, clock=SystemClock(), budget_s=30.0,
        timeout_s=30.0, follow_s=0.02,
    )  # fmt: skip


@pytest.mark.parametrize("told", [True, False], ids=["told", "owed"])
async def test_what_is_read_while_a_write_takes_long_does_not_outlive_it(told: bool) -> None:
    """A write ends when every tier has it; the value before it, brought up meanwhile, is not what is read then."""
    redis, database = Server(), Server()
    memory = MemoryTier(1 << 20, None, "LRU", LayerMeter())
    tiers = [memory, tier_over(redis, "redis"), tier_over(database, "database")]
    async with Cache(CacheSettings(), tiers=tiers) as cache:
        assert await cache.set("k", "old")
        database.hold("commit")
        writing = asyncio.create_task(cache.set("k", "new"))
        await until(lambda: database.times("commit") > 1)
        memory.flush("explicit")  # as if its ttl had ended
        assert await cache.get("k") == "old"  # from Redis, which is told last
        if not told:
            redis.fail("full", "commit")
        database.let_go()
        assert bool(await writing) is told
        redis.mend()
        assert await cache.get("k") != "old"


async def test_who_knows_nothing_of_a_change_yet_puts_nothing_old_back_on_the_disk(tmp_path: Path) -> None:
    """The log's tier is told before the disk, which refuses what was read there until then."""
    server, clock = Server(), SystemClock()

    def tiers() -> list[Tier]:
        return [disk_tier(tmp_path / "disk", 1 << 20, clock), tier_over(server, "redis")]

    async with Cache(CacheSettings(), tiers=tiers()) as cache, Cache(CacheSettings(), tiers=tiers()) as other:
        assert await cache.set("k", "old")
        server.hold("commit")
        deleting = asyncio.create_task(cache.delete("k"))
        await until(lambda: server.times("commit") > 1)
        assert await other.get("k") == "old"
        disk, address = other._engine.core.lanes[0].tier, other._view.address("k")
        await until(lambda: disk.get(address) is not None)
        server.let_go()
        assert await deleting
        assert await cache.get("k") is None
        await until(lambda: not other._engine.core.lanes[0].owed)
        assert await other.get("k") is None


async def test_a_busy_disk_does_not_cost_the_others_a_value(tmp_path: Path) -> None:
    """A host that forgets a key on its own disk a little late takes the new value from nobody."""
    server, clock = Server(), SystemClock()
    disk = disk_tier(tmp_path / "disk", 1 << 20, clock)
    here = Cache(CacheSettings(), tiers=[disk, tier_over(server, "redis")])
    async with here, Cache(CacheSettings(), tiers=[tier_over(server, "redis")]) as elsewhere:
        lane = here._engine.core.lanes[0]
        assert await here.set("k", "old")
        assert await elsewhere.get("k") == "old"
        with disk._turn:  # type: ignore[attr-defined]  # as while it writes something else
            assert await elsewhere.set("k", "new")
            while not lane.owed:
                await asyncio.sleep(0.005)
                await here.get("other")  # whoever reads hears
        await until(lambda: not any(lane.owed for lane in here._engine.core.lanes))
        assert await here.get("k") == "new"
        assert await elsewhere.get("k") == "new"


async def test_what_is_read_from_the_disk_while_a_key_is_deleted_does_not_come_back(tmp_path: Path) -> None:
    """A disk below the server forgets first, so that nobody brings the old value up to where it is gone already."""
    server, clock = Server(), SystemClock()
    disk = disk_tier(tmp_path / "disk", 1 << 20, clock)
    memory = MemoryTier(1 << 20, None, "LRU", LayerMeter())
    async with Cache(CacheSettings(), tiers=[memory, tier_over(server, "redis"), disk]) as cache:
        assert await cache.set("k", "old")
        with disk._turn:  # type: ignore[attr-defined]  # as while it writes something else
            deleting = asyncio.create_task(cache.delete("k"))
            for _ in range(50):
                memory.flush("explicit")  # as if its ttl had ended
                assert await cache.get("k") == "old"
        assert await deleting
        assert await cache.get("k") is None


async def test_what_is_read_from_the_log_tier_while_a_key_is_deleted_does_not_come_back() -> None:
    """A server above the log's own forgets once more after it: a reader may have brought the old value up between."""
    redis, database = Server(), Server()
    tiers = [tier_over(database, "database"), tier_over(redis, "redis")]
    async with Cache(CacheSettings(), tiers=tiers) as cache:
        assert await cache.set("k", "old")
        redis.hold("commit")
        deleting = asyncio.create_task(cache.delete("k"))
        await until(lambda: redis.times("commit") > 1)
        assert await cache.get("k") == "old"
        await until(lambda: bool(database.values))
        redis.let_go()
        assert await deleting
        assert await cache.get("k") is None


async def test_a_host_that_has_not_heard_of_a_deletion_does_not_undo_it(tmp_path: Path) -> None:
    """Its disk still has the old value, which goes up to no server, though younger changes of its own were told."""
    redis, database, disk = Server(), Server(), disk_tier(tmp_path / "disk", 1 << 20, SystemClock())

    def servers() -> list[Tier]:
        return [tier_over(redis, "redis"), tier_over(database, "database")]

    async with Cache(CacheSettings(), tiers=[*servers(), disk]) as late, Cache(CacheSettings(), tiers=servers()) as one:
        assert await late.set("k", "old")
        digest, followed = late._view.address("k").digest, redis.times("follow")
        redis.hold("follow")
        await until(lambda: redis.times("follow") == followed + 2)  # from now on nobody hears anything
        assert await one.delete("k")
        assert await late.set("another", 1)
        known = late._engine.core.lanes[1].tier
        await until(lambda: known.seq() == database.seq)
        assert await late.get("k") == "old"
        assert await late.set("another", 2)  # behind whatever was brought up
        assert digest not in redis.values.keys() | database.values.keys()
        redis.let_go()
        async with asyncio.timeout(10):
            while await late.get("k") is not None:  # noqa: ASYNC110  # nobody tells when it has heard
                await asyncio.sleep(0.005)
        assert await one.get("k") is None
