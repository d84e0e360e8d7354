"""What holds for one key holds for many: hung loads, callers who leave, old values below, refreshes, sealed values."""

import asyncio
import base64
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from genesis_cache import Cache, CacheSettings
from genesis_cache.model.errors import LoaderTimeout
from genesis_cache.testing.clock import FakeClock

GENEROUS_S = 20.0


async def until(so: list[object], wanted: int = 1) -> None:
    """Wait until a loader has told of so many calls."""
    async with asyncio.timeout(GENEROUS_S):
        while len(so) < wanted:  # noqa: ASYNC110  # the loader tells by its list
            await asyncio.sleep(0)


@pytest.fixture
def clock() -> FakeClock:
    """Stands still."""
    return FakeClock()


@pytest_asyncio.fixture
async def cache(clock: FakeClock) -> AsyncIterator[Cache]:
    """Memory only."""
    cache = Cache(CacheSettings().with_urls("memory://"), clock=clock)
    yield cache
    await cache.close()


async def test_a_hung_load_of_many_keys_blocks_none_of_them(cache: Cache) -> None:
    """One caller pays with his patience for a load of many keys that hangs; the next one loads all of them anew."""
    hung, calls = asyncio.Event(), list[list[str]]()

    async def load(keys: list[str]) -> dict[str, str]:
        calls.append(keys)
        if len(calls) == 1:
            await hung.wait()
        return dict.fromkeys(keys, "new")

    with pytest.raises(LoaderTimeout):
        await cache.get_or_set_many(["a", "b", "c"], load, hard_timeout=0.01)
    found = await cache.get_or_set_many(["a", "b", "c"], load, hard_timeout=GENEROUS_S)
    assert found == {"a": "new", "b": "new", "c": "new"}
    assert calls == [["a", "b", "c"], ["a", "b", "c"]]
    hung.set()


async def test_who_leaves_many_keys_leaves_all_their_loads(cache: Cache) -> None:
    """A hung load gives its place to others when its caller of many keys leaves, whichever key he waited for then."""
    few = cache.namespace("few", max_loads=2)
    hung, calls = asyncio.Event(), list[object]()

    async def hang(keys: object = ("first",)) -> dict[str, str]:
        calls.append(keys)
        await hung.wait()
        return {}

    async def load() -> str:
        return "loaded"

    other = asyncio.create_task(few.get_or_set("first", hang))
    await until(calls)
    many = asyncio.create_task(few.get_or_set_many(["first", "second"], hang))
    await until(calls, 2)
    many.cancel()
    await asyncio.wait([many])
    async with asyncio.timeout(GENEROUS_S):
        assert await few.get_or_set("third", load) == "loaded"
    hung.set()
    await other


async def test_a_load_is_not_given_up_while_a_caller_of_many_keys_wants_it(cache: Cache) -> None:
    """A load that has no place yet is kept for a caller of many keys who waits for another of them first."""
    few = cache.namespace("few", max_loads=1)
    go, calls = asyncio.Event(), list[object]()

    async def first() -> str:
        calls.append("first")
        await go.wait()
        return "first"

    async def load(keys: list[str]) -> dict[str, str]:
        return dict.fromkeys(keys, "many")

    one = asyncio.create_task(few.get_or_set("first", first))
    await until(calls)
    many = asyncio.create_task(few.get_or_set_many(["first", "second"], load))
    await asyncio.sleep(0)
    with pytest.raises(LoaderTimeout):
        await few.get_or_set("second", first, hard_timeout=0.01)
    go.set()
    assert await asyncio.gather(one, many) == ["first", {"first": "first", "second": "many"}]
    assert cache.analytics()["namespaces"]["few"]["loads_given_up"] == 0


async def test_old_values_below_memory_serve_many_keys_too(tmp_path: Path, clock: FakeClock) -> None:
    """When the loader of many keys fails, an old value that only a lower tier still holds serves."""

    async def fail(keys: list[str]) -> dict[str, str]:
        raise OSError(f"{len(keys)} keys, and no answer")

    async with Cache(CacheSettings().with_urls("memory://", f"disk://{tmp_path}"), clock=clock) as cache:
        await cache.set("a", "old", ttl=1, stale_if_error=100)
        await cache.clear(tier="memory")
        clock.advance(2)
        assert await cache.get_or_set_many(["a"], fail, stale_if_error=100) == {"a": "old"}


async def test_refreshes_of_many_keys_spare_a_failing_source(cache: Cache, clock: FakeClock) -> None:
    """While the source fails, one load behind at a time is tried, of many keys as of one."""
    go, calls = asyncio.Event(), list[object]()

    async def fail() -> str:
        msg = "no answer"
        raise OSError(msg)

    async def load(keys: list[str]) -> dict[str, str]:
        calls.append(keys)
        await go.wait()
        return dict.fromkeys(keys, "new")

    await cache.set_many({"a": "old", "b": "old"}, ttl=1, stale_while_revalidate=100)
    clock.advance(2)
    for n in range(10):
        with pytest.raises(OSError, match="no answer"):
            await cache.get_or_set(f"other{n}", fail)
    assert await cache.get_or_set_many(["a"], load, stale_while_revalidate=100) == {"a": "old"}
    assert await cache.get_or_set_many(["b"], load, stale_while_revalidate=100) == {"b": "old"}
    await until(calls)
    for _ in range(10):
        await asyncio.sleep(0)
    assert calls == [["a"]]
    go.set()


async def test_an_order_that_spreads_has_many_keys_loaded_behind(cache: Cache, clock: FakeClock) -> None:
    """What an invalidation that spreads has reached is loaded behind callers of many keys, before it is dead."""
    calls: list[object] = []

    async def load(keys: list[str]) -> dict[str, str]:
        calls.append(keys)
        return dict.fromkeys(keys, "new")

    await cache.set_many({"a": "old", "b": "old"}, ttl=1000, tags=["t"])
    await cache.delete_by_tag("t", spread=100)
    assert (await cache.get_or_set_many(["a", "b"], load, tags=["t"])).keys() == {"a", "b"}
    clock.advance(99.999)  # both have had their turn
    assert await cache.get_or_set_many(["a", "b"], load, tags=["t"]) == {"a": "old", "b": "old"}
    await until(calls)


async def test_what_is_not_sealed_is_no_answer_to_a_sensitive_call_of_many_keys(tmp_path: Path) -> None:
    """A value that stands unsealed in a tier below is loaded anew where the call says that it has to be sealed."""
    key = base64.b64encode(bytes(range(32))).decode()
    settings = CacheSettings(cache_encryption_keys=f"first:{key}")

    async def load(keys: list[str]) -> dict[str, str]:
        return dict.fromkeys(keys, "ours")

    for urls in ([f"disk://{tmp_path}/a"], ["memory://", f"disk://{tmp_path}/b"]):
        async with Cache(settings.with_urls(*urls)) as cache:
            await cache.set("k", "somebody's")
            assert await cache.get_or_set_many(["k"], load, sensitive=True) == {"k": "ours"}


async def test_the_keys_of_one_load_are_listed_once(cache: Cache) -> None:
    """A load of very many keys costs each of them the same: they share one list of all, where each had its own."""
    hung, calls = asyncio.Event(), list[object]()

    async def load(keys: list[str]) -> dict[str, int]:
        calls.append(keys)
        await hung.wait()
        return dict.fromkeys(keys, 1)

    keys = [f"k{number}" for number in range(100)]
    caller = asyncio.ensure_future(cache.get_or_set_many(keys, load))
    await until(calls)
    lists = [flight.mates for flight in cache._view.space.flights.values()]
    assert len(lists) == len(lists[0]) == 100
    assert len({id(mates) for mates in lists}) == 1
    hung.set()
    assert await caller == dict.fromkeys(keys, 1)
