"""Resident refresh: what this process held and used, and another has changed, is fetched from the shared tier again.

After the backplane of FusionCache, which refreshes only where a value is resident, with what its users missed: only
keys in use (hit since the eviction policy last looked at them), in batches, after a random pause, and no more than so
many a second, so that a change in one process is no storm of reads from all others.
"""

import asyncio
import random
import weakref
from collections.abc import Callable, Sequence

from genesis_cache.engine.background import Background
from genesis_cache.engine.core import Core, Lane, MapKey
from genesis_cache.engine.hearing import Hearing
from genesis_cache.engine.reading import Reading
from genesis_cache.engine.writing import Writing
from genesis_cache.model.keys import address_of
from genesis_cache.policies.freshness import remaining

SPREAD_S = 0.1  # over which processes spread their fetches of the same change
BATCH = 128  # keys fetched at once; the next batch after another pause, so about 2,500 a second at most
MOST_WAITING = 4096  # keys; what comes beyond is fetched by whoever asks for it

Place = tuple[int, MapKey]


class Resident:
    """Fetches again what others have changed; ``lane`` is the tier whose log is followed."""

    def __init__(
        self, core: Core, lane: Lane, hearing: Hearing, reading: Reading, writing: Writing, background: Background
    ) -> None:
        self._core = core
        self._lane = lane
        self._hearing = hearing
        self._reading = reading
        self._writing = writing
        self._background = background
        self._waiting: dict[Place, None] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._is_called = False
        self._timer: asyncio.TimerHandle | None = None
        self.fetched = 0
        """Keys that were found in the shared tier, and are in memory again."""

    def settle(self) -> None:
        """This event loop is where the work goes on, if the one it was on is no more."""
        if self._loop is None or self._loop.is_closed():
            running = asyncio._get_running_loop()  # noqa: SLF001  # no public "or None"
            if running is not None and self._core.opened:
                self._loop, self._timer, self._is_called = running, None, False

    def forget(self) -> None:
        """In a forked child: the parent's loop is not here."""
        self._loop = self._timer = None
        self._is_called = False
        self._waiting.clear()

    def told(self) -> None:
        """The log has something new: have the loop take it in, though nobody reads. From any thread."""
        loop = self._loop
        if loop is None or self._is_called:
            return
        self._is_called = True
        try:
            loop.call_soon_threadsafe(_call, weakref.WeakMethod(self._listen))
        except RuntimeError:  # it was closed just now
            self._is_called = False

    def _listen(self) -> None:
        self._is_called = False
        if not self._core.closed:
            self._hearing.listen()

    def lost(self, place: Place) -> None:
        """A key that was used here was changed by another process, and its copy is gone."""
        if len(self._waiting) >= MOST_WAITING:
            return
        self._waiting[place] = None
        loop = self._loop
        if self._timer is None and loop is not None and asyncio._get_running_loop() is loop:  # noqa: SLF001  # no public "or None"
            self._wait(loop)

    def _wait(self, loop: asyncio.AbstractEventLoop) -> None:
        pause_s = SPREAD_S * random.random()  # noqa: S311  # spreads reads, protects nothing
        self._timer = loop.call_later(pause_s, _call, weakref.WeakMethod(self._begin))

    def _begin(self) -> None:
        self._timer = None
        if not self._core.closed:
            self._background.soon(self.fetch)

    async def fetch(self) -> None:
        """Fetch a batch of what waits, and see to the rest later."""
        batch = list(self._waiting)[:BATCH]
        for place in batch:
            del self._waiting[place]
        if self._lane.tier.down is None and not self._core.is_cut_off:
            await self._fetch([place for place in batch if self._is_wanted(place)])
        if self._waiting and self._timer is None:
            self._wait(asyncio.get_running_loop())

    def _is_wanted(self, place: Place) -> bool:
        """Whether nobody has brought it, and nobody is bringing it."""
        core, (number, key) = self._core, place
        space = core.spaces[core.names[number]]
        return key not in space.flights and core.memory is not None and core.memory.get(number, key) is None

    async def _fetch(self, places: Sequence[Place]) -> None:
        core = self._core
        spaces = [core.spaces[core.names[number]] for number, _ in places]
        views = [
            core.view(space.name, key[0] if isinstance(key, tuple) else None, space.defaults)
            for space, (_, key) in zip(spaces, places, strict=True)
        ]
        addresses = [
            address_of(view.scope, key[1] if isinstance(key, tuple) else key)
            for view, (_, key) in zip(views, places, strict=True)
        ]
        token = core.fills.begin(core.floors.given)
        try:
            answers = await self._lane.get_many(addresses) if addresses else ()
            for view, address, answer, place in zip(views, addresses, answers, places, strict=True):
                if not isinstance(answer, bytes | memoryview) or not self._is_wanted(place):
                    continue
                record = self._reading.accept(view, self._lane, answer, address)
                if record is not None and remaining(record, core.clock.wall()) > 0:
                    self._writing.promote(view, record, token)
                    self.fetched += 1
        finally:
            core.fills.end()


def _call(method: Callable[[], Callable[[], None] | None]) -> None:
    """Call a method, unless its object is gone."""
    if (bound := method()) is not None:
        bound()
