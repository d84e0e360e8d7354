"""Servers for tests: they begin, are hurt as one likes, and never outlive whoever started them."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import asyncpg
import pytest

from genesis_cache.testing.server_process import ServerFailed
from genesis_cache.testing.servers import PostgresServer, RedisError, RedisSentinel, RedisServer, find_postgres

SOURCE = Path(__file__).parents[2] / "src"
ORPHANED = """
import os, signal
from genesis_cache.testing.servers import RedisServer
first, second = RedisServer(), RedisServer()
first.start(); second.start(); second.freeze()
print(first.pid, first.folder, second.pid, second.folder, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def state_of(pid: int) -> str:
    """The letter that the kernel has for what a process does: T is stopped."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def test_a_redis_serves_and_says_why_it_refuses(own_redis: RedisServer) -> None:
    """A private Redis answers commands, and what it refuses is an error with its own words."""
    assert own_redis.ask("SET", "a", b"\x00\r\n") == b"OK"
    assert own_redis.ask("GET", "a") == b"\x00\r\n"
    assert own_redis.ask("MGET", "a", "b") == [b"\x00\r\n", None]
    with pytest.raises(RedisError, match="unknown command"):
        own_redis.ask("NONSENSE")


def test_a_frozen_redis_answers_nothing_until_it_is_thawed(own_redis: RedisServer) -> None:
    """Frozen it keeps its connections and says nothing; thawed it goes on with what it held."""
    own_redis.ask("SET", "a", 1)
    own_redis.freeze()
    assert own_redis.runs
    assert state_of(own_redis.pid) == "T"
    own_redis.thaw()
    assert own_redis.ask("GET", "a") == b"1"


def test_a_killed_redis_comes_back_empty_or_with_what_it_saved(own_redis: RedisServer) -> None:
    """After a kill the port is the same, and only what was saved is there."""
    port = own_redis.port
    own_redis.ask("SET", "a", 1)
    own_redis.ask("SAVE")
    own_redis.ask("SET", "b", 1)
    own_redis.kill()
    assert not own_redis.runs
    own_redis.start()
    assert own_redis.port == port
    assert own_redis.ask("MGET", "a", "b") == [b"1", None]


def test_a_password_is_asked_for_and_part_of_the_url(start_redis: Callable[..., RedisServer]) -> None:
    """A server with a password lets in whoever uses its URL."""
    server = start_redis(password="a/b:c@d")  # noqa: S106  # made up
    assert server.ask("PING") == b"PONG"
    assert server.url == f"redis://:a%2Fb%3Ac%40d@127.0.0.1:{server.port}/0"
    server.password = None
    with pytest.raises(RedisError, match="NOAUTH"):
        server.ask("PING")


def test_a_server_that_cannot_begin_says_why(start_redis: Callable[..., RedisServer]) -> None:
    """The error ends with the server's own words."""
    with pytest.raises(ServerFailed, match="nonsense"):
        start_redis("--nonsense", "1")


def test_servers_end_with_whoever_started_them() -> None:
    """After ``kill -9`` of their process the servers, a frozen one too, and their folders are gone in seconds."""
    ran = subprocess.run(  # noqa: S603  # our own interpreter and text
        [sys.executable, "-c", ORPHANED],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(SOURCE)},
    )
    first, first_folder, second, second_folder = ran.stdout.split()
    end = time.monotonic() + 20
    while time.monotonic() < end and (Path(first_folder).exists() or Path(second_folder).exists()):
        time.sleep(0.05)
    assert not Path(first_folder).exists()
    assert not Path(second_folder).exists()
    while time.monotonic() < end and any(Path("/proc", pid).exists() for pid in (first, second)):
        time.sleep(0.05)  # whoever inherits it has to take note of its end
    for pid in (first, second):
        with pytest.raises(ProcessLookupError):
            os.kill(int(pid), 0)


def test_a_cluster_serves_every_slot(cluster_url: str) -> None:
    """Three nodes share the slots and know of each other."""
    port = int(cluster_url.rpartition(":")[2])
    node = RedisServer()
    try:
        node.port = port
        slots = node.ask("CLUSTER", "SLOTS")
    finally:
        node.port = 0
        node.stop()
    assert isinstance(slots, list)
    assert len(slots) == 3


def test_a_sentinel_puts_the_replica_in_the_primarys_place(own_sentinel: RedisSentinel) -> None:
    """When the primary is killed its replica takes over with its data, and the Sentinel says so."""
    own_sentinel.primary.ask("SET", "a", 1)
    own_sentinel.catch_up()
    own_sentinel.fail_over()
    assert own_sentinel.replica.ask("GET", "a") == b"1"
    assert own_sentinel.replica.ask("SET", "a", 2) == b"OK"


async def test_a_postgres_is_frozen_thawed_killed_and_started_again(own_postgres: PostgresServer) -> None:
    """A private PostgreSQL is never root, survives a kill with what was committed, and keeps its port."""
    connection = await asyncpg.connect(own_postgres.url)
    await connection.execute("CREATE TABLE kept (a int)")
    backend = await connection.fetchval("SELECT pg_backend_pid()")
    own_postgres.freeze()
    assert state_of(backend) == "T"
    assert Path(f"/proc/{backend}").stat().st_uid != 0  # noqa: ASYNC240  # proc never waits
    own_postgres.thaw()
    assert await connection.fetchval("SELECT count(*) FROM kept") == 0
    connection.terminate()
    port = own_postgres.port
    own_postgres.restart()
    assert own_postgres.port == port
    again = await asyncpg.connect(own_postgres.url)
    assert await again.fetchval("SELECT count(*) FROM kept") == 0
    await again.close()


async def test_a_postgres_with_a_password_asks_for_it() -> None:
    """The URL lets in; without its password nobody gets in."""
    with PostgresServer(password="a/b:c@d") as server:  # noqa: S106  # made up
        connection = await asyncpg.connect(server.url)
        await connection.close()
        with pytest.raises(asyncpg.InvalidPasswordError):
            await asyncpg.connect(server.url.replace("a%2Fb%3Ac%40d", "wrong"))


async def test_the_shared_servers_are_this_workers_own_places(redis_url: str, postgres_url: str) -> None:
    """The shared Redis and PostgreSQL answer."""
    connection = await asyncpg.connect(postgres_url)
    assert await connection.fetchval("SELECT 1") == 1
    await connection.close()
    assert redis_url.startswith("redis")
    assert (find_postgres() / "initdb").exists()


def test_stopping_is_safe_in_any_state() -> None:
    """Stopped before its start, twice, or frozen: nothing is left."""
    server = RedisServer()
    server.stop()
    server = RedisServer()
    server.start()
    pid = server.pid
    server.freeze()
    server.stop()
    server.stop()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, signal.SIGCONT)
