"""The line-ups of tiers that every contract test runs over, and what is checked of them after each test."""

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from genesis_cache import Cache
from genesis_cache.model.notice import Position
from genesis_cache.model.settings import CacheSettings
from genesis_cache.testing.clock import FakeClock

LINEUPS = {
    "memory": ("memory",),
    "disk": ("disk",),
    "memory+disk": ("memory", "disk"),
    "memory+database": ("memory", "database"),
    "memory+disk+database": ("memory", "disk", "database"),
    "redis": ("redis",),
    "memory+redis": ("memory", "redis"),
    "memory+disk+redis": ("memory", "disk", "redis"),
    "memory+cluster": ("memory", "cluster"),
    "memory+postgres": ("memory", "postgres"),
    "memory+redis+postgres": ("memory", "redis", "postgres"),
}
"""Tiers by name; ``cluster`` is the redis tier on a cluster, ``postgres`` the database tier on PostgreSQL."""

SERVERS = {"redis": "redis_url", "cluster": "cluster_url", "postgres": "postgres_url"}
KINDS = {"cluster": "redis", "postgres": "database"}
HEAR_S = 0.02  # of a test's clock: more than a process waits before it looks at the log again
PATIENCE_S = 10.0
FOLLOW_S = 0.02  # for one question after news: the clock leaps often, and the next answer is waited for
NOWHERE = Position(0, -1)


class House:
    """One folder, one cache name, one clock, and the caches that a test opens there; closed and checked at its end."""

    def __init__(self, words: tuple[str, ...], folder: Path, servers: dict[str, str]) -> None:
        self.tiers = tuple(KINDS.get(word, word) for word in words)
        self.folder = folder
        self.clock = FakeClock()
        self.opened: list[Cache] = []
        self.is_remote = bool(servers)
        """Whether a tier is behind a server, whose log takes a moment to be heard."""
        self.options: dict[str, object] = {"cache_name": f"house-{secrets.token_hex(6)}"} if servers else {}
        """Settings that every cache of this house needs, for `Cache.from_url`."""
        self._places = {
            "memory": "memory://",
            "disk": f"disk://{folder}/disk",
            "database": f"sqlite:///{folder}/cache.db",
            **servers,
        }
        self._words = words
        self.options["cache_far_budget_ms"] = 1000 * PATIENCE_S  # no reader goes on without a slow machine's reply

    @property
    def near(self) -> bool:
        """Whether memory is among the tiers."""
        return "memory" in self.tiers

    @property
    def far(self) -> bool:
        """Whether a tier outlives the process."""
        return self.tiers != ("memory",)

    def urls(self) -> list[str]:
        """The line-up as `Cache.from_url` takes it."""
        return [self._places[word] for word in self._words]

    def settings(self, **overrides: object) -> CacheSettings:
        """Settings of the line-up, small enough for a test."""
        given = {"l1_cache_size_mb": 20, "l2_cache_size_mb": 20, "l3_cache_size_mb": 20, **self.options, **overrides}
        return CacheSettings().with_urls(*self.urls()).with_overrides(**given)

    def cache(self, **overrides: object) -> Cache:
        """A cache of the line-up on the house's clock, not opened yet."""
        cache = Cache(self.settings(**overrides), clock=self.clock)
        for tier in remote_tiers(cache):
            tier._follow_s = FOLLOW_S
        self.opened.append(cache)
        return cache

    def pass_time(self, seconds: float) -> None:
        """Let so much time pass for every cache of the house, and all of them hear the servers' logs at the new time.

        The clock leaps, and a server's answer from before the leap proves nothing about the time after it.
        """
        self.clock.advance(seconds)
        now, end = self.clock.now(), time.monotonic() + PATIENCE_S
        for tier in [tier for cache in self.opened for tier in remote_tiers(cache)]:
            while tier.heard_at is not None and tier.heard_at < now:
                assert time.monotonic() < end, "the log is not heard any more"
                time.sleep(0.001)  # it is heard on a thread of its own

    async def count(self, cache: Cache) -> None:
        """Have the figures of servers counted now; by themselves they are some seconds old."""
        for tier in remote_tiers(cache):
            await tier.sweep(0.01)

    @property
    def peeks(self) -> bool:
        """Whether the nearest tier can be read without waiting."""
        return self._words[0] not in SERVERS

    async def hear(self) -> None:
        """Let every cache of the house learn what the others have changed."""
        self.clock.advance(HEAR_S)
        if self.is_remote:
            tiers = [cache._engine.core.authority.tier for cache in self.opened if cache._engine.core.opened]
            told = max((tier.seq() for tier in tiers), default=0)
            await settled(lambda: all((tier.position() or NOWHERE).seq >= told for tier in tiers), PATIENCE_S)

    def forget_near(self, cache: Cache) -> None:
        """Empty a cache's memory, as evictions would."""
        memory = cache._engine.core.memory
        if memory is not None:
            memory.flush("size")

    async def close(self) -> None:
        """Close what is open, and have every store verify its books first."""
        for cache in self.opened:
            await close_checked(cache)


def remote_tiers(cache: Cache) -> list[Any]:
    """The tiers of a cache that are behind a server."""
    return [lane.tier for lane in cache._engine.core.lanes if lane.tier.is_shared]


def faults_of(cache: Cache) -> list[str]:
    """What the stores and the tables of a cache say is wrong with them."""
    core = cache._engine.core
    faults = [] if core.memory is None else core.memory.check()
    for lane in core.lanes:
        faults += lane.tier.check()
    faults += [
        f"{space.name!r} still has flights of {list(space.flights)}" for space in core.spaces.values() if space.flights
    ]
    faults += [
        f"{space.name!r} counts {space.gate.running} loads" for space in core.spaces.values() if space.gate.running
    ]
    if core.fills._active:
        faults.append(f"{core.fills._active} fills were begun and not ended")
    if core.loads_abandoned:
        faults.append(f"{core.loads_abandoned} loads count as abandoned")
    return faults


async def close_checked(cache: Cache) -> None:
    """Close a cache after its books were found sound."""
    core = cache._engine.core
    if not core.closed and core.opened:
        for _ in range(200):
            if not cache._engine.background._tasks:
                break
            await asyncio.sleep(0.002)
        faults = faults_of(cache)
        await cache.close()
        assert faults == []
    else:
        await cache.close()


@pytest.fixture(params=list(LINEUPS))
def tiers(request: pytest.FixtureRequest) -> tuple[str, ...]:
    """One line-up after the other."""
    return LINEUPS[request.param]


@pytest.fixture
def servers(tiers: tuple[str, ...], request: pytest.FixtureRequest) -> dict[str, str]:
    """Where the servers of the line-up are; only those are started."""
    return {word: request.getfixturevalue(SERVERS[word]) for word in tiers if word in SERVERS}


@pytest_asyncio.fixture
async def house(tiers: tuple[str, ...], servers: dict[str, str], tmp_path: Path) -> AsyncIterator[House]:
    """A place for caches of the line-up."""
    house = House(tiers, tmp_path, servers)
    yield house
    await house.close()


@pytest_asyncio.fixture
async def cache(house: House) -> Cache:
    """An open cache of the line-up."""
    cache = house.cache()
    await cache.open()
    return cache


class Gated:
    """A loader that tells when it has begun, and goes on only when it is let."""

    def __init__(self, value: object) -> None:
        self.value = value
        self.begun = asyncio.Event()
        self.go = asyncio.Event()
        self.calls = 0

    async def __call__(self) -> object:
        self.calls += 1
        value = self.value
        self.begun.set()
        await self.go.wait()
        return value


@pytest.fixture
def gated() -> Callable[[object], Gated]:
    """Makes loaders with a gate."""
    return Gated


class Counting:
    """A loader that counts its calls and returns a new value each time."""

    def __init__(self) -> None:
        self.calls = 0

    async def __call__(self) -> str:
        self.calls += 1
        return f"load {self.calls}"


@pytest.fixture
def counting() -> Counting:
    """A loader that counts its calls."""
    return Counting()


async def settled(condition: Callable[[], object | Awaitable[object]], seconds: float = 2.0) -> None:
    """Wait until something that goes on behind has come about."""
    end = asyncio.get_running_loop().time() + seconds
    while True:
        found = condition()
        if isinstance(found, Awaitable):
            found = await found
        if found:
            return
        assert asyncio.get_running_loop().time() < end, "it never came about"
        await asyncio.sleep(0.001)


@pytest.fixture(name="settled")
def settled_fixture() -> Callable[..., Awaitable[None]]:
    """Waits for what goes on behind."""
    return settled
