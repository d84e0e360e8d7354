"""What a PostgreSQL store does when its server is hurt: plain sentences, no wrong answer, recovery by itself."""

import asyncio
import math
import os
import signal
import struct
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import pytest

from genesis_cache.model.clock import SystemClock
from genesis_cache.model.finding import Finding, Severity
from genesis_cache.model.keys import Address, address_of, scope_of
from genesis_cache.model.settings import CacheSettings
from genesis_cache.testing.servers import PostgresServer, free_port
from genesis_cache.testing.store_words import MB, kill
from genesis_cache.tiers.base import Kind, Position, Put, Remove
from genesis_cache.tiers.postgres.store import postgres_store, postgres_store_over
from genesis_cache.tiers.remote_base import Outage, RemoteStore

Start = Callable[..., PostgresServer]


def address(key: str) -> Address:
    return address_of(scope_of("faults"), key)


def put(key: str, envelope: bytes = b"1", since: int | None = None) -> Put:
    return Put(address(key), envelope, math.inf, since)


def settings(url: str, **more: object) -> CacheSettings:
    return CacheSettings(database_url=url, cache_name="faults").with_overrides(**more)


@asynccontextmanager
async def opened(url: str, **more: object) -> AsyncIterator[RemoteStore]:
    store = postgres_store(settings(url, **more), 64 * MB, SystemClock())()
    try:
        await store.open()
        await store.join(None)
        yield store
    finally:
        await store.close()


async def again(act: Callable[[], Awaitable[Any]]) -> Any:
    """What a call gives once the server is back."""
    end = time.monotonic() + 20
    while True:
        try:
            return await act()
        except Outage:
            assert time.monotonic() < end, "the outage never ended"
            await asyncio.sleep(0.05)


async def books(store: RemoteStore) -> list[str]:
    """What is wrong with the books; the values of these tests are no envelopes."""
    return [fault for fault in await store.check() if not fault.startswith("the envelope")]


async def run(url: str, *statements: str) -> None:
    connection: Any = await asyncpg.connect(url)
    try:
        for statement in statements:
            await connection.execute(statement)
    finally:
        await connection.close()


async def outage(url: str, **more: object) -> str:
    """The sentence with which a store cannot be opened."""
    store = postgres_store(settings(url, **more), 64 * MB, SystemClock())()
    try:
        with pytest.raises(Outage) as caught:
            await store.open()
    finally:
        await store.close()
    return str(caught.value)


def finding(findings: list[Finding], subject: str) -> Finding:
    return next(one for one in findings if one.subject == f"database: {subject}")


# -- sentences ----------------------------------------------------------------------------------------------------


async def test_a_server_that_is_not_there_is_a_sentence() -> None:
    """Nothing listens: the sentence says so and shows no password."""
    said = await outage(f"postgresql://user:canary@127.0.0.1:{free_port()}/shop")
    assert "refuses connections" in said
    assert "canary" not in said


async def test_a_database_that_is_not_there_is_a_sentence(postgres_url: str) -> None:
    """The server is there, the database is not."""
    assert "no database of that name" in await outage(postgres_url.rpartition("/")[0] + "/nowhere")


async def test_a_wrong_password_is_a_sentence(start_postgres: Start) -> None:
    """The server refuses the user: neither the right password nor the wrong one is shown."""
    server = start_postgres(password="right-canary")  # noqa: S106  # it protects nothing
    said = await outage(server.url.replace("right-canary", "wrong-canary"))
    assert "refuses us" in said
    assert "canary" not in said
    async with opened(server.url) as store:
        assert await store.get(address("a")) is None


async def test_a_server_without_free_connections_is_a_sentence(start_postgres: Start) -> None:
    """All connections are taken by others: the sentence says what to raise."""
    server = start_postgres("max_connections=5", "superuser_reserved_connections=0")
    async with asyncpg.create_pool(server.url, min_size=5, max_size=5):
        assert "no connection free" in await outage(server.url)
    async with opened(server.url) as store:
        assert "of 5 connections" in finding(await store.diagnose(), "connections").sentence


async def test_a_read_only_server_is_a_sentence(postgres_url: str) -> None:
    """What reads still reads; a change says that the server takes none."""
    await run(postgres_url, "DROP ROLE IF EXISTS reader", "CREATE ROLE reader LOGIN SUPERUSER")
    async with opened(postgres_url.replace("//postgres", "//reader")) as store:
        await store.commit([put("a")], 0)
        await store.close()
        await run(postgres_url, "ALTER ROLE reader SET default_transaction_read_only = on")
        await store.open()
        assert await store.get(address("a")) == b"1"
        with pytest.raises(Outage, match="read-only"):
            await store.commit([put("b")], 0)


async def test_a_user_without_rights_is_told_which(postgres_url: str) -> None:
    """Who may not make our tables is told what to grant."""
    await run(postgres_url, "DROP ROLE IF EXISTS nobody_special", "CREATE ROLE nobody_special LOGIN")
    url = postgres_url.replace("//postgres", "//nobody_special")
    assert "grant the user CREATE" in await outage(f"{url}?schema=not_theirs")


async def test_tables_of_a_newer_version_are_left_alone(postgres_url: str) -> None:
    """A newer version's tables are neither used nor changed."""
    async with opened(f"{postgres_url}?schema=newer"):
        await run(postgres_url, "UPDATE newer.meta SET version = 99")
    try:
        assert "version 99" in await outage(f"{postgres_url}?schema=newer")
    finally:
        await run(postgres_url, "DROP SCHEMA newer CASCADE")


async def test_a_server_that_does_not_answer_costs_the_time_that_was_given(own_postgres: PostgresServer) -> None:
    """Frozen, each call ends within its timeout, without waiting for the server; thawed, the store goes on."""
    async with opened(own_postgres.url, redis_socket_timeout=0.3) as store:
        await store.commit([put("a")], 0)
        position = (await store.join(None)).position
        own_postgres.freeze()
        try:
            for act in (
                lambda: store.get(address("a")),
                lambda: store.get_many([address("a")]),
                lambda: store.commit([put("a")], 0),
                lambda: store.follow(position, 0.05),
                lambda: store.lease(address("a"), b"t", 1.0),
            ):
                with pytest.raises(Outage, match="in time"):
                    async with asyncio.timeout(10):
                        await act()
        finally:
            own_postgres.thaw()
        assert await again(lambda: store.get(address("a"))) == b"1"
        assert (await again(lambda: store.join(position))).position.epoch == position.epoch


# -- restarts -----------------------------------------------------------------------------------------------------


async def test_a_restart_of_a_durable_server_keeps_the_log(own_postgres: PostgresServer) -> None:
    """Killed and restarted, a logged store has lost nothing: values, log and epoch are as they were."""
    async with opened(own_postgres.url) as store:
        await store.commit([put("a"), kill(Kind.TAG, "red")], 0)
        known = (await store.join(None)).position
        own_postgres.restart()
        joined = await again(lambda: store.join(known))
        assert joined.position == known
        assert await again(lambda: store.get(address("a"))) == b"1"
        assert [notice.name for notice in joined.floors] == ["red"]
        assert await books(store) == []


async def test_a_read_finds_its_dead_connection_and_makes_a_new_one(own_postgres: PostgresServer) -> None:
    """The first read after all connections were ended answers, though every one that it finds is dead."""
    end_all = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND datname <> ''"
    async with opened(own_postgres.url) as store:
        await store.commit([put("a")], 0)
        for _ in range(3):
            await asyncio.gather(*(store.get_many([address("a")]) for _ in range(5)))
            await run(own_postgres.url, end_all)
            assert await store.get(address("a")) == b"1"


async def test_a_connection_whose_end_is_still_to_come_costs_no_change(postgres_url: str) -> None:
    """A server that crashes says so before it hangs up; a change in between goes over another connection."""
    relay = Relay(postgres_url)
    async with relay.between() as url, opened(url) as store:
        epoch = (await store.join(None)).position.epoch
        await store.commit([put("a")], epoch)
        relay.say_that_it_crashes()
        await relay.heard()
        assert (await store.commit([put("b")], epoch)).receipts[0].seq
        assert await store.get(address("b")) == b"1"


class Relay:
    """Stands between a client and PostgreSQL, and can say something in the server's place."""

    def __init__(self, url: str) -> None:
        self._target = urlsplit(url)
        self._clients: list[asyncio.StreamWriter] = []
        self._carriers: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def between(self) -> AsyncIterator[str]:
        """The URL to come by."""
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        try:
            yield self._target._replace(netloc=f"postgres@127.0.0.1:{port}").geturl()
        finally:
            server.close()
            for carrier in self._carriers:
                carrier.cancel()
            await asyncio.gather(*self._carriers, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection(self._target.hostname, self._target.port)
        self._clients.append(writer)
        for source, sink in ((reader, back), (there, writer)):
            self._carriers.add(asyncio.create_task(self._carry(source, sink)))

    @staticmethod
    async def _carry(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        try:
            while data := await source.read(65536):
                sink.write(data)
        finally:
            sink.transport.abort()

    def say_that_it_crashes(self) -> None:
        """On every connection there is; none is hung up."""
        fields = b"SFATAL\0VFATAL\0C57P02\0Mterminating connection because of crash of another server process\0\0"
        for client in self._clients:
            if not client.is_closing():
                client.write(b"E" + struct.pack("!I", len(fields) + 4) + fields)

    @staticmethod
    async def heard() -> None:
        """Wait until the clients have read it, on this very event loop."""
        for _ in range(20):
            await asyncio.sleep(0.01)


async def test_a_restarted_server_is_not_believed_before_its_log_is_joined(own_postgres: PostgresServer) -> None:
    """It may have been set back: reads are refused with a sentence, and go on once the log was joined."""
    async with opened(own_postgres.url) as store:
        await store.commit([put("a")], 0)
        await asyncio.to_thread(own_postgres.restart)
        with pytest.raises(Outage, match="joined first"):
            await store.get(address("a"))
        await again(lambda: store.join(None))
        assert await again(lambda: store.get(address("a"))) == b"1"


async def test_a_crash_empties_unlogged_tables_and_begins_a_new_log(own_postgres: PostgresServer) -> None:
    """One killed backend empties the tables: all who join agree on a new log, beyond the sequences of the old."""
    async with opened(f"{own_postgres.url}?logged=false") as one, opened(f"{own_postgres.url}?logged=false") as two:
        await one.commit([put("a"), Remove(address("b"))], 0)
        known = (await one.join(None)).position
        own_postgres.restart()
        await again(lambda: two.join(known))
        committed = await again(lambda: two.commit([put("b")], known.epoch))
        joined = [(await again(lambda store=store: store.join(known))).position for store in (one, two)]  # type: ignore[misc]  # bound at once
        assert joined[0] == joined[1]
        assert committed.epoch == joined[0].epoch != known.epoch
        assert joined[0].seq > known.seq
        assert await one.get_many([address("a"), address("b")]) == [None, b"1"]
        assert await one.follow(known, 0.0) is None
        assert await books(one) == []


async def test_an_orderly_restart_keeps_unlogged_tables(own_postgres: PostgresServer) -> None:
    """Stopped in good order, unlogged tables and their log are as they were."""
    async with opened(f"{own_postgres.url}?logged=false") as store:
        await store.commit([put("a")], 0)
        known = (await store.join(None)).position
        await asyncio.to_thread(stop_and_start, own_postgres)
        assert (await again(lambda: store.join(known))).position == known
        assert await store.get(address("a")) == b"1"


def stop_and_start(server: PostgresServer) -> None:
    os.kill(server.pid, signal.SIGINT)  # the "fast" shutdown
    while server.runs:
        time.sleep(0.01)
    server.restart()


async def test_without_synchronous_commit_a_restart_begins_a_new_log(start_postgres: Start) -> None:
    """Acknowledged changes may have been lost, even unknown to whoever asks: nobody trusts the old log."""
    server = start_postgres("synchronous_commit=off")
    async with opened(server.url) as store, opened(server.url) as other:
        await store.commit([put("a")], 0)
        known = (await store.join(None)).position
        assert finding(await store.diagnose(), "durability").severity is Severity.ADVICE
        server.restart()
        position = (await again(lambda: other.join(None))).position
        assert position.epoch != known.epoch
        assert (await again(lambda: store.join(known))).position == position


async def test_a_log_set_back_is_noticed_by_whoever_writes_next(postgres_url: str) -> None:
    """A writer that knows a later sequence than the books does not go on in the old log, join or no join."""
    async with opened(f"{postgres_url}?schema=set_back") as store:
        committed = await store.commit([put("a"), put("b")], 0)
        await run(postgres_url, "UPDATE set_back.control SET seq = seq - 1")
        after = await store.commit([put("c")], committed.epoch)
        assert after.epoch != committed.epoch
        assert after.receipts[0].seq > committed.receipts[1].seq
        await run(postgres_url, "DROP SCHEMA set_back CASCADE")


# -- who made the tables --------------------------------------------------------------------------------------------


async def test_who_comes_first_decides_how_a_cache_is_kept(postgres_url: str) -> None:
    """Two programs that ask for different tables under one name share those of the first, and are told so."""
    async with (
        opened(f"{postgres_url}?schema=first&logged=false") as one,
        opened(f"{postgres_url}?schema=first") as two,
    ):
        await one.commit([put("a")], 0)
        assert await two.get(address("a")) == b"1"
        assert finding(await one.diagnose(), "tables").severity is Severity.OK
        told = finding(await two.diagnose(), "tables")
        assert told.severity is Severity.ADVICE
        assert "logged=true" in told.sentence
    await run(postgres_url, "DROP SCHEMA first CASCADE")


async def test_two_that_make_the_tables_at_once_both_succeed(postgres_url: str) -> None:
    """Twenty stores meet an empty database at the same moment."""
    make = postgres_store(settings(f"{postgres_url}?schema=at_once"), 64 * MB, SystemClock())
    stores = [make() for _ in range(20)]
    try:
        await asyncio.gather(*(store.open() for store in stores))
        assert {bool(await store.get(address("a"))) for store in stores} == {False}
    finally:
        await asyncio.gather(*(store.close() for store in stores))
        await run(postgres_url, "DROP SCHEMA at_once CASCADE")


async def test_tables_dropped_under_a_running_store_are_made_again(postgres_url: str) -> None:
    """Somebody drops our schema: reads are misses and changes are taken, in a new log."""
    async with opened(f"{postgres_url}?schema=dropped") as store:
        committed = await store.commit([put("a")], 0)
        await run(postgres_url, "DROP SCHEMA dropped CASCADE")
        assert await store.get(address("a")) is None
        assert await store.get_many([address("a")]) == [None]
        after = await store.commit([put("a")], committed.epoch)
        assert after.epoch != committed.epoch
        assert await store.get(address("a")) == b"1"
        assert await store.follow(Position(committed.epoch, committed.receipts[0].seq), 0.0) is None
        await run(postgres_url, "DROP SCHEMA dropped CASCADE")


# -- a pool of the caller's -----------------------------------------------------------------------------------------


async def test_a_pool_of_the_callers_is_used_and_given_back(postgres_url: str) -> None:
    """Every verb works on the pool's connections, more calls than it has wait, and it is whole afterwards."""
    async with asyncpg.create_pool(postgres_url, min_size=1, max_size=3) as pool:
        store = postgres_store_over(pool, settings(postgres_url), 64 * MB, SystemClock())()
        await store.open()
        epoch = (await store.join(None)).position.epoch
        await asyncio.gather(*(store.commit([put(f"p{i}", b"%d" % i)], epoch) for i in range(20)))
        found = await asyncio.gather(*(store.get(address(f"p{i}")) for i in range(20)))
        assert found == [b"%d" % i for i in range(20)]
        call = asyncio.ensure_future(store.get(address("p1")))
        await asyncio.sleep(0)
        call.cancel()
        assert await store.get(address("p2")) == b"2"
        assert await store.lease(address("p"), b"t", 5.0)
        await store.close()
        assert pool.get_idle_size() == pool.get_size()
        assert await pool.fetchval("SELECT 7") == 7


async def test_on_another_loop_a_store_over_a_pool_connects_by_itself(postgres_url: str) -> None:
    """A pool belongs to one event loop: the store of a thread's loop has connections of its own."""
    async with asyncpg.create_pool(postgres_url, min_size=1, max_size=1) as pool:
        make = postgres_store_over(pool, settings(postgres_url), 64 * MB, SystemClock())
        store = make()
        await store.commit([put("over", b"7")], 0)
        found: list[object] = []

        async def read() -> None:
            there = make()
            found.append(await there.get(address("over")))
            await there.close()

        thread = threading.Thread(target=lambda: asyncio.run(read()))
        thread.start()
        await asyncio.to_thread(thread.join)
        assert found == [b"7"]
        await store.close()
