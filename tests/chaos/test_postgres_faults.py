"""PostgreSQL hurt in every way: no verb raises, nothing old or foreign is served, and it comes back by itself."""

import asyncio
import contextlib
import os
import signal
from collections.abc import Awaitable, Callable

import asyncpg
import pytest
from tests.chaos.traffic import KEYS, Traffic, downs, nothing_old, observer, opened, owed, recovered, traffic, until

from genesis_cache import Cache
from genesis_cache.testing.server_process import children_of
from genesis_cache.testing.servers import PostgresServer

HURT_S = 0.7
Act = Callable[[PostgresServer], Awaitable[object]]

END_OTHERS = """
    SELECT pg_terminate_backend(pid) FROM pg_stat_activity
    WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'
"""


async def outside(server: PostgresServer, *statements: str) -> None:
    """Run statements from another database."""
    connection = await asyncpg.connect(server.url_at(server.port, "postgres"))
    try:
        for statement in statements:
            await connection.execute(statement)
    finally:
        await connection.close()


def on_thread(act: Callable[[PostgresServer], object]) -> Act:
    """What blocks."""
    return lambda server: asyncio.to_thread(act, server)


def says(*statements: str) -> Act:
    """What is done by statements."""
    return lambda server: outside(server, *statements)


async def kill_a_backend(server: PostgresServer) -> None:
    """SIGKILL to one backend: the server ends all the others and recovers."""
    connection = await asyncpg.connect(server.url)
    backends = await connection.fetch(
        "SELECT pid FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'"
    )
    connection.terminate()
    os.kill(backends[0]["pid"], signal.SIGKILL)


async def served(server: PostgresServer) -> None:
    """Wait until it takes connections again."""

    async def takes() -> bool:
        with contextlib.suppress(OSError, asyncpg.PostgresError):
            await outside(server)
            return True
        return False

    await until(takes, "the server takes connections")


async def make_empty(server: PostgresServer) -> None:
    """The database is dropped, and one of the same name made."""
    await outside(server, "DROP DATABASE cache WITH (FORCE)", "CREATE DATABASE cache")


async def drop_schema(server: PostgresServer) -> None:
    """Somebody drops all our tables."""
    connection = await asyncpg.connect(server.url)
    await connection.execute("DROP SCHEMA genesis_cache CASCADE")
    await connection.close()


HARMS: dict[str, tuple[Act, Act]] = {
    "frozen": (on_thread(lambda server: server.freeze()), on_thread(lambda server: server.thaw())),
    "killed": (on_thread(lambda server: server.kill()), on_thread(lambda server: server.start())),
    "with a backend killed": (kill_a_backend, served),
    "connections cut": (says(END_OTHERS), says(END_OTHERS)),
    "read-only": (
        says("ALTER SYSTEM SET default_transaction_read_only = on", "SELECT pg_reload_conf()"),
        says("SET transaction_read_only = off", "ALTER SYSTEM RESET ALL", "SELECT pg_reload_conf()"),
    ),
    "taking no connections": (
        says("ALTER DATABASE cache ALLOW_CONNECTIONS false", END_OTHERS),
        says("ALTER DATABASE cache ALLOW_CONNECTIONS true"),
    ),
    "emptied": (make_empty, served),
    "without its tables": (drop_schema, served),
}


@pytest.mark.parametrize("name", HARMS)
async def test_traffic_goes_on(name: str, own_postgres: PostgresServer) -> None:
    """Whatever happens to PostgreSQL, every verb works, values are right and fresh, and it comes back by itself."""
    hurt, mend = HARMS[name]
    async with opened("memory://", own_postgres.url) as cache, traffic(cache) as going:
        await asyncio.sleep(0.2)
        await hurt(own_postgres)
        await asyncio.sleep(HURT_S)
        await mend(own_postgres)
        await recovered(cache)
        await asyncio.sleep(0.2)
        await going.stop()
        await until(lambda: not owed(cache), "what was owed is paid")
        async with opened("memory://", own_postgres.url) as other:
            await nothing_old(other, going)
        assert await cache.set("proof", name)
        async with observer(own_postgres.url) as other:
            assert await other.get("proof") == name


@pytest.mark.parametrize("name", ["frozen", "killed", "connections cut"])
async def test_traffic_goes_on_below_redis(
    name: str, own_postgres: PostgresServer, redis_url: str, cache_name: str
) -> None:
    """With Redis above, a hurt PostgreSQL costs nothing, and what it could not be told is old for nobody in the end."""
    (hurt, mend), urls = HARMS[name], ("memory://", redis_url, own_postgres.url)
    async with (
        opened(*urls, cache_name=cache_name) as cache,
        opened(*urls, cache_name=cache_name) as other,
        traffic(cache) as going,
    ):
        reading = asyncio.ensure_future(read_on(other, going))
        await asyncio.sleep(0.2)
        await hurt(own_postgres)
        await asyncio.sleep(HURT_S)
        await mend(own_postgres)
        await recovered(cache)
        await going.stop()
        await until(lambda: not owed(cache), "what was owed is paid")
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)

        async def agrees() -> bool:
            found = await other.get_many(KEYS)
            return all(value["version"] >= going.floor[key] for key, value in found.items())

        await until(agrees, "the other cache has heard of everything")


async def read_on(cache: Cache, known: Traffic) -> None:
    """Another cache that reads all the time, and so brings up whatever it finds below."""
    while True:
        found = await cache.get_many(KEYS)
        for key, value in found.items():
            known.verify(key, value, 0, "another's get")
        await asyncio.sleep(0.002)


async def test_unlogged_tables_are_emptied_by_a_crash(own_postgres: PostgresServer) -> None:
    """A crash that empties the tables is a new log: memory forgets, fills from before are refused, all goes on."""
    url = f"{own_postgres.url}?logged=false"
    async with opened("memory://", url) as cache, traffic(cache) as going:
        await cache.set("before", 1)
        await asyncio.sleep(0.2)
        await kill_a_backend(own_postgres)
        await served(own_postgres)
        await recovered(cache)
        await going.stop()
        async with observer(url) as other:
            assert await other.get("before") is None
            assert await cache.set("after", 1)
            assert await other.get("after") == 1


async def test_what_is_owed_is_paid_first(own_postgres: PostgresServer) -> None:
    """What was deleted while PostgreSQL was down is seen by nobody here, and by no other once it was told."""
    async with opened("memory://", own_postgres.url) as one, observer("memory://", own_postgres.url) as two:
        for key in ("deleted", "tagged"):
            await one.set(key, "old", tags=["t"] if key == "tagged" else [])
            assert await two.get(key) == "old"
        await asyncio.to_thread(own_postgres.kill)
        outcomes = [await one.delete("deleted"), await one.delete_by_tag("t")]
        assert [outcome.degraded for outcome in outcomes] == [("database",)] * 2
        assert [await one.get(key) for key in ("deleted", "tagged")] == [None, None]
        await asyncio.to_thread(own_postgres.start)
        while owed(one):
            assert [await one.get(key) for key in ("deleted", "tagged")] == [None, None]
            await asyncio.sleep(0.005)

        async def unseen() -> bool:
            return [await two.get(key) for key in ("deleted", "tagged")] == [None, None]

        await until(unseen, "the other cache hears of it")
        async with observer(own_postgres.url) as later:
            assert [await later.get(key) for key in ("deleted", "tagged")] == [None, None]


async def test_one_tier_down_leaves_the_others(own_postgres: PostgresServer, redis_url: str, cache_name: str) -> None:
    """With Redis and PostgreSQL the death of one is a degraded write, and what the other holds is served on."""
    async with opened("memory://", redis_url, own_postgres.url, cache_name=cache_name) as cache:
        assert await cache.set("k", 1)
        await asyncio.to_thread(own_postgres.kill)
        outcome = await cache.set("l", 2)
        assert outcome.degraded == ("database",)
        assert len(downs(cache)) == 1
        async with observer(redis_url, cache_name=cache_name) as other:
            assert await other.get_many(["k", "l"]) == {"k": 1, "l": 2}
        await asyncio.to_thread(own_postgres.start)
        await recovered(cache)
        assert await cache.set("m", 3)
    assert children_of(own_postgres.pid)
