"""Loads that hang for ever, beside loads of other keys in the same namespace, which must not notice."""

import asyncio
import contextlib
import random
from collections.abc import Mapping
from statistics import median
from time import perf_counter
from typing import Any

from bench.report import Section, Table, Verdict

from genesis_cache.cache import Cache
from genesis_cache.model.errors import LoaderTimeout

ORIGIN_S = 0.005
RATE = 200  # calls begun a second
HANGS = 10  # one load in so many
ROUNDS = 7
SECONDS = 4.0  # a round
HARD_S = 0.25
MOST = 1.25  # times the median latency without loads that hang

COLUMNS = ["", "healthy calls", "p50 ms", "p99 ms", "x p50 without", "x p99 without", "hung calls answered in ms, most"]


class Round:
    """Calls of ever new keys at a steady rate, of which some hang."""

    def __init__(self, cache: Cache, *, hangs: bool, options: Mapping[str, Any]) -> None:
        self.cache = cache.namespace("n")
        self.hangs = hangs
        self.options = options
        self.healthy: list[float] = []
        self.hung: list[float] = []

    async def run(self, seconds: float, number: int) -> None:
        """One call after the other, none waiting for another."""
        dice = random.Random(number)
        tasks = []
        for n in range(int(RATE * seconds)):
            await asyncio.sleep(dice.expovariate(RATE))
            is_hung = self.hangs and n % HANGS == 0
            tasks.append(asyncio.create_task(self._call(f"{number}:{n}", is_hung=is_hung)))
        await asyncio.wait(tasks)

    async def _call(self, key: str, *, is_hung: bool) -> None:
        began = perf_counter()
        with contextlib.suppress(LoaderTimeout):
            await self.cache.get_or_set(key, _hang if is_hung else _load, **self.options)
        (self.hung if is_hung else self.healthy).append(perf_counter() - began)


async def _hang() -> None:
    await asyncio.Event().wait()


async def _load() -> int:
    await asyncio.sleep(ORIGIN_S)
    return 1


def section(*, quick: bool) -> Section:
    """Rounds with and without loads that hang take turns."""
    rounds, seconds = (1, 0.3) if quick else (ROUNDS, SECONDS)
    without, beside = asyncio.run(_measured(rounds, seconds))
    one_key = asyncio.run(_one_key(rounds, seconds))
    ratio = median(beside[0]) / median(without[0])
    key_ratio = median(one_key[1]) / median(one_key[0])
    return Section(
        "Loads that hang",
        f"New keys of one namespace at {RATE} a second, whose loads take {ORIGIN_S * 1000:.0f} ms; every tenth load "
        f"never ends, and its caller has a hard_timeout of {HARD_S:g} s. Rounds with and without the hung loads take "
        "turns in one process. The last row: ten keys with a ttl of 50 ms, of which the load of one never ends and "
        "its callers have no timeout at all.",
        [
            Table(
                "",
                COLUMNS,
                [
                    _row("none hangs", without, without),
                    _row("1 load of 10 hangs", beside, without),
                    _row("1 key of 10 hangs", (one_key[1], []), (one_key[0], [])),
                ],
            )
        ],
        [
            Verdict("1 of 10 loads hangs", "others keep their latency", f"{ratio:.2f} x at p50", ratio <= MOST),
            Verdict("1 of 10 keys hangs", "others keep their latency", f"{key_ratio:.2f} x at p50", key_ratio <= MOST),
        ],
    )


Latencies = tuple[list[float], list[float]]


async def _measured(rounds: int, seconds: float) -> tuple[Latencies, Latencies]:
    found: dict[bool, Latencies] = {False: ([], []), True: ([], [])}
    for number in range(rounds):
        for hangs in (False, True) if number % 2 else (True, False):
            async with Cache.from_url("memory://") as cache:
                one = Round(cache, hangs=hangs, options={"ttl": 60, "hard_timeout": HARD_S})
                await one.run(seconds, number)
                found[hangs][0].extend(one.healthy)
                found[hangs][1].extend(one.hung)
                _end_hung()
    return found[False], found[True]


async def _one_key(rounds: int, seconds: float) -> tuple[list[float], list[float]]:
    found: dict[bool, list[float]] = {False: [], True: []}
    for number in range(rounds):
        for hangs in (False, True) if number % 2 else (True, False):
            async with Cache.from_url("memory://") as cache:
                waiting = [asyncio.create_task(cache.get_or_set("k0", _hang)) for _ in range(100)] if hangs else []
                until = perf_counter() + seconds
                await asyncio.gather(*(_visit(cache, f"k{n}", until, found[hangs]) for n in range(1, 10)))
                for task in waiting:
                    task.cancel()
                await asyncio.gather(*waiting, return_exceptions=True)
                _end_hung()
    return found[False], found[True]


async def _visit(cache: Cache, key: str, until: float, seconds: list[float]) -> None:
    while perf_counter() < until:
        began = perf_counter()
        await cache.get_or_set(key, _load, ttl=0.05)
        seconds.append(perf_counter() - began)
        await asyncio.sleep(0.05)


def _end_hung() -> None:
    """So that closing does not wait for what never ends."""
    for task in asyncio.all_tasks() - {asyncio.current_task()}:
        task.cancel()


def _row(name: str, found: Latencies, base: Latencies) -> list[str]:
    p50, p99 = (_quantile(found[0], share) for share in (0.5, 0.99))
    base_p50, base_p99 = (_quantile(base[0], share) for share in (0.5, 0.99))
    most = f"{max(found[1]) * 1000:.0f}" if found[1] else ""
    return [
        name,
        f"{len(found[0]):,}",
        f"{p50 * 1000:.2f}",
        f"{p99 * 1000:.2f}",
        f"{p50 / base_p50:.2f}",
        f"{p99 / base_p99:.2f}",
        most,
    ]


def _quantile(seconds: list[float], share: float) -> float:
    ordered = sorted(seconds)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
