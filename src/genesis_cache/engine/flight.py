"""Flight: one load of one key, and all who wait for it.

A load runs in a task of its own, so that no caller's cancellation reaches it. Callers wait on futures of their own
event loops, so that several loops and threads may share a flight.
"""

import asyncio
import contextlib
from collections.abc import Sequence
from enum import Enum
from types import TracebackType
from typing import Any

from genesis_cache.engine.feed import Feed
from genesis_cache.model.entry import Entry
from genesis_cache.model.keys import Address

LOOK_S = 1.0  # between two looks of a caller on another event loop whether that of the load is closed


class Lost(Enum):
    """Ends of a flight, or of a wait for it, that bring neither a value nor the loader's error."""

    TASK = "the event loop that ran the load was closed"
    WAIT = "the caller's own patience ended"
    NOTHING = "the loader of many keys did not bring this one"


Outcome = Entry | BaseException | Lost


class Flight:
    """One load under way. ``since`` is the log's sequence read before it began, ``generation`` that of the floors."""

    __slots__ = (
        "_waiters", "abandoned", "address", "called", "feed", "generation", "held", "is_outdated", "mates", "outcome",
        "outrun", "placed", "queued", "since", "started", "task", "trace",
    )  # fmt: skip

    def __init__(self, since: int, started: float, generation: int = 0) -> None:
        self.since = since
        self.generation = generation
        self.started = started
        self.task: asyncio.Task[None] | None = None
        self.outcome: Outcome | None = None
        self.placed = False
        self.queued = False
        """Whether it waits for a place."""
        self.called: float | None = None
        """Monotonic seconds at which its loader was called, which may be long after it was asked for."""
        self.abandoned = False
        self.outrun = False
        """Whether a load that began later has brought a value already."""
        self.is_outdated = False
        """Whether its key was changed since it began: an old value that a caller of it holds is dead."""
        self.address: Address | None = None
        """The key that it loads."""
        self.held = 0
        """Callers who will wait for it when they have done so for others."""
        self.mates: Sequence[Flight] = ()
        """All flights that one loader of many keys serves; the first stands for it where places are counted."""
        self.trace: TracebackType | None = None
        """The traceback of the loader's error, which every raising of it begins with again."""
        self.feed: Feed | None = None
        """What a streaming load has brought so far."""
        self._waiters: dict[asyncio.Future[Outcome], asyncio.AbstractEventLoop] = {}

    @property
    def waiting(self) -> int:
        """How many callers wait for it or read what it brings."""
        return len(self._waiters) + self.held + (0 if self.feed is None else self.feed.readers)

    @property
    def orphaned(self) -> bool:
        """Whether the event loop that ran the load was closed, so that it will never end."""
        return self.task is not None and self.outcome is None and self.task.get_loop().is_closed()

    async def wait(self, patience_s: float | None) -> Outcome:
        """The outcome, or `Lost.WAIT` after so many seconds. Cancelling the caller touches nobody else."""
        if self.outcome is not None:
            return self.outcome
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Outcome] = loop.create_future()
        self._waiters[future] = loop
        timer = None if patience_s is None else loop.call_later(patience_s, _settle, future, Lost.WAIT)
        self._settle_late(future)
        self._look_after(future, loop)
        try:
            return await future
        finally:
            if timer is not None:
                timer.cancel()
            self._waiters.pop(future, None)

    async def wait_for_item(self, number: int, patience_s: float | None = None) -> Outcome | Feed:
        """Of a streaming load, the feed as soon as the item of this number, from 0, has come; else as `wait`."""
        feed = self.feed
        if feed is None:
            return await self.wait(patience_s)
        if feed.count > number:
            return feed
        if self.outcome is not None:
            return self.outcome
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()
        self._waiters[future] = loop
        timer = None if patience_s is None else loop.call_later(patience_s, _settle, future, Lost.WAIT)
        feed.listen(future, loop, number)
        self._settle_late(future)
        self._look_after(future, loop)
        try:
            outcome: Outcome | Feed = await future
        finally:
            if timer is not None:
                timer.cancel()
            self._waiters.pop(future, None)
            feed.ignore(future)
        return outcome

    def _settle_late(self, future: asyncio.Future[Outcome]) -> None:
        """The flight may have landed on another thread after `wait` looked and before it was among those who wait."""
        if self.outcome is not None:
            _settle(future, self.outcome)

    def _look_after(self, future: asyncio.Future[Any], loop: asyncio.AbstractEventLoop) -> None:
        """Nobody is told when the event loop of a load is closed under it: who waits on another one has to look."""
        if future.done():
            return
        if self.orphaned:
            _settle(future, Lost.TASK)
        elif self.task is None or self.task.get_loop() is not loop:
            loop.call_later(LOOK_S, self._look_after, future, loop)

    def land(self, outcome: Outcome) -> None:
        """Give the outcome to all who wait, each on its own loop. The first outcome stays."""
        if self.outcome is not None:
            return
        self.outcome = outcome
        self.trace = outcome.__traceback__ if isinstance(outcome, BaseException) else None
        here = asyncio.get_running_loop() if asyncio._get_running_loop() else None  # noqa: SLF001  # no public "or None"
        for future, loop in list(self._waiters.items()):
            if loop is here:
                _settle(future, outcome)
            else:
                with contextlib.suppress(RuntimeError):  # it is closed: nobody waits there
                    loop.call_soon_threadsafe(_settle, future, outcome)


def _settle(future: asyncio.Future[Outcome], outcome: Outcome) -> None:
    if not future.done():
        future.set_result(outcome)


def left_of(patience_s: float | None, began: float) -> float | None:
    """What is left of a caller's patience, which began at this time of the running event loop."""
    return None if patience_s is None else max(0.0, patience_s - (asyncio.get_running_loop().time() - began))
