"""The event loop under a million entries: its longest stall under traffic and cleanup, and the collector's part."""

import asyncio
import gc
import random
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from time import perf_counter

from bench.report import Section, Table, Verdict

from genesis_cache.cache import Cache

HELD = 1_000_000
SECONDS = 10.0
SLICE = 20  # operations between two looks at the loop
MOST_MS = 2.0
BEAT_S = 0.001
CLEANUP_S = 1.0
CHUNK = 2_000
EXPIRING = 10  # one chunk in so many dies during the measurement

COLUMNS = [
    "held in",
    "longest stall, ms",
    "without the collector, ms",
    "99.9 %, ms",
    "longest collection, ms",
    "collections",
]


class Collector:
    """Times each pause of the garbage collector."""

    def __init__(self) -> None:
        self.pauses_ms: list[float] = []
        self.spans: list[tuple[float, float]] = []
        self._began = 0.0

    def __call__(self, phase: str, _info: dict[str, int]) -> None:
        """As `gc.callbacks` wants it."""
        if phase == "start":
            self._began = perf_counter()
        else:
            ended = perf_counter()
            self.spans.append((self._began, ended))
            self.pauses_ms.append((ended - self._began) * 1000)

    def during(self, began: float, ended: float) -> float:
        """Seconds of a span that were the collector's."""
        return sum(max(0.0, min(ended, stop) - max(began, start)) for start, stop in self.spans)


class Heart:
    """Beats every millisecond; what it is late by, the loop was held up."""

    def __init__(self) -> None:
        self.spans: list[tuple[float, float]] = []

    async def beat(self) -> None:
        """Until cancelled."""
        while True:
            due = perf_counter() + BEAT_S
            await asyncio.sleep(BEAT_S)
            self.spans.append((due, perf_counter()))

    def longest_ms(self, collector: Collector | None = None) -> float:
        """The longest delay, without the collector's part of it if one is given."""
        late = (end - due - (collector.during(due, end) if collector else 0.0) for due, end in self.spans)
        return max(late, default=0.0) * 1000

    def share_ms(self, share: float) -> float:
        """The delay below which that share of beats lies."""
        ordered = sorted(end - due for due, end in self.spans)
        return ordered[int(share * (len(ordered) - 1))] * 1000


def section(*, quick: bool) -> Section:
    """The cache beside the same traffic on a plain dict, which shows what the machine itself does."""
    held, seconds = (HELD // 100, 0.5) if quick else (HELD, SECONDS)
    rows = [asyncio.run(_on_dict(held, seconds))]
    with tempfile.TemporaryDirectory(prefix="genesis-cache-bench-") as folder:
        rows.append(asyncio.run(_on_cache("memory", held, seconds, "memory://?max_mb=4000")))
        disk = f"disk://{Path(folder) / 'ours'}"
        rows.append(asyncio.run(_on_cache("memory and disk", held, seconds, "memory://?max_mb=4000", disk)))
    own = float(rows[1][2])
    return Section(
        "Event loop",
        f"{held:,} entries held; {seconds:g} s of gets, sets with short lives, tag invalidations and a cleanup every "
        f"{CLEANUP_S:g} s, in slices of {SLICE} operations. A heart beats every millisecond: its delay is a "
        "stall. The dict row is the same traffic on a plain dict: stalls there are the machine's and the collector's.",
        [Table("", COLUMNS, rows)],
        [
            Verdict(
                f"event loop at {held:,} entries",
                f"no stall above {MOST_MS:g} ms of its own making",
                f"{own:.2f} ms (dict: {rows[0][2]})",
                own <= MOST_MS,
            )
        ],
    )


async def _on_dict(held: int, seconds: float) -> list[str]:
    values = {f"key:{number}": number for number in range(held)}

    async def slice_of(number: int) -> None:
        for offset in range(SLICE):
            values.get(f"key:{random.randrange(held)}")
            if offset % 10 == 0:
                values[f"new:{(number * SLICE + offset) % 10_000}"] = offset

    return await _watched("a dict", slice_of, seconds)


async def _on_cache(name: str, held: int, seconds: float, *urls: str) -> list[str]:
    async with Cache.from_url(*urls, cleanup_interval=CLEANUP_S) as cache:
        for start in range(0, held, CHUNK):
            items = {f"key:{number}": number for number in range(start, min(start + CHUNK, held))}
            lifetime = random.uniform(1, seconds) if start // CHUNK % EXPIRING == 0 else 3_600
            await cache.set_many(items, ttl=lifetime, tiers=["memory"])

        async def slice_of(number: int) -> None:
            for offset in range(SLICE):
                await cache.get(f"key:{random.randrange(held)}")
                if offset % 10 == 0:
                    await cache.set(f"new:{number * SLICE + offset}", offset, ttl=1, tags=[f"tag:{number % 100}"])
            if number % 50 == 0:
                await cache.delete_by_tag(f"tag:{number % 100}")

        return await _watched(name, slice_of, seconds)


async def _watched(name: str, slice_of: Callable[[int], Awaitable[None]], seconds: float) -> list[str]:
    heart, collector = Heart(), Collector()
    await asyncio.sleep(0.2)
    gc.callbacks.append(collector)
    beating = asyncio.create_task(heart.beat())
    try:
        until = perf_counter() + seconds
        number = 0
        while perf_counter() < until:
            await slice_of(number)
            number += 1
            await asyncio.sleep(0)
    finally:
        gc.callbacks.remove(collector)
        beating.cancel()
    pauses = collector.pauses_ms or [0.0]
    figures = (heart.longest_ms(), heart.longest_ms(collector), heart.share_ms(0.999), max(pauses))
    return [name, *(f"{figure:.2f}" for figure in figures), str(len(collector.pauses_ms))]
