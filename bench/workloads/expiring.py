"""A thousand callers of a hundred keys that expire every second; the origin takes 100 ms and fails at times."""

import asyncio
import random
from collections.abc import Mapping
from time import perf_counter
from typing import Any

from bench.report import Section, Table, Verdict

from genesis_cache.cache import Cache

CALLERS = 1_000
KEYS = [f"key:{n}" for n in range(100)]
TTL_S = 1.0
ORIGIN_S = 0.1
FAILS = 0.05
THINKS_S = 0.05  # a caller between two calls
SECONDS = 20.0
MOST_CALLS = 1.1  # of the origin for each expiry
MOST_MS = 5.0  # p99 of callers

POLICIES: Mapping[str, Mapping[str, Any]] = {
    "stale allowed": {"stale_while_revalidate": 10, "stale_if_error": 60},
    "stale if error": {"stale_if_error": 60},
    "refreshed ahead": {"refresh_ahead": 0.8, "stale_if_error": 60},
    "never stale": {},
}
COLUMNS = ["policy", "calls", "origin calls", "expiries", "origin calls an expiry", "p50 us", "p99 ms", "errors"]


class Origin:
    """Takes 100 ms, fails once in twenty, and counts; knows when what it gave expires."""

    def __init__(self) -> None:
        self.calls = 0
        self.given = 0
        self.stored: list[float] = []
        """When each value began to live."""
        self.dice = random.Random(5)

    async def load(self) -> int:
        """A number, or an error."""
        self.calls += 1
        await asyncio.sleep(ORIGIN_S)
        if self.dice.random() < FAILS:
            msg = "the origin failed"
            raise ConnectionError(msg)
        self.given += 1
        self.stored.append(perf_counter())
        return self.given


class Callers:
    """What a thousand of them see."""

    def __init__(self, cache: Cache, origin: Origin, options: Mapping[str, Any]) -> None:
        self.cache = cache
        self.origin = origin
        self.options = options
        self.seconds: list[float] = []
        self.errors = 0
        self.until = 0.0

    async def warm(self) -> None:
        """Every key once, whatever the origin says, so that the run begins as it goes on."""
        for key in KEYS:
            await self.cache.set(key, 0, ttl=TTL_S, **self.options)
            self.origin.stored.append(perf_counter())

    async def run(self, seconds: float) -> None:
        """All of them, for so long."""
        self.until = perf_counter() + seconds
        await asyncio.gather(*(self._one(random.Random(n)) for n in range(CALLERS)))

    async def _one(self, dice: random.Random) -> None:
        await asyncio.sleep(dice.random() * THINKS_S)
        while perf_counter() < self.until:
            key = dice.choice(KEYS)
            began = perf_counter()
            try:
                await self.cache.get_or_set(key, self.origin.load, ttl=TTL_S, **self.options)
            except ConnectionError:
                self.errors += 1
            self.seconds.append(perf_counter() - began)
            await asyncio.sleep(THINKS_S)


def section(*, quick: bool) -> Section:
    """One row a policy; the first is judged."""
    seconds = 1.2 if quick else SECONDS
    results = {name: asyncio.run(_measured(options, seconds)) for name, options in POLICIES.items()}
    first = results["stale allowed"]
    ratio, p99_ms = _ratio(first), _quantile(first.seconds, 0.99) * 1000
    return Section(
        "Keys that expire under traffic",
        f"{CALLERS:,} callers, each thinking {THINKS_S * 1000:.0f} ms between two calls, of {len(KEYS)} keys that live "
        f"{TTL_S:g} s; the origin takes {ORIGIN_S * 1000:.0f} ms and fails {FAILS:.0%} of the time. {seconds:g} s a "
        "row, after every key was stored once. An expiry is a stored value whose ttl ran out during the run.",
        [Table("", COLUMNS, [_row(name, callers) for name, callers in results.items()])],
        [
            Verdict("expiring keys, origin calls", "at most 1.1 an expiry", f"{ratio:.3f}", ratio <= MOST_CALLS),
            Verdict(
                "expiring keys, callers, stale allowed", "p99 within 5 ms", f"p99 {p99_ms:.3f} ms", p99_ms <= MOST_MS
            ),
        ],
    )


async def _measured(options: Mapping[str, Any], seconds: float) -> Callers:
    async with Cache.from_url("memory://", default_ttl=3600) as cache:
        callers = Callers(cache, Origin(), options)
        await callers.warm()
        await callers.run(seconds)
        return callers


def _ratio(callers: Callers) -> float:
    return callers.origin.calls / max(1, _expiries(callers))


def _expiries(callers: Callers) -> int:
    return sum(stored + TTL_S <= callers.until for stored in callers.origin.stored)


def _row(name: str, callers: Callers) -> list[str]:
    return [
        name,
        f"{len(callers.seconds):,}",
        f"{callers.origin.calls:,}",
        f"{_expiries(callers):,}",
        f"{_ratio(callers):.3f}",
        f"{_quantile(callers.seconds, 0.5) * 1e6:.1f}",
        f"{_quantile(callers.seconds, 0.99) * 1000:.3f}",
        f"{callers.errors:,}",
    ]


def _quantile(seconds: list[float], share: float) -> float:
    ordered = sorted(seconds)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
