"""Timing that survives a noisy machine: cases take turns, round after round, and their medians are compared."""

from collections.abc import Awaitable, Callable, Sequence
from itertools import repeat
from statistics import median
from time import perf_counter
from typing import TypeVar

import msgspec

A = TypeVar("A")

Batch = Callable[[int], Awaitable[float]]
"""Does an operation so many times and returns the seconds that took."""

BATCH_SECONDS = 0.02


class Case(msgspec.Struct, frozen=True):
    """One thing to measure."""

    name: str
    batch: Batch
    most: int = 1_000_000
    """Operations in one batch at most."""


class Timing(msgspec.Struct, frozen=True):
    """What a case came to: the median over rounds, and the fastest and slowest round."""

    name: str
    ns: float
    fastest_ns: float
    slowest_ns: float


async def measure(
    cases: Sequence[Case],
    *,
    rounds: int = 7,
    batch_seconds: float = BATCH_SECONDS,
    report: Callable[[int, int], None] | None = None,
) -> list[Timing]:
    """Nanoseconds an operation of each case, in the order given; ``report`` is told batches done and batches in all."""
    sizes = [await _calibrated(case, batch_seconds) for case in cases]
    rows: list[list[float]] = [[] for _ in cases]
    for number in range(rounds * len(cases)):
        place = number % len(cases)
        rows[place].append(await cases[place].batch(sizes[place]) / sizes[place] * 1e9)
        if report is not None:
            report(number + 1, rounds * len(cases))
    return [Timing(case.name, median(row), min(row), max(row)) for case, row in zip(cases, rows, strict=True)]


async def _calibrated(case: Case, batch_seconds: float) -> int:
    size = 1
    while size < case.most and await case.batch(size) < batch_seconds:
        size *= 2
    return min(size, case.most)


def awaited(function: Callable[[], Awaitable[object]]) -> Batch:
    """Await a function without arguments."""

    async def batch(times: int) -> float:
        began = perf_counter()
        for _ in repeat(None, times):
            await function()
        return perf_counter() - began

    return batch


def awaited_with(function: Callable[[A], Awaitable[object]], argument: A) -> Batch:
    """Await a function of one argument."""

    async def batch(times: int) -> float:
        began = perf_counter()
        for _ in repeat(None, times):
            await function(argument)
        return perf_counter() - began

    return batch


def called_with(function: Callable[[A], object], argument: A) -> Batch:
    """Call a plain function of one argument."""

    async def batch(times: int) -> float:
        began = perf_counter()
        for _ in repeat(None, times):
            function(argument)
        return perf_counter() - began

    return batch


def awaited_over(function: Callable[[A], Awaitable[object]], arguments: Sequence[A]) -> Batch:
    """Await a function of one argument, which goes round through many."""

    async def batch(times: int) -> float:
        chosen = [arguments[number % len(arguments)] for number in range(times)]
        began = perf_counter()
        for argument in chosen:
            await function(argument)
        return perf_counter() - began

    return batch
