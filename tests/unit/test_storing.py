"""Storing: what loads bring is kept with times of its own, and never in place of something that was loaded later."""

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from genesis_cache import Cache, CacheSettings, LoadContext, LoaderTimeout
from genesis_cache.testing.clock import FakeClock


@pytest.fixture
def clock() -> FakeClock:
    """Time that passes when told."""
    return FakeClock()


@pytest_asyncio.fixture
async def cache(clock: FakeClock) -> AsyncIterator[Cache]:
    """Memory only."""
    async with Cache(CacheSettings(cache_tiers=("memory",)), clock=clock) as cache:
        yield cache


class Held:
    """A loader that goes on when it is let."""

    def __init__(self, value: object) -> None:
        self._value = value
        self.go = asyncio.Event()

    async def one(self) -> object:
        """Of one key."""
        await self.go.wait()
        return self._value

    async def many(self, keys: list[str]) -> dict[str, object]:
        """Of many."""
        return dict.fromkeys(keys, await self.one())


async def ask(cache: Cache, held: Held, *, many: bool) -> object:
    """Wait a hundredth of a second for a load."""
    if many:
        return await cache.get_or_set_many(["k"], held.many, hard_timeout=0.01)
    return await cache.get_or_set("k", held.one, hard_timeout=0.01)


@pytest.mark.parametrize("many", [False, True])
async def test_a_hung_load_does_not_bury_what_was_loaded_after_it(cache: Cache, *, many: bool) -> None:
    """A load that comes back after its key was loaded anew is not stored; its own callers still get its value."""
    slow = Held("old")
    patient = asyncio.create_task(cache.get_or_set("k", slow.one))
    with pytest.raises(LoaderTimeout):
        await ask(cache, slow, many=many)
    assert await cache.get_or_set("k", lambda: "new") == "new"
    slow.go.set()
    assert await patient == "old"
    assert await cache.get("k") == "new"


@pytest.mark.parametrize("many", [False, True])
async def test_a_slow_load_is_stored_if_nothing_came_of_a_later_one(cache: Cache, *, many: bool) -> None:
    """Callers who all gave up find the value when it has come, though others tried and gave up after them."""
    slow, slower = Held("value"), Held("another")
    for held in (slow, slower):
        with pytest.raises(LoaderTimeout):
            await ask(cache, held, many=many)
    slow.go.set()
    async with asyncio.timeout(30):
        while await cache.get("k") is None:  # noqa: ASYNC110  # nothing tells that it is stored
            await asyncio.sleep(0.001)
    assert await cache.get("k") == "value"
    slower.go.set()
    await cache._engine.background.drain()
    assert await cache.get("k") == "another"
    assert not cache._view.space.hung


async def test_what_is_loaded_in_one_batch_does_not_expire_in_one_moment(cache: Cache, clock: FakeClock) -> None:
    """Jitter is drawn for each key of a bulk load, and for a ttl that the loader has chosen."""

    async def load_many(keys: list[str]) -> dict[str, int]:
        return dict.fromkeys(keys, 1)

    async def load(ctx: LoadContext) -> int:
        ctx.ttl = 100
        return 1

    keys = [f"k{n}" for n in range(200)]
    await cache.get_or_set_many(keys, load_many, ttl=100, jitter=0.5)
    for n in range(50):
        await cache.get_or_set(f"own {n}", load, ttl=5, jitter=0.5)
    clock.advance(49.9)
    assert len(await cache.get_many(keys)) == 200
    clock.advance(25)
    assert 50 < len(await cache.get_many(keys)) < 150
    assert 5 < len(await cache.get_many([f"own {n}" for n in range(50)])) < 45
    clock.advance(25.2)
    assert await cache.get_many(keys) == {}


async def test_a_loader_that_only_says_not_modified_keeps_the_old_value(cache: Cache) -> None:
    """Who calls ``ctx.not_modified()`` and forgets to return its result has not loaded None."""

    async def unchanged(ctx: LoadContext) -> None:
        ctx.not_modified()

    await cache.set("k", "old", ttl=60, stale_if_error=60)
    await cache.expire("k")
    assert await cache.get_or_set("k", unchanged, ttl=60) == "old"
    assert await cache.get("k") == "old"


async def test_a_loader_that_says_a_ttl_of_0_stores_nothing(cache: Cache) -> None:
    """An answer that may not be kept (``max-age=0``) reaches those who wait, and nobody after them."""
    calls = []

    async def load(ctx: LoadContext) -> int:
        ctx.ttl = 0
        calls.append(1)
        return len(calls)

    assert [await cache.get_or_set("k", load, jitter=0.5, early_refresh=1) for _ in range(2)] == [1, 2]
    assert await cache.get("k") is None


@pytest.mark.parametrize("how", ["refresh", "get_or_set", "get_or_set_many"])
async def test_a_load_of_an_older_version_is_not_kept_in_place_of_a_newer_one(cache: Cache, how: str) -> None:
    """The newest wins in memory too, though its loader's callers get what it brought."""
    await cache.set("k", "new", version=2, stale_if_error=60)
    if how == "refresh":
        assert await cache.refresh("k", lambda: "old", version=1) == "old"
        assert await cache.get("k") == "new"
        return
    await cache.expire("k")
    if how == "get_or_set":
        assert await cache.get_or_set("k", lambda: "old", version=1) == "old"
    else:
        assert await cache.get_or_set_many(["k"], lambda _: {"k": "old"}, version=1) == {"k": "old"}
    assert await cache.get("k", allow_stale=True) == "new"
    assert await cache.get_or_set("k", lambda: "newer", version=3) == "newer"
    assert await cache.get("k") == "newer"
