"""Debts: what a far tier could not be told is remembered within a bound, and nothing dead comes back for it."""

from pathlib import Path

import pytest

from genesis_cache import Cache
from genesis_cache.engine import delivery
from genesis_cache.engine.core import Lane
from genesis_cache.tiers.base import Put, Remove


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
        assert await cache._engine.writing.pay()
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
