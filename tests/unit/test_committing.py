"""Committing: what a transaction changes is forgotten when it has been committed, and only then."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from genesis_cache import Cache, InvalidKey
from genesis_cache.testing.servers import RedisServer


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    """Memory and disk."""
    return Cache.from_url("memory://", f"disk://{tmp_path}/disk")


async def filled(cache: Cache) -> None:
    """Values that a transaction may change."""
    await cache.set_many({"a": 1, "b": 2})
    await cache.set("t", 3, tags=["tag"])
    await cache.set("user:1", 4)


async def test_all_is_forgotten_at_the_end_of_the_block(cache: Cache) -> None:
    """Inside the block the old values are served, behind it none of them is; the outcome is told."""
    async with cache:
        await filled(cache)
        orders = cache.namespace("orders")
        await orders.set("7", 5)
        async with cache.after_commit() as changes:
            changes.delete("a")
            changes.delete_by_tag("tag")
            changes.delete_by_pattern("user:*")
            changes.then(lambda: orders.delete("7"))
            assert await cache.get_many(["a", "b", "t", "user:1"]) == {"a": 1, "b": 2, "t": 3, "user:1": 4}
            assert changes.outcome is None
        assert await cache.get_many(["a", "b", "t", "user:1"]) == {"b": 2}
        assert await orders.get("7") is None
        assert changes.outcome
        async with orders.after_commit() as changes:
            changes.clear()
        assert await cache.get("b") == 2


async def test_a_rollback_changes_nothing(cache: Cache) -> None:
    """A block that ends with an error raises it, and forgets nothing; nor does one whose notes were dropped."""
    async with cache:
        await filled(cache)
        with pytest.raises(ValueError, match="no stock"):
            await broken(cache, ValueError("no stock"))
        async with cache.after_commit() as changes:
            changes.delete("a")
            changes.drop()
            changes.delete("b")
        assert await cache.get_many(["a", "b"]) == {"a": 1}


class Lost(Exception):
    """What a driver raises whose connection ended during COMMIT."""


async def broken(cache: Cache, error: BaseException) -> None:
    """A transaction that ends with an error."""
    async with cache.after_commit(doubt=[Lost]) as changes:
        changes.delete("a")
        raise error


@pytest.mark.parametrize("error", [ConnectionResetError, TimeoutError, asyncio.CancelledError, Lost])
async def test_where_nobody_knows_all_is_forgotten(cache: Cache, error: type[BaseException]) -> None:
    """After an error that leaves open whether the database has committed, the old value is not believed."""
    async with cache:
        await filled(cache)
        with pytest.raises(error):
            await broken(cache, error())
        assert await cache.get("a") is None


async def test_a_mistake_shows_before_the_commit(cache: Cache) -> None:
    """A key, tag or pattern that cannot be is an error inside the block, so that the transaction is rolled back."""
    async with cache:
        async with cache.after_commit() as changes:
            for wrong in (lambda: changes.delete(""), lambda: changes.delete_by_pattern("*a*b*")):
                with pytest.raises(InvalidKey):
                    wrong()
        assert changes.outcome


async def test_who_is_cancelled_at_the_end_takes_nothing_back(start_redis: Callable[..., RedisServer]) -> None:
    """A caller who leaves while the server is told has still committed: all of it is told."""
    server = await asyncio.to_thread(start_redis)
    async with Cache.from_url("memory://", server.url) as cache:
        await filled(cache)
        entered = asyncio.Event()

        async def transaction() -> None:
            async with cache.after_commit() as changes:
                changes.delete("a")
                changes.delete_by_tag("tag")
                changes.then(lambda: cache.delete("b"))
                entered.set()

        server.freeze()
        caller = asyncio.ensure_future(transaction())
        await entered.wait()
        await asyncio.sleep(0)
        caller.cancel()
        await asyncio.wait({caller})
        assert caller.cancelled()
        server.thaw()
        await cache._engine.background.drain()
        assert await cache.get_many(["a", "b", "t", "user:1"]) == {"user:1": 4}


def test_plain_code_has_it_too(tmp_path: Path) -> None:
    """``with`` in place of ``async with``; a plain function's own ``invalidate`` may be asked for."""
    with Cache.from_url("memory://", f"disk://{tmp_path}/disk").blocking() as cache:

        @cache.cached("row:{number}")
        def row(number: int) -> int:
            return calls.append(number) or len(calls)  # type: ignore[func-returns-value]  # the count is the value

        calls: list[int] = []
        assert row(1) == row(1) == 1
        cache.set("a", 1)
        with cache.after_commit() as changes:
            changes.delete("a")
            changes.then(lambda: row.invalidate(1))
            assert (cache.get("a"), row(1)) == (1, 1)
        assert (cache.get("a"), row(1)) == (None, 2)

        def broken_off() -> None:
            with cache.after_commit() as changes:
                changes.then(lambda: row.invalidate(1))
                raise ValueError("no")

        with pytest.raises(ValueError, match="no"):
            broken_off()
        assert row(1) == 2


@pytest.mark.parametrize("blocking", [False, True])
async def test_a_call_that_fails_keeps_no_other_from_being_made(*, blocking: bool) -> None:
    """Of what was to be called after the commit all is called, though one of them raises, which the block then does."""

    def fail() -> None:
        msg = "no such view"
        raise LookupError(msg)

    async with Cache.from_url("memory://") as cache:
        await cache.set("k", "old")

        def plain() -> None:
            with cache.blocking().after_commit() as changes:
                changes.then(fail)
                changes.then(lambda: cache.blocking().delete("k"))

        async def written() -> None:
            async with cache.after_commit() as changes:
                changes.then(fail)
                changes.then(lambda: cache.delete("k"))

        with pytest.raises(LookupError, match="no such view"):
            await (asyncio.to_thread(plain) if blocking else written())
        assert await cache.get("k") is None
