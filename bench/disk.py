"""The disk tier: gets and sets of incompressible bytes, one by one and many at once, beside diskcache and cashews."""

# ruff: noqa: PLC0415  # a peer is imported where it is measured, so that a missing one leaves the others

import asyncio
import os
import tempfile
from collections.abc import Awaitable, Callable, Sequence
from itertools import cycle, islice
from pathlib import Path
from time import perf_counter

from bench.report import Section, Table, Verdict

from genesis_cache.cache import Cache
from genesis_cache.cli.measure import Batch, Case, Timing, measure

SMALL = 1_024
LARGE = 100 * 1_024
SMALL_KEYS = [f"small:{number}" for number in range(1_000)]
LARGE_KEYS = [f"large:{number}" for number in range(100)]
AT_ONCE = 64
MB = 1_024

Get = Callable[[str], Awaitable[object]]


def section(*, quick: bool) -> Section:
    """The table and its verdicts."""
    try:
        from diskcache import Cache as DiskCache
    except ImportError:
        return Section("Disk", "Left out: diskcache, which everything here is compared with, is not installed.")
    with tempfile.TemporaryDirectory(prefix="genesis-cache-bench-") as folder:
        peer = DiskCache(str(Path(folder) / "diskcache"), size_limit=MB << 20)
        try:
            return asyncio.run(_section(Path(folder), peer, 3 if quick else 9, 0.01 if quick else 0.08))
        finally:
            peer.close()


async def _section(folder: Path, peer: object, rounds: int, batch_s: float) -> Section:
    async with Cache.from_url(f"disk://{folder / 'ours'}?max_mb={MB}") as cache:
        for keys, size in ((SMALL_KEYS, SMALL), (LARGE_KEYS, LARGE)):
            for key in keys:
                value = os.urandom(size)
                await cache.set(key, value)
                peer.set(key, value)
        third = await _cashews(folder)
        timings = await measure(_cases(cache, peer, third), rounds=rounds, batch_seconds=batch_s)
    by_name = {timing.name: timing for timing in timings}
    return Section(
        "Disk",
        f"Random bytes, {len(SMALL_KEYS)} keys of 1 KB and {len(LARGE_KEYS)} of 100 KB, page cache warm. Ours is "
        "a cache with the disk tier alone, asked with await; diskcache is called plainly, or with `asyncio.to_thread` "
        "where many wait at once, which is how it is used from an event loop.",
        [_table(timings)],
        [
            _verdict("disk get, 1 KB one by one", 2.5, by_name["diskcache get 1 KB"], by_name["ours get 1 KB"]),
            _verdict("disk get, 100 KB one by one", 3, by_name["diskcache get 100 KB"], by_name["ours get 100 KB"]),
            _verdict("disk get, 64 of 1 KB at once", 8, by_name["diskcache 64 gets"], by_name["ours 64 gets"]),
            _verdict("disk set, 64 of 1 KB at once", 8, by_name["diskcache 64 sets"], by_name["ours 64 sets"]),
        ],
    )


def _cases(cache: Cache, peer: object, third: list[Case]) -> list[Case]:
    value = os.urandom(SMALL)

    async def get_in_thread(key: str) -> object:
        return await asyncio.to_thread(peer.get, key)

    async def set_in_thread(key: str) -> object:
        return await asyncio.to_thread(peer.set, key, value)

    async def store(key: str) -> object:
        return await cache.set(key, value)

    return [
        Case("diskcache get 1 KB", _plainly(peer.get, SMALL_KEYS)),
        Case("ours get 1 KB", _one_by_one(cache.get, SMALL_KEYS)),
        Case("diskcache get 100 KB", _plainly(peer.get, LARGE_KEYS), most=2_000),
        Case("ours get 100 KB", _one_by_one(cache.get, LARGE_KEYS), most=2_000),
        Case("diskcache 64 gets", _at_once(get_in_thread, SMALL_KEYS), most=2_048),
        Case("ours 64 gets", _at_once(cache.get, SMALL_KEYS), most=2_048),
        Case("diskcache 64 sets", _at_once(set_in_thread, SMALL_KEYS), most=512),
        Case("ours 64 sets", _at_once(store, SMALL_KEYS), most=512),
        *third,
    ]


async def _cashews(folder: Path) -> list[Case]:
    try:
        from cashews import Cache as Cashews

        cache = Cashews()
        cache.setup(f"disk://?directory={folder / 'cashews'}")
        for key in SMALL_KEYS:
            await cache.set(key, os.urandom(SMALL), expire=3_600)
    except ImportError:
        return []
    return [
        Case("cashews disk:// get 1 KB", _one_by_one(cache.get, SMALL_KEYS), most=512),
        Case("cashews disk:// 64 gets", _at_once(cache.get, SMALL_KEYS), most=1_024),
    ]


def _plainly(get: Callable[[str], object], keys: Sequence[str]) -> Batch:
    async def batch(times: int) -> float:
        began = perf_counter()
        for key in islice(cycle(keys), times):
            get(key)
        return perf_counter() - began

    return batch


def _one_by_one(get: Get, keys: Sequence[str]) -> Batch:
    async def batch(times: int) -> float:
        began = perf_counter()
        for key in islice(cycle(keys), times):
            await get(key)
        return perf_counter() - began

    return batch


def _at_once(operation: Get, keys: Sequence[str]) -> Batch:
    """So many operations, 64 of them in flight together; fewer than 64 asked for still run 64 and are scaled."""

    async def batch(times: int) -> float:
        groups = max(1, times // AT_ONCE)
        supply = cycle(keys)
        began = perf_counter()
        for _ in range(groups):
            await asyncio.gather(*(operation(key) for key in islice(supply, AT_ONCE)))
        return (perf_counter() - began) * times / (groups * AT_ONCE)

    return batch


def _table(timings: list[Timing]) -> Table:
    base = {
        "1 KB": "diskcache get 1 KB",
        "100 KB": "diskcache get 100 KB",
        "gets": "diskcache 64 gets",
        "sets": "diskcache 64 sets",
    }
    by_name = {timing.name: timing.ns for timing in timings}
    rows = []
    for timing in timings:
        peer = next(name for ending, name in reversed(base.items()) if timing.name.endswith(ending))
        rows.append([timing.name, f"{timing.ns / 1000:,.2f}", f"{by_name[peer] / timing.ns:.2f}", peer])
    return Table("", ["case", "us per operation", "times as fast", "as"], rows)


def _verdict(row: str, least: float, peer: Timing, ours: Timing) -> Verdict:
    ratio = peer.ns / ours.ns
    return Verdict(row, f"{least:g} x diskcache", f"{ratio:.1f} x", ratio >= least)
