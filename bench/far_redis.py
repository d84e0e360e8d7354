"""The Redis tier: gets one by one, 64 and 256 at once, and sets, beside raw redis-py and cashews on the same server."""

# ruff: noqa: PLC0415  # a peer is imported where it is measured, so that a missing one leaves the others

import asyncio
from contextlib import AsyncExitStack
from typing import Any

from bench import far
from bench.report import Section

from genesis_cache.cache import Cache
from genesis_cache.cli.measure import Case, measure
from genesis_cache.testing.servers import RedisServer

WIDTHS = (64, 256)
POOL = 50  # connections of ours, by default; the raw client has as many, or one for each get

OURS = "**genesis_cache** redis"
COLD = "**genesis_cache** memory + redis, cold"
RAW = "redis-py"
THIRD = "cashews"


def section(*, quick: bool) -> Section:
    """The table and its verdicts."""
    try:
        import redis.asyncio
    except ImportError:
        return Section("Redis", "Left out: redis-py, which everything here is compared with, is not installed.")
    del redis
    with RedisServer() as server:
        return asyncio.run(_section(server.url, 3 if quick else 11, 0.01 if quick else 0.1))


async def _section(url: str, rounds: int, batch_s: float) -> Section:
    async with AsyncExitStack() as stack:
        ours, raw, third = (f"{url.removesuffix('/0')}/{database}" for database in range(3))  # the same keys in each
        cases = [*await _raw(raw, stack), *await _ours(ours, stack), *await _cashews(third, stack)]
        timings = await measure(cases, rounds=rounds, batch_seconds=batch_s)
    sheet = far.Sheet(timings, _beside([case.name for case in cases]))
    peers = [case.name for case in cases if case.name == f"{THIRD} 64 gets"]
    verdicts = [
        sheet.faster("Redis, 64 concurrent gets", f"{OURS} 64 gets", 4, "raw redis-py"),
        sheet.faster("Redis, 256 concurrent gets", f"{OURS} 256 gets", 5.5, "raw redis-py"),
        sheet.within("Redis, one get alone", f"{OURS} get", 1.2, "raw redis-py"),
    ]
    if peers:
        verdicts.append(sheet.faster("Redis, 64 concurrent gets", f"{OURS} 64 gets", 6, "cashews", peers))
    return Section(
        "Redis",
        f"{len(far.KEYS):,} keys with 1 KB of random bytes on one server of this machine, over TCP. Raw redis-py gives "
        f"bytes unchecked; it has a pool of {POOL} connections that waits, or one connection for each get, and the "
        "faster of the two counts. Ours is a cache with the Redis tier alone, or below a memory tier that is emptied "
        "whenever all keys were read; every value is checked, decoded and, with a memory tier, kept there.",
        [sheet.table("")],
        verdicts,
    )


def _beside(names: list[str]) -> dict[str, list[str]]:
    """For each case the raw ones that do the same."""
    raw = [name for name in names if name.startswith(RAW)]
    kinds = ("256 gets", "64 gets", "64 sets", "get")
    found = {name: next(kind for kind in kinds if f" {kind}" in name) for name in names}
    return {name: [one for one in raw if found[one] == kind] for name, kind in found.items()}


async def _raw(url: str, stack: AsyncExitStack) -> list[Case]:
    from redis.asyncio import BlockingConnectionPool, Redis

    def client(connections: int) -> Any:
        pool = BlockingConnectionPool.from_url(url, max_connections=connections, timeout=None, protocol=3)
        made = Redis.from_pool(pool)
        stack.push_async_callback(made.aclose)
        return made

    shared = client(POOL)
    for start in range(0, len(far.KEYS), far.MANY):
        await shared.mset({key: far.value() for key in far.KEYS[start : start + far.MANY]})
    value = far.value()

    async def store(key: str) -> object:
        return await shared.set(key, value, px=3_600_000)

    wide = [Case(f"{RAW} {width} gets, {width} connections", far.at_once(client(width).get, width)) for width in WIDTHS]
    return [
        Case(f"{RAW} get", far.one_by_one(client(1).get)),
        *(Case(f"{RAW} {width} gets, {POOL} connections", far.at_once(shared.get, width)) for width in WIDTHS),
        *wide,
        Case(f"{RAW} 64 sets, {POOL} connections", far.at_once(store, 64)),
    ]


async def _ours(url: str, stack: AsyncExitStack) -> list[Case]:
    alone = await stack.enter_async_context(Cache.from_url(url, **far.SETTINGS))
    cold = await stack.enter_async_context(Cache.from_url("memory://", url, **far.SETTINGS))
    for start in range(0, len(far.KEYS), far.MANY):
        await alone.set_many({key: far.value() for key in far.KEYS[start : start + far.MANY]})
    value = far.value()
    memory = cold._engine.core.memory  # noqa: SLF001  # no verb empties one tier only

    async def store(key: str) -> object:
        return await alone.set(key, value)

    def empty() -> None:
        if memory is not None:
            memory.flush("explicit")

    return [
        Case(f"{OURS} get", far.one_by_one(alone.get)),
        *(Case(f"{OURS} {width} gets", far.at_once(alone.get, width)) for width in WIDTHS),
        Case(f"{COLD} get", far.one_by_one(cold.get, empty)),
        *(Case(f"{COLD} {width} gets", far.at_once(cold.get, width, empty)) for width in WIDTHS),
        Case(f"{OURS} 64 sets", far.at_once(store, 64)),
    ]


async def _cashews(url: str, stack: AsyncExitStack) -> list[Case]:
    try:
        from cashews import Cache as Cashews
    except ImportError:
        return []
    cache = Cashews()
    cache.setup(url)
    stack.push_async_callback(cache.close)
    for key in far.KEYS:
        await cache.set(key, far.value(), expire=3_600)
    return [
        Case(f"{THIRD} get", far.one_by_one(cache.get)),
        *(Case(f"{THIRD} {width} gets", far.at_once(cache.get, width)) for width in WIDTHS[:1]),
    ]
