"""The event loop under a million entries: its longest stall under traffic and cleanup, and the collector's part."""

import asyncio
import gc
import random
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from statistics import median
from time import perf_counter, process_time

import msgspec
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
    "operations a second",
    "longest stall, ms",
    "own, longest, ms",
    "own, median of seconds, ms",
    "99.9 % of beats, ms",
    "full collection, ms",
]


class Collector:
    """Times each pause of the garbage collector."""

    def __init__(self) -> None:
        self.spans: list[tuple[float, float]] = []
        self._began = 0.0

    def __call__(self, phase: str, _info: dict[str, int]) -> None:
        """As `gc.callbacks` wants it."""
        if phase == "start":
            self._began = perf_counter()
        else:
            self.spans.append((self._began, perf_counter()))

    def during(self, began: float, ended: float) -> float:
        """Seconds of a span that were the collector's."""
        return sum(max(0.0, min(ended, stop) - max(began, start)) for start, stop in self.spans)


class Beat(msgspec.Struct, frozen=True):
    """One look at the loop: when it was due, when it came, and the processor seconds that this process used between."""

    due: float
    came: float
    used: float


class Heart:
    """Beats every millisecond; what it is late by, the loop was held up."""

    def __init__(self) -> None:
        self.beats: list[Beat] = []

    async def beat(self) -> None:
        """Until cancelled."""
        while True:
            due, used = perf_counter() + BEAT_S, process_time()
            await asyncio.sleep(BEAT_S)
            self.beats.append(Beat(due, perf_counter(), process_time() - used))

    def longest_ms(self) -> float:
        """The longest delay, whatever made it."""
        return max((beat.came - beat.due for beat in self.beats), default=0.0) * 1000

    def own_ms(self, collector: Collector) -> list[float]:
        """For each second the longest delay that this process can have made, the collector left out.

        While a beat is late for want of a processor that other programs have, this process uses none.
        """
        seconds: dict[int, float] = {}
        for beat in self.beats:
            own = min(beat.came - beat.due, beat.used) - collector.during(beat.due, beat.came)
            second = int(beat.due - self.beats[0].due)
            seconds[second] = max(own * 1000, seconds.get(second, 0.0))
        return list(seconds.values())

    def share_ms(self, share: float) -> float:
        """The delay below which that share of beats lies."""
        ordered = sorted(beat.came - beat.due for beat in self.beats)
        return ordered[int(share * (len(ordered) - 1))] * 1000


class Watched(msgspec.Struct, frozen=True):
    """What was seen of one cache, in milliseconds."""

    name: str
    operations_a_second: float
    longest: float
    own_longest: float
    own_median: float
    most: float
    collection: float

    def cells(self) -> list[str]:
        """A row of the table."""
        figures = (self.longest, self.own_longest, self.own_median, self.most, self.collection)
        return [self.name, f"{self.operations_a_second:,.0f}", *(f"{figure:.2f}" for figure in figures)]


def section(*, quick: bool) -> Section:
    """The cache beside the same traffic on a plain dict, which shows what the machine itself does."""
    held, seconds = (HELD // 100, 0.5) if quick else (HELD, SECONDS)
    base = asyncio.run(_on_dict(held, seconds))
    near = asyncio.run(_on_cache("memory", held, seconds, "memory://?max_mb=4000"))
    with tempfile.TemporaryDirectory(prefix="genesis-cache-bench-") as folder:
        disk = f"disk://{Path(folder) / 'ours'}"
        both = asyncio.run(_on_cache("memory and disk", held, seconds, "memory://?max_mb=4000", disk))
    return Section(
        "Event loop",
        f"{held:,} entries held; {seconds:g} s of gets, sets with short lives, tag invalidations and a cleanup every "
        f"{CLEANUP_S:g} s, in slices of {SLICE} operations. A heart beats every millisecond: its delay is a stall. Own "
        "is what the processor time of this process allows, the garbage collector left out; the rest is other "
        "programs'. The dict row is the same traffic on a plain dict, so its own stalls are the machine's noise.",
        [Table("", COLUMNS, [row.cells() for row in (base, near, both)])],
        [_verdict(row, base, held) for row in (near, both)],
    )


def _verdict(row: Watched, base: Watched, held: int) -> Verdict:
    """A stall in most seconds is the cache's; a single one only where it is longer than any on the dict."""
    told = f"{row.own_median:.2f} ms in a median second, {row.own_longest:.2f} ms once (dict: {base.own_longest:.2f})"
    held_up = row.own_median > MOST_MS or row.own_longest > max(MOST_MS, base.own_longest)
    wanted = f"no stall above {MOST_MS:g} ms of its own making"
    return Verdict(f"event loop at {held:,} entries, {row.name}", wanted, told, not held_up)


async def _on_dict(held: int, seconds: float) -> Watched:
    values = {f"key:{number}": number for number in range(held)}

    async def slice_of(number: int) -> None:
        for offset in range(SLICE):
            values.get(f"key:{random.randrange(held)}")
            if offset % 10 == 0:
                values[f"new:{(number * SLICE + offset) % 10_000}"] = offset

    return await _watched("a dict", slice_of, seconds)


async def _on_cache(name: str, held: int, seconds: float, *urls: str) -> Watched:
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


def _collected_ms() -> float:
    began = perf_counter()
    gc.collect()
    return (perf_counter() - began) * 1000


async def _watched(name: str, slice_of: Callable[[int], Awaitable[None]], seconds: float) -> Watched:
    heart, collector = Heart(), Collector()
    await asyncio.sleep(0.2)
    gc.callbacks.append(collector)
    beating = asyncio.create_task(heart.beat())
    slices, until = 0, perf_counter() + seconds
    try:
        while perf_counter() < until:
            await slice_of(slices)
            slices += 1
            await asyncio.sleep(0)
    finally:
        gc.callbacks.remove(collector)
        beating.cancel()
    own = heart.own_ms(collector)
    return Watched(
        name=name,
        operations_a_second=slices * SLICE / seconds,
        longest=heart.longest_ms(),
        own_longest=max(own),
        own_median=median(own),
        most=heart.share_ms(0.999),
        collection=median(_collected_ms() for _ in range(3)),
    )
