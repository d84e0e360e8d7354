"""Redis frozen by SIGSTOP in mid-traffic: what a near hit, the first far call and the later ones cost."""

import asyncio
from collections.abc import Sequence
from statistics import median
from time import perf_counter

from bench.report import Section, Table, Verdict

from genesis_cache.cache import Cache
from genesis_cache.testing.servers import RedisServer

NEAR_HITS = 50_000  # a round
FAR_READS = 2_000
PAUSE_EVERY = 20  # far reads, so that a round sees the server suspect, given up and tried again
PAUSE_S = 0.01
CHANGES = 20
TIMEOUT_S = 0.5
NEAR_KEY = "near"
BUDGET_MS = 50.0
SLACK_MS = 20.0
MOST_ADDED_MS = 1.0
SAME = 1.3  # a near hit's two medians count as the same within this factor, which is the noise of single calls
BACK_S = 30.0
SETTINGS = {"far_budget_ms": BUDGET_MS, "redis_socket_timeout": TIMEOUT_S}


class Rounds:
    """What was measured, in seconds, a list for each round."""

    def __init__(self) -> None:
        self.near_before: list[list[float]] = []
        self.near_during: list[list[float]] = []
        self.far_before: list[list[float]] = []
        self.first_far: list[float] = []
        self.later_far: list[list[float]] = []
        self.first_change: list[float] = []
        self.later_changes: list[list[float]] = []
        self.back: list[float] = []


def section(*, quick: bool) -> Section:
    """The table and its verdicts."""
    with RedisServer() as server:
        rounds = asyncio.run(_measured(server, 2 if quick else 7, 20 if quick else 1))
    near_before, near_during = _us(rounds.near_before), _us(rounds.near_during)
    later_p99 = _quantile(sorted(one for row in rounds.later_far for one in row), 0.99) * 1000
    first_ms = median(rounds.first_far) * 1000
    ratio = near_during[0] / near_before[0]
    rows = [
        ["near hit, before", *_cells(near_before, " us")],
        ["near hit, frozen", *_cells(near_during, " us")],
        ["far read of nothing, before", *_cells(_us(rounds.far_before), " us")],
        ["first far read, frozen", f"{first_ms:.1f} ms", "", _longest_ms(rounds.first_far)],
        ["later far reads, frozen", *_cells(_us(rounds.later_far), " us")],
        ["first change, frozen", f"{median(rounds.first_change) * 1000:.0f} ms", "", _longest_ms(rounds.first_change)],
        ["later changes, frozen", *_cells(_us(rounds.later_changes), " us")],
        ["back in use after the thaw", f"{median(rounds.back) * 1000:.0f} ms", "", _longest_ms(rounds.back)],
    ]
    return Section(
        "Redis frozen",
        f"memory + redis, a budget of {BUDGET_MS:g} ms and a timeout of {TIMEOUT_S:g} s; the server is stopped "
        f"(SIGSTOP) and let go on again, {len(rounds.back)} times. Far reads during the freeze go on past the timeout. "
        "Each call is timed by itself; the figures of near hits have the two readings of the clock in them.",
        [Table("", ["", "median", "p99", "longest"], rows)],
        [
            Verdict("Redis frozen, near hits", "keep their latency", f"{ratio:.2f} x", ratio <= SAME),
            Verdict(
                "Redis frozen, the first far call",
                f"within its budget and {SLACK_MS:g} ms ({BUDGET_MS + SLACK_MS:g} ms)",
                f"{first_ms:.1f} ms",
                first_ms <= BUDGET_MS + SLACK_MS,
            ),
            Verdict(
                "Redis frozen, later far calls",
                f"add under {MOST_ADDED_MS:g} ms",
                f"p99 {later_p99:.3f} ms",
                later_p99 < MOST_ADDED_MS,
            ),
        ],
    )


async def _measured(server: RedisServer, times: int, divisor: int) -> Rounds:
    rounds, reads = Rounds(), FAR_READS // divisor
    async with Cache.from_url("memory://", server.url, name="bench", **SETTINGS) as cache:
        await cache.set(NEAR_KEY, 7, ttl=None)
        for _ in range(times):
            rounds.near_before.append(await _timed(cache, [NEAR_KEY] * (NEAR_HITS // divisor)))
            rounds.far_before.append(await _timed(cache, _absent(reads)))
            server.freeze()
            try:
                rounds.first_far += await _timed(cache, ["absent:first"])
                rounds.later_far.append(await _timed(cache, _absent(reads), PAUSE_S))
                changes = [await _timed_change(cache) for _ in range(CHANGES)]
                rounds.first_change.append(changes[0])
                rounds.later_changes.append(changes[1:])
                rounds.near_during.append(await _timed(cache, [NEAR_KEY] * (NEAR_HITS // divisor)))
            finally:
                server.thaw()
            rounds.back.append(await _until_back(cache))
    return rounds


def _absent(reads: int) -> list[str]:
    return [f"absent:{number}" for number in range(reads)]


async def _timed(cache: Cache, keys: Sequence[str], pause_s: float = 0.0) -> list[float]:
    taken = []
    for number, key in enumerate(keys):
        if pause_s and number % PAUSE_EVERY == 0:
            await asyncio.sleep(pause_s)
        began = perf_counter()
        await cache.get(key)
        taken.append(perf_counter() - began)
    return taken


async def _timed_change(cache: Cache) -> float:
    began = perf_counter()
    await cache.delete("absent:first")
    return perf_counter() - began


async def _until_back(cache: Cache) -> float:
    """Until the tier takes a value and says that it is up."""
    began = perf_counter()
    while perf_counter() - began < BACK_S:
        stored = await cache.set("back", 1)
        if stored and cache.analytics()["layer_statistics"]["l2"]["up"]:
            return perf_counter() - began
        await asyncio.sleep(0.01)
    msg = f"the Redis tier was not back {BACK_S:g} s after the server went on"
    raise TimeoutError(msg)


def _us(rows: Sequence[Sequence[float]]) -> tuple[float, float, float]:
    """Median, p99 and longest in microseconds; the median over rounds of each round's own, but for the longest."""
    ordered = [sorted(row) for row in rows]
    return (
        median(_quantile(row, 0.5) for row in ordered) * 1e6,
        median(_quantile(row, 0.99) for row in ordered) * 1e6,
        max(row[-1] for row in ordered) * 1e6,
    )


def _quantile(ordered: Sequence[float], share: float) -> float:
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def _longest_ms(row: Sequence[float]) -> str:
    return f"{max(row) * 1000:.0f} ms"


def _cells(figures: Sequence[float], unit: str) -> list[str]:
    return [f"{figure:,.2f}{unit}" for figure in figures]
