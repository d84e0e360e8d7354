"""What the contract of remote stores does to a server: empties it, sets it back, cuts its connections."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import asyncpg
import pytest

from genesis_cache.testing.servers import PostgresServer, RedisCluster, RedisServer, debug_options


class RedisHooks:
    """A private Redis server for the tests of a class."""

    server: RedisServer

    @pytest.fixture(autouse=True, scope="class")
    @classmethod
    def _server(cls) -> Iterator[None]:
        with RedisServer(None, *debug_options()) as cls.server:
            yield

    async def lose_everything(self) -> None:
        self.server.ask("FLUSHALL")

    async def save(self) -> None:
        self.server.ask("SAVE")

    async def set_back(self) -> None:
        self.server.restart()

    async def cut_connections(self) -> None:
        self.server.ask("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")

    async def trim_log(self, cache_name: str) -> None:
        _trim(self.server)


class RestartedRedisHooks(RedisHooks):
    """The same faults, come about in other ways: restarted empty, and set back while it runs."""

    async def lose_everything(self) -> None:
        self.server.kill()
        (self.server.folder / "dump.rdb").unlink(missing_ok=True)
        self.server.start()

    async def set_back(self) -> None:
        self.server.ask("DEBUG", "RELOAD", "NOSAVE")


class ClusterHooks:
    """A private cluster of three nodes for the tests of a class."""

    cluster: RedisCluster

    @pytest.fixture(autouse=True, scope="class")
    @classmethod
    def _cluster(cls) -> Iterator[None]:
        with RedisCluster(*debug_options()) as cls.cluster:
            yield

    async def lose_everything(self) -> None:
        for node in self.cluster.nodes:
            node.ask("FLUSHALL")

    async def save(self) -> None:
        for node in self.cluster.nodes:
            node.ask("SAVE")

    async def set_back(self) -> None:
        for node in self.cluster.nodes:
            node.ask("DEBUG", "RELOAD", "NOSAVE")

    async def cut_connections(self) -> None:
        for node in self.cluster.nodes:
            node.ask("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")

    async def trim_log(self, cache_name: str) -> None:
        for node in self.cluster.nodes:
            _trim(node)


def _trim(server: RedisServer) -> None:
    keys = server.ask("KEYS", "*")
    assert isinstance(keys, list)
    for key in keys:
        assert isinstance(key, bytes)
        if server.ask("TYPE", key) == b"stream":
            server.ask("XTRIM", key, "MAXLEN", 1)


class PostgresHooks:
    """A private PostgreSQL for the tests of a class; what is done to it is done to its database."""

    server: PostgresServer
    options: tuple[str, ...] = ()

    @pytest.fixture(autouse=True, scope="class")
    @classmethod
    def _server(cls, database_template: Path) -> Iterator[None]:
        with PostgresServer(None, *cls.options, template=database_template) as cls.server:
            yield

    async def lose_everything(self) -> None:
        await self._outside("DROP DATABASE cache WITH (FORCE)", "CREATE DATABASE cache")

    async def save(self) -> None:
        await self._outside(_END_OTHERS, "DROP DATABASE IF EXISTS saved", "CREATE DATABASE saved TEMPLATE cache")

    async def set_back(self) -> None:
        await self._outside("DROP DATABASE cache WITH (FORCE)", "CREATE DATABASE cache TEMPLATE saved")

    async def cut_connections(self) -> None:
        await self._outside(_END_OTHERS)

    async def trim_log(self, cache_name: str) -> None:
        connection = await asyncpg.connect(self.server.url)
        try:
            for (name,) in await connection.fetch(_LOGS):
                await connection.execute(_TRIM.format(log=name, control=f"{name[:-3]}control"))
        finally:
            await connection.close()

    async def _outside(self, *statements: str) -> None:
        """Run statements from another database."""
        connection = await asyncpg.connect(self.server.url_at(self.server.port, "postgres"))
        try:
            for statement in statements:
                await _patiently(lambda statement=statement: connection.execute(statement))
        finally:
            await connection.close()


_END_OTHERS = """
    SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity
    WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'
"""
_TRIM = """
    WITH newest AS (SELECT cache, max(seq) AS seq FROM {log} GROUP BY cache),
    gone AS (DELETE FROM {log} AS l USING newest AS n WHERE l.cache = n.cache AND l.seq < n.seq RETURNING l.*),
    reach AS (SELECT cache, max(seq) AS seq FROM gone GROUP BY cache)
    UPDATE {control} AS control SET log_start = reach.seq FROM reach WHERE reach.cache = control.cache
"""
_LOGS = """
    SELECT format('%I.%I', schemaname, tablename) AS name FROM pg_tables
    WHERE tablename ~ 'log$' AND schemaname !~ '^pg_|information_schema'
"""


async def _patiently(act: Callable[[], Awaitable[object]]) -> None:
    """A database whose connections were ended is in use for a moment more."""
    for attempt in range(100):
        try:
            await act()
        except asyncpg.ObjectInUseError:
            if attempt == 99:
                raise
            await asyncio.sleep(0.02)
        else:
            return
