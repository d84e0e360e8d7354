"""The visitors: requests sent at a steady pace, whether or not the service keeps up, each one timed."""

import asyncio
from array import array
from collections.abc import Sequence
from itertools import count
from time import perf_counter

from genesis_cache.cache import Cache
from genesis_cache.demo.backend import Backend
from genesis_cache.demo.service import Service

TICK_SECONDS = 0.004


class Progress:
    """How far a run has come and what each request took, in seconds, by its place in the traffic."""

    def __init__(self, total: int) -> None:
        self.total = total
        self.done = 0
        self.latencies = array("d", bytes(8 * total))
        self.seconds = 0.0


async def play(traffic: Sequence[int], service: Service, seconds: float, progress: Progress) -> None:
    """Send the traffic evenly over ``seconds`` and wait until everything is answered.

    An open loop: visitors come at the same pace with and without the cache, so that calls per minute compare.
    """
    began = perf_counter()

    async def visit(place: int) -> None:
        asked = perf_counter()
        await service(traffic[place])
        answered = perf_counter()
        progress.latencies[place] = answered - asked
        progress.done += 1
        progress.seconds = answered - began

    sent = 0
    async with asyncio.TaskGroup() as visitors:
        while sent < progress.total:
            due = min(progress.total, 1 + int(progress.total * (perf_counter() - began) / seconds))
            for place in range(sent, due):
                visitors.create_task(visit(place))
            sent = due
            await asyncio.sleep(TICK_SECONDS)


async def stroll(traffic: Sequence[int], service: Service, per_second: float) -> None:
    """Light traffic until cancelled, round and round."""
    while True:
        for number in traffic:
            await service(number)
            await asyncio.sleep(1 / per_second)


async def reprice(traffic: Sequence[int], backend: Backend, cache: Cache, per_second: float) -> None:
    """The shop's staff, until cancelled: new prices for what is visited; what was built on the old is forgotten."""
    for changed in count():
        number = traffic[changed * 7919 % len(traffic)]
        backend.reprice(number, 990 + changed % 9000)
        await cache.delete_by_tag(f"product:{number}")
        await asyncio.sleep(1 / per_second)
