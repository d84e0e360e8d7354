"""Loads: one per key however many wait, errors to all and kept by none, old values where they may serve."""

import asyncio
import contextvars
import gc
import threading
import time
from typing import Any

import pytest

from genesis_cache import Cache, CacheError, LoaderTimeout
from genesis_cache.model.missing import MISSING

REQUEST: contextvars.ContextVar[str] = contextvars.ContextVar("request", default="none")


async def test_loads_once_and_stores_everywhere(cache: Cache, house: Any, counting: Any) -> None:
    """The loader runs once; afterwards every tier has the value."""
    assert await cache.get_or_set("k", counting, ttl=60) == "load 1"
    assert await cache.get_or_set("k", counting, ttl=60) == "load 1"
    assert [row.present for row in (await cache.explain("k")).tiers] == [True] * len(house.tiers)
    house.pass_time(61)
    assert await cache.get_or_set("k", counting, ttl=60) == "load 2"


async def test_a_thousand_callers_one_load(cache: Cache, counting: Any) -> None:
    """A thousand callers of a cold key wait for one load."""

    async def slow() -> str:
        await asyncio.sleep(0.01)
        return str(await counting())

    assert set(await asyncio.gather(*(cache.get_or_set("k", slow) for _ in range(1000)))) == {"load 1"}
    assert counting.calls == 1


async def test_none_is_loaded_once_and_kept(cache: Cache) -> None:
    """A loader's None is a value; with negative_ttl it lives that long."""
    calls = []
    for _ in range(2):
        assert await cache.get_or_set("k", lambda: calls.append(1), ttl=60) is None
    assert len(calls) == 1


async def test_negative_ttl(cache: Cache, house: Any) -> None:
    """A loader's None lives for negative_ttl and not at all with 0; other values are untouched by it."""
    calls: list[str] = []

    def absent() -> None:
        calls.append("absent")

    for _ in range(2):
        await cache.get_or_set("k", absent, ttl=60, negative_ttl=5)
    assert len(calls) == 1
    house.pass_time(6)
    await cache.get_or_set("k", absent, ttl=60, negative_ttl=5)
    assert len(calls) == 2
    for _ in range(2):
        await cache.get_or_set("never", absent, ttl=60, negative_ttl=0)
    assert len(calls) == 4
    await cache.get_or_set("value", lambda: 1, ttl=60, negative_ttl=5)
    house.pass_time(6)
    assert await cache.get("value") == 1


async def test_errors_reach_all_and_are_kept_by_none(cache: Cache) -> None:
    """Every waiter gets the loader's own error, and the next call loads again."""
    calls = 0

    async def fail() -> None:
        nonlocal calls
        calls += 1
        await asyncio.sleep(0.005)
        raise OSError("origin down")

    found = await asyncio.gather(*(cache.get_or_set("k", fail) for _ in range(10)), return_exceptions=True)
    assert [(type(error), str(error)) for error in found] == [(OSError, "origin down")] * 10
    assert calls == 1
    assert await cache.get_or_set("k", lambda: "well") == "well"


@pytest.mark.parametrize("tiers", [("memory",), ("memory", "disk")])
async def test_errors_do_not_grow_with_those_who_wait(cache: Cache) -> None:
    """One error handed to many callers does not pile up their frames."""

    async def fail() -> None:
        await asyncio.sleep(0.005)
        raise OSError("origin down")

    found = await asyncio.gather(*(cache.get_or_set("k", fail) for _ in range(100)), return_exceptions=True)
    depth, traceback = 0, found[-1].__traceback__ if isinstance(found[-1], OSError) else None
    while traceback is not None:
        depth, traceback = depth + 1, traceback.tb_next
    assert 0 < depth < 30


async def test_a_loader_that_was_cancelled_itself(cache: Cache) -> None:
    """A loader that ends with a CancelledError of its own ends its callers; it is not loaded for ever."""
    calls = 0

    async def cancelled() -> None:
        nonlocal calls
        calls += 1
        await asyncio.sleep(0)
        raise asyncio.CancelledError

    async def call() -> object:
        return await cache.get_or_set("k", cancelled)

    task = asyncio.ensure_future(call())
    done, _ = await asyncio.wait([task], timeout=2)
    if not done:
        task.cancel()
    assert done, "it never ended"
    assert calls == 1
    assert task.cancelled()
    assert await cache.get_or_set("k", lambda: 1) == 1


async def test_plain_loaders_run_in_a_thread(cache: Cache) -> None:
    """A plain function does not block the loop, sees the caller's context variables, and its error is its own."""
    REQUEST.set("mine")
    seen: list[object] = []

    def load() -> int:
        seen.extend([threading.current_thread() is not threading.main_thread(), REQUEST.get()])
        return 5

    assert await cache.get_or_set("k", load) == 5
    assert seen == [True, "mine"]
    with pytest.raises(ZeroDivisionError):
        await cache.get_or_set("z", lambda: 1 / 0)


@pytest.mark.parametrize("tiers", [("memory",)])
async def test_what_is_no_loader(cache: Cache) -> None:
    """A coroutine or a value where a function belongs is a TypeError that says so."""
    coroutine = asyncio.sleep(0)
    for bad in (coroutine, 5, None):
        wrong: Any = bad
        with pytest.raises(TypeError, match="function"):
            await cache.get_or_set("k", wrong)
    coroutine.close()


async def test_cancelling_the_first_caller_harms_no_other(cache: Cache, gated: Any) -> None:
    """When the caller that began a load goes away, the others still get its value."""
    loader = gated("v")
    first = asyncio.create_task(cache.get_or_set("k", loader))
    await loader.begun.wait()
    others = [asyncio.create_task(cache.get_or_set("k", loader)) for _ in range(3)]
    await asyncio.sleep(0)
    first.cancel()
    others[0].cancel()
    await asyncio.gather(first, others[0], return_exceptions=True)
    loader.go.set()
    assert await asyncio.gather(*others[1:]) == ["v", "v"]
    assert loader.calls == 1
    assert first.cancelled()


async def test_cancelling_all_callers(cache: Cache, gated: Any, caplog: Any) -> None:
    """When all have gone the load goes on and is stored, nothing is left over, and an error of it bothers nobody."""
    loader = gated("v")
    tasks = [asyncio.create_task(cache.get_or_set("k", loader)) for _ in range(3)]
    await loader.begun.wait()
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    loader.go.set()
    assert await cache.get_or_set("k", lambda: "another") == "v"

    async def fail() -> None:
        await asyncio.sleep(0.002)
        raise OSError("nobody waits")

    task = asyncio.create_task(cache.get_or_set("f", fail))
    await asyncio.sleep(0.001)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await cache._engine.background.drain()
    gc.collect()
    assert "never retrieved" not in caplog.text
    assert await cache.get_or_set("f", lambda: 1) == 1


async def test_stale_while_revalidate(cache: Cache, house: Any, counting: Any, settled: Any) -> None:
    """Past its ttl the old value comes at once, and one new one is fetched behind."""
    options = {"ttl": 10, "stale_while_revalidate": 60}
    await cache.get_or_set("k", counting, **options)
    house.pass_time(11)
    assert await cache.get_or_set("k", counting, **options) == "load 1"
    assert set(await asyncio.gather(*(cache.get_or_set("k", counting, **options) for _ in range(10)))) <= {
        "load 1",
        "load 2",
    }
    await settled(lambda: cache.get("k"))
    await cache._engine.background.drain()
    assert await cache.get("k") == "load 2"
    assert counting.calls == 2
    house.pass_time(71)
    assert await cache.get_or_set("k", counting, **options) == "load 3"


async def test_a_failed_refresh_rests(cache: Cache, house: Any) -> None:
    """While the old value serves, a failing load is tried again only after retry_after."""
    if not house.near:
        return
    await cache.set("k", "old", ttl=10, stale_while_revalidate=100, stale_if_error=100)
    calls = []

    def fail() -> None:
        calls.append(1)
        raise OSError("down")

    house.pass_time(11)
    for _ in range(5):
        assert await cache.get_or_set("k", fail, stale_while_revalidate=100, retry_after=5) == "old"
        await cache._engine.background.drain()
    assert len(calls) == 1
    house.pass_time(5.1)
    assert await cache.get_or_set("k", fail, stale_while_revalidate=100, retry_after=5) == "old"
    await cache._engine.background.drain()
    assert len(calls) == 2


async def test_stale_if_error(cache: Cache, house: Any) -> None:
    """If the loader fails the old value serves for as long as it may, then the error comes through."""
    options = {"ttl": 10, "stale_if_error": 60, "retry_after": 1}

    def fail() -> None:
        raise OSError("down")

    await cache.get_or_set("k", lambda: "old", **options)
    house.pass_time(11)
    assert await cache.get("k") is None
    assert await cache.get_or_set("k", fail, **options) == "old"
    house.pass_time(2)
    assert await cache.get_or_set("k", lambda: "new", **options) == "new"
    house.pass_time(71)
    with pytest.raises(OSError, match="down"):
        await cache.get_or_set("k", fail, **options)


async def test_soft_timeout(cache: Cache, house: Any, gated: Any, settled: Any) -> None:
    """Past soft_timeout the old value serves; the slow load goes on behind and is stored."""
    options = {"ttl": 10, "stale_if_error": 60, "soft_timeout": 0.01}
    await cache.get_or_set("k", lambda: "old", **options)
    house.pass_time(11)
    loader = gated("new")
    assert await cache.get_or_set("k", loader, **options) == "old"
    loader.go.set()
    await settled(lambda: cache.get("k"))
    assert await cache.get_or_set("k", loader, **options) == "new"
    assert loader.calls == 1


async def test_hard_timeout(cache: Cache, house: Any, gated: Any) -> None:
    """Past hard_timeout without an old value the caller gets LoaderTimeout, and the key is free for others."""
    loader = gated("late")
    with pytest.raises(LoaderTimeout, match="hard_timeout"):
        await cache.get_or_set("k", loader, hard_timeout=0.01)
    if house:
        assert await cache.get_or_set("k", lambda: "fresh", hard_timeout=1) == "fresh"
    loader.go.set()
    await cache._engine.background.drain()


async def test_load_deadline(house: Any) -> None:
    """A load past CACHE_LOAD_DEADLINE is cancelled, its waiters get LoaderTimeout, and the key is not blocked."""
    cache = house.cache(load_deadline=0.05)
    cancelled = []

    async def hang() -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            cancelled.append(1)
            raise

    found = await asyncio.gather(*(cache.get_or_set("k", hang) for _ in range(3)), return_exceptions=True)
    assert [type(error) for error in found] == [LoaderTimeout] * 3
    assert cancelled == [1]
    assert await cache.get_or_set("k", lambda: 1) == 1


async def test_a_timeout_of_the_loader_is_its_own(cache: Cache) -> None:
    """A TimeoutError that the loader raises reaches the caller as it is."""

    async def fail() -> None:
        raise TimeoutError("the origin's")

    with pytest.raises(TimeoutError, match="the origin's") as caught:
        await cache.get_or_set("k", fail)
    assert not isinstance(caught.value, LoaderTimeout)


async def test_refresh_ahead(cache: Cache, house: Any, counting: Any, settled: Any) -> None:
    """Past its share of the ttl a hit starts one refresh behind and still gets the value at once."""
    options = {"ttl": 100, "refresh_ahead": 0.5}
    await cache.get_or_set("k", counting, **options)
    house.pass_time(40)
    assert await cache.get_or_set("k", counting, **options) == "load 1"
    assert counting.calls == 1
    house.pass_time(20)
    assert await cache.get_or_set("k", counting, **options) == "load 1"
    assert set(await asyncio.gather(*(cache.get_or_set("k", counting, **options) for _ in range(5)))) <= {
        "load 1",
        "load 2",
    }

    async def renewed() -> bool:
        return await cache.get("k") == "load 2"

    await settled(renewed)
    house.pass_time(90)
    assert await cache.get("k") == "load 2"
    assert counting.calls == 2


async def test_refreshes_run_in_no_callers_context(cache: Cache, house: Any, settled: Any) -> None:
    """A background refresh does not see the context variables of the request that set it off."""
    seen = []

    async def load() -> int:
        seen.append(REQUEST.get())
        return len(seen)

    REQUEST.set("the request's")
    await cache.get_or_set("k", load, ttl=10, stale_while_revalidate=60)
    house.pass_time(11)
    await cache.get_or_set("k", load, ttl=10, stale_while_revalidate=60)
    await settled(lambda: len(seen) == 2)
    assert seen == ["the request's", "none"]


async def test_cache_if(cache: Cache, counting: Any) -> None:
    """A value that cache_if refuses is returned and not kept."""
    assert await cache.get_or_set("k", counting, cache_if=lambda value: value != "load 1") == "load 1"
    assert await cache.get("k") is None
    assert await cache.get_or_set("k", counting, cache_if=lambda value: value != "load 1") == "load 2"
    assert await cache.get("k") == "load 2"


async def test_jitter_spreads_expiries(cache: Cache, house: Any) -> None:
    """With jitter entries of one ttl expire at different moments, none later than the ttl."""
    await cache.set_many({f"k{n}": n for n in range(200)}, ttl=100, jitter=0.5)
    house.pass_time(49)
    assert len(await cache.get_many([f"k{n}" for n in range(200)])) == 200
    house.pass_time(26)
    assert 40 < len(await cache.get_many([f"k{n}" for n in range(200)])) < 160
    house.pass_time(26)
    assert await cache.get_many([f"k{n}" for n in range(200)]) == {}


async def test_load_context(cache: Cache, house: Any) -> None:
    """A loader with a parameter gets a context: old value and etag in, ttl, tags and etag out."""
    seen: list[Any] = []

    async def load(ctx: Any) -> str:
        seen.append((ctx.stale_value, ctx.etag, ctx.last_modified))
        ctx.ttl, ctx.etag, ctx.last_modified = "20s", "e1", 5.0
        ctx.tags.add("learned")
        return "v1"

    options = {"ttl": 1000, "stale_if_error": 1000, "tags": ["said"]}
    assert await cache.get_or_set("k", load, **options) == "v1"
    house.pass_time(21)
    assert await cache.get("k") is None
    if house.far:
        house.forget_near(cache)

    async def unchanged(ctx: Any) -> object:
        seen.append((ctx.stale_value, ctx.etag, ctx.last_modified))
        return ctx.not_modified()

    assert await cache.get_or_set("k", unchanged, **options) == "v1"
    assert seen == [(MISSING, None, None), ("v1", "e1", 5.0)]
    house.pass_time(999)
    assert await cache.get("k") == "v1"
    await cache.delete_by_tag("learned")
    assert await cache.get("k") is None


@pytest.mark.parametrize("option", [{"refresh_ahead": 0.5}, {"stale_while_revalidate": 1000}, {"refresh_every": 60}])
async def test_what_one_process_has_renewed_the_others_take_over(
    house: Any, settled: Any, option: dict[str, float]
) -> None:
    """A value that is due in two processes is asked for once, unchanged or new, whichever option made it due."""
    if not house.far:
        return
    here, there = house.cache(), house.cache()
    seen: list[object] = []

    async def load(ctx: Any) -> object:
        seen.append(ctx.etag)
        if ctx.etag == "v1":
            return ctx.not_modified()
        ctx.etag = "v1"
        return "value"

    options = {"ttl": 100, "tags": ["t"], **option}
    for cache in (here, there):
        assert await cache.get_or_set("k", load, **options) == "value"
    assert seen == [None]
    house.pass_time(101 if "stale_while_revalidate" in option else 60)
    for n, cache in enumerate((here, there)):
        assert await cache.get_or_set("k", load, **options) == "value"
        cache._engine.reading.renewing.tick()
        await settled(lambda: len(seen) == 2)
        await cache._engine.background.drain()
        age = (await cache.explain("k")).tiers[0].age
        assert age is not None, n
        assert age < 50, n
    assert seen == [None, "v1"]


async def test_a_kept_error_ends_with_the_write_of_another_process(house: Any) -> None:
    """What one process has found to be absent is looked for again once another has made it."""
    if not house.far:
        return
    here, there = house.cache(), house.cache()
    calls = []

    async def absent() -> None:
        calls.append(1)
        raise LookupError("no such thing")

    options = {"ttl": 60, "error_ttl": 3600}
    await there.open()
    for _ in range(3):
        with pytest.raises(LookupError):
            await here.get_or_set("k", absent, **options)
    assert len(calls) == 1
    await there.set("k", "made", ttl=5)
    await house.hear()
    house.pass_time(6)
    with pytest.raises(LookupError):
        await here.get_or_set("k", absent, **options)
    assert len(calls) == 2


async def test_an_answer_ends_the_old_value_everywhere(house: Any) -> None:
    """A value of which the source says that it is forbidden is served by no process and no tier any more."""
    here, there = house.cache(), house.cache()
    options = {"ttl": 10, "stale_if_error": 1000, "no_stale_on": PermissionError}
    await there.open()
    await here.get_or_set("k", lambda: "secret", **options)
    house.pass_time(11)

    async def forbidden() -> None:
        raise PermissionError("not for you")

    with pytest.raises(PermissionError):
        await here.get_or_set("k", forbidden, **options)
    await house.hear()
    for cache in (here, there):
        assert await cache.get("k", allow_stale=True) is None


async def test_load_context_skip_and_fail(cache: Cache, house: Any) -> None:
    """ctx.skip() returns without keeping; ctx.fail() counts as a failure: the old value or a CacheError."""

    async def skip(ctx: Any) -> int:
        ctx.skip()
        return 5

    async def fail(ctx: Any) -> None:
        ctx.fail("no good")

    assert await cache.get_or_set("k", skip) == 5
    assert await cache.get("k") is None
    with pytest.raises(CacheError, match="no good"):
        await cache.get_or_set("k", fail)
    await cache.set("k", "old", ttl=1, stale_if_error=60)
    house.pass_time(2)
    assert await cache.get_or_set("k", fail) == "old"

    async def nothing_old(ctx: Any) -> object:
        return ctx.not_modified()

    with pytest.raises(CacheError, match="stale"):
        await cache.get_or_set("other", nothing_old)


async def test_max_loads(house: Any) -> None:
    """At most so many loads run at once in a namespace; a namespace can have its own limit; all are served."""
    cache = house.cache(max_loads=3)
    running: dict[str, list[int]] = {"": [0, 0], "own": [0, 0]}

    async def load(name: str) -> int:
        state = running[name]
        state[0] += 1
        state[1] = max(state)
        await asyncio.sleep(0.001)
        state[0] -= 1
        return 1

    own = cache.namespace("own", max_loads=2)
    calls = [cache.get_or_set(f"k{n}", lambda: load("")) for n in range(20)]
    calls += [own.get_or_set(f"k{n}", lambda: load("own")) for n in range(20)]
    assert await asyncio.gather(*calls) == [1] * 40
    assert running == {"": [0, 3], "own": [0, 2]}


async def test_an_abandoned_load_gives_its_place_away(house: Any, gated: Any) -> None:
    """A load that all callers have left holds up nobody; beyond CACHE_MAX_ABANDONED_LOADS such loads are cancelled."""
    cache = house.cache(max_loads=1, max_abandoned_loads=1)
    loaders = [gated(n) for n in range(2)]
    for n, loader in enumerate(loaders):
        task = asyncio.create_task(cache.get_or_set(f"hung {n}", loader))
        await asyncio.wait_for(loader.begun.wait(), 2)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert await asyncio.wait_for(cache.get_or_set("k", lambda: "v"), 2) == "v"
    for loader in loaders:
        loader.go.set()
    await cache._engine.background.drain()
    assert await cache.get("hung 0") == 0
    assert await cache.get("hung 1") is None


async def test_a_function_that_calls_itself(house: Any) -> None:
    """A cached function that needs itself for other arguments is not held up by the limit of loads."""
    cache = house.cache(max_loads=4)

    @cache.cached("fib:{n}")
    async def fib(n: int) -> int:
        return n if n < 2 else await fib(n - 1) + await fib(n - 2)

    assert await asyncio.wait_for(fib(30), 5) == 832040


async def test_a_plain_function_that_calls_itself(house: Any) -> None:
    """The same for a plain function, each of whose calls holds a thread."""
    cache = house.cache(max_loads=4)

    @cache.cached("fib:{n}")
    def fib(n: int) -> int:
        return n if n < 2 else fib(n - 1) + fib(n - 2)

    found: list[int] = []
    thread = threading.Thread(target=lambda: found.append(fib(20)), daemon=True)
    thread.start()
    for _ in range(1000):
        await asyncio.sleep(0.005)
        if not thread.is_alive():
            break
    assert found == [6765]
    cache._engine.portal.stop()


async def test_get_or_set_many_loads_only_what_is_missing(cache: Cache, house: Any) -> None:
    """The loader gets the missing keys only; what it does not bring is not in the result."""
    await cache.set("b", "old b")
    asked: list[list[str]] = []

    async def load(keys: list[str]) -> dict[str, str]:
        asked.append(list(keys))
        return {key: f"new {key}" for key in keys if key != "d"} | {"unasked": "x"}

    assert await cache.get_or_set_many(["a", "b", "c", "d", "a"], load, ttl=60) == {
        "a": "new a",
        "b": "old b",
        "c": "new c",
    }
    assert asked == [["a", "c", "d"]]
    house.forget_near(cache) if house.far else None
    assert await cache.get_many(["a", "b", "c", "d", "unasked"]) == {"a": "new a", "b": "old b", "c": "new c"}
    assert await cache.get_or_set_many([], load) == {}
    with pytest.raises(TypeError, match="mapping"):
        await cache.get_or_set_many(["z"], lambda keys: 5)
    with pytest.raises(OSError, match="down"):
        await cache.get_or_set_many(["z"], _down)
    assert await cache.get_or_set_many(["z"], load) == {"z": "new z"}


def _down(keys: list[str]) -> None:
    raise OSError("down")


async def test_overlapping_bulk_loads_load_each_key_once(cache: Cache) -> None:
    """Callers whose keys overlap, singly or in bulk, load each key once."""
    loaded: list[str] = []

    async def load(keys: list[str]) -> dict[str, str]:
        loaded.extend(keys)
        await asyncio.sleep(0.005)
        return {key: key.upper() for key in keys}

    async def one() -> str:
        loaded.append("c")
        await asyncio.sleep(0.005)
        return "C"

    found = await asyncio.gather(
        cache.get_or_set_many(["a", "b", "c"], load),
        cache.get_or_set_many(["b", "c", "d"], load),
        cache.get_or_set("c", one),
        cache.get_or_set_many(["d", "e"], load),
    )
    assert found == [{"a": "A", "b": "B", "c": "C"}, {"b": "B", "c": "C", "d": "D"}, "C", {"d": "D", "e": "E"}]
    assert sorted(loaded) == ["a", "b", "c", "d", "e"]


async def test_a_bulk_caller_that_goes_away(cache: Cache) -> None:
    """A bulk load whose caller is cancelled serves the others, and leaves no count behind."""
    begun, go = asyncio.Event(), asyncio.Event()

    async def load(keys: list[str]) -> dict[str, str]:
        begun.set()
        await go.wait()
        return {key: key.upper() for key in keys}

    for _ in range(3):
        begun.clear()
        go.clear()
        task = asyncio.create_task(cache.get_or_set_many(["a", "b"], load))
        await begun.wait()
        other = asyncio.create_task(cache.get_or_set("b", lambda: "not loaded"))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        go.set()
        assert await other == "B"
        await cache._engine.background.drain()
        assert cache._engine.core.loads_abandoned == 0
        await cache.delete("a", "b")


async def test_loading_a_key_that_is_being_loaded_by_itself(cache: Cache) -> None:
    """A loader that asks for its own key gets an error instead of waiting for itself."""

    async def load() -> object:
        return await cache.get_or_set("k", load)

    with pytest.raises(CacheError, match="itself"):
        await asyncio.wait_for(cache.get_or_set("k", load), 2)


async def test_a_near_hit_awaits_nothing(cache: Cache, house: Any) -> None:
    """A fresh value in memory returns without the loop having a turn."""
    if not house.near:
        return
    await cache.set("k", 1)
    turns = []
    asyncio.get_running_loop().call_soon(turns.append, 1)
    assert await cache.get("k") == 1
    assert await cache.get_or_set("k", lambda: 2) == 1
    assert turns == []
    started = time.perf_counter()
    await asyncio.sleep(0)
    assert time.perf_counter() >= started


@pytest.mark.parametrize("change", ["delete", "tag", "set"])
async def test_what_another_process_has_changed_serves_nobody_whose_load_fails(house: Any, change: str) -> None:
    """An old value that was invalidated elsewhere while its caller waited is no answer when the load fails."""
    if not house.far:
        return
    here, there = house.cache(), house.cache()
    begun, go = asyncio.Event(), asyncio.Event()

    async def down() -> None:
        begun.set()
        await go.wait()
        raise ConnectionError

    await there.set("k", "old", ttl=10, stale_if_error=600, tags=["t"])
    await house.hear()
    assert await here.get("k") == "old"
    house.pass_time(11)
    waiting = asyncio.create_task(here.get_or_set("k", down))
    await begun.wait()
    if change == "set":
        await there.set("k", "new", ttl=60)
    else:
        await (there.delete("k") if change == "delete" else there.delete_by_tag("t"))
    await house.hear()
    go.set()
    if change == "set":
        try:
            found = await waiting
        except ConnectionError:  # it did not find the new value in time, and loaded once more
            found = await here.get("k")
        assert found == "new"
    else:
        with pytest.raises(ConnectionError):
            await waiting
