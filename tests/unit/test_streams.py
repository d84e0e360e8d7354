"""Streams beyond one loop and one size: the bound on what is kept, slow readers, threads, plain code, busy sources."""

import asyncio
import contextlib
import gc
import threading
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from genesis_cache import Cache, CacheError
from genesis_cache.engine import feed
from genesis_cache.model.weigh import weigh

LIMIT_S = 30


async def everything(items: AsyncIterator[object]) -> list[object]:
    """All items to the end."""
    return [item async for item in items]


async def until(condition: Callable[[], object]) -> None:
    """Return when something has come about."""
    async with asyncio.timeout(LIMIT_S):
        while True:
            if condition():
                return
            await asyncio.sleep(0.001)


class Source:
    """Numbers as fast as they are taken; remembers how many were made."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.made = 0
        self.closed = False

    async def __call__(self) -> AsyncIterator[int]:
        try:
            for number in range(self.count):
                self.made += 1
                yield number
        finally:
            self.closed = True


@pytest.fixture
def room(monkeypatch: pytest.MonkeyPatch) -> int:
    """A bound of ten numbers."""
    monkeypatch.setattr(feed, "MOST_BYTES", 10 * weigh("", 1000) + 5)
    return 10


async def test_a_stream_beyond_the_bound(room: int) -> None:
    """One reader gets all of a stream that is too long to be stored; its source is never further ahead than needed."""
    async with Cache.from_url("memory://") as cache:
        source = Source(1000)
        reader = cache.stream("k", source)
        for number in range(1000):
            assert await anext(reader) == number
            for _ in range(5):
                await asyncio.sleep(0)
            assert source.made <= number + room + 2
        with pytest.raises(StopAsyncIteration):
            await anext(reader)
        assert await cache.get("k") is None
        assert source.closed


async def test_a_reader_that_falls_behind(room: int) -> None:
    """Beyond the bound a slow reader is told so, and the fast one reads on to the end."""
    async with Cache.from_url("memory://") as cache:
        source = Source(200)
        slow, fast = cache.stream("k", source), cache.stream("k", source)
        assert await asyncio.gather(anext(slow), anext(fast)) == [0, 0]
        assert await everything(fast) == list(range(1, 200))
        with pytest.raises(CacheError, match="fell behind"):
            await anext(slow)


async def test_who_comes_to_a_stream_beyond_the_bound(room: int) -> None:
    """A newcomer to a stream whose beginning is no longer kept gets a run of its own."""
    async with Cache.from_url("memory://") as cache:
        long, own = Source(200), Source(3)
        first = cache.stream("k", long)
        assert [await anext(first) for _ in range(5 * room)] == list(range(5 * room))
        assert await everything(cache.stream("k", own)) == [0, 1, 2]
        assert await everything(first) == list(range(5 * room, 200))
        assert await cache.get("k") == (0, 1, 2)


async def test_too_long_and_nobody_reads(room: int) -> None:
    """A run that can no longer be stored ends when its last reader has left."""
    async with Cache.from_url("memory://") as cache:
        source = Source(100_000)
        reader = cache.stream("k", source)
        for _ in range(room * 3):
            await anext(reader)
        await reader.aclose()
        await until(lambda: source.closed)
        assert source.made < 100
        assert await everything(cache.stream("k", Source(3))) == [0, 1, 2]


async def test_a_source_that_never_waits() -> None:
    """A source with no await of its own still lets its reader have the first items before the last is made."""
    async with Cache.from_url("memory://") as cache:
        source = Source(10_000)
        reader = cache.stream("k", source)
        assert await anext(reader) == 0
        assert source.made < 1000
        assert len(await everything(reader)) == 9_999


async def test_a_hot_loop_of_readers() -> None:
    """Many readers at odd paces all see every item once and in order."""
    async with Cache.from_url("memory://") as cache:
        source = Source(300)

        async def read(pace: int) -> list[int]:
            got = []
            async for item in cache.stream("k", source):
                got.append(item)
                if item % (pace + 1) == 0:
                    await asyncio.sleep(0)
            return got

        assert await asyncio.gather(*(read(n % 7) for n in range(50))) == [list(range(300))] * 50


def test_readers_in_several_loops_and_plain_code() -> None:
    """Two event loops and a thread without one share a run; each gets all items."""
    cache = Cache.from_url("memory://")
    go = threading.Event()
    runs: list[int] = []

    async def source() -> AsyncIterator[int]:
        runs.append(1)
        for number in range(50):
            if number == 25:
                await until(go.is_set)
            yield number

    got: list[list[Any]] = []

    def in_a_loop() -> None:
        got.append(asyncio.run(everything(cache.stream("k", source))))

    def plain() -> None:
        got.append(list(cache.blocking().stream("k", source)))

    with cache.blocking():
        first = iter(cache.blocking().stream("k", source))
        assert next(first) == 0  # so that the run belongs to the loop that stays
        threads = [threading.Thread(target=target) for target in (in_a_loop, in_a_loop, plain)]
        for thread in threads:
            thread.start()
        flight = cache._engine.core.space("").flights["k"]
        end = time.monotonic() + LIMIT_S
        while flight.waiting < 4:
            assert time.monotonic() < end, "they never came"
            time.sleep(0.001)
        go.set()
        for thread in threads:
            thread.join(LIMIT_S)
        assert got == [list(range(50))] * 3
        assert list(first) == list(range(1, 50))
        assert runs == [1]
        leaver = cache.blocking().stream("k", source)
        assert next(leaver) == 0
        del leaver


async def test_the_loop_that_ran_it_ends() -> None:
    """Who reads a stream whose event loop was closed is told; who has read nothing yet gets a run of its own."""
    cache = Cache.from_url("memory://")
    begun = threading.Event()
    end = threading.Event()

    async def half() -> AsyncIterator[int]:
        yield 1
        begun.set()
        await until(end.is_set)
        asyncio.current_task().cancel()  # type: ignore[union-attr]  # as the end of the loop does
        await asyncio.sleep(0)
        yield 2

    thread = threading.Thread(target=lambda: asyncio.run(_ignored(cache.stream("k", half))))
    thread.start()
    assert await asyncio.to_thread(begun.wait, LIMIT_S)
    reader = cache.stream("k", half)
    assert await anext(reader) == 1
    end.set()
    with pytest.raises(CacheError, match="broken off after 1 items"):
        await asyncio.wait_for(anext(reader), LIMIT_S)
    await asyncio.to_thread(thread.join, LIMIT_S)
    assert await everything(cache.stream("k", Source(2))) == [0, 1]
    await cache.close()


async def _ignored(items: AsyncIterator[object]) -> None:
    with contextlib.suppress(CacheError):
        await everything(items)


async def test_nothing_is_left_behind(caplog: pytest.LogCaptureFixture) -> None:
    """Iterators that were never begun, broken off or forgotten leave no task, no count and no complaint."""
    async with Cache.from_url("memory://") as cache:
        cache.stream("never", Source(5))
        async for _ in cache.stream("broken", Source(5)):
            break
        forgotten = cache.stream("forgotten", Source(5))
        await anext(forgotten)
        del forgotten
        gc.collect()
        core = cache._engine.core
        await until(lambda: not (cache._engine.background._tasks or core.loads_abandoned or core.space("").flights))
        assert core.space("").gate.running == 0
        assert await cache.get_many(["never", "broken", "forgotten"]) == {
            "broken": (0, 1, 2, 3, 4),
            "forgotten": (0, 1, 2, 3, 4),
        }
        await until(lambda: len(asyncio.all_tasks()) == 1)
    assert "never retrieved" not in caplog.text


async def test_the_last_item_is_not_lost_between_two_event_loops() -> None:
    """A reader on another event loop gets the last items, though they come and the stream ends as he begins to wait."""
    cache = Cache.from_url("memory://")
    go = asyncio.Event()

    async def source() -> AsyncIterator[int]:
        yield 1
        await go.wait()
        yield 2

    async def read(here: asyncio.AbstractEventLoop) -> list[object]:
        items: list[object] = []
        stream = cache.stream("k", source)
        items.append(await anext(stream))
        flight = cache._engine.core.space("").flights["k"]
        listen = flight.feed.listen

        def slowly(*waiting: Any) -> None:
            """The reader is among those who wait, and his thread has no turn until the stream has ended."""
            listen(*waiting)
            here.call_soon_threadsafe(go.set)
            limit = time.monotonic() + LIMIT_S
            while flight.outcome is None and time.monotonic() < limit:
                time.sleep(0.001)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(feed.Feed, "listen", lambda _, *waiting: slowly(*waiting))
            return [*items, *await everything(stream)]

    here = asyncio.get_running_loop()
    first = asyncio.create_task(everything(cache.stream("k", source)))
    await until(lambda: cache._engine.core.space("").flights)
    assert await asyncio.to_thread(lambda: asyncio.run(read(here))) == [1, 2]
    assert await first == [1, 2]
    await cache.close()
