"""The PostgreSQL tier: gets and upserts, one by one and 64 at once, beside a pooled asyncpg on the same server."""

# ruff: noqa: PLC0415  # a peer is imported where it is measured, so that a missing one leaves the others

import asyncio
from contextlib import AsyncExitStack

from bench import far
from bench.report import Section

from genesis_cache.cache import Cache
from genesis_cache.cli.measure import Case, measure
from genesis_cache.testing.servers import PostgresServer

WIDTH = 64
POOLS = (10, 50)  # connections: asyncpg's own default, and as many as ours may have
DURABLE = ("fsync=on", "full_page_writes=on", "synchronous_commit=on")

OURS = "**genesis_cache** database"
RAW = "asyncpg"

_TABLE = "CREATE TABLE raw (key text PRIMARY KEY, value bytea NOT NULL, gone_at float8 NOT NULL)"
_FETCH = "SELECT value FROM raw WHERE key = $1 AND gone_at > $2"
_UPSERT = (
    "INSERT INTO raw VALUES ($1, $2, $3) "
    "ON CONFLICT (key) DO UPDATE SET value = excluded.value, gone_at = excluded.gone_at"
)
_NOW, _LATER = 1.0, 9e9


def section(*, quick: bool) -> Section:
    """The table and its verdicts."""
    try:
        import asyncpg
    except ImportError:
        return Section("PostgreSQL", "Left out: asyncpg, which everything here is compared with, is not installed.")
    del asyncpg
    with PostgresServer(None, *DURABLE) as server:
        return asyncio.run(_section(server.url, 3 if quick else 9, 0.01 if quick else 0.1))


async def _section(url: str, rounds: int, batch_s: float) -> Section:
    async with AsyncExitStack() as stack:
        cases = [*await _raw(url, stack), *await _ours(url, stack)]
        timings = await measure(cases, rounds=rounds, batch_seconds=batch_s)
    pools = [f"{RAW} {WIDTH} gets, {size} connections" for size in POOLS]
    beside = {
        f"{OURS} get": [f"{RAW} get"],
        f"{OURS} {WIDTH} gets": pools,
        f"{OURS} set": [f"{RAW} upsert"],
        f"{OURS} {WIDTH} sets": [f"{RAW} upsert"],
        **dict.fromkeys(pools, pools),
        **{f"{RAW} {WIDTH} upserts, {size} connections": [f"{RAW} upsert"] for size in POOLS},
    }
    sheet = far.Sheet(timings, beside)
    return Section(
        "PostgreSQL",
        f"{len(far.KEYS):,} keys with 1 KB of random bytes on one server of this machine, over TCP; logged tables, "
        "and a server that flushes at each commit. Raw asyncpg uses prepared statements over a pool and gives bytes "
        "unchecked; of the sizes of its pool the faster counts. Ours is a cache with the database tier alone.",
        [sheet.table("")],
        [
            sheet.faster("PostgreSQL, 64 concurrent gets", f"{OURS} {WIDTH} gets", 8, "a pooled asyncpg fetch"),
            sheet.faster("PostgreSQL, 64 concurrent upserts", f"{OURS} {WIDTH} sets", 10, "single ones"),
        ],
    )


async def _raw(url: str, stack: AsyncExitStack) -> list[Case]:
    import asyncpg

    pools = [await stack.enter_async_context(asyncpg.create_pool(url, min_size=size, max_size=size)) for size in POOLS]
    await pools[0].execute(_TABLE)
    await pools[0].executemany(_UPSERT, [(key, far.value(), _LATER) for key in far.KEYS])
    single = await asyncpg.connect(url)
    stack.push_async_callback(single.close)
    value = far.value()

    def get(pool: asyncpg.Pool) -> far.Operation:
        return lambda key: pool.fetchval(_FETCH, key, _NOW)

    def upsert(pool: asyncpg.Pool | asyncpg.Connection) -> far.Operation:
        return lambda key: pool.execute(_UPSERT, key, value, _LATER)

    sized = list(zip(pools, POOLS, strict=True))
    return [
        Case(f"{RAW} get", far.one_by_one(get(pools[0]))),
        *(Case(f"{RAW} {WIDTH} gets, {size} connections", far.at_once(get(pool), WIDTH)) for pool, size in sized),
        Case(f"{RAW} upsert", far.one_by_one(upsert(single)), most=512),
        *(
            Case(f"{RAW} {WIDTH} upserts, {size} connections", far.at_once(upsert(pool), WIDTH), most=1_024)
            for pool, size in sized
        ),
    ]


async def _ours(url: str, stack: AsyncExitStack) -> list[Case]:
    cache = await stack.enter_async_context(Cache.from_url(url, **far.SETTINGS))
    for start in range(0, len(far.KEYS), far.MANY):
        await cache.set_many({key: far.value() for key in far.KEYS[start : start + far.MANY]})
    value = far.value()

    async def store(key: str) -> object:
        return await cache.set(key, value)

    return [
        Case(f"{OURS} get", far.one_by_one(cache.get)),
        Case(f"{OURS} {WIDTH} gets", far.at_once(cache.get, WIDTH)),
        Case(f"{OURS} set", far.one_by_one(store), most=512),
        Case(f"{OURS} {WIDTH} sets", far.at_once(store, WIDTH), most=2_048),
    ]
