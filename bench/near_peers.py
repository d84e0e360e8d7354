"""The peers' near hits: each builder makes one library ready and gives its cases; a library that is missing is told."""

# ruff: noqa: PLC0415  # a peer is imported where it is measured, so that a missing one leaves the others

import functools
import sys
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from typing import Any

import msgspec

from genesis_cache.cli.measure import Case, awaited_over, awaited_with, called_with

SIZE = 10_000
TTL_S = 3_600
KEY = "user:7"


async def number_of(number: int) -> int:
    """The coroutine function that is cached."""
    return number


def plain_number(number: int) -> int:
    """The function that is cached."""
    return number


class Peer(msgspec.Struct, frozen=True):
    """A library that is ready, and its function to measure."""

    name: str
    function: Callable[..., Any]
    waits: bool
    """Whether the function is awaited."""

    def case(self, argument: object) -> Case:
        """The same call again and again."""
        return Case(self.name, (awaited_with if self.waits else called_with)(self.function, argument))

    async def case_over(self, arguments: Sequence[int]) -> Case:
        """A call for each argument in turn, all of them known already."""
        for argument in arguments:
            await self.function(argument)
        return Case(self.name, awaited_over(self.function, arguments))


async def lookups() -> list[Case]:
    """A hit of each library's plain look-up."""
    builders = (_dict, _cachetools, _cachebox, _moka, _theine, _dogpile, _fastapi_cache, _cashews, _aiocache)
    return [peer.case(KEY) for peer in await _ready(*builders)]


async def decorated() -> list[Case]:
    """A hit of each library's decorated async function; where a library has none, of its plain one."""
    peers = await _ready(
        _async_lru,
        _moka_decorated,
        _cachebox_decorated,
        _theine_decorated,
        _fastapi_cache_decorated,
        _dogpile_decorated,
        _aiocache_decorated,
        _cashews_decorated,
        _cashews_tagged,
    )
    return [peer.case(7) for peer in peers]


async def many(arguments: Sequence[int]) -> list[Case]:
    """A hit of decorated async functions, each argument in turn."""
    peers = await _ready(_async_lru, _cachebox_decorated, _moka_decorated, _aiocache_decorated, _cashews_decorated)
    return [await peer.case_over(arguments) for peer in peers]


async def plain() -> list[Case]:
    """A hit of decorated plain functions."""
    return [peer.case(7) for peer in await _ready(_lru_cache, _cachetools_decorated, _cachebox_plain)]


async def _ready(*builders: Callable[[], Awaitable[Peer]]) -> list[Peer]:
    peers = []
    for build in builders:
        try:
            peers.append(await build())
        except ImportError as missing:
            sys.stderr.write(f"left out: {missing}\n")
    return peers


async def _dict() -> Peer:
    held = {KEY: 7}
    return Peer("dict.get (sync)", held.get, waits=False)


async def _lru_cache() -> Peer:
    function = functools.lru_cache(SIZE)(plain_number)
    return Peer("functools.lru_cache", function, waits=False)


async def _cachetools() -> Peer:
    from cachetools import TTLCache

    held: TTLCache[str, int] = TTLCache(SIZE, TTL_S)
    held[KEY] = 7
    return Peer("cachetools TTLCache.get (sync)", held.get, waits=False)


async def _cachetools_decorated() -> Peer:
    from cachetools import TTLCache, cached

    return Peer("cachetools @cached(TTLCache)", cached(TTLCache(SIZE, TTL_S))(plain_number), waits=False)


async def _cachebox() -> Peer:
    from cachebox import VTTLCache

    held: VTTLCache[str, int] = VTTLCache(SIZE)
    held.insert(KEY, 7, TTL_S)
    return Peer("cachebox VTTLCache.get (sync)", held.get, waits=False)


async def _cachebox_decorated() -> Peer:
    from cachebox import TTLCache, cached

    function = cached(TTLCache(SIZE, TTL_S))(number_of)
    await function(7)
    return Peer("cachebox @cached(TTLCache)", function, waits=True)


async def _cachebox_plain() -> Peer:
    from cachebox import TTLCache, cached

    return Peer("cachebox @cached(TTLCache)", cached(TTLCache(SIZE, TTL_S))(plain_number), waits=False)


async def _moka() -> Peer:
    from moka_py import Moka

    held = Moka(SIZE, ttl=TTL_S)
    held.set(KEY, 7)
    return Peer("moka-py Moka.get (sync)", held.get, waits=False)


async def _moka_decorated() -> Peer:
    from moka_py import cached

    function = cached(maxsize=SIZE, ttl=TTL_S)(number_of)
    await function(7)
    return Peer("moka-py @cached", function, waits=True)


async def _theine() -> Peer:
    from theine import Cache

    held = Cache(SIZE)
    held.set(KEY, 7, timedelta(seconds=TTL_S))
    return Peer("theine Cache.get (sync)", held.get, waits=False)


async def _theine_decorated() -> Peer:
    from theine import Memoize

    function = Memoize(SIZE, timedelta(seconds=TTL_S))(number_of)
    await function(7)
    return Peer("theine @Memoize", function, waits=True)


async def _dogpile() -> Peer:
    from dogpile.cache import make_region

    region = make_region().configure("dogpile.cache.memory", expiration_time=TTL_S)
    region.set(KEY, 7)
    return Peer("dogpile.cache region.get (sync)", region.get, waits=False)


async def _dogpile_decorated() -> Peer:
    from dogpile.cache import make_region

    region = make_region().configure("dogpile.cache.memory", expiration_time=TTL_S)
    return Peer("dogpile.cache @cache_on_arguments (sync)", region.cache_on_arguments()(plain_number), waits=False)


async def _fastapi_cache() -> Peer:
    from fastapi_cache.backends.inmemory import InMemoryBackend

    backend = InMemoryBackend()
    await backend.set(KEY, b"7", TTL_S)
    return Peer("fastapi-cache2 backend.get", backend.get, waits=True)


async def _fastapi_cache_decorated() -> Peer:
    from fastapi_cache import FastAPICache
    from fastapi_cache.backends.inmemory import InMemoryBackend
    from fastapi_cache.decorator import cache

    FastAPICache.init(InMemoryBackend(), prefix="bench")
    function = cache(expire=TTL_S)(number_of)
    await function(7)
    return Peer("fastapi-cache2 @cache", function, waits=True)


async def _cashews() -> Peer:
    from cashews import Cache

    cache = Cache()
    cache.setup(f"mem://?size={SIZE}&check_interval=0")
    await cache.set(KEY, 7, expire=TTL_S)
    return Peer("cashews cache.get", cache.get, waits=True)


async def _cashews_decorated() -> Peer:
    from cashews import Cache

    cache = Cache()
    cache.setup(f"mem://?size={SIZE}&check_interval=0")
    function = cache(ttl=TTL_S, key="user:{number}")(number_of)
    await function(7)
    return Peer("cashews @cache", function, waits=True)


async def _cashews_tagged() -> Peer:
    from cashews import Cache

    cache = Cache()
    cache.setup(f"mem://?size={SIZE}&check_interval=0")
    function = cache(ttl=TTL_S, key="user:{number}", tags=["user:{number}"])(number_of)
    await function(7)
    return Peer("cashews @cache, tagged", function, waits=True)


async def _aiocache() -> Peer:
    from aiocache import SimpleMemoryCache

    cache = SimpleMemoryCache()
    await cache.set(KEY, 7, ttl=TTL_S)
    return Peer("aiocache SimpleMemoryCache.get", cache.get, waits=True)


async def _aiocache_decorated() -> Peer:
    from aiocache import cached

    function = cached(ttl=TTL_S)(number_of)
    await function(7)
    return Peer("aiocache @cached", function, waits=True)


async def _async_lru() -> Peer:
    from async_lru import alru_cache

    function = alru_cache(maxsize=SIZE, ttl=TTL_S)(number_of)
    await function(7)
    return Peer("async-lru @alru_cache(ttl)", function, waits=True)
