"""Kills of the connections that the log is followed on, while values change: no change is lost, and none is guessed."""

import asyncio
import random
from collections import deque
from collections.abc import Awaitable, Callable
from itertools import cycle
from time import monotonic
from typing import Any

import asyncpg
from tests.chaos.traffic import until

from genesis_cache import Cache, CacheSettings
from genesis_cache.model.settings import OnPartition
from genesis_cache.testing.servers import PostgresServer, RedisServer

FULL_DOSE = 1_000
READERS = 2
KEYS = [f"k{n}" for n in range(4000)]  # in turn, so that none is changed again before it was looked at
BOUND_S = 1.0
LIMITS = {"redis_socket_timeout": 5.0, "redis_connection_timeout": 5.0, "cache_far_budget_ms": 5000.0}
FOLLOWERS = (
    "SELECT pid FROM pg_stat_activity"
    " WHERE pid <> pg_backend_pid() AND (query LIKE 'LISTEN%' OR query LIKE '%log_start%')"
)

Kill = Callable[[], Awaitable[int]]


async def prove(dose: float) -> dict[str, object]:
    """1,000 kills over Redis and 1,000 over PostgreSQL."""
    one, two = await over_redis(int(FULL_DOSE * dose)), await over_postgres(int(FULL_DOSE * dose))
    return {name: one[name] + two[name] for name in one}


async def over_redis(kills: int) -> dict[str, Any]:
    """Kill the readers' blocked connections by ``CLIENT KILL``."""
    with RedisServer() as server:

        def kill() -> int:
            clients = [dict(field.split("=", 1) for field in line.split()) for line in _lines(server)]
            following = [one["id"] for one in clients if one["cmd"] in {"xread", "hmget"}]
            return sum(server.ask("CLIENT", "KILL", "ID", one) == 1 for one in following)

        return await _Storm(server.url, lambda: asyncio.to_thread(kill), kills).blow()


def _lines(server: RedisServer) -> list[str]:
    told = server.ask("CLIENT", "LIST")
    return told.decode().splitlines() if isinstance(told, bytes) else []


async def over_postgres(kills: int) -> dict[str, Any]:
    """End the backends that serve the readers' listening connections."""
    with PostgresServer() as server:
        admin = await asyncpg.connect(server.url)

        async def kill() -> int:
            ended = await admin.fetch(f"SELECT pg_terminate_backend(pid) AS was FROM ({FOLLOWERS}) f")  # noqa: S608  # our own text
            return sum(row["was"] for row in ended)

        try:
            return await _Storm(server.url, kill, kills).blow()
        finally:
            await admin.close()


class _Storm:
    """One cache that changes values, others that read them, and kills in between."""

    def __init__(self, url: str, kill: Kill, kills: int) -> None:
        settings = CacheSettings(cache_on_partition=OnPartition.BYPASS, cache_max_staleness=BOUND_S)
        self.settings = settings.with_urls("memory://", url).with_overrides(**LIMITS)
        self.kill = kill
        self.left = kills
        self.dice = random.Random(kills)
        self.due: deque[tuple[float, str, int]] = deque()
        """When a version was acknowledged, and of which key, in order."""
        self.figures: dict[str, Any] = {"kills": 0, "changes": 0, "started_over": 0, "faults": []}

    async def blow(self) -> dict[str, Any]:
        """The whole run."""
        caches = [Cache(self.settings) for _ in range(READERS + 1)]
        try:
            for cache in caches:
                await cache.open()
            writer, *readers = caches
            before = [cache._engine.core.floors.generation for cache in readers]
            working = [asyncio.ensure_future(self._write(writer, readers)), asyncio.ensure_future(self._look(readers))]
            try:
                await self._kill(readers)
            finally:
                self.left = 0
                await asyncio.gather(*working)
            await self._converge(writer, readers)
            after = [cache._engine.core.floors.generation for cache in readers]
            self.figures["started_over"] = sum(after) - sum(before)
        finally:
            for cache in caches:
                await cache.close()
        return self.figures

    async def _kill(self, readers: list[Cache]) -> None:
        tiers: list[Any] = [cache._engine.core.lanes[0].tier for cache in readers]
        while self.left > 0:
            killed_at = monotonic()
            done = await self.kill()
            self.figures["kills"] += done
            self.left -= done
            await until(lambda: all(tier.heard_at > killed_at for tier in tiers), "it hears again")  # noqa: B023  # awaited here
            await asyncio.sleep(self.dice.random() * 0.01)

    async def _write(self, writer: Cache, readers: list[Cache]) -> None:
        """Have a key in each reader's memory, then change it."""
        for version, key in enumerate(cycle(KEYS), start=1):
            if self.left <= 0:
                return
            await asyncio.gather(*(cache.get_or_set(key, lambda: 0) for cache in readers))
            outcome = await (writer.set(key, version) if version % 2 else writer.delete(key))
            self.figures["changes"] += 1
            if outcome:
                self.due.append((monotonic(), key, version))
            await asyncio.sleep(self.dice.random() * 0.003)

    async def _look(self, readers: list[Cache]) -> None:
        """A bound after a change was acknowledged no read may find what was before it."""
        while self.left > 0 or self.due:
            while self.due and self.due[0][0] < monotonic() - BOUND_S:
                _, key, version = self.due.popleft()
                for cache in readers:
                    value = cache.peek(key)
                    if value is not None and value < version:
                        told = f"a read of {key} gave {value}, and {version} was told {BOUND_S:g} s before"
                        self.figures["faults"].append(told)
            await asyncio.sleep(0.005)

    async def _converge(self, writer: Cache, readers: list[Cache]) -> None:
        """In the end each reader has heard everything, and holds nothing that is not in the server."""
        await writer.set("last", 1)
        for cache in readers:
            await until(lambda: cache.get("last"), "the last change is there")  # noqa: B023  # awaited here
            seq = writer._engine.core.floors.given
            await until(lambda: cache.peek("x") or cache._engine.hearing.heard_seq >= seq, "all is heard")  # noqa: B023  # as above
            for key in KEYS[: self.figures["changes"]]:
                near, there = cache.peek(key), await writer.get(key)
                if near is not None and near != there:
                    self.figures["faults"].append(f"in the end {key} is {near} in memory and {there} in the server")
