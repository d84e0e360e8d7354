"""The cancellation contract as a matrix: who leaves, what kind of load it is, and where the callers run."""

import asyncio
import contextlib
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from genesis_cache import Cache, LoaderTimeout

LIMIT_S = 30
LINEUPS = [("memory",), ("memory", "disk"), ("memory", "redis")]


class Origin:
    """One answer, given when it is let, in every form that a loader may have; counts how often it was asked."""

    def __init__(self) -> None:
        self.calls = 0
        self.go = threading.Event()

    async def one(self) -> str:
        """An async loader."""
        self.calls += 1
        await until(self.go.is_set)
        return "v"

    def plain(self) -> str:
        """A loader that runs in a thread, which nothing can cancel."""
        self.calls += 1
        assert self.go.wait(LIMIT_S)
        return "v"

    async def many(self, keys: list[str]) -> dict[str, str]:
        """A loader of many keys."""
        value = await self.one()
        return dict.fromkeys(keys, value)

    async def items(self) -> Any:
        """A stream of one item."""
        yield await self.one()


async def until(condition: Callable[[], object]) -> None:
    """Return when something has come about."""
    async with asyncio.timeout(LIMIT_S):
        while True:
            if condition():
                return
            await asyncio.sleep(0.001)


async def _in_bulk(cache: Cache, origin: Origin) -> object:
    return (await cache.get_or_set_many(["k", "l"], origin.many))["k"]


async def _streamed(cache: Cache, origin: Origin) -> object:
    return "".join([item async for item in cache.stream("k", origin.items)])


CALLS: dict[str, Callable[[Cache, Origin], Awaitable[object]]] = {
    "async": lambda cache, origin: cache.get_or_set("k", origin.one),
    "plain": lambda cache, origin: cache.get_or_set("k", origin.plain),
    "refresh": lambda cache, origin: cache.refresh("k", origin.one),
    "bulk": _in_bulk,
    "stream": _streamed,
}
LEAVERS = {"leader": [0], "follower": [2], "leader and follower": [0, 1], "all": [0, 1, 2, 3]}
LEFT = {"stream": ("v",)}


def waiting(cache: Cache) -> int:
    """How many callers wait for the key."""
    flight = cache._engine.core.space("").flights.get("k")
    return 0 if flight is None else flight.waiting


@pytest.mark.parametrize("who", list(LEAVERS))
@pytest.mark.parametrize("kind", list(CALLS))
@pytest.mark.parametrize("tiers", LINEUPS, ids="+".join)
async def test_who_leaves_harms_nobody(cache: Cache, kind: str, who: str, caplog: Any) -> None:
    """Whoever of four callers is cancelled, the others get the value of the one load, which is stored in any case."""
    origin = Origin()
    callers = [asyncio.ensure_future(CALLS[kind](cache, origin))]
    await until(lambda: origin.calls)
    callers += [asyncio.ensure_future(CALLS[kind](cache, origin)) for _ in range(3)]
    await until(lambda: waiting(cache) == 4)
    for n in LEAVERS[who]:
        callers[n].cancel()
    await asyncio.wait([callers[n] for n in LEAVERS[who]])
    assert all(callers[n].cancelled() for n in LEAVERS[who])
    assert cache._engine.core.loads_abandoned == (who == "all")
    origin.go.set()
    assert await asyncio.gather(*(caller for caller in callers if not caller.cancelled())) == ["v"] * (
        4 - len(LEAVERS[who])
    )
    stored = LEFT.get(kind, "v")
    await until(lambda: cache.peek("k") == stored)
    assert await CALLS["async"](cache, origin) == stored
    assert origin.calls == 1
    await until(lambda: not cache._engine.background._tasks)
    assert cache._engine.core.loads_abandoned == 0
    assert "never retrieved" not in caplog.text


@pytest.mark.parametrize("kind", ["async", "plain", "bulk", "stream"])
@pytest.mark.parametrize("tiers", [("memory",)], ids="+".join)
async def test_who_leaves_a_queue(cache: Cache, kind: str) -> None:
    """A caller cancelled while its load waits for a place leaves the place to others, and its key too."""
    narrow = cache.namespace("narrow", max_loads=1)
    holding, origin = Origin(), Origin()
    holder = asyncio.ensure_future(narrow.get_or_set("holder", holding.one))
    await until(lambda: holding.calls)
    leaver = asyncio.ensure_future(CALLS[kind](narrow, origin))
    await until(lambda: narrow._view.space.flights.get("k") is not None)
    leaver.cancel()
    await asyncio.wait([leaver])
    holding.go.set()
    origin.go.set()
    assert await holder == "v"
    assert await asyncio.wait_for(narrow.get_or_set("another", lambda: "served"), LIMIT_S) == "served"
    assert await asyncio.wait_for(CALLS[kind](narrow, origin), LIMIT_S) == "v"
    await until(lambda: not cache._engine.background._tasks)
    assert narrow._view.space.gate.running == cache._engine.core.loads_abandoned == 0


@pytest.mark.parametrize("kind", ["async", "plain", "bulk", "stream"])
@pytest.mark.parametrize("tiers", [("memory",), ("memory", "disk")], ids="+".join)
async def test_a_caller_with_less_patience(cache: Cache, kind: str) -> None:
    """``asyncio.wait_for`` around a call, and one caller's hard_timeout, end the wait of that caller alone."""
    origin = Origin()
    patient = asyncio.ensure_future(CALLS[kind](cache, origin))
    await until(lambda: origin.calls)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(CALLS[kind](cache, origin), 0.01)
    with pytest.raises(LoaderTimeout):
        await cache.get_or_set("k", origin.one, hard_timeout=0.01)
    origin.go.set()
    assert await patient == "v"
    assert origin.calls == 1


class Elsewhere:
    """Another event loop, in a thread, with one call that can be cancelled from here."""

    def __init__(self, call: Callable[[], Awaitable[object]]) -> None:
        self.result: object = None
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self._run, args=(call,))
        self.thread.start()

    def _run(self, call: Callable[[], Awaitable[object]]) -> None:
        with asyncio.Runner(loop_factory=lambda: self.loop) as runner, contextlib.suppress(asyncio.CancelledError):
            self.result = runner.run(self._task(call))

    async def _task(self, call: Callable[[], Awaitable[object]]) -> object:
        self.task = asyncio.ensure_future(call())
        return await self.task

    async def cancel(self) -> None:
        """Cancel the call; its loop ends with it."""
        self.loop.call_soon_threadsafe(self.task.cancel)
        await self.join()

    async def join(self) -> None:
        """Wait for its end."""
        await asyncio.to_thread(self.thread.join, LIMIT_S)
        assert not self.thread.is_alive()


@pytest.mark.parametrize("kind", ["async", "plain", "bulk", "stream"])
@pytest.mark.parametrize("tiers", [("memory",)], ids="+".join)
async def test_a_follower_on_another_loop(cache: Cache, kind: str) -> None:
    """A caller on a second event loop shares the load; its leaving harms nobody, and the leader's harms it not."""
    origin = Origin()
    leader = asyncio.ensure_future(CALLS[kind](cache, origin))
    await until(lambda: origin.calls)
    leaver, stayer = (Elsewhere(lambda: CALLS[kind](cache, origin)) for _ in range(2))
    await until(lambda: waiting(cache) == 3)
    await leaver.cancel()
    leader.cancel()
    await asyncio.wait([leader])
    origin.go.set()
    await stayer.join()
    assert stayer.result == "v"
    assert origin.calls == 1


@pytest.mark.parametrize("kind", ["async", "plain", "bulk", "stream"])
@pytest.mark.parametrize("tiers", [("memory",)], ids="+".join)
async def test_the_leaders_loop_ends(cache: Cache, kind: str) -> None:
    """When the event loop that ran a load ends, the many who wait on another get one new load, not a herd."""
    first, second = Origin(), Origin()
    leader = Elsewhere(lambda: CALLS[kind](cache, first))
    await until(lambda: first.calls)
    followers = [asyncio.ensure_future(CALLS[kind](cache, second)) for _ in range(20)]
    await until(lambda: waiting(cache) == 21)
    second.go.set()
    await leader.cancel()
    assert await asyncio.wait_for(asyncio.gather(*followers), LIMIT_S) == ["v"] * 20
    assert (first.calls, second.calls) == (1, 1)
    first.go.set()  # which ends the thread of a plain loader


@pytest.mark.parametrize("tiers", [("memory",)], ids="+".join)
async def test_plain_code_follows(cache: Cache) -> None:
    """A blocking caller in a thread shares the load of a task, and is not harmed when that task is cancelled."""
    origin = Origin()
    leader = asyncio.ensure_future(cache.get_or_set("k", origin.one))
    await until(lambda: origin.calls)
    follower = asyncio.create_task(asyncio.to_thread(cache.blocking().get_or_set, "k", origin.plain))
    await until(lambda: waiting(cache) == 2)
    leader.cancel()
    await asyncio.wait([leader])
    origin.go.set()
    assert await follower == "v"
    assert origin.calls == 1
    cache._engine.portal.stop()


@pytest.mark.parametrize("tiers", [("memory",)], ids="+".join)
async def test_plain_code_leads(cache: Cache) -> None:
    """A blocking caller that began a load serves the tasks that join it, one of which is cancelled."""
    origin = Origin()
    leader = asyncio.create_task(asyncio.to_thread(cache.blocking().get_or_set, "k", origin.plain))
    await until(lambda: origin.calls)
    followers = [asyncio.ensure_future(cache.get_or_set("k", origin.one)) for _ in range(2)]
    await until(lambda: waiting(cache) == 3)
    followers[0].cancel()
    origin.go.set()
    assert await asyncio.gather(leader, followers[1]) == ["v", "v"]
    assert origin.calls == 1
    cache._engine.portal.stop()


@pytest.mark.parametrize("tiers", [("memory",)], ids="+".join)
async def test_a_batch_takes_what_was_loaded_while_it_waited(cache: Cache) -> None:
    """A batch that lost the load of one key, and waits for another's, takes what others have loaded meanwhile."""
    lost, late = Origin(), Origin()
    leader = Elsewhere(lambda: cache.get_or_set("k", lost.one))
    other = asyncio.ensure_future(cache.get_or_set("l", late.one))
    await until(lambda: lost.calls and late.calls)
    batch = asyncio.ensure_future(cache.get_or_set_many(["k", "l"], late.many))
    await until(lambda: waiting(cache) == 2)
    await leader.cancel()
    assert await cache.get_or_set("k", lambda: "meanwhile") == "meanwhile"
    late.go.set()
    assert await asyncio.wait_for(batch, LIMIT_S) == {"k": "meanwhile", "l": await other}
    assert late.calls == 1
