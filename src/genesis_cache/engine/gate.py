"""Gate: how many loads of a namespace may run at once, who is next, and when the source behind them is spared.

First come, first served, in turns between owners: one who wants a thousand keys does not keep the others waiting.
After a cold start or a mass invalidation the places open one after the other. While the source is slow, failing or
busy, loads that nobody waits for are put off.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from threading import Lock

from genesis_cache.policies.origin import MOURNED, RAMP_S, Origin, ramp

OPEN_UP_S = 0.05  # between two looks whether the ramp has opened a place
SAME_S = 0.5  # within it a loss that is told twice, here and by the log, is one
PUT_OFF_S = 1.0  # until a load that was put off may be tried again

Ticket = tuple[asyncio.Future[None], asyncio.AbstractEventLoop]


class Gate:
    """The places of one namespace's loads, across event loops and threads. ``now`` is monotonic seconds."""

    __slots__ = (
        "_began", "_deaths", "_is_open", "_lock", "_mourning", "_now", "_queues", "_watched_on",
        "behind", "limit", "origin", "queued", "ramps", "running",
    )  # fmt: skip

    def __init__(self, limit: int, now: Callable[[], float] = time.monotonic) -> None:
        self.limit = limit
        self.running = 0
        self.queued = 0
        self.behind = 0
        """Loads under way that nobody waited for when they began."""
        self.ramps = 0
        """How often the places were opened slowly."""
        self.origin = Origin()
        self._now = now
        self._lock = Lock()
        self._queues: dict[str | None, deque[Ticket]] = {}
        """Who waits, by owner; the first owner is next."""
        self._began: float | None = None
        self._is_open = False
        """Whether the ramp is over."""
        self._mourning = 0.0
        self._deaths = 0
        self._watched_on: asyncio.AbstractEventLoop | None = None

    def anew(self) -> "Gate":
        """In a forked child: the same places, all free."""
        return Gate(self.limit, self._now)

    # -- places --------------------------------------------------------------------------------------------------------

    @property
    def room(self) -> int:
        """How many loads may run at this moment."""
        if self._is_open:
            return self.limit
        if self._began is None:
            self.slow_down()
        since_s = self._now() - (self._began or 0.0)
        self._is_open = since_s >= RAMP_S
        return ramp(self.limit, since_s)

    async def enter(self, owner: str | None = None, patience_s: float | None = None) -> None:
        """Wait for a place, TimeoutError after so many seconds. Whoever enters must `leave`."""
        with self._lock:
            if not self.queued and self.running < self.room:
                self.running += 1
                return
            loop = asyncio.get_running_loop()
            future: asyncio.Future[None] = loop.create_future()
            self._queues.setdefault(owner, deque()).append((future, loop))
            self.queued += 1
            self._fill()
            self._watch(loop)
        timer = None if patience_s is None else loop.call_later(patience_s, _give_up, future)
        try:
            await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled() and future.exception() is None:
                self.leave()
            raise
        finally:
            if timer is not None:
                timer.cancel()

    def leave(self) -> None:
        """Give the place to the next."""
        with self._lock:
            self.running -= 1
            self._fill()

    def _fill(self) -> None:
        """Give what is free to those who wait."""
        room = self.room if self.queued else 0
        while self.queued and self.running < room:
            future, loop = self._next()
            if future.done() or loop.is_closed():
                continue
            self.running += 1
            try:
                loop.call_soon_threadsafe(self._hand_over, future)
            except RuntimeError:  # it was closed at this very moment
                self.running -= 1

    def _next(self) -> Ticket:
        """The longest waiting of the owner whose turn it is."""
        owner = next(iter(self._queues))
        queue = self._queues.pop(owner)
        ticket = queue.popleft()
        if queue:
            self._queues[owner] = queue  # at the end of the turns
        self.queued -= 1
        return ticket

    def _hand_over(self, future: asyncio.Future[None]) -> None:
        if future.done():
            self.leave()
        else:
            future.set_result(None)

    # -- after a cold start or a mass invalidation ---------------------------------------------------------------------

    def slow_down(self) -> None:
        """Open the places one after the other from now on: much has to be loaded at once."""
        now = self._now()
        if self._began is None or now - self._began > SAME_S:
            self._began = now
            self._is_open = False
            self.ramps += 1

    def lost(self, entries: int) -> None:
        """So many entries were found dead by an invalidation; as many as there are places, and it was a mass one."""
        now = self._now()
        if now - self._mourning > RAMP_S:
            self._mourning, self._deaths = now, 0
        before, self._deaths = self._deaths, self._deaths + entries
        if before <= MOURNED * self.limit < self._deaths:
            self.slow_down()

    def _watch(self, loop: asyncio.AbstractEventLoop) -> None:
        """While the places open by time, look again by time."""
        is_watched = self._watched_on is not None and not self._watched_on.is_closed()
        if self.queued and self.running < self.limit and not is_watched:
            self._watched_on = loop
            loop.call_later(OPEN_UP_S, self._open_up, loop)

    def _open_up(self, loop: asyncio.AbstractEventLoop) -> None:
        with self._lock:
            self._watched_on = None
            self._fill()
            self._watch(loop)

    # -- loads that nobody waits for -----------------------------------------------------------------------------------

    def admits_behind(self) -> bool:
        """Whether a load that nobody waits for may begin: there is a place, and the source is well.

        While it is not, one at a time may, which is how its recovery is noticed.
        """
        if self.queued or self.running >= self.room:
            return False
        return self.behind == 0 or self.origin.trouble is None


def _give_up(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_exception(TimeoutError())
