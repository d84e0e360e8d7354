"""Loads at the gate of their namespace: who leaves the queue, who has the next turn, and what is put off."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
import pytest_asyncio

from genesis_cache import Cache, CacheSettings, LoaderTimeout
from genesis_cache.policies.origin import RAMP_S
from genesis_cache.testing.clock import FakeClock


@pytest_asyncio.fixture
async def cache() -> AsyncIterator[Cache]:
    """Memory only, with a place for one load at a time."""
    async with Cache.from_url("memory://", max_loads=1) as cache:
        yield cache


def figures(cache: Cache) -> dict[str, int]:
    """What is counted of the root."""
    counted: dict[str, int] = cache.analytics()["namespaces"]["(root)"]
    return counted


async def until(condition: Callable[[], bool]) -> None:
    """Wait for something that goes on behind."""
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110  # there is nothing to be told by
            await asyncio.sleep(0.001)


class Held:
    """A loader that is held up until it is let go."""

    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self.go = asyncio.Event()

    async def __call__(self) -> str:
        self.begun.set()
        await self.go.wait()
        return "held"


@pytest.mark.parametrize("leaves", ["hard_timeout", "cancelled"])
async def test_a_load_that_all_leave_in_the_queue_is_not_begun(cache: Cache, leaves: str) -> None:
    """Who gives up before there was a place leaves nothing behind that the source would have to do."""
    held, calls = Held(), 0

    async def load() -> None:
        nonlocal calls
        calls += 1

    first = asyncio.create_task(cache.get_or_set("first", held))
    await held.begun.wait()
    if leaves == "hard_timeout":
        with pytest.raises(LoaderTimeout):
            await cache.get_or_set("k", load, hard_timeout=0.01)
    else:
        task = asyncio.create_task(cache.get_or_set("k", load))
        await until(lambda: figures(cache)["loads_queued"] == 1)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    held.go.set()
    assert await first == "held"
    await cache._engine.background.drain()
    assert calls == 0
    assert figures(cache)["loads_given_up"] == 1
    assert cache.analytics()["global_statistics"]["abandoned_loads"] == 0
    assert await cache.get_or_set("k", lambda: "later") == "later"


async def test_who_comes_to_a_load_that_was_given_up_gets_a_value(cache: Cache) -> None:
    """A caller that joins in the moment in which the last one leaves is served by a load of its own."""
    held = Held()
    first = asyncio.create_task(cache.get_or_set("first", held))
    await held.begun.wait()
    leaving = asyncio.create_task(cache.get_or_set("k", lambda: "value"))
    await until(lambda: figures(cache)["loads_queued"] == 1)
    leaving.cancel()
    coming = asyncio.create_task(cache.get_or_set("k", lambda: "value"))
    await asyncio.gather(leaving, return_exceptions=True)
    held.go.set()
    assert await asyncio.wait_for(coming, 30) == "value"
    assert await first == "held"


async def test_a_place_that_never_comes_free_is_not_waited_for_for_ever() -> None:
    """Waiting for a place ends with CACHE_LOAD_DEADLINE, and the error says what was waited for."""
    async with Cache.from_url("memory://", max_loads=1, load_deadline=0.05) as cache:
        held = Held()
        cache._engine.reading.leading._loader._deadline_s = 60
        first = asyncio.create_task(cache.get_or_set("first", held))
        await held.begun.wait()
        with pytest.raises(LoaderTimeout, match="no place for a load came free"):
            await cache.get_or_set("k", lambda: 1)
        held.go.set()
        await first


async def test_owners_take_turns_at_the_gate(cache: Cache) -> None:
    """A user with many slow keys does not keep another user's one key waiting for all of them."""
    order: list[str] = []

    async def load(name: str) -> None:
        order.append(name)
        await asyncio.sleep(0)

    greedy, modest = cache.owned_by("user:greedy"), cache.owned_by("user:modest")
    calls = [greedy.get_or_set(f"k{n}", lambda: load("greedy")) for n in range(50)]
    calls.append(modest.get_or_set("k", lambda: load("modest")))
    await asyncio.gather(*calls)
    assert order.index("modest") < 5
    assert len(order) == 51


async def test_refreshes_are_put_off_while_the_source_fails() -> None:
    """One load behind at a time while most loads fail; the old values serve, and all goes on once it works again."""
    clock = FakeClock()
    running = most = calls = 0
    is_down = True

    async def load() -> str:
        nonlocal running, most, calls
        calls += 1
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.001)
        running -= 1
        if is_down:
            raise ConnectionError("down")
        return "new"

    stale = {"stale_while_revalidate": 10_000, "retry_after": 0}
    async with Cache(CacheSettings(cache_tiers=("memory",)), clock=clock) as cache:
        await cache.set_many({f"k{n}": "old" for n in range(50)}, ttl=10, **stale)
        for n in range(10):
            with pytest.raises(ConnectionError):
                await cache.get_or_set(f"missing {n}", load)
        assert figures(cache)["origin"] == "failing"
        clock.advance(11)
        most = 0
        for n in range(50):
            assert await cache.get_or_set(f"k{n}", load, **stale) == "old"
        await cache._engine.background.drain()
        assert (most, calls) == (1, 11)
        assert figures(cache)["refreshes_put_off"] == 49
        is_down = False
        for _ in range(60):
            clock.advance(1.1)
            for n in range(50):
                await cache.get_or_set(f"k{n}", load, **stale)
            await cache._engine.background.drain()
        assert set((await cache.get_many([f"k{n}" for n in range(50)])).values()) == {"new"}
        assert figures(cache)["origin"] == "well"
        assert most > 1


@pytest.mark.parametrize(
    ("lose", "ramps"),
    [
        (lambda cache: cache.clear(), True),
        (lambda cache: cache.delete_by_tag("all"), True),
        (lambda cache: cache.delete_by_tag("few"), False),
        (lambda cache: cache.delete("k1", "k2"), False),
    ],
    ids=["clear", "a tag of many", "a tag of few", "keys"],
)
async def test_after_a_great_loss_loads_begin_one_after_the_other(
    lose: Callable[[Cache], Awaitable[object]],
    ramps: bool,  # what is expected
) -> None:
    """After a clear, or a tag that killed more entries than there are places, only some of the places are open."""
    clock = FakeClock()
    async with Cache(CacheSettings(cache_tiers=("memory",), cache_max_loads=64), clock=clock) as cache:
        gate = cache._view.space.gate
        gate._now = clock.now
        for n in range(100):
            await cache.set(f"k{n}", n, ttl=1000, tags=["all", "few"] if n < 5 else ["all"])
        assert gate.room == 16
        clock.advance(2 * RAMP_S)
        assert gate.room == 64
        await lose(cache)
        await cache._engine.background.drain()
        assert gate.room == (16 if ramps else 64)
        assert figures(cache)["slow_starts"] == 1 + ramps
