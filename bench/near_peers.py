"""The peers' near hits: each builder makes one library ready and gives its cases; a library that is missing is told."""

# ruff: noqa: PLC0415  # a peer is imported where it is measured, so that a missing one leaves the others

import functools
import warnings
from collections.abc import Awaitable, Callable
from datetime import timedelta

from genesis_cache.cli.measure import Case, awaited_with, called_with

SIZE = 10_000
TTL_S = 3_600
KEY = "user:7"


async def number_of(number: int) -> int:
    """The coroutine function that is cached."""
    return number


def plain_number(number: int) -> int:
    """The function that is cached."""
    return number


async def lookups() -> list[Case]:
    """A hit of each library's plain look-up."""
    return await _gathered(_dict, _cachetools, _cachebox, _moka, _theine, _dogpile, _fastapi_cache, _cashews, _aiocache)


async def decorated() -> list[Case]:
    """A hit of each library's decorated async function; where a library has none, of its plain one."""
    return await _gathered(
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


async def plain() -> list[Case]:
    """A hit of decorated plain functions."""
    return await _gathered(_lru_cache, _cachetools_decorated, _cachebox_plain)


async def _gathered(*builders: Callable[[], Awaitable[Case]]) -> list[Case]:
    cases = []
    for build in builders:
        try:
            cases.append(await build())
        except ImportError as missing:
            warnings.warn(f"left out: {missing}", stacklevel=1)
    return cases


async def _dict() -> Case:
    held = {KEY: 7}
    return Case("dict.get (sync)", called_with(held.get, KEY))


async def _lru_cache() -> Case:
    function = functools.lru_cache(SIZE)(plain_number)
    return Case("functools.lru_cache", called_with(function, 7))


async def _cachetools() -> Case:
    from cachetools import TTLCache

    held: TTLCache[str, int] = TTLCache(SIZE, TTL_S)
    held[KEY] = 7
    return Case("cachetools TTLCache.get (sync)", called_with(held.get, KEY))


async def _cachetools_decorated() -> Case:
    from cachetools import TTLCache, cached

    return Case("cachetools @cached(TTLCache)", called_with(cached(TTLCache(SIZE, TTL_S))(plain_number), 7))


async def _cachebox() -> Case:
    from cachebox import VTTLCache

    held: VTTLCache[str, int] = VTTLCache(SIZE)
    held.insert(KEY, 7, TTL_S)
    return Case("cachebox VTTLCache.get (sync)", called_with(held.get, KEY))


async def _cachebox_decorated() -> Case:
    from cachebox import TTLCache, cached

    function = cached(TTLCache(SIZE, TTL_S))(number_of)
    await function(7)
    return Case("cachebox @cached(TTLCache)", awaited_with(function, 7))


async def _cachebox_plain() -> Case:
    from cachebox import TTLCache, cached

    return Case("cachebox @cached(TTLCache)", called_with(cached(TTLCache(SIZE, TTL_S))(plain_number), 7))


async def _moka() -> Case:
    from moka_py import Moka

    held = Moka(SIZE, ttl=TTL_S)
    held.set(KEY, 7)
    return Case("moka-py Moka.get (sync)", called_with(held.get, KEY))


async def _moka_decorated() -> Case:
    from moka_py import cached

    function = cached(maxsize=SIZE, ttl=TTL_S)(number_of)
    await function(7)
    return Case("moka-py @cached", awaited_with(function, 7))


async def _theine() -> Case:
    from theine import Cache

    held = Cache(SIZE)
    held.set(KEY, 7, timedelta(seconds=TTL_S))
    return Case("theine Cache.get (sync)", called_with(held.get, KEY))


async def _theine_decorated() -> Case:
    from theine import Memoize

    function = Memoize(SIZE, timedelta(seconds=TTL_S))(number_of)
    await function(7)
    return Case("theine @Memoize", awaited_with(function, 7))


async def _dogpile() -> Case:
    from dogpile.cache import make_region

    region = make_region().configure("dogpile.cache.memory", expiration_time=TTL_S)
    region.set(KEY, 7)
    return Case("dogpile.cache region.get (sync)", called_with(region.get, KEY))


async def _dogpile_decorated() -> Case:
    from dogpile.cache import make_region

    region = make_region().configure("dogpile.cache.memory", expiration_time=TTL_S)
    return Case("dogpile.cache @cache_on_arguments (sync)", called_with(region.cache_on_arguments()(plain_number), 7))


async def _fastapi_cache() -> Case:
    from fastapi_cache.backends.inmemory import InMemoryBackend

    backend = InMemoryBackend()
    await backend.set(KEY, b"7", TTL_S)
    return Case("fastapi-cache2 backend.get", awaited_with(backend.get, KEY))


async def _fastapi_cache_decorated() -> Case:
    from fastapi_cache import FastAPICache
    from fastapi_cache.backends.inmemory import InMemoryBackend
    from fastapi_cache.decorator import cache

    FastAPICache.init(InMemoryBackend(), prefix="bench")
    function = cache(expire=TTL_S)(number_of)
    await function(7)
    return Case("fastapi-cache2 @cache", awaited_with(function, 7))


async def _cashews() -> Case:
    from cashews import Cache

    cache = Cache()
    cache.setup(f"mem://?size={SIZE}&check_interval=0")
    await cache.set(KEY, 7, expire=TTL_S)
    return Case("cashews cache.get", awaited_with(cache.get, KEY))


async def _cashews_decorated() -> Case:
    from cashews import Cache

    cache = Cache()
    cache.setup(f"mem://?size={SIZE}&check_interval=0")
    function = cache(ttl=TTL_S, key="user:{number}")(number_of)
    await function(7)
    return Case("cashews @cache", awaited_with(function, 7))


async def _cashews_tagged() -> Case:
    from cashews import Cache

    cache = Cache()
    cache.setup(f"mem://?size={SIZE}&check_interval=0")
    function = cache(ttl=TTL_S, key="user:{number}", tags=["user:{number}"])(number_of)
    await function(7)
    return Case("cashews @cache, tagged", awaited_with(function, 7))


async def _aiocache() -> Case:
    from aiocache import SimpleMemoryCache

    cache = SimpleMemoryCache()
    await cache.set(KEY, 7, ttl=TTL_S)
    return Case("aiocache SimpleMemoryCache.get", awaited_with(cache.get, KEY))


async def _aiocache_decorated() -> Case:
    from aiocache import cached

    function = cached(ttl=TTL_S)(number_of)
    await function(7)
    return Case("aiocache @cached", awaited_with(function, 7))


async def _async_lru() -> Case:
    from async_lru import alru_cache

    function = alru_cache(maxsize=SIZE, ttl=TTL_S)(number_of)
    await function(7)
    return Case("async-lru @alru_cache(ttl)", awaited_with(function, 7))
