"""A PostgreSQL store behind a pooler in transaction mode: here one that gives each transaction another session."""

import asyncio
import contextlib
import os
import struct
import subprocess
import sys
from collections import deque
from collections.abc import Iterator
from typing import Any, ClassVar
from urllib.parse import quote, urlsplit

import asyncpg
import pytest

from genesis_cache.model.clock import Clock
from genesis_cache.model.settings import CacheSettings
from genesis_cache.testing.remote_stores import RemoteStoreContract
from genesis_cache.testing.store_words import kill
from genesis_cache.tiers.base import Kind
from genesis_cache.tiers.postgres.schema import cache_id
from genesis_cache.tiers.postgres.store import postgres_store
from genesis_cache.tiers.remote_base import RemoteStore

Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]

SSL_REQUEST, CANCEL_REQUEST = 80877103, 80877102
SESSIONS = 3


class Pooler:
    """Speaks the PostgreSQL protocol (version 3) on a port of its own, in a process of its own.

    A client has a session of the server from the first word of a transaction until the server is ready for the next
    one; then the session goes behind the others, so that what was left in it is found by somebody else.
    """

    def __init__(self, host: str, port: int) -> None:
        self._server = host, port
        self._free: deque[Stream] = deque()
        self._count = 0
        self._welcome = b""
        self._startup = b""

    async def serve(self) -> None:
        """Say the port, then serve until whoever started this process is gone."""
        server = await asyncio.start_server(self._client, "127.0.0.1", 0)
        print(server.sockets[0].getsockname()[1], flush=True)
        await asyncio.to_thread(sys.stdin.read)
        os._exit(0)

    async def _client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        client = Client(self, writer)
        with contextlib.suppress(OSError, EOFError, asyncio.CancelledError):
            try:
                await self._welcomed(reader, writer)
                while (said := await message(reader))[:1] != b"X":
                    await client.say(said)
            finally:
                client.leave()
                writer.close()

    async def _welcomed(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            (length,) = struct.unpack("!i", await reader.readexactly(4))
            startup = await reader.readexactly(length - 4)
            (code,) = struct.unpack("!i", startup[:4])
            if code == CANCEL_REQUEST:
                raise EOFError
            if code != SSL_REQUEST:
                break
            writer.write(b"N")
        self._startup = struct.pack("!i", length) + startup
        if not self._welcome:
            self.give(await self._session())
        writer.write(self._welcome)

    async def _session(self) -> Stream:
        """Another session of the server."""
        self._count += 1
        reader, writer = await asyncio.open_connection(*self._server)
        writer.write(self._startup)
        said = []
        while not said or said[-1][:1] != b"Z":
            said.append(await message(reader))
        self._welcome = b"".join(said)
        return reader, writer

    async def take(self) -> Stream:
        """The session that was free for longest, or another one."""
        while True:
            while self._free:
                session = self._free.popleft()
                if not session[0]._buffer and not session[0].at_eof():
                    return session  # the server has not ended it
                self.lose(session)
            if self._count < SESSIONS:
                return await self._session()
            await asyncio.sleep(0.001)

    def give(self, session: Stream) -> None:
        self._free.append(session)

    def lose(self, session: Stream) -> None:
        session[1].close()
        self._count -= 1


class Client:
    """One client, and the session that it has while a transaction lasts."""

    def __init__(self, pooler: Pooler, writer: asyncio.StreamWriter) -> None:
        self._pooler = pooler
        self._writer = writer
        self._session: Stream | None = None
        self._unanswered = 0
        self._answering: asyncio.Task[None] | None = None

    async def say(self, said: bytes) -> None:
        if self._session is None:
            self._session = await self._pooler.take()
            self._answering = asyncio.ensure_future(self._answer(self._session))
        self._unanswered += said[:1] in (b"S", b"Q")  # Sync and Query: the server says when it is ready again
        self._session[1].write(said)

    async def _answer(self, session: Stream) -> None:
        try:
            while True:
                answer = await message(session[0])
                self._writer.write(answer)
                self._unanswered -= answer[:1] == b"Z"
                if answer[:1] == b"Z" and answer[5:] == b"I" and self._unanswered == 0:
                    break
        except (OSError, EOFError):
            self._session = None
            self._pooler.lose(session)
            self._writer.close()
            return
        self._session = None
        self._pooler.give(session)

    def leave(self) -> None:
        session, self._session = self._session, None
        if session is not None and self._answering is not None:
            self._answering.cancel()
            self._pooler.lose(session)


async def message(reader: asyncio.StreamReader) -> bytes:
    """One message, its type and length included."""
    head = await reader.readexactly(5)
    (length,) = struct.unpack("!i", head[1:])
    return head + await reader.readexactly(length - 4)


TABLES = ("control", "entries", "log", "floors")


class PostgresContract(RemoteStoreContract):
    """How a PostgreSQL server is hurt: by SQL, in the schema of these tests."""

    parameters: ClassVar[str]
    prefix: ClassVar[str] = ""
    schema: ClassVar[str]

    @pytest.fixture(autouse=True)
    def _place(self, postgres_url: str) -> None:
        self.direct_url = postgres_url
        self.url = f"{postgres_url}?schema={self.schema}&{self.parameters}"

    def make_store(self, cache_name: str, capacity_bytes: int, clock: Clock) -> RemoteStore:
        printable = "".join(filter(str.isprintable, cache_name))  # as the settings want it
        settings = CacheSettings(database_url=self.url, cache_name=printable, redis_socket_timeout=30)
        return postgres_store(settings, capacity_bytes, clock)()

    async def sql(self, *statements: str) -> None:
        connection: Any = await asyncpg.connect(self.direct_url)
        try:
            async with connection.transaction():
                for statement in statements:
                    await connection.execute(statement.format(s=self.schema, u=self.prefix))
        finally:
            await connection.close()

    async def lose_everything(self) -> None:
        await self.sql("DROP SCHEMA {s} CASCADE")

    async def save(self) -> None:
        await self.sql("DROP SCHEMA IF EXISTS {s}_saved CASCADE", "CREATE SCHEMA {s}_saved")
        for table in TABLES:
            await self.sql(f"CREATE TABLE {{s}}_saved.{table} AS TABLE {{s}}.{{u}}{table}")

    async def set_back(self) -> None:
        restore = [f"INSERT INTO {{s}}.{{u}}{table} TABLE {{s}}_saved.{table}" for table in TABLES]
        await self.sql("TRUNCATE {s}.{u}control, {s}.{u}entries, {s}.{u}log, {s}.{u}floors", *restore)

    async def cut_connections(self) -> None:
        await self.sql(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )

    async def trim_log(self, cache_name: str) -> None:
        number = cache_id(cache_name)
        await self.sql(
            f"DELETE FROM {{s}}.{{u}}log WHERE cache = {number}",  # noqa: S608  # a number
            f"UPDATE {{s}}.{{u}}control SET log_start = seq WHERE cache = {number}",  # noqa: S608  # a number
        )


@pytest.fixture(scope="session")
def pooled_port(postgres_url: str) -> Iterator[int]:
    """The port of a pooler that serves all tests here."""
    parts = urlsplit(postgres_url)
    program = subprocess.Popen(  # noqa: S603  # our own program
        [sys.executable, __file__, str(parts.hostname), str(parts.port)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    with program:
        assert program.stdout
        yield int(program.stdout.readline())


class TestPooled(PostgresContract):
    """The contract, through the pooler; the log is polled."""

    parameters = "pooler=transaction"
    schema = "contract_pooled"

    @pytest.fixture(autouse=True)
    def _pooled(self, _place: None, pooled_port: int) -> None:
        port = urlsplit(self.direct_url).port
        self.url = self.url.replace(f":{port}/", f":{pooled_port}/", 1)

    async def test_a_second_url_listens(self) -> None:
        """With ``listen_url`` the log is heard past the pooler: both are examined, and a notice ends the wait."""
        writer = await self.opened()
        assert any("polled" in one.sentence for one in await writer.diagnose())
        self.url += f"&listen_url={quote(self.direct_url, safe='')}"
        listener = await self.opened()
        assert any("LISTEN is used" in one.sentence for one in await listener.diagnose())
        start = await self.position(listener)
        waiting = asyncio.ensure_future(listener.follow(start, 60.0))
        await asyncio.sleep(0.05)
        await self.commit(writer, kill(Kind.TAG, "red"))
        async with asyncio.timeout(10):
            assert [notice.name for notice in await waiting or []] == ["red"]


if __name__ == "__main__":
    asyncio.run(Pooler(sys.argv[1], int(sys.argv[2])).serve())
