"""A stampede: many callers of one cold key, and what becomes of the followers when the leader is cancelled."""

# ruff: noqa: PLC0415  # a peer is imported where it is measured, so that a missing one leaves the others

import asyncio
from collections.abc import Awaitable, Callable
from time import perf_counter

from bench.report import Section, Table, Verdict

from genesis_cache.cache import Cache

CALLERS = 1_000
FOLLOWERS = 10
ORIGIN_S = 0.05
ANSWER = 42
ALL_SERVED = f"{FOLLOWERS}/{FOLLOWERS}"
COLUMNS = ["library", "origin calls", "us over the origin, a caller", "followers served", "their origin calls"]

Load = Callable[[], Awaitable[int]]
Call = Callable[[], Awaitable[int]]
Library = Callable[[Load], Awaitable[Call]]


class Origin:
    """Takes 50 ms and counts."""

    def __init__(self) -> None:
        self.calls = 0

    async def load(self) -> int:
        """The answer."""
        self.calls += 1
        await asyncio.sleep(ORIGIN_S)
        return ANSWER


def section(*, quick: bool) -> Section:
    """One table over the libraries; ``quick`` changes nothing, a run takes under a second."""
    del quick
    rows = [row for name, library in LIBRARIES.items() if (row := asyncio.run(_row(name, library))) is not None]
    calls, served = rows[0][1], rows[0][3]
    return Section(
        "Stampede",
        f"{CALLERS:,} callers of one cold key whose origin takes {ORIGIN_S * 1000:.0f} ms. Then, on another key, the "
        f"first of {FOLLOWERS + 1} callers is cancelled while it loads.",
        [Table("", COLUMNS, rows)],
        [
            Verdict("stampede", "one load for 1,000 callers", f"{calls} load", calls == "1"),
            Verdict(
                "stampede, leader cancelled", "no other caller is harmed", f"{served} served", served == ALL_SERVED
            ),
        ],
    )


async def _row(name: str, library: Library) -> list[str] | None:
    first, second = Origin(), Origin()
    try:
        call = await library(first.load)
        began = perf_counter()
        await asyncio.gather(*(call() for _ in range(CALLERS)))
        over_us = (perf_counter() - began - ORIGIN_S) / CALLERS * 1e6
        call = await library(second.load)
    except ImportError:
        return None
    leader = asyncio.ensure_future(call())
    await asyncio.sleep(ORIGIN_S / 5)
    followers = [asyncio.ensure_future(call()) for _ in range(FOLLOWERS)]
    await asyncio.sleep(ORIGIN_S / 5)
    leader.cancel()
    answers = await asyncio.gather(leader, *followers, return_exceptions=True)
    served = sum(answer == ANSWER for answer in answers[1:])
    return [name, str(first.calls), f"{over_us:.1f}", f"{served}/{FOLLOWERS}", str(second.calls)]


async def _ours(load: Load) -> Call:
    cache = Cache.from_url("memory://")
    await cache.open()

    async def call() -> int:
        return int(await cache.get_or_set("key", load))

    return call


async def _async_lru(load: Load) -> Call:
    from async_lru import alru_cache

    return alru_cache(maxsize=8)(load)


async def _cashews(load: Load) -> Call:
    from cashews import Cache as Cashews

    cache = Cashews()
    cache.setup("mem://?check_interval=0")
    return cache(ttl=60, key="key")(load)


async def _aiocache(load: Load) -> Call:
    from aiocache import cached

    return cached(ttl=60, key="key")(load)


LIBRARIES: dict[str, Library] = {
    "**genesis_cache** get_or_set": _ours,
    "async-lru": _async_lru,
    "cashews @cache": _cashews,
    "aiocache @cached": _aiocache,
}
