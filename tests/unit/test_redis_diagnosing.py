"""What an operator is told of a Redis server, and with which remedy."""

import asyncio
import time
from collections.abc import Callable

import pytest

from genesis_cache.model.clock import Clock, SystemClock
from genesis_cache.model.finding import Finding, Severity
from genesis_cache.model.settings import CacheSettings
from genesis_cache.testing.clock import FakeClock
from genesis_cache.testing.servers import RedisServer
from genesis_cache.testing.store_words import MB
from genesis_cache.tiers.redis.store import redis_store
from genesis_cache.tiers.remote_base import Outage

PATIENCE_S = 30.0


async def told(server: RedisServer, clock: Clock | None = None) -> dict[str, Finding]:
    """The findings by what was looked at."""
    store = redis_store(CacheSettings(redis_url=server.url), MB, clock or SystemClock())()
    await store.open()
    try:
        found = await store.diagnose()
    finally:
        await store.close()
    assert all(one.fix for one in found if one.severity is not Severity.OK)
    assert all(one.sentence.endswith(".") for one in found)
    return {one.subject.removeprefix("redis: "): one for one in found}


async def test_a_sound_server_is_called_sound(own_redis: RedisServer) -> None:
    """Version, role, memory, persistence, connections, clock, latency and permissions are each looked at."""
    found = await told(own_redis)
    looked_at = {"version", "role", "memory", "persistence", "connections", "clock", "latency", "permissions"}
    assert looked_at <= set(found)
    assert {one.severity for name, one in found.items() if name != "latency"} == {Severity.OK}
    assert f"127.0.0.1:{own_redis.port}" in found["version"].sentence


@pytest.mark.parametrize(
    ("policy", "severity", "fix"),
    [
        ("allkeys-lru", Severity.ADVICE, "volatile-ttl"),
        ("noeviction", Severity.FAULT, "maxmemory"),
        ("volatile-ttl", Severity.OK, ""),
    ],
)
async def test_the_memory_policy_is_judged(
    start_redis: Callable[..., RedisServer], policy: str, severity: Severity, fix: str
) -> None:
    """A policy that may take the books is advised against; a full server that takes nothing is a fault."""
    server = start_redis("--maxmemory-policy", policy)
    server.ask("SET", "ballast", bytes(4 * MB))
    server.ask("CONFIG", "SET", "maxmemory", "5500000")
    finding = (await told(server))["memory"]
    assert finding.severity is severity
    assert fix in finding.fix
    assert policy in finding.sentence


async def told_at_last(server: RedisServer) -> dict[str, Finding]:
    """What is found once the server has noticed that an earlier connection is gone."""
    end = time.monotonic() + PATIENCE_S
    while True:
        try:
            return await told(server)
        except Outage:
            assert time.monotonic() < end
            await asyncio.sleep(0.01)


async def test_crowds_short_timeouts_and_failed_saves_are_told(start_redis: Callable[..., RedisServer]) -> None:
    """Few free connections and a short idle timeout are advice; a server that cannot save is a fault."""
    server = start_redis("--maxclients", "33")
    server.ask("CONFIG", "SET", "timeout", "5")
    server.ask("CONFIG", "SET", "maxclients", "1")
    found = await told_at_last(server)
    assert found["connections"].severity is Severity.ADVICE
    assert found["idle timeout"].severity is Severity.ADVICE
    assert "5 s" in found["idle timeout"].sentence


async def test_a_clock_that_is_apart_is_told(own_redis: RedisServer) -> None:
    """The server's clock against this machine's, with the direction."""
    finding = (await told(own_redis, FakeClock()))["clock"]
    assert finding.severity is Severity.ADVICE
    assert "ahead of" in finding.sentence
