"""Streams: async iterators that are loaded once, shared live by all who iterate, and replayed from what was stored.

A stream is a load like any other, on the same read path: one flight of its key, a deadline of its own, a place among
the namespace's loads, floors that beat it. Only its waiting differs: callers are served from the first item on, out of
the flight's `Feed`. The stored value is the tuple of the items.
"""

import asyncio
import inspect
from collections.abc import AsyncGenerator, AsyncIterator
from copy import deepcopy
from functools import partial
from typing import Any

from genesis_cache.engine.core import Core, View
from genesis_cache.engine.feed import Feed
from genesis_cache.engine.flight import Lost
from genesis_cache.engine.loading import Load, LoadContext
from genesis_cache.engine.reading import Reading
from genesis_cache.model.entry import Entry
from genesis_cache.model.errors import CacheError
from genesis_cache.model.options import Plan

TURN_ITEMS = 32  # after which a source that never waits lets the others have a turn


class Streams:
    """Iterates streams through the read path."""

    def __init__(self, core: Core, reading: Reading) -> None:
        self._core = core
        self._reading = reading

    async def items(
        self, view: View, key: str, source: Load, plan: Plan, *, anew: bool = False
    ) -> AsyncGenerator[Any, None]:
        """The items from the first to the last: stored ones, or those of the run under way; ``anew``: not the stored.

        Raises what the source raises, when all that came before it was read; `LoaderTimeout` where the first item does
        not come in time.
        """
        found = await self._find(view, key, source, plan, anew=anew)
        if not isinstance(found, Feed):
            view.space.meter.streams_replayed += 1
            for item in found:
                yield item
            return
        view.space.meter.streams_live += 1
        number = 0
        try:
            while await self._has(found, number):
                item = found.item(number)
                number += 1
                yield deepcopy(item) if plan.isolate else item
        finally:
            self._reading.leading.leave(view, found)

    async def _find(
        self, view: View, key: str, source: Load, plan: Plan, *, anew: bool
    ) -> Feed | tuple[Any, ...] | list[Any]:
        """What can be iterated; a value that is no stream's does not stand in the way of one."""
        if not anew:
            found = await self._reading.get_or_set(view, key, _streaming(source), plan)
            if isinstance(found, Feed | tuple | list):
                return found
        found = await self._reading.refresh(view, key, _streaming(source), plan)
        if isinstance(found, Feed | tuple | list):
            return found
        kind = type(found).__name__
        msg = f"{key!r:.200} gave a {kind}, which is neither a stream nor a tuple of its items: use another key"
        raise CacheError(msg)

    async def _has(self, feed: Feed, number: int) -> bool:
        """Whether there is an item of this number, once that is known."""
        if feed.count > number:
            return True
        outcome = await feed.flight.wait_for_item(number)
        if isinstance(outcome, Feed) or feed.count > number:  # it may have come, and be the last, on another loop
            return True
        if isinstance(outcome, Entry) or (feed.is_complete and not feed.is_whole):
            return False
        if isinstance(outcome, BaseException):
            raise outcome.with_traceback(feed.flight.trace)
        self._core.require_open()
        msg = f"the stream was broken off after {number} items: {Lost.TASK.value}"
        raise CacheError(msg)


def _streaming(source: Load) -> Load:
    """The load that runs a source and feeds all who iterate."""
    return Load(partial(_run, source), is_async=True, takes_context=source.takes_context, is_stream=True)


async def _run(source: Load, feed: Feed, *context: LoadContext) -> tuple[object, ...]:
    """Feed the readers and return what is to be stored; the source is closed however it ends."""
    items = await _opened(source, context)
    try:
        async for item in items:
            feed.put(item)
            if not feed.is_whole:
                await feed.room()
            elif feed.count % TURN_ITEMS == 0:
                await asyncio.sleep(0)
    finally:
        close = getattr(items, "aclose", None)
        if close is not None:
            await close()
    if context and context[0].unchanged:
        _repeat(feed, context[0].stale_value)
    return feed.value()


def _repeat(feed: Feed, old: object) -> None:
    """The source has found that the old stream still holds."""
    if feed.count or not isinstance(old, tuple | list):
        msg = "a stream that calls not_modified() gives no items of its own, and the old value has to be a stream"
        raise CacheError(msg)
    for item in old:
        feed.put(item)


async def _opened(source: Load, context: tuple[LoadContext, ...]) -> AsyncIterator[object]:
    items: Any = source.call(*context)
    if inspect.isawaitable(items):
        items = await items
    if not hasattr(items, "__aiter__"):
        msg = f"the source of a stream must give an async iterator, got {type(items).__name__}"
        raise TypeError(msg)
    return aiter(items)
