"""Redis hurt in every way: no verb raises, nothing old or foreign is served, and it comes back by itself."""

import asyncio
import logging
import socket
import threading
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field

import pytest
from tests.chaos.traffic import downs, nothing_old, observer, opened, owed, recovered, traffic, until

from genesis_cache.testing.servers import RedisError, RedisServer, debug_options

HURT_S = 0.7


@dataclass
class Harm:
    """What is done to a server, and how it is undone; both may block, so they run on a thread."""

    hurt: Callable[[RedisServer], object]
    mend: Callable[[RedisServer], object]
    options: tuple[str, ...] = field(default=())


def _kill_clients(server: RedisServer) -> None:
    server.ask("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")


def _ask_for_password(server: RedisServer) -> None:
    server.ask("CONFIG", "SET", "requirepass", "secret")
    server.password = "secret"  # noqa: S105  # made up
    _kill_clients(server)


def _no_password(server: RedisServer) -> None:
    server.ask("CONFIG", "SET", "requirepass", "")
    server.password = None


class _Held:
    """A connection that was there before no more were taken."""

    connection: socket.socket

    @classmethod
    def few_clients(cls, server: RedisServer) -> None:
        cls.connection = socket.create_connection(("127.0.0.1", server.port), 5)
        cls._say(b"CONFIG SET maxclients 1")
        cls._say(b"CLIENT KILL TYPE normal SKIPME yes")

    @classmethod
    def many_clients(cls, _: RedisServer) -> None:
        cls._say(b"CONFIG SET maxclients 1000")
        cls.connection.close()

    @classmethod
    def _say(cls, words: bytes) -> None:
        cls.connection.sendall(words + b"\r\n")
        assert cls.connection.recv(1000)[:1] in b"+:"


def _busy(server: RedisServer) -> None:
    server.ask("CONFIG", "SET", "lua-time-limit", 20)  # its name in every version
    script = "while true do end"

    def run() -> None:
        with pytest.raises(RedisError):
            server.ask("EVAL", script, 0)

    threading.Thread(target=run, daemon=True).start()


def _load_slowly(server: RedisServer) -> None:
    server.ask("SAVE")
    server.kill()
    answers_meanwhile = ["--loading-process-events-interval-bytes", "1024"]  # there is such a setting from version 7 on
    server.options = ["--key-load-delay", "15000", *(answers_meanwhile if debug_options() else [])]
    server.start()  # which waits until it has loaded


def _restart_empty(server: RedisServer) -> None:
    server.kill()
    (server.folder / "dump.rdb").unlink(missing_ok=True)
    server.start()


def _nothing(server: RedisServer) -> None:
    """It is well again by itself."""


HARMS = {
    "frozen": Harm(lambda server: server.freeze(), lambda server: server.thaw()),
    "killed": Harm(lambda server: server.kill(), lambda server: server.start()),
    "restarted empty": Harm(_restart_empty, _nothing),
    "restarted with what it had saved": Harm(lambda server: (server.ask("SAVE"), server.restart()), _nothing),
    "loading": Harm(_load_slowly, _nothing),
    "emptied": Harm(lambda server: server.ask("FLUSHALL"), _nothing),
    "connections cut": Harm(_kill_clients, _kill_clients),
    "scripts gone": Harm(lambda server: server.ask("SCRIPT", "FLUSH"), lambda server: server.ask("SCRIPT", "FLUSH")),
    "read-only": Harm(
        lambda server: server.ask("REPLICAOF", "127.0.0.1", 1), lambda server: server.ask("REPLICAOF", "NO", "ONE")
    ),
    "a replica without its primary": Harm(
        lambda server: (
            server.ask("CONFIG", "SET", "replica-serve-stale-data", "no"),
            server.ask("REPLICAOF", "127.0.0.1", 1),
        ),
        lambda server: server.ask("REPLICAOF", "NO", "ONE"),
    ),
    "full": Harm(
        lambda server: server.ask("CONFIG", "SET", "maxmemory", 1),
        lambda server: server.ask("CONFIG", "SET", "maxmemory", 0),
    ),
    "asking for a password": Harm(_ask_for_password, _no_password),
    "with too many clients": Harm(_Held.few_clients, _Held.many_clients),
    "busy with a script": Harm(_busy, lambda server: server.ask("SCRIPT", "KILL")),
    "evicting everything": Harm(
        lambda server: (
            server.ask("CONFIG", "SET", "maxmemory-policy", "allkeys-random"),
            server.ask("CONFIG", "SET", "maxmemory", 1),
        ),
        lambda server: server.ask("CONFIG", "SET", "maxmemory", 0),
    ),
}


@pytest.fixture
def warned(caplog: pytest.LogCaptureFixture) -> Iterator[Callable[[], list[str]]]:
    """The warnings of the cache so far."""
    with caplog.at_level(logging.WARNING, logger="genesis_cache"):
        yield lambda: [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


@pytest.mark.parametrize("name", HARMS)
async def test_traffic_goes_on(name: str, own_redis: RedisServer, warned: Callable[[], list[str]]) -> None:
    """Whatever happens to Redis, every verb works, values are right and fresh, and all is well again afterwards."""
    harm = HARMS[name]
    async with opened("memory://", own_redis.url) as cache, traffic(cache) as going:
        await asyncio.sleep(0.2)
        await asyncio.to_thread(harm.hurt, own_redis)
        await asyncio.sleep(HURT_S)
        await asyncio.to_thread(harm.mend, own_redis)
        await recovered(cache)
        await asyncio.sleep(0.2)
        await going.stop()
        await until(lambda: not owed(cache), "what was owed is paid")
        async with opened("memory://", own_redis.url) as other:
            await nothing_old(other, going)
        assert await cache.set("proof", name)
        async with observer(own_redis.url) as other:
            assert await other.get("proof") == name
    lines = [line for line in warned() if "not available" in line]
    assert len(lines) <= 3, "a line for each outage, not for each request"


@pytest.mark.parametrize("name", ["frozen", "killed", "restarted with what it had saved", "emptied", "connections cut"])
async def test_traffic_goes_on_over_a_database(
    name: str, own_redis: RedisServer, postgres_url: str, cache_name: str
) -> None:
    """With a database below, what it holds is served while Redis is hurt, and nothing old comes up from it."""
    harm, urls = HARMS[name], ("memory://", own_redis.url, postgres_url)
    async with opened(*urls, cache_name=cache_name) as cache, traffic(cache) as going:
        await cache.set("kept", 1)
        await asyncio.sleep(0.2)
        await asyncio.to_thread(harm.hurt, own_redis)
        await asyncio.sleep(HURT_S)
        await asyncio.to_thread(harm.mend, own_redis)
        await recovered(cache)
        await going.stop()
        await until(lambda: not owed(cache), "what was owed is paid")
        async with opened(*urls, cache_name=cache_name) as other:
            await nothing_old(other, going)


async def test_an_outage_is_told_once(own_redis: RedisServer, warned: Callable[[], list[str]]) -> None:
    """A dead Redis is one warning, however many requests meet it, and one line when it is back."""
    async with opened("memory://", own_redis.url) as cache:
        await cache.set("k", 1)
        own_redis.kill()
        for n in range(200):
            assert await cache.get(f"none {n}") is None
            assert not await cache.set(f"k{n}", n)
        assert len([line for line in warned() if "not available" in line]) == 1
        assert len(downs(cache)) == 1
        own_redis.start()
        await recovered(cache)
        assert await cache.set("k", 2)


async def test_what_is_owed_is_paid_first(own_redis: RedisServer) -> None:
    """What was deleted while Redis was frozen is seen by nobody here, and by no other once it is thawed and told."""
    async with opened("memory://", own_redis.url) as one, observer("memory://", own_redis.url) as two:
        kills: dict[str, Callable[[str], Awaitable[object]]] = {
            "deleted": one.delete,
            "tagged": lambda _: one.delete_by_tag("t"),
            "patterned": lambda key: one.delete_by_pattern(f"{key}*"),
        }
        for key in kills:
            await one.set(key, "old", tags=["t"] if key == "tagged" else [])
            assert await two.get(key) == "old"
        own_redis.freeze()
        outcomes = await asyncio.gather(*(kill(key) for key, kill in kills.items()))
        assert not any(outcomes)
        assert all(outcome.degraded == ("redis",) for outcome in outcomes)  # type: ignore[attr-defined]  # Outcome
        assert [await one.get(key) for key in kills] == [None] * 3
        own_redis.thaw()
        while owed(one):
            assert [await one.get(key) for key in kills] == [None] * 3
            await asyncio.sleep(0.005)

        async def unseen() -> bool:
            return [await two.get(key) for key in kills] == [None] * 3

        await until(unseen, "the other cache hears of it")
        async with observer(own_redis.url) as later:
            assert [await later.get(key) for key in kills] == [None] * 3


async def test_a_restored_backup_brings_nothing_back(own_redis: RedisServer) -> None:
    """Redis comes back with a dump from before an invalidation: nobody, old or new, sees the old value."""
    async with opened("memory://", own_redis.url) as one:
        await one.set("deleted", "old")
        await one.set("tagged", "old", tags=["t"])
        await asyncio.to_thread(own_redis.ask, "SAVE")
        assert await one.delete("deleted")
        assert await one.delete_by_tag("t")
        await asyncio.to_thread(own_redis.restart)
        async with opened("memory://", own_redis.url) as two:
            for cache in (one, two):
                assert await cache.get("deleted") is None
                assert await cache.get("tagged") is None
            await recovered(one)
            for cache in (one, two):
                assert await cache.get("deleted") is None
                assert await cache.get("tagged") is None


async def test_a_full_redis_keeps_what_it_has(own_redis: RedisServer) -> None:
    """Out of memory it is read on, what is deleted is deleted, and writing begins again when there is room."""
    async with opened(own_redis.url) as cache:
        for n in range(20):
            await cache.set(f"k{n}", n)
        own_redis.ask("CONFIG", "SET", "maxmemory", 1)
        for n in range(20, 30):
            assert not await cache.set(f"k{n}", n)
        assert [await cache.get(f"k{n}") for n in range(5, 10)] in ([5, 6, 7, 8, 9], [None] * 5)
        await cache.delete("k0")
        assert await cache.get("k0") is None
        own_redis.ask("CONFIG", "SET", "maxmemory", 0)
        await recovered(cache)
        assert await cache.get("k0") is None
        assert await cache.set("k30", 30)
        await until(lambda: cache.get("k30"), "what was written is read")
