"""Sweeping: what one process kills by tag, pattern or clear is freed in the others' memory, though nobody asks."""

from pathlib import Path

import pytest
from tests.chaos.traffic import until

from genesis_cache import Cache


@pytest.mark.parametrize("verb", ["tag", "pattern", "clear"])
async def test_memory_is_freed_where_it_was_only_heard(redis_url: str, tmp_path: Path, verb: str) -> None:
    """Long before the clean-up, and without a read of the dead keys, another process holds none of them."""
    urls = ("memory://", redis_url)
    async with Cache.from_url(*urls, name=str(tmp_path)) as one, Cache.from_url(*urls, name=str(tmp_path)) as two:
        await one.set_many({f"user:{n}": n for n in range(300)}, tags=["t"])
        await one.set("kept", 1)
        keys = [*(f"user:{n}" for n in range(300)), "kept"]
        memory = two._engine.core.memory
        assert memory is not None
        while len(memory) < 301:
            await two.get_many(keys)
        view = one.namespace("other")
        orders = {
            "tag": lambda: one.delete_by_tag("t"),
            "pattern": lambda: one.delete_by_pattern("user:*"),
            "clear": one.clear,
        }
        assert await orders[verb]()
        await view.set("k", 1)

        async def freed() -> bool:
            await two.get("nothing of these")
            return len(memory) <= 1

        await until(freed, "the memory is freed")
