"""The watch: proves, while a cache runs, that it hears of the others' changes; at intervals, behind its callers."""

import asyncio
import logging
import os
import weakref
from collections.abc import Callable

from genesis_cache.engine.core import Lane
from genesis_cache.engine.engine import Engine
from genesis_cache.engine.hearing import NEVER
from genesis_cache.insight.canary import Canary
from genesis_cache.insight.sampling import Sampling

MOST_A_SECOND = 20.0  # canaries of all processes together: with more of them each sends less often
EARLIEST = 0.5  # share of the interval before the first canary, so that processes started together do not sing together
SILENT_AFTER = 10  # intervals
_logger = logging.getLogger("genesis_cache")


class Watch:
    """Canaries and samples of one cache, if it has a log that is shared over a server and has not been told not to."""

    def __init__(self, engine: Engine) -> None:
        core = engine.core
        self._core = core
        self._hearing = engine.hearing
        self._background = engine.background
        self._told = core.propagation
        self._interval_s = core.settings.cache_canary_interval
        self._timer: asyncio.TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._pid = os.getpid()
        lane = core.authority
        if lane is not None and lane.tier.is_shared and self._interval_s is not None:
            self._join(lane)

    def _join(self, lane: Lane) -> None:
        self.canary = Canary(self._core, self._hearing, lane.tier)
        self.sampling = Sampling(self._core, lane, self._background)
        self._told.interval_s = self._interval_s
        told, hear = lane.tier.on_news, self.canary.hear

        def news() -> None:
            told()
            hear()

        lane.tier.on_news = news
        awake = self._hearing.keeper

        def keep() -> None:
            awake()
            self.stay_awake()

        self._hearing.keeper = keep

    def stay_awake(self) -> None:
        """Go on with it on this event loop, if the one it was on is no more, or was the parent's."""
        is_mine = self._pid == os.getpid()
        if is_mine and self._timer is not None and self._loop is not None and not self._loop.is_closed():
            return
        if self._core.opened and asyncio._get_running_loop() is not None:  # noqa: SLF001  # no public "or None"
            self._pid = os.getpid()
            self._told.senders = 0
            self.sampling.forget()
            self._arm(EARLIEST)

    def _arm(self, share: float = 1.0) -> None:
        interval_s = max(self._interval_s or 0.0, self._told.senders / MOST_A_SECOND)
        self._told.interval_s = interval_s
        self._loop = asyncio.get_running_loop()
        self._timer = self._loop.call_later(interval_s * share, _call, weakref.WeakMethod(self._tick))

    def _tick(self) -> None:
        if self._core.closed:
            self._timer = None
            return
        self._arm()
        self._background.soon(self.round)

    async def round(self) -> None:
        """Send a canary and compare a few entries."""
        if await self.canary.send():
            patience_s = self._core.settings.cache_max_staleness
            asyncio.get_running_loop().call_later(patience_s, _call, weakref.WeakMethod(self.judge))
        self._told.senders = self.canary.forget_silent(SILENT_AFTER * (self._told.interval_s or 0.0))
        self.judge()
        await self.sampling.round()

    def judge(self) -> None:
        """Find out whether the log keeps anything back; while it does, this process does not count as hearing."""
        core, told = self._core, self._told
        is_kept_back = None if core.closed else self.canary.is_kept_back()
        if is_kept_back is None or is_kept_back == core.is_quiet:
            return
        core.is_quiet = is_kept_back
        core.floors.heard_until = NEVER
        if is_kept_back:
            told.quiet_since = core.clock.now()
            _logger.warning("the log of changes keeps back what it has taken: does a proxy read it from a replica?")
        else:
            told.quiet_since = None
            self._hearing.start_over()
            _logger.warning("the log of changes tells again what it has taken")
        self._hearing.listen()


def _call(method: Callable[[], Callable[[], None] | None]) -> None:
    """Call a method, unless its object is gone."""
    if (bound := method()) is not None:
        bound()
