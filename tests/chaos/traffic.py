"""Traffic: every verb of a cache at once, on values that name their key and version, whatever happens to its servers.

The versions are the truth's own: a change makes a new one before it is told to the cache, so that a read that begins
after the change has returned must find that version or a younger one, in this process, in every outage.
"""

import asyncio
import contextlib
import random
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

from genesis_cache import Cache, CacheSettings

KEYS = [f"k{n}" for n in range(16)]
WORKERS = 6
PATIENCE_S = 20.0
TAGS = 4


class Traffic:
    """Workers that use a cache until they are stopped; what they saw that must not be is in `faults`."""

    def __init__(self, cache: Cache, seed: int = 0) -> None:
        self.cache = cache
        self.faults: list[str] = []
        self.done = 0
        self.truth = dict.fromkeys(KEYS, 0)
        self.floor = dict.fromkeys(KEYS, 0)
        """The version that a read which begins now must find, or a younger one."""
        self._by = dict.fromkeys(KEYS, "")
        self._locks = {key: asyncio.Lock() for key in KEYS}
        self.workers: list[asyncio.Future[None]] = []
        self._stopped = False
        self._dice = random.Random(seed)
        self._verbs: list[tuple[Callable[[str], Awaitable[object]], int]] = [
            (self._get, 40), (self._get_or_set, 30), (self._get_many, 5), (self._get_or_set_many, 5), (self._set, 6),
            (self._set_many, 2), (self._delete, 6), (self._delete_by_tag, 3), (self._delete_by_pattern, 2),
            (self._clear, 1), (self._touch, 1), (self._explain, 1),
        ]  # fmt: skip

    async def work(self) -> None:
        """One worker."""
        verbs, weights = zip(*self._verbs, strict=True)
        while not self._stopped:
            (verb,) = self._dice.choices(verbs, weights)
            try:
                await verb(self._dice.choice(KEYS))
            except Exception:  # noqa: BLE001  # that none comes out is the very thing under test
                self.faults.append(f"{verb.__name__} raised {traceback.format_exc(limit=-3)}")
            self.done += 1
            await asyncio.sleep(self._dice.random() * 0.004)

    async def stop(self) -> None:
        """Let the workers end after what they are doing, and wait for it: what is known is final then."""
        self._stopped = True
        if self.workers:
            await asyncio.wait(self.workers, timeout=PATIENCE_S)

    def verify(self, key: str, value: Any, floor: int, what: str) -> None:
        """A value must name its key, and be no older than what was known when the read began."""
        if value is None:
            return
        if not isinstance(value, dict) or value.get("key") != key:
            self.faults.append(f"{what} of {key} gave {value!r:.200}")
        elif value["version"] < floor:
            told = f"{what} of {key} gave version {value['version']}"
            self.faults.append(f"{told}, and {floor} was known ({self._by[key]})")

    async def load(self, key: str) -> dict[str, object]:
        """What the database says."""
        version = self.truth[key]
        await asyncio.sleep(self._dice.random() * 0.003)
        return _named(key, version)

    async def _get(self, key: str) -> None:
        floor = self.floor[key]
        self.verify(key, await self.cache.get(key), floor, "get")

    async def _get_or_set(self, key: str) -> None:
        floor = self.floor[key]
        value = await self.cache.get_or_set(key, lambda: self.load(key), ttl=60, tags=[_tag(key)])
        if value is None:
            self.faults.append(f"get_or_set of {key} gave nothing")
        self.verify(key, value, floor, "get_or_set")

    async def _get_many(self, key: str) -> None:
        floors = dict(self.floor)
        for found, value in (await self.cache.get_many(KEYS[:8])).items():
            self.verify(found, value, floors[found], "get_many")

    async def _get_or_set_many(self, key: str) -> None:
        floors = dict(self.floor)

        async def load(keys: Sequence[str]) -> dict[str, object]:
            return {one: await self.load(one) for one in keys}

        values = await self.cache.get_or_set_many(KEYS[8:], load, ttl=60)
        for found, value in values.items():
            self.verify(found, value, floors[found], "get_or_set_many")

    async def _set(self, key: str) -> None:
        async with self._changed([key], "set"):
            await self.cache.set(key, _named(key, self.truth[key]), ttl=60, tags=[_tag(key)])

    async def _set_many(self, key: str) -> None:
        async with self._changed(KEYS[:4], "set_many"):
            await self.cache.set_many({one: _named(one, self.truth[one]) for one in KEYS[:4]}, ttl=60)

    async def _delete(self, key: str) -> None:
        async with self._changed([key], "delete"):
            await self.cache.delete(key)

    async def _delete_by_tag(self, key: str) -> None:
        with contextlib.suppress(KeyError):  # values that were set in bulk bear no tag, so this proves nothing of them
            await self.cache.delete_by_tag(_tag(key))

    async def _delete_by_pattern(self, key: str) -> None:
        async with self._changed([one for one in KEYS if one.startswith("k1")], "delete_by_pattern"):
            await self.cache.delete_by_pattern("k1*")

    async def _clear(self, key: str) -> None:
        async with self._changed(KEYS, "clear"):
            await self.cache.clear()

    async def _touch(self, key: str) -> None:
        await self.cache.touch(key, 30)

    async def _explain(self, key: str) -> None:
        await self.cache.explain(key)

    @contextlib.asynccontextmanager
    async def _changed(self, keys: Sequence[str], what: str) -> AsyncIterator[None]:
        """The truth changes, the cache is told, and from then on readers may know."""
        async with contextlib.AsyncExitStack() as stack:
            for key in sorted(keys):
                await stack.enter_async_context(self._locks[key])
            for key in keys:
                self.truth[key] += 1
            versions = {key: self.truth[key] for key in keys}
            yield
            self.floor.update(versions)
            self._by.update(dict.fromkeys(keys, what))


@contextlib.asynccontextmanager
async def traffic(cache: Cache, seed: int = 0) -> AsyncIterator[Traffic]:
    """Workers on a cache; at the end none has seen what must not be."""
    going = Traffic(cache, seed)
    workers = [asyncio.ensure_future(going.work()) for _ in range(WORKERS)]
    going.workers = workers
    try:
        yield going
    finally:
        await going.stop()
        hung = [worker for worker in workers if not worker.done()]
        for worker in hung:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)
    assert not hung, f"{len(hung)} calls never came back"
    assert not going.faults, going.faults[:5]


def opened(*urls: str, **settings: object) -> Cache:
    """A cache for tests of outages: calls that are given up after a second, not five."""
    given = {"redis_socket_timeout": 1.0, "redis_connection_timeout": 1.0, **settings}
    return Cache(CacheSettings().with_urls(*urls).with_overrides(**given))


def observer(*urls: str, **settings: object) -> Cache:
    """The same for whoever looks at what is stored: a busy machine's late reply is waited for, and is no miss."""
    return opened(*urls, cache_far_budget_ms=20_000, **settings)


async def until(condition: Callable[[], object | Awaitable[object]], what: str) -> None:
    """Wait for what must come about by itself."""
    end = asyncio.get_running_loop().time() + PATIENCE_S
    while True:
        found = condition()
        if isinstance(found, Awaitable):
            found = await found
        if found:
            return
        assert asyncio.get_running_loop().time() < end, f"it never came about: {what}"
        await asyncio.sleep(0.01)


def downs(cache: Cache) -> list[str]:
    """Why which tiers are out of use."""
    return [lane.tier.down for lane in cache._engine.core.lanes if lane.tier.down is not None]


def owed(cache: Cache) -> int:
    """How many invalidations the tiers are still owed."""
    return sum(lane.owed for lane in cache._engine.core.lanes)


async def recovered(cache: Cache) -> None:
    """All tiers are in use again and have been told everything."""
    await until(lambda: not downs(cache) and not owed(cache), "every tier is back and paid")


async def nothing_old(cache: Cache, known: Traffic) -> None:
    """Somebody who begins now finds nothing older than what was known; for when the traffic rests."""
    for key in KEYS:
        known.verify(key, await cache.get(key), known.floor[key], "another's get")
    assert not known.faults, known.faults[:5]


def _named(key: str, version: int) -> dict[str, object]:
    return {"key": key, "version": version, "filler": key * 50}


def _tag(key: str) -> str:
    return f"t{int(key[1:]) % TAGS}"
