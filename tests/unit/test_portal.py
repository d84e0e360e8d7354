"""The portal: plain calls that are under way when the cache is closed."""

import asyncio
import threading
from collections.abc import Callable

import pytest

from genesis_cache import Cache
from genesis_cache.model.errors import CacheClosed

GENEROUS_S = 20.0


def elsewhere(call: Callable[[], object]) -> tuple[threading.Thread, list[object]]:
    """A thread that makes a call, and what it brought or raised."""
    found: list[object] = []

    def run() -> None:
        try:
            found.append(call())
        except BaseException as error:  # noqa: BLE001  # looked at by the test
            found.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread, found


def test_a_plain_call_under_way_is_told_that_the_cache_was_closed() -> None:
    """Who waits in a blocking call for a load when the cache is closed gets CacheClosed, as an async caller does."""
    cache, begun = Cache.from_url("memory://"), threading.Event()

    async def hang() -> None:
        begun.set()
        await asyncio.Event().wait()

    thread, found = elsewhere(lambda: cache.blocking().get_or_set("k", hang))
    assert begun.wait(GENEROUS_S)
    asyncio.run(cache.close())
    thread.join(GENEROUS_S)
    assert [type(each) for each in found] == [CacheClosed]


def test_a_plain_call_that_begins_while_the_cache_is_closed_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """A blocking call that has found the event loop behind it just before that is stopped gets CacheClosed too."""
    cache = Cache.from_url("memory://")
    cache.blocking().set("k", 1)
    portal = cache._engine.portal
    running, closing = portal._running, list[threading.Thread]()

    def stopped() -> asyncio.AbstractEventLoop:
        loop = running()
        monkeypatch.undo()
        closing.append(elsewhere(lambda: asyncio.run(cache.close()))[0])
        closing[0].join(0.2)  # as far as it gets; nothing is left to be done where the call was not protected
        return loop

    async def hang() -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(portal, "_running", stopped)
    thread, found = elsewhere(lambda: cache.blocking().get_or_set("other", hang))
    thread.join(GENEROUS_S)
    assert [type(each) for each in found] == [CacheClosed]
    closing[0].join(GENEROUS_S)
