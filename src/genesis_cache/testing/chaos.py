"""Chaos around a tier: latency, failures, lost news, as much of each as a test asks for, decided by a seed.

    redis = ChaosTier(tier, seed=7)
    cache = Cache(settings, tiers=[memory, redis])
    redis.chaos.latency_s = 0.2       # every read and change takes 200 ms more
    redis.chaos.failing_writes = 0.5  # every second change is not taken, and owed
    redis.chaos.is_deaf = True        # what others change is not heard, and the cache knows it
    redis.chaos.heal()

It stands for any tier of a cache, embedded or over a server, yours as well as ours, and does nothing until told to.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any

from genesis_cache.model.notice import Notice, Position
from genesis_cache.tiers.base import Answer, Buffer, Change, Receipt, Tier

__all__ = ["Chaos", "ChaosTier"]


@dataclass
class Chaos:
    """What befalls the calls of a tier. The defaults do nothing; all may be changed at any time."""

    latency_s: float = 0.0
    """Reads and changes take so much longer, in real time."""
    jitter_s: float = 0.0
    """At random up to so much longer still."""
    failing_reads: float = 0.0
    """Share of the reads that find nothing, from 0 to 1."""
    failing_writes: float = 0.0
    """Share of the batches of changes that are not taken, and stay owed."""
    failing_leases: float = 0.0
    """Share of the attempts to become the one who loads that are refused."""
    is_deaf: bool = False
    """Nothing new of the log is heard, and nothing proves that there is nothing: the process counts as cut off."""
    is_quiet: bool = False
    """Nothing new of the log is heard, and it claims that there is nothing, as one that is read from a replica."""

    def heal(self) -> None:
        """Back to doing nothing."""
        for one in fields(self):
            setattr(self, one.name, one.default)


class ChaosTier:
    """A `Tier` around another. ``counts`` has how often each kind of harm was done."""

    def __init__(self, tier: Tier, *, seed: int = 0) -> None:
        self.chaos = Chaos()
        self.counts = {"slow": 0, "read": 0, "write": 0, "lease": 0, "news": 0}
        self._tier = tier
        self._dice = random.Random(seed)  # a seed is what makes a run repeatable
        self._heard: tuple[Position | None, float | None] | None = None
        self._on_news: Callable[[], object] = _nothing
        tier.on_news = self._news

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tier, name)

    # -- told to the cache --------------------------------------------------------------------------------------

    @property
    def on_news(self) -> Callable[[], object]:
        """As `Tier.on_news`."""
        return self._on_news

    @on_news.setter
    def on_news(self, told: Callable[[], object]) -> None:
        self._on_news = told

    @property
    def on_down(self) -> Callable[[str], object]:
        """As `Tier.on_down`."""
        return self._tier.on_down

    @on_down.setter
    def on_down(self, told: Callable[[str], object]) -> None:
        self._tier.on_down = told

    @property
    def on_up(self) -> Callable[[], object]:
        """As `Tier.on_up`."""
        return self._tier.on_up

    @on_up.setter
    def on_up(self, told: Callable[[], object]) -> None:
        self._tier.on_up = told

    def _news(self) -> None:
        if self.chaos.is_deaf or self.chaos.is_quiet:
            self.counts["news"] += 1
        else:
            self._on_news()

    # -- reading and writing ------------------------------------------------------------------------------------

    def get(self, address: Any) -> Buffer | Awaitable[Answer] | None:
        """As `Tier.get`."""
        if self._happens(self.chaos.failing_reads, "read"):
            return None
        answer = self._tier.get(address)
        return answer if not self._is_slow else self._slowly(answer)

    async def get_many(self, addresses: Sequence[Any]) -> Sequence[Answer]:
        """As `Tier.get_many`; a batch fails as one."""
        if self._happens(self.chaos.failing_reads, "read"):
            return [None] * len(addresses)
        await self._pause()
        return await self._tier.get_many(addresses)

    def commit(self, changes: Sequence[Change]) -> Awaitable[list[Receipt] | None]:
        """As `Tier.commit`; a batch fails as one."""
        if self._happens(self.chaos.failing_writes, "write"):
            owed: asyncio.Future[list[Receipt] | None] = asyncio.get_running_loop().create_future()
            owed.set_result(None)
            return owed
        answer = self._tier.commit(changes)
        return answer if not self._is_slow else asyncio.ensure_future(self._later(answer))

    def commit_now(self, changes: Sequence[Change]) -> list[Receipt] | None:
        """As `Tier.commit_now`; a tier that is slow or fails cannot."""
        if self._is_slow or self.chaos.failing_writes:
            return None
        return self._tier.commit_now(changes)

    def lease(self, address: Any) -> bool | Awaitable[bool]:
        """As `Tier.lease`."""
        return not self._happens(self.chaos.failing_leases, "lease") and self._tier.lease(address)

    @property
    def _is_slow(self) -> bool:
        return self.chaos.latency_s > 0 or self.chaos.jitter_s > 0

    def _happens(self, share: float, what: str) -> bool:
        happens = share > 0 and self._dice.random() < share
        self.counts[what] += happens
        return happens

    async def _slowly(self, answer: Buffer | Awaitable[Answer] | None) -> Answer:
        await self._pause()
        return await answer if isinstance(answer, Awaitable) else answer

    async def _later(self, answer: Awaitable[list[Receipt] | None]) -> list[Receipt] | None:
        await self._pause()
        return await answer

    async def _pause(self) -> None:
        if self._is_slow:
            self.counts["slow"] += 1
            await asyncio.sleep(self.chaos.latency_s + self.chaos.jitter_s * self._dice.random())

    # -- the log ------------------------------------------------------------------------------------------------

    def position(self) -> Position | None:
        """As `Tier.position`; that of the moment when the news stopped."""
        if self.chaos.is_deaf or self.chaos.is_quiet:
            if self._heard is None:
                self._heard = self._tier.position(), self._tier.heard_at
            return self._heard[0]
        if self._heard is not None:
            self._heard = None
            self._on_news()
        return self._tier.position()

    @property
    def heard_at(self) -> float | None:
        """As `Tier.heard_at`."""
        if not self.chaos.is_deaf:
            return self._tier.heard_at
        self.position()
        return None if self._heard is None else self._heard[1]

    def notices(self, after: Position) -> list[Notice] | None:
        """As `Tier.notices`."""
        found = self._tier.notices(after)
        if not (self.chaos.is_deaf or self.chaos.is_quiet) or found is None:
            return found
        position = self.position()
        return [notice for notice in found if position is not None and notice.seq <= position.seq]


def _nothing() -> None:
    """Nobody asked to be told."""
