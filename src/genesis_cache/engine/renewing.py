"""Renewing: loads behind at a fixed interval (``refresh_every``), for as long as somebody asks for what they bring.

A key is on the schedule from the call that names the interval until an interval in which nobody asked for it. Whether
somebody did is told by the mark that a hit sets on the entry anyway, so that hits are not slower. Of several processes
that ask for a key, one loads and the others take over what it stored. A timer wakes the schedule, not a sleeping task,
so that a cache that was never closed leaves no task behind.
"""

import asyncio
import contextlib
import weakref

import msgspec

from genesis_cache.engine.core import Core, View
from genesis_cache.engine.failing import Failing
from genesis_cache.engine.flight import Flight
from genesis_cache.engine.leading import Job, Leading
from genesis_cache.engine.loading import Load
from genesis_cache.model.entry import Entry, Extra
from genesis_cache.model.keys import Address
from genesis_cache.model.options import Plan
from genesis_cache.model.settings import ReadStrategy

MOST_KEYS = 1024  # on the schedule of one cache; further ones live by their ttl
TAKEN_OVER_SHARE = 0.5  # of the interval: a value of another process that is younger than this is as good as a load


class Renewal(msgspec.Struct):
    """One key on the schedule."""

    view: View
    address: Address
    load: Load
    plan: Plan
    every_s: float
    due: float
    """Monotonic seconds."""
    is_asked: bool = True
    """Whether somebody came by `Renewing.asked` since the last load."""


class Renewing:
    """The schedule of one cache."""

    def __init__(self, core: Core, leading: Leading, failing: Failing) -> None:
        self._core = core
        self._leading = leading
        self._failing = failing
        self._renewals: dict[bytes, Renewal] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._is_aside = core.settings.cache_read_strategy is ReadStrategy.CACHE_ASIDE

    def __len__(self) -> int:
        return len(self._renewals)

    def asked(self, view: View, address: Address, load: Load, plan: Plan) -> None:
        """Somebody wants this key, which is to be loaded every so often. From an event loop."""
        if plan.refresh_every is None or self._is_aside:
            return
        known = self._renewals.get(address.digest)
        is_new = known is None or known.every_s != plan.refresh_every
        if known is not None:
            known.is_asked = True
            known.load, known.plan = load, plan
            if is_new:
                known.every_s = plan.refresh_every
                known.due = min(known.due, self._core.clock.now() + known.every_s)
        elif len(self._renewals) < MOST_KEYS:
            due = self._core.clock.now() + plan.refresh_every
            self._renewals[address.digest] = Renewal(view, address, load, plan, plan.refresh_every, due)
        else:
            return
        home = self._loop
        if home is None or not home.is_running() or (is_new and home is asyncio.get_running_loop()):
            self._set_timer()
        elif is_new:  # the schedule stays where it is: this event loop may be a short-lived one
            with contextlib.suppress(RuntimeError):  # closed just now: the next who asks sees to it
                home.call_soon_threadsafe(self._set_timer)

    def tick(self) -> None:
        """Load what is due and was asked for since its last load; let go of what was not."""
        now = self._core.clock.now()
        for digest, renewal in list(self._renewals.items()):
            if renewal.due > now or self._core.closed:
                continue
            entry = self._entry(renewal)
            if not (renewal.is_asked or (entry is not None and entry.mark)):
                del self._renewals[digest]
                continue
            renewal.due = now + renewal.every_s
            renewal.is_asked = False
            self._renew(renewal, entry, now)
        self._set_timer()

    def _renew(self, renewal: Renewal, entry: Entry | None, now: float) -> None:
        view, address = renewal.view, renewal.address
        map_key = view.map_key(address.key)
        if map_key in view.space.flights:
            return
        if not self._failing.admits_behind(view, [address]):
            renewal.is_asked = True
            return
        if entry is not None:
            entry.mark = False
            _make_due(entry, now)
        job = Job(view, map_key, address, renewal.load, renewal.plan, entry, background=True)
        job.younger_than_s = TAKEN_OVER_SHARE * renewal.every_s
        flight = self._leading.lead(job)
        if flight.task is not None:
            flight.task.add_done_callback(lambda _: self._renewed(renewal, flight))

    def _renewed(self, renewal: Renewal, flight: Flight) -> None:
        """What takes an entry's place counts as used, but nobody has asked for it yet."""
        if flight.outcome is (entry := self._entry(renewal)) and entry is not None:
            entry.mark = False

    def _entry(self, renewal: Renewal) -> Entry | None:
        memory, view = self._core.memory, renewal.view
        return None if memory is None else memory.get(view.space.number, view.map_key(renewal.address.key))

    def _set_timer(self) -> None:
        """Wake for the next that is due, on the loop that runs now."""
        self.stop()
        if not self._renewals or self._core.closed:
            return
        wake = weakref.WeakMethod(self.tick)

        def ring() -> None:
            if (tick := wake()) is not None:
                tick()

        self._loop = asyncio.get_running_loop()
        due = min(renewal.due for renewal in self._renewals.values())
        self._timer = self._loop.call_later(max(due - self._core.clock.now(), 0.001), ring)

    def stop(self) -> None:
        """Set no alarm; the cache closes, or another loop takes over."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def close(self) -> None:
        """Forget the schedule."""
        self.stop()
        self._renewals.clear()

    def forget(self) -> None:
        """In a forked child: the parent renews what its callers ask for, this process what its own will."""
        self._renewals.clear()
        self._timer = self._loop = None


def _make_due(entry: Entry, now: float) -> None:
    """Have the entry count as one that a refresh is due for, so that a newer one found elsewhere replaces it."""
    if entry.extra is None:
        entry.extra = Extra()
    entry.extra.refresh_at = min(entry.extra.refresh_at, now)
    entry.quick_until = min(entry.quick_until, now)
