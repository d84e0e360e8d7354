"""Loads that call other loads, and loaders that end in unusual ways."""

import asyncio
import sys
import threading
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from genesis_cache import Cache, CacheError
from genesis_cache.engine.flight import Flight
from genesis_cache.engine.loading import load_of


@pytest_asyncio.fixture
async def cache() -> AsyncIterator[Cache]:
    """Memory only, with places for four loads at once."""
    cache = Cache.from_url("memory://", max_loads=4)
    yield cache
    await cache.close()


async def test_a_function_that_calls_itself_may_go_deeper_than_there_are_places(cache: Cache) -> None:
    """A recursive async function is cached at any depth, as with functools.cache."""

    @cache.cached("fib:{n}")
    async def fib(n: int) -> int:
        return n if n < 2 else await fib(n - 1) + await fib(n - 2)

    assert await asyncio.wait_for(fib(30), 10) == 832040


async def test_a_plain_function_that_calls_itself_may_go_deeper_than_there_are_places(cache: Cache) -> None:
    """A recursive plain function is cached at any depth, as with functools.cache."""

    @cache.cached("fib:{n}")
    def fib(n: int) -> int:
        return n if n < 2 else fib(n - 1) + fib(n - 2)

    assert await asyncio.wait_for(asyncio.to_thread(fib, 30), 10) == 832040


async def test_loads_that_stand_by_themselves_still_keep_to_the_places(cache: Cache) -> None:
    """No more than max_loads loaders of one namespace run at once."""
    running = most = 0

    async def load() -> int:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.001)
        running -= 1
        return 1

    await asyncio.gather(*(cache.get_or_set(f"k{n}", load) for n in range(20)))
    assert most == 4


async def test_a_loader_that_asks_for_its_own_key_is_told_so(cache: Cache) -> None:
    """A circle of loaders is an error at once, not a wait for the load's deadline."""

    async def first() -> object:
        return await cache.get_or_set("b", second)

    async def second() -> object:
        return await cache.get_or_set("a", first)

    with pytest.raises(CacheError, match="wait for itself"):
        await asyncio.wait_for(cache.get_or_set("a", first), 5)


async def test_a_loader_that_was_cancelled_from_within_fails_and_is_not_repeated(cache: Cache) -> None:
    """A CancelledError of the loader's own doing reaches the caller as an error, after one attempt."""
    calls = 0

    async def load() -> None:
        nonlocal calls
        calls += 1
        raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(cache.get_or_set("k", load), 5)
    assert calls == 1


async def test_a_plain_loader_that_raises_stop_iteration_does_not_hang(cache: Cache) -> None:
    """next() of an empty iterator in a loader is an error for the caller."""
    with pytest.raises(RuntimeError, match="StopIteration"):
        await asyncio.wait_for(cache.get_or_set("k", lambda: next(iter(()))), 5)


async def test_a_loader_that_exits_ends_its_caller_and_not_the_cache(cache: Cache) -> None:
    """sys.exit() in a loader reaches the thread that called, and others are served as before."""
    codes: list[object] = []

    def call() -> None:
        try:
            cache.blocking().get_or_set("k", lambda: sys.exit(3))
        except SystemExit as exit_:
            codes.append(exit_.code)

    thread = threading.Thread(target=call)
    thread.start()
    await asyncio.to_thread(thread.join, 5)
    assert codes == [3]
    assert await asyncio.to_thread(cache.blocking().get_or_set, "k", lambda: 1) == 1


async def test_callers_who_leave_a_load_of_many_keys_are_not_counted_for_ever(cache: Cache) -> None:
    """Abandoned loads are counted while they run, not after."""

    async def load(keys: list[str]) -> dict[str, int]:
        await asyncio.sleep(0.02)
        return dict.fromkeys(keys, 1)

    caller = asyncio.create_task(cache.get_or_set_many(["a", "b"], load))
    await asyncio.sleep(0.005)
    caller.cancel()
    await asyncio.gather(caller, return_exceptions=True)
    assert cache.analytics()["global_statistics"]["abandoned_loads"] > 0
    assert await cache.get_or_set_many(["a", "b"], load) == {"a": 1, "b": 1}
    await cache.close()
    assert cache.analytics()["global_statistics"]["abandoned_loads"] == 0


def _stopped(cache: Cache, key: str) -> asyncio.AbstractEventLoop:
    """An event loop that was stopped in the middle of a load."""
    loop = asyncio.new_event_loop()
    loop.set_exception_handler(lambda *_: None)  # for the load, which never ends
    begun = asyncio.Event()

    async def hang() -> None:
        begun.set()
        await asyncio.Event().wait()

    calls = [loop.create_task(cache.get_or_set(key, hang))]
    loop.run_until_complete(asyncio.wait_for(begun.wait(), 20))
    assert not calls[0].done()
    return loop


def test_callers_elsewhere_survive_the_end_of_a_loads_event_loop() -> None:
    """Who waits on another event loop than the load's, which is closed without a word, gets a load of its own."""
    cache = Cache.from_url("memory://")
    loop = _stopped(cache, "k")

    async def load() -> str:
        return "loaded"

    async def wait() -> object:
        waiting = asyncio.ensure_future(cache.get_or_set("k", load))
        while cache._engine.core.space("").flights["k"].waiting < 2:  # noqa: ASYNC110  # nobody tells
            await asyncio.sleep(0)
        loop.close()
        return await asyncio.wait_for(waiting, 20)

    assert asyncio.run(wait()) == "loaded"


@pytest.mark.parametrize("key", ["b", "new"])
def test_loads_whose_event_loop_is_closed_hold_no_place(key: str) -> None:
    """The places of loads whose event loop was closed without a word are free for the same keys and for others."""
    cache = Cache.from_url("memory://", max_loads=1)
    for each in ("a", "b"):
        _stopped(cache, each).close()

    async def load() -> str:
        return "loaded"

    async def ask() -> object:
        return await asyncio.wait_for(cache.get_or_set(key, load), 20)

    assert asyncio.run(ask()) == "loaded"


def test_a_closed_event_loop_costs_no_younger_load_its_key() -> None:
    """Of two callers who find the load of a closed event loop at once, one begins another and the other joins it."""
    cache = Cache.from_url("memory://")
    leading, view = cache._engine.reading.leading, cache._view
    old, younger = Flight(0, 0.0), Flight(0, 0.0)
    closed = asyncio.new_event_loop()
    closed.close()

    class Task:
        """Looked at by one caller while the other begins its load."""

        def get_loop(self) -> asyncio.AbstractEventLoop:
            view.space.flights["k"] = younger
            return closed

    old.task = Task()  # type: ignore[assignment]  # tells of its loop, which is all that is asked
    view.space.flights["k"] = old
    leading.joinable(view, "k", load_of(lambda: "v"), cache._engine.core.plan_of(view, {}))
    assert view.space.flights["k"] is younger


async def test_a_lost_load_frees_its_key_before_anybody_is_told(cache: Cache) -> None:
    """Who waits on another event loop looks again at once, and must not meet the very load that was lost."""
    space = cache._engine.core.space("")
    is_taken: list[bool] = []

    class Loop:
        def is_closed(self) -> bool:
            return False

        def call_soon_threadsafe(self, *_: object) -> None:
            is_taken.append("k" in space.flights)

    async def hang() -> None:
        await asyncio.Event().wait()

    caller = asyncio.ensure_future(cache.get_or_set("k", hang))
    while "k" not in space.flights:  # noqa: ASYNC110  # nobody tells
        await asyncio.sleep(0)
    flight = space.flights["k"]
    flight._waiters[asyncio.get_running_loop().create_future()] = Loop()  # type: ignore[assignment]  # all that is asked
    caller.cancel()
    await asyncio.wait([caller])
    assert flight.task is not None
    flight.task.cancel()
    await asyncio.wait([flight.task])
    assert is_taken == [False]
