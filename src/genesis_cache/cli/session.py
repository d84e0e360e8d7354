"""Opening the cache that a command is about, working on it, and closing it, in one event loop."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from genesis_cache.cache import Cache
from genesis_cache.cli.options import Place

T = TypeVar("T")


def with_cache(place: Place, work: Callable[[Cache], Awaitable[T]]) -> T:
    """What ``work`` returns for the cache, or the part of it, at ``place``."""
    return asyncio.run(_with_cache(place, work))


async def _with_cache(place: Place, work: Callable[[Cache], Awaitable[T]]) -> T:
    async with Cache.from_url(*place.urls) if place.urls else Cache() as cache:
        view = cache if place.namespace is None else cache.namespace(place.namespace)
        return await work(view if place.owner is None else view.owned_by(place.owner))
