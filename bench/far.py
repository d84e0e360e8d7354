"""Measuring tiers behind a server: operations one by one and many at once, and tables of ratios to a raw client."""

import asyncio
import os
from collections.abc import Awaitable, Callable, Sequence
from itertools import cycle, islice
from time import perf_counter

from bench.report import Table, Verdict

from genesis_cache.cli.measure import Batch, Timing

VALUE_BYTES = 1_024
KEYS = [f"product:{number}" for number in range(4_096)]
MANY = 256  # keys written at once when a server is filled
SETTINGS = {"name": "bench", "far_budget_ms": 5_000}
"""Of our caches: as patient as the raw clients, for a reader that gives up on a busy machine would count as quick."""

Operation = Callable[[str], Awaitable[object]]


def value() -> bytes:
    """What is stored: bytes that nothing can compress."""
    return os.urandom(VALUE_BYTES)


def at_once(operation: Operation, width: int, before: Callable[[], object] | None = None) -> Batch:
    """So many operations in flight together, group after group; fewer than a group still run one, and are scaled.

    Keys come in turn; ``before`` is called, while the clock stands, whenever they begin anew. LookupError for an
    operation that gives None.
    """
    groups_a_round = len(KEYS) // width
    supply = cycle(KEYS[: groups_a_round * width])
    done = 0

    async def batch(times: int) -> float:
        nonlocal done
        groups, taken = max(1, times // width), 0.0
        for _ in range(groups):
            if before is not None and done % groups_a_round == 0:
                before()
            keys = list(islice(supply, width))
            began = perf_counter()
            if width == 1:
                found = [await operation(keys[0])]
            else:
                found = await asyncio.gather(*(operation(key) for key in keys))
            taken += perf_counter() - began
            done += 1
            if None in found:
                raise LookupError(f"{found.count(None)} of {width} keys were not found, so this would measure misses")
        return taken * times / (groups * width)

    return batch


def one_by_one(operation: Operation, before: Callable[[], object] | None = None) -> Batch:
    """One operation at a time, each on the next key."""
    return at_once(operation, 1, before)


class Sheet:
    """Timings by name, each beside the raw client that it is compared with."""

    def __init__(self, timings: Sequence[Timing], beside: dict[str, Sequence[str]]) -> None:
        self._timings = {timing.name: timing for timing in timings}
        self._beside = beside

    def table(self, title: str) -> Table:
        """Every case with its ratio to the raw client, which is 1."""
        rows = []
        for name, timing in self._timings.items():
            raw = self.raw(name)
            rows.append([name, f"{timing.ns / 1000:,.1f}", f"{raw.ns / timing.ns:.2f}", raw.name])
        return Table(title, ["case", "us per operation", "times as fast", "as"], rows)

    def raw(self, name: str) -> Timing:
        """The fastest of those that a case is compared with; a case that nothing is named for is its own."""
        return min((self._timings[peer] for peer in self._beside.get(name, [name])), key=lambda timing: timing.ns)

    def faster(self, row: str, name: str, least: float, peer: str, among: Sequence[str] = ()) -> Verdict:
        """Whether a case is so many times as fast as its raw client, or as the fastest among others."""
        raw = min((self._timings[one] for one in among), key=lambda timing: timing.ns) if among else self.raw(name)
        ratio = raw.ns / self._timings[name].ns
        return Verdict(row, f"{least:g} x {peer}", f"{ratio:.1f} x", ratio >= least)

    def within(self, row: str, name: str, most: float, peer: str) -> Verdict:
        """Whether a case takes at most so many times as long as its raw client."""
        ratio = self._timings[name].ns / self.raw(name).ns
        return Verdict(row, f"within {most:g} x {peer}", f"{ratio:.2f} x", ratio <= most)
