"""Background: what goes on behind the callers, on their event loop: refreshes, debts, demotions, clean-up.

Each job runs in an empty context, so that no request's context variables reach work done for another. A timer, not a
sleeping task, wakes the clean-up, so that a cache that was never closed leaves no task behind.
"""

import asyncio
import contextlib
import contextvars
import logging
import weakref
from collections import Counter
from collections.abc import Callable, Coroutine
from typing import Any

from genesis_cache.engine.core import Core
from genesis_cache.model.entry import Entry
from genesis_cache.policies.freshness import gone

SLICE_S = 0.0002  # after which the clean-up of memory begins no further piece; a slice takes a few times as long
PAUSE_S = 0.005  # between two slices
FAR_SWEEP_S = 0.05  # of a worker thread, a turn
RETRY_S = 0.5  # between two attempts to pay what is owed

Job = Coroutine[object, object, object]


class Background:
    """Runs and remembers the jobs of one cache."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._tasks: set[asyncio.Task[Any]] = set()
        self._once: dict[Callable[[], Job], asyncio.Task[object]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._draining = False
        self._is_reaping = False
        """Whether the loop has been asked to free memory and has not begun."""
        self._back = asyncio.Event()
        """Set when a tier that is owed something can be told."""
        self._killed: Counter[int] = Counter()
        """Entries that were found dead below a floor, by namespace."""
        self.payer: Callable[[], Coroutine[object, object, bool]] | None = None

    def spawn(self, job: Job) -> asyncio.Task[Any]:
        """Run a job behind; its failure is logged, never raised into a caller."""
        loop = asyncio.get_running_loop()
        task: asyncio.Task[Any] = loop.create_task(job, context=contextvars.Context())
        self.remember(task)
        return task

    def remember(self, task: asyncio.Task[Any]) -> None:
        """Keep a task alive until it is done, and wait for it when the cache closes."""
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            logging.getLogger("genesis_cache").error("background work failed", exc_info=error)

    def soon(self, job: Callable[[], Job]) -> None:
        """Run a job behind, unless it is under way; one that its event loop took with it is not."""
        running = self._once.get(job)
        if running is None or running.done() or running.get_loop().is_closed():
            self._once[job] = self.spawn(job())

    # -- debts -------------------------------------------------------------------------------------------------------

    def pay_later(self) -> None:
        """Tell the far tiers what they are owed, again and again until all is paid."""
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            self._elsewhere(self.pay_later)
        else:
            self.soon(self._pay)

    def pay_now(self) -> None:
        """A tier is back: do not wait for the next attempt. From any thread."""
        self._elsewhere(self._hurry)

    def _hurry(self) -> None:
        self._back.set()
        self.pay_later()

    def _elsewhere(self, act: Callable[[], None]) -> None:
        """On the loop that the work behind runs on, if there is one; else `stay_awake` will see to it."""
        if self._loop is not None and not self._loop.is_closed():
            with contextlib.suppress(RuntimeError):  # it is closed at this very moment
                self._loop.call_soon_threadsafe(act)

    async def _pay(self) -> None:
        while self.payer is not None and not self._core.closed and not await self.payer():
            if self._draining:
                return  # that was the last attempt: a tier that is down does not hold up the close
            self._back.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(RETRY_S):
                    await self._back.wait()

    # -- clean-up ----------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Wake the clean-up every ``CACHE_CLEANUP_INTERVAL`` on this loop."""
        if self._timer is not None:
            self._timer.cancel()
        wake = weakref.WeakMethod(self.clean)
        interval = self._core.settings.cache_cleanup_interval

        def tick() -> None:
            if (clean := wake()) is not None:
                clean()

        self._loop = asyncio.get_running_loop()
        self._timer = self._loop.call_later(interval, tick)

    def stay_awake(self) -> None:
        """Go on with the clean-up and the debts on this event loop, if the one they were on is no more."""
        if self._timer is not None and self._loop is not None and not self._loop.is_closed():
            return
        if not self._core.opened or asyncio._get_running_loop() is None:  # noqa: SLF001  # no public "or None"
            return
        self.start()
        if any(lane.owed for lane in self._core.lanes):
            self.pay_later()

    def clean(self) -> None:
        """Remove what expired everywhere, in slices, and set the next time."""
        if self._core.closed:
            return
        self.start()
        self.reap()
        for lane in self._core.lanes:
            self.spawn(lane.tier.sweep(FAR_SWEEP_S))

    def reap(self) -> None:
        """Free the memory of what is dead, a slice at a time."""
        memory = self._core.memory
        if memory is not None and len(memory):
            self.soon(self._reap)

    def reap_soon(self) -> None:
        """The same on the loop that the work behind runs on. From any thread."""
        if not self._is_reaping:
            self._is_reaping = True
            self._elsewhere(self._begin_to_reap)

    def _begin_to_reap(self) -> None:
        self._is_reaping = False
        if not self._core.closed:
            self.reap()

    async def _reap(self) -> None:
        core, memory = self._core, self._core.memory
        while memory is not None and not core.closed:
            memory.sweep(core.clock.now(), SLICE_S, self.doomed)
            self._mourn()
            if not memory.sweeping:
                break
            await asyncio.sleep(PAUSE_S)

    def doomed(self, entry: Entry, now: float) -> bool:
        """Whether nothing can serve the entry any more: past its times, or below a floor."""
        judged = entry.epoch is self._core.floors.epoch
        if now < entry.until and judged:
            return False
        if not judged and not self._core.living(entry):
            self._killed[entry.space & ~1] += 1
            return True
        return gone(entry, now)

    def _mourn(self) -> None:
        """Tell the gates of the namespaces how much an invalidation has killed."""
        killed, self._killed = self._killed, Counter()
        for number, entries in killed.items():
            self._core.spaces[self._core.names[number]].gate.lost(entries)

    async def drain(self, then: Callable[[], None] | None = None) -> None:
        """Wait for what is under way, do ``then``, and end what is left; used when the cache closes."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._draining = True
        here = asyncio.get_running_loop()
        mine = {task for task in self._tasks if task.get_loop() is here and task is not asyncio.current_task()}
        if mine:
            await asyncio.wait(mine, timeout=self._core.settings.redis_socket_timeout)
        if then is not None:
            then()
        mine = {task for task in self._tasks if task.get_loop() is here and task is not asyncio.current_task()}
        for task in mine:
            task.cancel()
        if mine:
            await asyncio.gather(*mine, return_exceptions=True)
        self._draining = False

    def forget(self) -> None:
        """In a forked child: the parent's jobs and timers are not ours."""
        self._tasks.clear()
        self._once.clear()
        self._is_reaping = False
        self._back = asyncio.Event()
        self._timer = self._loop = None
