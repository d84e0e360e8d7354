"""A cluster in one process: several caches over one shared tier in memory, and a network between them that can be hurt.

    async with Cluster(3, seed=7) as cluster:
        one, two, three = cluster.caches
        cluster.network(two).loss = 0.5          # every second message of the log does not arrive
        cluster.cut_off(three)                   # and this one reaches nobody
        await one.set("price", 120)
        cluster.advance(1.0)                     # nothing happens but by this clock, and by the seed
        cluster.heal()

The caches are the real ones, with the real engine and the real copy of the log in each; only the server and the network
are made of plain data. A run with the same seed and the same calls takes the same course.
"""

import asyncio
import heapq
import itertools
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Self

from genesis_cache.cache import Cache
from genesis_cache.model.meter import LayerMeter
from genesis_cache.model.notice import Notice, Position
from genesis_cache.model.settings import CacheSettings
from genesis_cache.testing.clock import FakeClock
from genesis_cache.testing.cluster_tier import FakeServer, NodeTier
from genesis_cache.testing.history import Recorder
from genesis_cache.tiers.memory import MemoryTier

ASK_EVERY_S = 0.25  # seconds between two questions of a process for what is new
STEP_S = 0.01
_NS = 1_000_000_000
_MEMORY_BYTES = 50 * 2**20


@dataclass
class Network:
    """What befalls the messages of the log on their way to one process. The defaults do nothing."""

    delay_s: float = 0.0
    jitter_s: float = 0.0
    """At random up to so much later still, so that messages overtake each other."""
    loss: float = 0.0
    """Share of the messages that do not arrive, from 0 to 1."""
    duplicates: float = 0.0
    """Share of them that arrive twice."""
    is_cut: bool = False
    """Nothing arrives, and the process can neither read nor write at the server."""

    def heal(self) -> None:
        """Back to doing nothing."""
        for one in fields(self):
            setattr(self, one.name, one.default)


class Cluster:
    """``processes`` caches over memory and one shared tier; ``settings`` are those of all, such as ``bypass``.

    Time is a `FakeClock`, which `advance` moves; every choice is made by ``seed``. Reads and writes at the server take
    no time: they work, or the process is cut off from it.
    """

    def __init__(
        self, processes: int = 2, *, seed: int = 0, clock: FakeClock | None = None, **settings: object
    ) -> None:
        self.clock = FakeClock() if clock is None else clock
        self.server = FakeServer(self.clock)
        self.told = 0
        """Messages of the log that were delivered."""
        self.lost = 0
        """Messages of the log that were not."""
        self._dice = random.Random(seed)  # a seed is what makes a run repeatable
        self._numbers = itertools.count()
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        plain: dict[str, Any] = {"cache_tiers": ("memory", "disk"), "cache_canary_interval": None, **settings}
        self._settings = CacheSettings().with_overrides(**plain)
        self._nodes = [_Node(self) for _ in range(processes)]
        self.caches: list[Cache] = [node.cache for node in self._nodes]

    async def open(self) -> None:
        """Open all caches."""
        for node in self._nodes:
            await node.cache.open()
            self._ask_later(node)

    async def close(self) -> None:
        """Heal everything, and close all caches."""
        self.heal()
        for node in self._nodes:
            await node.cache.close()

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    # -- faults -------------------------------------------------------------------------------------------------

    def network(self, cache: Cache) -> Network:
        """The messages to one of the caches; may be changed at any time."""
        return self._node(cache).network

    def cut_off(self, *caches: Cache) -> None:
        """These reach the server no more, and hear nothing."""
        for cache in caches:
            node = self._node(cache)
            node.network.is_cut = True
            node.tier.went("cut off from the server by the test")

    def heal(self, *caches: Cache) -> None:
        """Mend the network of these, or of all; they hear what they missed when time goes on."""
        for node in self._nodes if not caches else [self._node(cache) for cache in caches]:
            was_cut = node.network.is_cut
            node.network.heal()
            if was_cut:
                node.tier.came_back()
                self._ask(node)

    def _node(self, cache: Cache) -> "_Node":
        for node in self._nodes:
            if node.cache is cache:
                return node
        raise ValueError("this cache is not of this cluster: use one of `caches`")

    # -- time ---------------------------------------------------------------------------------------------------

    def advance(self, seconds: float) -> None:
        """Let so many seconds pass, and deliver the messages that are due, each at its time."""
        end = self.clock.now() + seconds
        while self._due and self._due[0][0] <= end:
            at, _, act = heapq.heappop(self._due)
            self.clock.advance(max(0.0, at - self.clock.now()))
            act()
        self.clock.advance(max(0.0, end - self.clock.now()))

    async def settle(self, seconds: float = 3.0) -> None:
        """Let time pass, in small steps, and everybody do what is due behind the callers: debts, refreshes."""
        for _ in range(int(seconds / STEP_S)):
            self.advance(STEP_S)
            for cache in self.caches:
                cache.peek("none")  # a look, as any read
            await asyncio.sleep(0)

    def _later(self, seconds: float, act: Callable[[], None]) -> None:
        heapq.heappush(self._due, (self.clock.now() + seconds, next(self._numbers), act))

    def recorder(self, path: Path, process: str) -> Recorder:
        """A `Recorder` for one of the caches, on the cluster's clock; each reading of it is a nanosecond later."""
        recorder = Recorder(path, process)
        recorder.now = self._now_ns  # another clock for this one
        return recorder

    def _now_ns(self) -> int:
        return int(self.clock.now() * _NS) + next(self._numbers)

    # -- messages -----------------------------------------------------------------------------------------------

    def spread(self, position: Position, notices: Sequence[Notice]) -> None:
        """Send what was changed to everybody, the writer too."""
        for node in self._nodes:
            self._send(node, lambda node=node: node.tier.hear(position, notices, None))  # type: ignore[misc]  # bound now

    def _send(self, node: "_Node", deliver: Callable[[], None]) -> None:
        network, dice = node.network, self._dice
        copies = 2 if dice.random() < network.duplicates else 1
        for _ in range(copies):
            if network.is_cut or dice.random() < network.loss:
                self.lost += 1
                continue
            delay_s = network.delay_s + network.jitter_s * dice.random()
            if delay_s:
                self._later(delay_s, lambda: self._arrive(node, deliver))
            else:
                self._arrive(node, deliver)

    def _arrive(self, node: "_Node", deliver: Callable[[], None]) -> None:
        if node.network.is_cut:
            self.lost += 1
        else:
            self.told += 1
            deliver()

    def _ask_later(self, node: "_Node") -> None:
        def ask() -> None:
            self._ask(node)
            self._ask_later(node)

        self._later(ASK_EVERY_S, ask)

    def _ask(self, node: "_Node") -> None:
        """A process asks what is new: its question may be lost, and so may the answer."""
        asked_at, known = self.clock.now(), node.tier.known
        if node.network.is_cut or self._dice.random() < node.network.loss:
            self.lost += 1
            return
        news = None if known is None else self.server.after(known)
        if news is None:
            node.tier.join(asked_at)
        else:
            position = self.server.position
            self._send(node, lambda: node.tier.hear(position, news, asked_at))


class _Node:
    """One process of the cluster."""

    def __init__(self, cluster: Cluster) -> None:
        self.network = Network()
        self.tier = NodeTier(cluster.server, cluster.clock, lambda: not self.network.is_cut, cluster.spread)
        settings = cluster._settings  # noqa: SLF001  # the same module
        policy = settings.cache_eviction_policy
        memory = MemoryTier(_MEMORY_BYTES, settings.l1_cache_max_entries, policy, LayerMeter())
        self.cache = Cache(settings, tiers=[memory, self.tier], clock=cluster.clock)
