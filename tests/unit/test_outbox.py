"""The outbox: what a transaction invalidates is told if and only if it was committed, whoever dies in between."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable
from typing import Any

import asyncpg
import pytest
import pytest_asyncio
from tests.chaos.traffic import until

from genesis_cache import Cache, SettingsError
from genesis_cache.adapters.outbox import BATCH, Outbox, outbox_sql
from genesis_cache.testing.servers import RedisServer

INVALIDATE = "SELECT {s}.invalidate($1, $2, $3, $4, $5)"


class Place:
    """A user's database with an outbox, and a cache."""

    def __init__(self, url: str, redis_url: str) -> None:
        self.url = url
        self.name = f"outbox-{secrets.token_hex(4)}"
        self.schema = f"outbox_{secrets.token_hex(4)}"
        self.cache = Cache.from_url("memory://", redis_url, name=self.name, redis_socket_timeout=1.0)
        self.connection: Any = None

    def outbox(self) -> Outbox:
        """A relay."""
        return Outbox(self.cache, self.url, schema=self.schema)

    async def write(self, kind: str, name: str = "", namespace: str = "", owner: str | None = None) -> None:
        """An order, in the transaction under way."""
        await self.connection.execute(INVALIDATE.format(s=self.schema), kind, name, namespace, owner, self.name)

    async def left(self) -> int:
        """Rows that nobody has told yet."""
        return int(await self.connection.fetchval(f"SELECT count(*) FROM {self.schema}.outbox"))  # noqa: S608  # our own


@pytest_asyncio.fixture
async def place(postgres_url: str, redis_url: str) -> AsyncIterator[Place]:
    """A place of the test's own."""
    place = Place(postgres_url, redis_url)
    place.connection = await asyncpg.connect(postgres_url)
    async with place.cache:
        await place.outbox().install()
        await place.outbox().install()  # again: nothing changes
        yield place
    await place.connection.execute(f"DROP SCHEMA {place.schema} CASCADE")
    await place.connection.close()


async def test_a_committed_order_is_done_and_a_rolled_back_one_is_not(place: Place) -> None:
    """Keys, tags, patterns and whole namespaces, of an owner too, once the transaction is committed."""
    cache, orders = place.cache, place.cache.namespace("orders")
    mine = cache.owned_by("user:1")
    await cache.set_many({"a": 1, "b": 2, "p:1": 3})
    await cache.set("t", 4, tags=["tag"])
    await orders.set("7", 5)
    await mine.set("a", 6)
    async with place.outbox() as outbox:
        transaction = place.connection.transaction()
        await transaction.start()
        await place.write("key", "a")
        await transaction.rollback()
        async with place.connection.transaction():
            await place.write("key", "b")
            await place.write("tag", "tag")
            await place.write("pattern", "p:*")
            await place.write("clear", "", "orders")
            await place.write("key", "a", "", "user:1")
            await asyncio.sleep(0.05)
            assert await cache.get_many(["b", "t", "p:1"]) == {"b": 2, "t": 4, "p:1": 3}
        await until(lambda: outbox.relayed == 5, "all is told")
    assert await cache.get_many(["a", "b", "t", "p:1"]) == {"a": 1}
    assert await orders.get("7") is None
    assert await mine.get("a") is None
    assert await place.left() == 0
    assert outbox.longest_s > 0


async def test_what_was_written_while_nobody_relayed_is_told_later(place: Place) -> None:
    """More than one batch waits for the next relay; several relays share the work, and each row is told once."""
    number = BATCH + 20
    await place.cache.set_many({f"k{n}": n for n in range(number)})
    async with place.connection.transaction():
        for n in range(number):
            await place.write("key", f"k{n}")
    one, two = place.outbox(), place.outbox()
    async with one, two:
        await until(lambda: one.relayed + two.relayed >= number, "all is told")
    assert one.relayed + two.relayed == number
    assert await place.cache.get_many([f"k{n}" for n in range(number)]) == {}


async def test_a_relay_whose_connection_is_killed_goes_on(place: Place) -> None:
    """The database ends the relay's session: what was not told is told by the next one."""
    async with place.outbox() as outbox:
        for n in range(3):
            await place.cache.set(f"k{n}", n)
            await place.connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE pid <> pg_backend_pid() AND (query LIKE $1 OR query LIKE $2)",
                f"%{place.schema}.outbox%",
                f'LISTEN "{place.schema}"%',
            )
            await place.write("key", f"k{n}")
            await until(lambda: outbox.relayed == n + 1, "it is told")  # noqa: B023  # awaited here
            assert await place.cache.get(f"k{n}") is None


async def test_an_order_that_cannot_be_done_holds_up_no_other(place: Place) -> None:
    """It is counted, logged and deleted; those beside it are done."""
    await place.cache.set("k", 1)
    async with place.connection.transaction():
        await place.write("pattern", "*a*b*")
        await place.write("pattern", "k*")
        await place.write("key", "")
    async with place.outbox() as outbox:
        await until(lambda: outbox.relayed == 3, "all are taken")
    assert outbox.refused == 2
    assert await place.cache.get("k") is None


async def test_an_order_waits_for_a_tier_that_is_down(
    postgres_url: str, start_redis: Callable[..., RedisServer]
) -> None:
    """While not everybody can be told, the row stays; when the server is back, it is told and goes."""
    server = await asyncio.to_thread(start_redis)
    place = Place(postgres_url, server.url)
    place.connection = await asyncpg.connect(postgres_url)
    async with place.cache:
        await place.outbox().install()
        await place.cache.set("k", 1)
        await asyncio.to_thread(server.kill)
        async with place.outbox() as outbox:
            await place.write("key", "k")
            await until(lambda: place.cache.peek("k") is None, "it is forgotten here")
            assert await place.left() == 1
            await asyncio.to_thread(server.start)
            await until(lambda: outbox.relayed == 1, "it is told")
        assert await place.left() == 0
    await place.connection.execute(f"DROP SCHEMA {place.schema} CASCADE")
    await place.connection.close()


@pytest.mark.parametrize("schema", ["", "Upper", "a b", "pg_x", "x" * 49, 'a";drop'])
def test_a_schema_that_cannot_be_is_refused(schema: str) -> None:
    """No name of a schema reaches the server that is not a plain word."""
    with pytest.raises(SettingsError, match="schema"):
        outbox_sql(schema)
