"""How PostgreSQL finds rows: a change reads those that it is about, however many there are."""

import asyncio

import asyncpg

from genesis_cache import Cache
from genesis_cache.testing.servers import PostgresServer

ENTRIES = 3_000
CHANGES = 100
FEW = 20  # looks at an index for one change
READ = "SELECT coalesce(sum(idx_tup_read), 0)::int8 FROM pg_stat_user_indexes WHERE relname = 'entries'"


async def index_entries_read(server: PostgresServer) -> int:
    """How many entries of its indexes the server has read for the table of entries."""
    connection = await asyncpg.connect(server.url)
    try:
        count: int = await connection.fetchval(READ)
    finally:
        await connection.close()
    return count


async def test_a_change_reads_no_more_than_its_own_rows(own_postgres: PostgresServer) -> None:
    """A process that began with an empty table changes single entries of a full one without a look at the others."""
    async with Cache.from_url(own_postgres.url) as cache:
        await cache.set("first", 1)
        await cache.set_many({f"key:{number}": number for number in range(ENTRIES)})
        for number in range(CHANGES):
            await cache.set(f"key:{number}", 0)
            await cache.delete(f"key:{number}")
    read = 0
    for _ in range(100):  # a connection tells its figures when it ends, and later still on old servers
        if (read := await index_entries_read(own_postgres)) >= CHANGES:
            break
        await asyncio.sleep(0.1)
    assert CHANGES <= read < (ENTRIES + 2 * CHANGES) * FEW
