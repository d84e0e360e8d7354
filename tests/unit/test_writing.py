"""Writes behind their callers: read by them at once, and in the store after them."""

import asyncio
from pathlib import Path

from genesis_cache import Cache


def behind(folder: Path, *near: str) -> Cache:
    """A cache that writes behind, with or without memory before its disk."""
    return Cache.from_url(*near, f"disk://{folder}/disk?max_mb=20", write_strategy="write_behind")


async def test_a_value_that_is_written_behind_can_be_read_at_once(tmp_path: Path) -> None:
    """Who sets a value reads it, though no tier has it yet."""
    async with behind(tmp_path) as cache:
        await cache.set_many({"a": 1, "b": 2})
        assert await cache.get("a") == 1
        assert await cache.get_many(["a", "b", "c"]) == {"a": 1, "b": 2}
        await cache.set("a", 3)
        assert await cache.get("a") == 3


async def test_a_value_that_is_deleted_behind_is_gone_at_once(tmp_path: Path) -> None:
    """After delete() returns nobody in the process reads the old value, though the disk still has it."""
    async with behind(tmp_path, "memory://") as cache:
        await cache.set("a", 1, tiers=["disk"])
        await cache.close()
        await cache.open()
        assert await cache.get("a") == 1
        await cache.delete("a")
        assert await cache.get("a") is None
        assert await cache.get_many(["a"]) == {}


async def test_low_priority_overwritten_behind_reads_new(tmp_path: Path) -> None:
    """A value that skips memory is read as it was last written."""
    async with behind(tmp_path, "memory://") as cache:
        await cache.set("a", 1, priority="low")
        await cache.close()
        await cache.open()
        await cache.set("a", 2, priority="low")
        assert await cache.get("a") == 2


def test_what_was_written_behind_outlives_the_event_loop(tmp_path: Path) -> None:
    """A value set as the last act of asyncio.run() is in the store, though nobody closed the cache."""
    cache = behind(tmp_path)

    async def write() -> None:
        await cache.set("a", 1)

    async def read() -> object:
        async with behind(tmp_path) as other:
            return await other.get("a")

    asyncio.run(write())
    asyncio.run(cache.close())
    assert asyncio.run(read()) == 1
