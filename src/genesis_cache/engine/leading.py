"""Leading: the one load of a key that many wait for, from the lease of the key to the stored value.

A load runs in a task of its own. Its callers come and go; it ends by its own deadline, and tells whoever still waits.
"""

import asyncio
import contextlib
import contextvars
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator
from functools import partial
from typing import Any, TypeVar

import msgspec

from genesis_cache.engine.background import Background
from genesis_cache.engine.core import Core, MapKey, View
from genesis_cache.engine.entries import age, tags_of
from genesis_cache.engine.failing import Failing
from genesis_cache.engine.feed import Feed
from genesis_cache.engine.flight import Flight, Lost
from genesis_cache.engine.loading import Load, Loaded, Loader
from genesis_cache.engine.storing import Storing
from genesis_cache.model.entry import Entry
from genesis_cache.model.errors import CacheError, LoaderTimeout
from genesis_cache.model.keys import Address
from genesis_cache.model.options import Plan
from genesis_cache.policies.freshness import Verdict
from genesis_cache.tiers.base import Tier

LEASE_POLL_FIRST_S = 0.001
LEASE_POLL_MOST_S = 0.05
LEASE_PATIENCE_S = 10.0  # for a load of another process, which may hang: then this one loads by itself

LOADER_THREADS = 4096  # at most; how many loads run at once is for the namespaces' gates to say

_LOADING: contextvars.ContextVar[tuple[Flight, ...]] = contextvars.ContextVar("genesis_cache_loading", default=())
"""The loads that the running code is part of, outermost first."""

_W = TypeVar("_W", bound=object)

Further = Callable[..., Awaitable[tuple[Entry | None, Verdict]]]
"""As `Reading.further`."""


class Job(msgspec.Struct, gc=False):
    """One key to be loaded: where it belongs, by whom, with which plan, and the old value there is."""

    view: View
    key: MapKey
    address: Address
    load: Load
    plan: Plan
    stale: Entry | None
    background: bool = False
    force: bool = False
    """Load even if another process has brought a fresh value meanwhile."""
    younger_than_s: float | None = None
    """A fresh value of another process must be younger to be as good as a load; None: any is."""


class Leading:
    """Starts loads, runs them, and keeps the books of who waits."""

    def __init__(
        self, core: Core, storing: Storing, failing: Failing, background: Background, further: Further
    ) -> None:
        self._core = core
        self._storing = storing
        self._failing = failing
        self._background = background
        self._further = further
        self._position = storing.position
        self._loader = Loader(core.settings.cache_load_deadline, LOADER_THREADS)
        self._leased: dict[bytes, Flight] = {}
        self.keep = storing.keep

    def lead(self, job: Job) -> Flight:
        """The flight of a key: this job's, started now, unless one is under way. CacheClosed on a closed cache."""
        core = self._core
        core.require_open()
        flight = Flight(self._position(), core.clock.now(), core.floors.generation)
        flight.address = job.address
        if job.load.is_stream:
            flight.feed = Feed(flight)
        leading = job.view.space.flights.setdefault(job.key, flight)
        if leading is flight:
            if job.background:
                job.view.space.gate.behind += 1
                job.view.space.meter.refreshes += 1
            self.launch(self._fly(flight, job), (flight,), clean=job.background)
        return leading

    def launch(self, flying: Coroutine[Any, Any, None], flights: Iterable[Flight], *, clean: bool = False) -> None:
        """Run a load in a task of its own; ``clean``: not in the context of the caller that happened to start it."""
        task = asyncio.get_running_loop().create_task(flying, context=contextvars.Context() if clean else None)
        for flight in flights:
            flight.task = task
        self._background.remember(task)

    async def _fly(self, flight: Flight, job: Job) -> None:
        """The load's own task: whatever ends it, those who wait are told, and the key is free again."""
        try:
            outcome = await self._bring(flight, job)
        except asyncio.CancelledError as error:
            job.view.space.free(job.key, flight)  # before those who wait are told: on other loops they look at once
            flight.land(ended_by(error))
            raise
        except BaseException as error:  # noqa: BLE001  # the loader's own, SystemExit too: its callers raise it, not the loop
            self._core.log.load_failed(job.address.key, error)
            if job.stale is not None:
                self._failing.rest(job.address, job.plan.retry_after)
            flight.land(error)
        else:
            self._failing.recovered(job.view, job.address)
            flight.land(outcome)
        finally:
            if job.background:
                job.view.space.gate.behind -= 1
            if flight.abandoned:
                self._core.loads_abandoned -= 1
            job.view.space.free(job.key, flight)

    async def _bring(self, flight: Flight, job: Job) -> Entry:
        """5. Become the one process that loads, look again, 6. load, 7. store."""
        try:
            found = await self._lease(flight, job)
            return await self._load(flight, job) if found is None else found
        finally:
            self._release(flight)

    async def _load(self, flight: Flight, job: Job) -> Entry:
        core = self._core
        since = [lane.seq() for lane in core.lanes]
        seq = self._position()
        token = core.fills.begin(core.floors.given)
        if (old := job.stale) is not None and self._failing.is_dead(
            job.view, job.address.key, flight, tags_of(old), old.seq
        ):
            job.stale = None  # it was changed while this waited for the lease
        try:
            loaded = await self.run_load(job.view, job.load, flight, job.stale, job.plan.no_stale_on)
            job.view.space.outrun(job.key, flight)
            if flight.outrun and loaded.context is not None:
                loaded.context.skip()
            return await self.keep(job.view, job.address, job.plan, loaded, job.stale, token, since, seq)
        except Exception as error:
            has_old = job.stale is not None
            await self._failing.failed(job.view, job.address, job.plan, error, token, seq, has_old=has_old)
            raise
        finally:
            core.fills.end()

    async def run_load(
        self,
        view: View,
        load: Load,
        flight: Flight,
        stale: Entry | None = None,
        answers: tuple[type[Exception], ...] = (),
    ) -> Loaded:
        """Call the loader when the namespace has a place for it; what a loader itself asks for shares its place."""
        outer = _LOADING.get()
        if all(flight.outcome is not None for flight in outer):
            await self._place(view, flight)
        if flight.feed is not None:
            load = msgspec.structs.replace(load, call=partial(load.call, flight.feed))
        flights = flight.mates or (flight,)
        for one in flights:
            one.called = self._core.clock.now()
        within = _LOADING.set((*outer, *flights))
        try:
            return await self._storing.load(self._loader, view, load, stale, answers)
        finally:
            _LOADING.reset(within)
            self._leave(view, flight)

    async def _place(self, view: View, flight: Flight) -> None:
        """Wait for a place, at most for as long as a load may live; a load that all leave meanwhile is not begun."""
        patience_s = self._core.settings.cache_load_deadline
        gate = view.space.gate
        if not gate.queued and gate.running >= gate.limit:
            for other in list(view.space.flights.values()):
                if other.orphaned:
                    self._bury(view, other)
        flight.queued = True
        try:
            await gate.enter(view.owner, patience_s)
        except TimeoutError:
            msg = (
                f"no place for a load came free within {patience_s:g} s (CACHE_LOAD_DEADLINE): "
                f"{gate.limit} others of {view.space.name or 'the root'!r} are under way (max_loads)"
            )
            raise LoaderTimeout(msg) from None
        finally:
            flight.queued = False
        flight.placed = True

    async def _lease(self, flight: Flight, job: Job) -> Entry | None:
        """None once this process holds the key's lease; or the value, if another process brought it meanwhile."""
        core = self._core
        if core.authority is None:
            return None
        pause = LEASE_POLL_FIRST_S
        give_up = core.clock.now() + min(LEASE_PATIENCE_S, core.settings.cache_load_deadline)
        while not await self._take(flight, job.address, core.authority.tier) and core.clock.now() < give_up:
            await asyncio.sleep(pause)
            pause = min(pause * 1.5, LEASE_POLL_MOST_S)
        if job.force:
            return None
        entry, verdict = await self._further(job.view, job.address, sensitive=job.plan.sensitive)
        job.stale = job.stale or entry  # if it is no answer, the loader may want to know it
        if entry is None or verdict is not Verdict.FRESH or core.is_reached(job.view, entry):
            return None
        value_age = age(entry, core.clock.now())
        is_young = job.younger_than_s is None or (value_age is not None and value_age < job.younger_than_s)
        return entry if is_young else None

    async def _take(self, flight: Flight, address: Address, tier: Tier) -> bool:
        """Take the key's lease, or take it over from an older load of this process, which may hang or be outdated."""
        if address.digest not in self._leased:
            taken = tier.lease(address)
            is_mine = taken if isinstance(taken, bool) else await self._granted(taken, address, tier)
            if not is_mine and address.digest not in self._leased:
                return False
        self._leased[address.digest] = flight
        return True

    @staticmethod
    async def _granted(taken: Awaitable[bool], address: Address, tier: Tier) -> bool:
        """What the tier answers; who leaves before it is heard does not keep what was granted meanwhile."""
        try:
            return await taken
        except asyncio.CancelledError:
            tier.release(address)
            raise

    def _release(self, flight: Flight) -> None:
        address, authority = flight.address, self._core.authority
        if authority is not None and address is not None and self._leased.get(address.digest) is flight:
            del self._leased[address.digest]
            authority.tier.release(address)

    def joinable(self, view: View, key: str, load: Load, plan: Plan) -> Flight | None:
        """The load of a key under way, if it can still bring what this caller may have; else the key is free."""
        flight = view.space.flights.get(view.map_key(key))
        if flight is None:
            return None
        is_lost = load.is_stream and self._is_lost(view, key, flight, plan)
        if not (is_lost or flight.orphaned or self._is_too_old(flight)):
            return flight
        view.space.drop(view.map_key(key), flight)
        if flight.orphaned:
            self._bury(view, flight)
        return None

    def _bury(self, view: View, flight: Flight) -> None:
        """The event loop of a load was closed under it: the load cannot give back its place by itself."""
        self._leave(view, flight.mates[0] if flight.mates else flight)

    def _is_too_old(self, flight: Flight) -> bool:
        """Whether its load began so long ago that what this process cannot hear may have changed the value since."""
        core = self._core
        return core.is_deaf and core.clock.now() - flight.started > core.settings.cache_max_staleness

    def _is_lost(self, view: View, key: str, flight: Flight, plan: Plan) -> bool:
        """Whether what a load brings was invalidated meanwhile, or is not kept from its first item on.

        Who wants the items as they come must not join it then.
        """
        if flight.feed is not None and not flight.feed.is_whole:
            return True
        self._position()
        floors = self._core.floors
        is_dead = floors.killer(view.reach, key, plan.tags, flight.since)
        return flight.generation != floors.generation or bool(is_dead)

    async def wait(self, view: View, flight: Flight, patience_s: float | None) -> BaseException | Entry | Lost:
        """The flight's outcome, or `Lost.WAIT`; a caller that leaves is noticed."""
        _refuse_own(flight)
        return await self._noticed(view, flight, flight.wait(patience_s))

    async def join(
        self, view: View, flight: Flight, patience_s: float | None, load: Load
    ) -> BaseException | Entry | Lost | Feed:
        """As `wait`; who would load a stream gets the feed, with its first item, and has to `leave` it."""
        if not load.is_stream:
            return await self.wait(view, flight, patience_s)
        _refuse_own(flight)
        outcome = await self._noticed(view, flight, flight.wait_for_item(0, patience_s))
        if isinstance(outcome, Feed):
            outcome.enter()
        return outcome

    async def _noticed(self, view: View, flight: Flight, waiting: Coroutine[Any, Any, _W]) -> _W:
        try:
            outcome = await waiting
        except asyncio.CancelledError:
            self._left(view, flight)
            raise
        if outcome is Lost.WAIT:
            self._left(view, flight)
        return outcome

    @contextlib.contextmanager
    def holding(self, view: View, flights: Iterable[Flight]) -> Iterator[Callable[[Flight], None]]:
        """Count as a caller of all of them, who waits for one after the other; call what it gives as one's turn comes.

        Those whose turn has not come when it ends are left.
        """
        held = dict.fromkeys(flights)

        def turn(flight: Flight) -> None:
            del held[flight]
            flight.held -= 1

        for flight in held:
            flight.held += 1
        try:
            yield turn
        finally:
            left = {flight.mates[0] if flight.mates else flight: flight for flight in held}  # one for each load
            for flight in list(held):
                turn(flight)
            for flight in left.values():
                self._left(view, flight)

    def leave(self, view: View, feed: Feed) -> None:
        """A reader that has joined reads no more."""
        feed.leave()
        self._left(view, feed.flight)

    def _left(self, view: View, flight: Flight) -> None:
        """The last caller of a load may be gone: it goes on, but gives its place to others, if not too many do."""
        core = self._core
        if flight.mates:
            if any(mate.waiting for mate in flight.mates):
                return
            flight = flight.mates[0]
        if flight.waiting or flight.outcome is not None or flight.abandoned:
            return
        if flight.queued and flight.task is not None:
            view.space.meter.loads_given_up += 1
            _cancel(flight.task)
            return
        flight.abandoned = True
        core.loads_abandoned += 1
        self._leave(view, flight)
        self._release(flight)
        if core.loads_abandoned > core.settings.cache_max_abandoned_loads and flight.task is not None:
            _cancel(flight.task)

    @staticmethod
    def _leave(view: View, flight: Flight) -> None:
        if flight.placed:
            flight.placed = False
            view.space.gate.leave()

    def close(self) -> None:
        """Let go of the loaders' threads."""
        self._loader.close()

    def forget(self) -> None:
        """In a forked child: the threads, loads and leases of the parent are not here."""
        self._loader.forget()
        self._leased.clear()
        self._core.loads_abandoned = 0


def _refuse_own(flight: Flight) -> None:
    if flight.outcome is None and flight in _LOADING.get():
        msg = "a loader asked for the very key that it is loading: it would wait for itself"
        raise CacheError(msg)


def _cancel(task: asyncio.Task[None]) -> None:
    with contextlib.suppress(RuntimeError):  # its event loop is closed: it does not run any more
        task.get_loop().call_soon_threadsafe(task.cancel)


def ended_by(error: asyncio.CancelledError) -> asyncio.CancelledError | Lost:
    """What a cancellation means to those who wait: the task was ended, or the loader raised it by itself."""
    task = asyncio.current_task()
    return Lost.TASK if task is not None and task.cancelling() else error
