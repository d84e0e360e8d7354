"""Streams: one live run for all who iterate, stored only if it ended well, replayed for those who come later."""

import asyncio
import inspect
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import Any

import pytest

from genesis_cache import Cache, CacheError, LoaderTimeout


class Source:
    """A stream that tells when it runs, gives each item when it is let, and remembers how it ended."""

    def __init__(self, *items: object, error: Exception | None = None) -> None:
        self.items = items
        self.error = error
        self.runs = 0
        self.closed = 0
        self.steps = asyncio.Semaphore(0)

    async def __call__(self) -> AsyncGenerator[object, None]:
        self.runs += 1
        try:
            for item in self.items:
                await self.steps.acquire()
                yield item
            await self.steps.acquire()
            if self.error is not None:
                raise self.error
        finally:
            self.closed += 1

    def let(self, steps: int) -> None:
        """Let so many items come; one more than there are lets it end."""
        for _ in range(steps):
            self.steps.release()


async def everything(items: AsyncIterator[object]) -> list[object]:
    """All items to the end."""
    return [item async for item in items]


async def read(items: AsyncIterator[object], count: int) -> list[object]:
    """The next so many."""
    return [await anext(items) for _ in range(count)]


async def test_one_run_for_all_and_a_replay(cache: Cache, house: Any) -> None:
    """Ten callers share one run and see all items from the start; later ones, in every tier, get them replayed."""
    source = Source("a", "b", "c")
    readers = [asyncio.create_task(everything(cache.stream("k", source))) for _ in range(10)]
    source.let(4)
    assert await asyncio.gather(*readers) == [["a", "b", "c"]] * 10
    assert await everything(cache.stream("k", source)) == ["a", "b", "c"]
    assert await cache.get("k") == ("a", "b", "c")
    house.forget_near(cache) if house.far else None
    assert await everything(cache.stream("k", source)) == ["a", "b", "c"]
    assert (source.runs, source.closed) == (1, 1)


async def test_items_come_as_they_are_made(cache: Cache) -> None:
    """The first item is there before the second is made, also for one who comes in the middle."""
    source = Source(1, 2, 3)
    first = cache.stream("k", source)
    source.let(1)
    assert await read(first, 1) == [1]
    source.let(1)
    assert await read(first, 1) == [2]
    late = cache.stream("k", source)
    assert await read(late, 2) == [1, 2]
    assert await cache.get("k") is None
    source.let(2)
    assert (await everything(late), await everything(first)) == ([3], [3])
    assert source.runs == 1


async def test_a_reader_that_leaves_harms_no_other(cache: Cache) -> None:
    """One who breaks off and one who is cancelled leave the others with all items."""
    source = Source(1, 2, 3)
    leaver, stayer = cache.stream("k", source), cache.stream("k", source)
    cancelled = asyncio.create_task(everything(cache.stream("k", source)))
    source.let(1)
    assert await read(leaver, 1) == await read(stayer, 1) == [1]
    await leaver.aclose()
    cancelled.cancel()
    await asyncio.gather(cancelled, return_exceptions=True)
    source.let(3)
    assert await everything(stayer) == [2, 3]
    assert source.runs == 1


async def test_when_all_have_left_the_run_goes_on(cache: Cache, settled: Any) -> None:
    """As any load that all have left: it counts as abandoned, gives its place away, ends and is stored."""
    limited = cache.namespace("n", max_loads=1)
    source = Source(1, 2)
    only = limited.stream("k", source)
    source.let(1)
    assert await read(only, 1) == [1]
    await only.aclose()
    assert cache._engine.core.loads_abandoned == 1
    assert await asyncio.wait_for(limited.get_or_set("other", lambda: "has the place"), 20) == "has the place"
    source.let(2)
    await settled(lambda: cache._engine.core.loads_abandoned == 0, 20)
    assert await limited.get("k") == (1, 2)
    assert source.runs == 1


async def test_an_error_in_mid_stream(cache: Cache, caplog: Any) -> None:
    """All who read so far get what came and then the error; nothing is stored, and the next caller starts anew."""
    source = Source(1, 2, error=OSError("the model is down"))
    readers = [cache.stream("k", source) for _ in range(3)]
    source.let(1)
    assert [await read(reader, 1) for reader in readers] == [[1]] * 3
    source.let(2)
    for reader in readers:
        assert await read(reader, 1) == [2]
        with pytest.raises(OSError, match="the model is down"):
            await anext(reader)
    assert await cache.get("k") is None
    well = Source("well")
    well.let(2)
    assert await everything(cache.stream("k", well)) == ["well"]
    assert source.closed == 1
    assert "never retrieved" not in caplog.text


async def test_the_old_stream_serves_an_error_before_the_first_item(cache: Cache, house: Any) -> None:
    """With stale_if_error a source that fails at once, or is late with its first item, replays the old stream."""
    options = {"ttl": 10, "stale_if_error": 60, "retry_after": 0}
    good, bad, late = Source("old"), Source(error=OSError("down")), Source("late")
    good.let(2)
    bad.let(1)
    await everything(cache.stream("k", good, **options))
    house.pass_time(11)
    assert await everything(cache.stream("k", bad, **options)) == ["old"]
    assert await everything(cache.stream("k", late, **options, soft_timeout=0.01)) == ["old"]
    late.let(2)
    await cache._engine.background.drain()
    assert await cache.get("k") == ("late",)
    bad.let(1)
    with pytest.raises(OSError, match="down"):
        await everything(cache.stream("other", bad))


async def test_timeouts_are_to_the_first_item(cache: Cache) -> None:
    """Past hard_timeout without an item there is LoaderTimeout; with one, a pause may last."""
    slow = Source(1, 2)
    with pytest.raises(LoaderTimeout, match="hard_timeout"):
        await anext(cache.stream("k", slow, hard_timeout=0.01))
    slow.let(3)
    paused = Source(1, 2)
    paused.let(1)
    reader = cache.stream("p", paused, hard_timeout=10)
    assert await read(reader, 1) == [1]
    asyncio.get_running_loop().call_later(0.05, paused.let, 2)
    assert await everything(reader) == [2]
    await cache._engine.background.drain()


@pytest.mark.parametrize(
    "invalidate",
    [
        lambda cache: cache.delete("k"),
        lambda cache: cache.delete_by_tag("t"),
        lambda cache: cache.delete_by_pattern("k*"),
        lambda cache: cache.clear(),
    ],
    ids=["delete", "tag", "pattern", "clear"],
)
async def test_an_invalidation_during_the_stream(cache: Cache, invalidate: Callable[[Cache], Any]) -> None:
    """Those who read go on; it is not stored, and whoever comes afterwards starts a run of their own."""
    old, new = Source("old 1", "old 2"), Source("new")
    reader = cache.stream("k", old, tags=["t"])
    old.let(1)
    assert await read(reader, 1) == ["old 1"]
    await invalidate(cache)
    later = asyncio.create_task(everything(cache.stream("k", new, tags=["t"])))
    new.let(2)
    assert await asyncio.wait_for(later, 20) == ["new"]
    old.let(2)
    assert await everything(reader) == ["old 2"]
    assert await cache.get("k") == ("new",)
    assert await everything(cache.stream("k", new, tags=["t"])) == ["new"]


async def test_the_deadline_ends_it(house: Any) -> None:
    """A run past CACHE_LOAD_DEADLINE is cancelled and closed; its readers get LoaderTimeout, the key is free."""
    cache = house.cache(load_deadline=0.05)
    source = Source(1, 2)
    source.let(1)
    readers = [cache.stream("k", source) for _ in range(2)]
    for reader in readers:
        with pytest.raises(LoaderTimeout):
            await everything(reader)
    assert source.closed == source.runs
    assert await cache.get_or_set("k", lambda: "free") == "free"


async def test_no_items_and_none(cache: Cache) -> None:
    """An empty stream is kept as one, and None is an item."""
    empty, none = Source(), Source(None)
    empty.let(2)
    none.let(4)
    for _ in range(2):
        assert await everything(cache.stream("e", empty)) == []
        assert await everything(cache.stream("n", none)) == [None]
    assert (empty.runs, none.runs) == (1, 1)


async def test_what_the_loader_may_say(cache: Cache) -> None:
    """A source with a parameter gets a LoadContext: tags that it learns, or not to store at all."""

    async def tagged(ctx: Any) -> AsyncIterator[int]:
        yield 1
        ctx.tags.add("learned")

    async def skipped(ctx: Any) -> AsyncIterator[int]:
        yield 1
        ctx.skip()

    assert await everything(cache.stream("t", tagged)) == [1]
    assert await cache.get("t") == (1,)
    await cache.delete_by_tag("learned")
    assert await cache.get("t") is None
    assert await everything(cache.stream("s", skipped)) == [1]
    assert await cache.get("s") is None


@pytest.mark.parametrize("tiers", [("memory",), ("memory", "disk")])
async def test_an_old_stream_that_still_holds(cache: Cache, house: Any) -> None:
    """A source that says not_modified() gives the old items once more, with new times; after items of its own, not."""
    options = {"ttl": 10, "stale_if_error": 60, "retry_after": 0}

    async def source(ctx: Any) -> AsyncIterator[int]:
        if ctx.etag != "v1":
            ctx.etag = "v1"
            yield 1
            yield 2
        else:
            ctx.not_modified()

    async def wrong(ctx: Any) -> AsyncIterator[int]:
        yield 3
        ctx.not_modified()

    assert await everything(cache.stream("k", source, **options)) == [1, 2]
    house.pass_time(11)
    assert await cache.get("k") is None
    assert await everything(cache.stream("k", source, **options)) == [1, 2]
    assert await cache.get("k") == (1, 2)
    house.pass_time(11)
    with pytest.raises(CacheError, match="not_modified"):
        await everything(cache.stream("k", wrong, **options))


@pytest.mark.parametrize("tiers", [("memory",)])
async def test_a_fallback_is_a_tuple_of_items(cache: Cache) -> None:
    """Where the source fails before its first item the fallback's items are given; one that is no stream says so."""
    down = Source(error=OSError("down"))
    down.let(9)
    assert await everything(cache.stream("k", down, fallback=("sorry",), retry_after=0)) == ["sorry"]
    with pytest.raises(CacheError, match="a str, which is neither"):
        await everything(cache.stream("l", down, fallback="sorry", retry_after=0))


@pytest.mark.parametrize("tiers", [("memory",), ("memory", "disk")])
async def test_what_is_a_source(cache: Cache) -> None:
    """A function that returns an async iterator, awaited or not, is one; a list is not, and says so."""

    async def client() -> AsyncIterator[int]:
        async def chunks() -> AsyncIterator[int]:
            yield 1
            yield 2

        return chunks()

    assert await everything(cache.stream("k", client)) == [1, 2]
    with pytest.raises(TypeError, match="async iterator, got list"):
        await everything(cache.stream("bad", lambda: [1, 2]))
    wrong: Any = [1]
    with pytest.raises(TypeError, match="function"):
        cache.stream("bad", wrong)
    with pytest.raises(TypeError, match="ttll"):
        cache.stream("bad", client, ttll=5)


@pytest.mark.parametrize("tiers", [("memory",), ("memory", "disk")])
async def test_another_value_under_the_key(cache: Cache) -> None:
    """A value that was set as a tuple is replayed; one that is no stream is replaced by one."""
    source = Source("new")
    source.let(2)
    await cache.set("warm", ("set", "before"))
    assert await everything(cache.stream("warm", source)) == ["set", "before"]
    await cache.set("k", "no stream")
    assert await everything(cache.stream("k", source)) == ["new"]
    assert await cache.get("k") == ("new",)


@pytest.mark.parametrize("tiers", [("memory",), ("memory", "disk")])
async def test_plain_callers_of_the_same_key(cache: Cache) -> None:
    """Whoever asks with get_or_set while it runs waits for the end and gets the tuple."""
    source = Source(1, 2)
    reader = cache.stream("k", source)
    source.let(1)
    assert await read(reader, 1) == [1]
    plain = asyncio.create_task(cache.get_or_set("k", lambda: "not loaded"))
    source.let(2)
    assert await everything(reader) == [2]
    assert await plain == (1, 2)


@pytest.mark.parametrize("tiers", [("memory",), ("memory", "disk")])
async def test_stale_while_revalidate(cache: Cache, house: Any, settled: Any) -> None:
    """Past its ttl the old stream is replayed at once and a new run goes on behind."""
    options = {"ttl": 10, "stale_while_revalidate": 60}
    old, new = Source("old"), Source("new")
    old.let(2)
    await everything(cache.stream("k", old, **options))
    house.pass_time(11)
    assert await everything(cache.stream("k", new, **options)) == ["old"]
    new.let(2)

    async def renewed() -> bool:
        return await cache.get("k") == ("new",)

    await settled(renewed, 20)
    assert await everything(cache.stream("k", new, **options)) == ["new"]


@pytest.mark.parametrize("tiers", [("memory",), ("memory", "disk")])
async def test_a_decorated_generator(cache: Cache, settled: Any) -> None:
    """A decorated async generator function stays one, shares its runs by key, and can be invalidated and refreshed."""
    runs: list[str] = []

    @cache.cached("answer:{prompt}", tags=["model:{model}"])
    async def answer(prompt: str, *, model: str = "m") -> AsyncIterator[str]:
        """Words of an answer."""
        runs.append(prompt)
        for word in prompt.split():
            await asyncio.sleep(0)
            yield f"{word}{len(runs)}"

    assert inspect.isasyncgenfunction(answer)
    assert answer.__doc__ == "Words of an answer."
    assert answer.key("a b") == "answer:a b"
    both = await asyncio.gather(everything(answer("a b")), everything(answer("a b", model="m")))
    assert both == [["a1", "b1"], ["a1", "b1"]]
    assert await everything(answer("a b")) == ["a1", "b1"]
    assert runs == ["a b"]
    assert await everything(answer.refresh("a b")) == ["a2", "b2"]
    assert await everything(answer("a b")) == ["a2", "b2"]
    await answer.invalidate("a b")
    assert await everything(answer("a b")) == ["a3", "b3"]
    await cache.delete_by_tag("model:m")
    assert await everything(answer("a b")) == ["a4", "b4"]
    async for _ in answer("c d"):
        break
    await settled(lambda: cache.get("answer:c d"), 20)
    assert runs[-1] == "c d"
    with pytest.raises(TypeError, match="unexpected"):
        answer(promp="x")  # type: ignore[call-arg]  # the wrong call is what is tested


@pytest.mark.parametrize("tiers", [("memory",)])
async def test_a_plain_generator_is_refused(cache: Cache) -> None:
    """A plain generator function fails when it is decorated, and says what to do."""
    with pytest.raises(TypeError, match="async def"):

        @cache.cached()
        def plain() -> Any:
            yield 1


@pytest.mark.parametrize("tiers", [("memory",)])
async def test_isolated_items(cache: Cache) -> None:
    """With isolate every reader has items of its own, live and replayed."""

    async def source() -> AsyncIterator[list[int]]:
        yield [1]

    for _ in range(3):
        (item,) = await everything(cache.stream("k", source, isolate=True))
        assert item == [1]
        assert isinstance(item, list)
        item.append(2)


@pytest.mark.parametrize("tiers", [("memory",)])
async def test_a_stream_that_iterates_itself(cache: Cache) -> None:
    """A source that asks for its own key gets an error instead of waiting for itself."""

    async def source() -> AsyncIterator[object]:
        async for item in cache.stream("k", source):
            yield item

    with pytest.raises(CacheError, match="itself"):
        await asyncio.wait_for(everything(cache.stream("k", source)), 20)
