"""Invalidation by tag: the same price for 10 entries and for 1,000,000, in memory and with a disk tier behind."""

# ruff: noqa: PLC0415  # a peer is imported where it is measured, so that a missing one leaves the others

import asyncio
import tempfile
from pathlib import Path
from statistics import median
from time import perf_counter

from bench.report import Section, Table, Verdict

from genesis_cache.cache import Cache

MANY = 1_000_000
FEW = 10
ROUNDS = 15
MEMORY_MB = 4_000
CHUNK = 10_000
MOST_US = 20.0
SAME = 1.5  # the two medians count as the same within this factor, which is the noise of single calls


def section(*, quick: bool) -> Section:
    """A row for each set of tiers."""
    many = MANY // 100 if quick else MANY
    with tempfile.TemporaryDirectory(prefix="genesis-cache-bench-") as folder:
        disk = f"disk://{Path(folder) / 'ours'}"
        near = asyncio.run(_measured(many, f"memory://?max_mb={MEMORY_MB}"))
        both = asyncio.run(_measured(many, f"memory://?max_mb={MEMORY_MB}", disk))
    cashews = asyncio.run(_cashews(FEW * 1000))
    few, all_of_them = near
    rows = [
        ["memory", *(f"{us:.1f}" for us in near), f"{all_of_them / few:.2f}"],
        ["memory and disk", *(f"{us:.1f}" for us in both), f"{both[1] / both[0]:.2f}"],
    ]
    if cashews is not None:
        rows.append([f"cashews mem://, {FEW * 1000:,} entries", "-", f"{cashews:,.0f}", "-"])
    held = all_of_them < MOST_US and all_of_them <= few * SAME
    return Section(
        "Invalidation by tag",
        f"`await cache.delete_by_tag(tag)` where {FEW} and {many:,} entries carry the tag; median of {ROUNDS} tags "
        "each. The entries are in memory; with the disk tier behind, the invalidation is also written to its log.",
        [Table("", ["tiers", f"us, {FEW} entries", f"us, {many:,} entries", "ratio"], rows)],
        [
            Verdict(
                "invalidation by tag",
                f"the same for {FEW} and {many:,} keys, under {MOST_US:g} us",
                f"{few:.1f} us and {all_of_them:.1f} us",
                held,
            )
        ],
    )


async def _measured(many: int, *urls: str) -> tuple[float, float]:
    async with Cache.from_url(*urls) as cache:
        large = [f"large:{number}" for number in range(ROUNDS)]
        for start in range(0, many, CHUNK):
            items = {f"key:{number}": number for number in range(start, min(start + CHUNK, many))}
            await cache.set_many(items, tags=large, tiers=["memory"])
        small = [f"small:{number}" for number in range(ROUNDS)]
        for number in range(FEW):
            await cache.set(f"few:{number}", number, tags=small, tiers=["memory"])
        pairs = [(await _timed(cache, few), await _timed(cache, most)) for few, most in zip(small, large, strict=True)]
    return median(few for few, _ in pairs), median(most for _, most in pairs)


async def _timed(cache: Cache, tag: str) -> float:
    began = perf_counter()
    await cache.delete_by_tag(tag)
    return (perf_counter() - began) * 1e6


async def _cashews(entries: int) -> float | None:
    try:
        from cashews import Cache as Cashews
    except ImportError:
        return None
    cache = Cashews()
    cache.setup(f"mem://?size={entries * 4}&check_interval=0")
    cache.register_tag("all", "key:{number}")
    for number in range(entries):
        await cache.set(f"key:{number}", number, expire=3_600, tags=["all"])
    began = perf_counter()
    await cache.delete_tags("all")
    return (perf_counter() - began) * 1e6
