"""Reading: the whole read path, top to bottom.

A quick hit is answered by `Cache.get` itself: the entry from a dict, one epoch and one reading of the clock compared.
Everything else comes here and takes these steps in order: look near and judge; look further, tier by tier, and promote;
join or lead the flight of the key; wait for it as long as the caller may; serve, or fall back to the old value.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple

from genesis_cache.coherence.fills import Token
from genesis_cache.engine.background import Background
from genesis_cache.engine.carrying import Carrying
from genesis_cache.engine.core import Core, Lane, View
from genesis_cache.engine.entries import own_value, tags_of
from genesis_cache.engine.failing import Failing, patience
from genesis_cache.engine.feed import Feed
from genesis_cache.engine.flight import Flight, Lost, left_of
from genesis_cache.engine.hearing import NEVER, Hearing
from genesis_cache.engine.late import LateReplies
from genesis_cache.engine.leading import Job, Leading
from genesis_cache.engine.loading import Load
from genesis_cache.engine.renewing import Renewing
from genesis_cache.engine.storing import Storing
from genesis_cache.engine.writing import Writing
from genesis_cache.model.entry import Entry, Record
from genesis_cache.model.keys import Address
from genesis_cache.model.missing import MISSING
from genesis_cache.model.options import Plan
from genesis_cache.model.settings import ReadStrategy
from genesis_cache.policies.freshness import Verdict, judge, remaining
from genesis_cache.tiers.base import Answer, Buffer, Late

SERVED = (Verdict.FRESH, Verdict.REFRESH)
TIMED_MASK = 15  # of 16 reads of a far tier that answers at once one is timed


class Waiting(NamedTuple):
    """Where a road that never waits had to end: at which far tier, and what that answered if it has to be awaited."""

    at: int
    answer: Awaitable[Answer] | None
    token: Token | None = None
    """Of a question that was put a while ago; whoever goes on has to end it."""


FROM_FIRST = Waiting(0, None)


class Reading:
    """The reading verbs over all tiers."""

    def __init__(self, core: Core, hearing: Hearing, writing: Writing, background: Background) -> None:
        self._core = core
        self._hearing = hearing
        self._writing = writing
        self._background = background
        self.failing = Failing(core, writing)
        self.leading = Leading(core, Storing(core, writing), self.failing, background, self.further)
        self.renewing = Renewing(core, self.leading, self.failing)
        self.position = writing.position
        self.carrying = Carrying(core, self.accept)
        self.late_replies = LateReplies(core, background, self.accept, writing.promote)
        first = core.lanes[0] if core.lanes else None
        self._server = first if first is not None and first.tier.keeps_budget else None
        """The first far tier, if that is a server."""
        self.opener: Callable[[], Awaitable[None]] | None = None

    # -- 1. look near ------------------------------------------------------------------------------------------------

    def near(self, view: View, key: str) -> tuple[Entry | None, Verdict]:
        """What memory holds and what it is good for; an entry that nothing can serve is dropped on the way."""
        core = self._core
        now = core.clock.now()
        self._hearing.listen_if_due(now)
        if core.memory is None or (entry := core.memory.get(view.space.number, view.map_key(key))) is None:
            return None, Verdict.GONE
        if core.is_cut_off and (core.is_deaf or (entry.extra is not None and entry.extra.sensitive)):
            return None, Verdict.GONE
        if entry.epoch is not core.floors.epoch and not core.living(entry):
            core.memory.drop(entry, "invalidated")
            view.space.gate.lost(1)
            return None, Verdict.GONE
        verdict = judge(entry, now)
        if verdict is Verdict.GONE:
            core.memory.drop(entry, "ttl")
            if core.events.wants("expire"):
                core.events.emit("expire", key=key, layer=core.near_label)
            return None, verdict
        return entry, verdict

    def serve(self, view: View, key: str, entry: Entry) -> object:
        """A hit in memory: marked, counted, told to who wants to know, and timed (these hits are the sample)."""
        core = self._core
        started = time.perf_counter()
        view.lookup(key)
        core.near_meter.latency.add(time.perf_counter() - started)
        if core.memory is not None and core.memory.needs_touch:
            core.memory.touch(entry)
        entry.mark = True
        view.space.meter.near_hits += 1
        if core.log.hits:
            core.log.hit(core.near_label, key)
        if core.events.wants("hit"):
            core.events.emit("hit", key=key, layer=core.near_label, namespace=view.space.name)
        return own_value(entry)

    def peek(self, view: View, key: str, default: object) -> object:
        """The value if the nearest tier holds it fresh and can tell at once."""
        core = self._core
        core.require_open()
        if core.memory is None:
            found = self.further_now(view, view.address(key), core.lanes[:1]) if core.opened else None
            return found.value if type(found) is Record else default
        entry, verdict = self.near(view, key)
        return self.serve(view, key, entry) if entry is not None and verdict in SERVED else default

    # -- get ---------------------------------------------------------------------------------------------------------

    async def get(self, view: View, key: str, default: object, *, allow_stale: bool) -> object:
        """The fresh value from the nearest tier that has one; a stale one only where asked for; else the default."""
        core = self._core
        if not core.opened:
            await self.open()
        if core.memory is None:
            if core.clock.now() >= core.floors.heard_until:
                self._hearing.listen()
        else:
            entry, verdict = self.near(view, key)
            if entry is not None and (allow_stale or verdict in SERVED):
                return self.serve(view, key, entry)
            core.near_meter.misses += 1
        address = view.address(key)
        if self._server is not None:
            record, found = await self._from_server(view, self._server, address)
            if record is not None:
                return record.value
        else:
            now = self.further_now(view, address)
            if type(now) is Record:
                return now.value
            found = now if type(now) is Waiting else None
        return await self._get_further(view, address, default, found, allow_stale=allow_stale)

    async def _get_further(
        self, view: View, address: Address, default: object, found: Waiting | None, *, allow_stale: bool
    ) -> object:
        """As `get`, where the road that does not wait has ended; None where it has found nothing anywhere."""
        if found is not None:
            entry, verdict = await self.further(view, address, found)
            if entry is not None and (allow_stale or verdict in SERVED):
                return own_value(entry)
        self.missed(view, address.key)
        return default

    def missed(self, view: View, key: str) -> None:
        """No tier has it: counted, logged and told."""
        core = self._core
        view.space.meter.misses += 1
        if core.log.misses:
            core.log.miss(key)
        if core.events.wants("miss"):
            core.events.emit("miss", key=key, namespace=view.space.name)

    # -- 2. look further, tier by tier -------------------------------------------------------------------------------

    def further_now(self, view: View, address: Address, lanes: Sequence[Lane] | None = None) -> Record | Waiting | None:
        """The first fresh value below memory, promoted, if all tiers on the way answer at once; else where it ended."""
        core, floors = self._core, self._core.floors
        for n, lane in enumerate(core.lanes if lanes is None else lanes):
            lane.reads = reads = lane.reads + 1
            started = 0.0 if reads & TIMED_MASK else time.perf_counter()
            answer = lane.get(address)
            if answer is None:
                lane.meter.misses += 1
                continue
            if type(answer) is not bytes and type(answer) is not memoryview:
                return Waiting(n, answer)  # type: ignore[arg-type]  # what is neither of these is awaited
            record = core.codec.decode(answer, address)
            if record is None or record.isolate or record.epoch != core.log_epoch or record.seq < lane.floor:
                return Waiting(n, None)  # undecodable, or of an older log: for the road that can tell them apart
            if (core.is_cut_off or core.debtors or (view.sealed and not record.sensitive)) or (
                record.seq < floors.top and floors.killer(view.reach, address.key, record.tags, record.seq)
            ):
                return Waiting(n, None)
            if (record.swr or record.sie) and remaining(record, core.clock.wall()) <= 0:
                return Waiting(n, None)  # without these a tier does not give it out once it is past its ttl
            if started:
                lane.meter.latency.add(time.perf_counter() - started)
            if core.memory is None and floors.heard_until != NEVER:  # the plain end of `_found`, without its call
                lane.meter.hits += 1
                view.space.meter.far_hits += 1
            else:
                self._found(view, lane, record, core.fills.now())
            return record
        return None

    def _found(self, view: View, lane: Lane, record: Record, token: Token) -> Entry | None:
        """A hit below memory: counted, told to who wants to know, and promoted where there is a memory tier."""
        core = self._core
        lane.meter.hits += 1
        view.space.meter.far_hits += 1
        if core.floors.heard_until == NEVER:  # somebody wants to see each hit
            if core.log.hits:
                core.log.hit(lane.label, record.address.key)
            if core.events.wants("hit"):
                core.events.emit("hit", key=record.address.key, layer=lane.label, namespace=view.space.name)
        if core.memory is None:
            return None
        return self._writing.promote(view, record, token)

    async def _from_server(
        self, view: View, lane: Lane, address: Address
    ) -> tuple[Record, None] | tuple[None, Waiting | None]:
        """The plain case of `further`, with less ado: the first far tier is a server and has a fresh value in time.

        Else where `further` has to go on, which may await the same answer again; None where there is nothing more.
        """
        core, floors = self._core, self._core.floors
        answer = lane.get(address)
        if answer is None:
            lane.reads += 1
            lane.meter.misses += 1
            return None, Waiting(1, None) if len(core.lanes) > 1 else None
        if isinstance(answer, bytes | memoryview):  # a change that is still on its way there
            return None, Waiting(0, None)
        if not asyncio.isfuture(answer):
            answer = asyncio.ensure_future(answer)  # of somebody else's tier: a coroutine can be awaited only once
        lane.reads = reads = lane.reads + 1
        started = 0.0 if reads & TIMED_MASK else time.perf_counter()
        token = core.fills.begin(floors.given)
        try:
            envelope = await answer
            if type(envelope) is bytes or type(envelope) is memoryview:
                record = core.codec.decode(envelope, address)
                if (
                    record is not None
                    and not record.isolate
                    and record.epoch == core.log_epoch
                    and not (core.is_cut_off or core.debtors or (view.sealed and not record.sensitive))
                    and (
                        record.seq >= floors.top or not floors.killer(view.reach, address.key, record.tags, record.seq)
                    )
                    and remaining(record, core.clock.wall()) > 0
                ):
                    if started:
                        lane.meter.latency.add(time.perf_counter() - started)
                    self._found(view, lane, record, token)
                    return record, None
            return None, Waiting(0, answer, core.fills.again(token))
        finally:
            core.fills.end()

    async def further(
        self, view: View, address: Address, waiting: Waiting = FROM_FIRST, *, sensitive: bool = False
    ) -> tuple[Entry | None, Verdict]:
        """The first living value below memory, promoted; a stale one only if no tier has a fresh one.

        ``waiting`` is where `further_now` ended at this very moment, or what was asked before: the tiers before it have
        nothing.
        ``sensitive``: as for `accept`.
        """
        core = self._core
        if not core.lanes:
            return None, Verdict.GONE
        self._hearing.listen_far()
        first, asked, token = waiting
        token = token or core.fills.begin(core.floors.given)
        above = [(lane, self._hearing.known_seq(lane)) for lane in core.lanes[:first]]
        try:
            old: Record | None = None
            for lane in core.lanes[first:]:
                since, started = self._hearing.known_seq(lane), time.perf_counter()
                answer = await self._answer(view, lane, address, asked, token)
                asked = None
                record, answer = await self.carrying.accepted(view, lane, answer, address, sensitive=sensitive)
                lane.meter.latency.add(time.perf_counter() - started)
                if record is not None and answer is not None and remaining(record, core.clock.wall()) > 0:
                    if above:
                        self._writing.raise_up(record, answer, lane, above)
                    return self.promoted(view, record, token, lane)
                lane.meter.misses += 1
                above.append((lane, since))
                old = old or record
            return (None, Verdict.GONE) if old is None else self.promoted(view, old, token, None)
        finally:
            core.fills.end()

    async def _answer(
        self, view: View, lane: Lane, address: Address, asked: Awaitable[Answer] | None, token: Token
    ) -> Buffer | None:
        """A far tier's answer; nothing where it is late, though what it says then is still taken in."""
        answer = lane.get(address) if asked is None else asked
        if answer is None or isinstance(answer, bytes | memoryview):
            return answer
        found = await (answer if lane.tier.keeps_budget else self._within_budget(answer))
        if not isinstance(found, Late):
            return found
        self.late_replies.wait_for(view, lane, address, found, token)
        return None

    def promoted(self, view: View, record: Record, token: Token, lane: Lane | None) -> tuple[Entry, Verdict]:
        """An accepted record as an entry, promoted; ``lane`` None: it is stale, and no hit."""
        entry = None if lane is None else self._found(view, lane, record, token)
        if entry is None:
            entry = self._writing.promote(view, record, token)
        return entry, judge(entry, self._core.clock.now())

    async def _within_budget(self, answer: Awaitable[Answer]) -> Answer:
        """The reply if it comes within the budget of one far tier; else nothing, and the reply is let go."""
        future = asyncio.ensure_future(answer)
        done, _ = await asyncio.wait({future}, timeout=self._core.settings.cache_far_budget_ms / 1000)
        return future.result() if done else None

    def accept(
        self, view: View, lane: Lane, answer: Buffer | None, address: Address, *, sensitive: bool = False
    ) -> Record | None:
        """The record in an envelope, if it is this key's, of this log, alive, and still within its times.

        ``sensitive``, or in a namespace that is: where there is a key to seal with, what is not sealed is not ours.
        """
        if answer is None:
            return None
        core = self._core
        record = core.codec.decode(answer, address)
        must_be_sealed = view.sealed or (sensitive and core.codec.can_seal)
        if record is None or (must_be_sealed and not record.sensitive):
            lane.meter.errors += 1
            return None
        if record.epoch != core.log_epoch or record.seq < lane.floor or core.is_owed(view.reach, record):
            return None
        if core.is_cut_off and (core.is_deaf or record.sensitive):
            return None
        if core.floors.killer(view.reach, address.key, record.tags, record.seq):
            return None
        return record if core.clock.wall() < record.gone_at else None

    # -- get_or_set --------------------------------------------------------------------------------------------------

    async def get_or_set(self, view: View, key: str, load: Load, plan: Plan) -> object:
        """The value, loaded at most once however many callers want it at this moment.

        Of a streaming load that is under way, its feed, as soon as the first item has come; the caller leaves it.
        """
        if not self._core.opened:
            await self.open()
        began = 0.0
        while True:
            entry, verdict = self._near_by_plan(view, key, load, plan)
            if verdict is Verdict.FRESH and entry is not None:
                return self.serve(view, key, entry)
            if entry is None:
                entry, verdict = await self._first_look_further(view, key, plan)
                if verdict is Verdict.FRESH and entry is not None:
                    return own_value(entry)
            if entry is not None and self._serves_now(view, key, entry, verdict, load, plan):
                return own_value(entry)
            stale = entry if verdict in (Verdict.WHILE_REVALIDATE, Verdict.IF_ERROR) else None
            joined, started = self.position(), time.perf_counter()
            flight = self._join_or_lead(view, key, load, plan, stale)
            began = began or asyncio.get_running_loop().time()
            patience_s = patience(plan, stale, flight, began, self._core.clock.now())
            outcome = await self.leading.join(view, flight, patience_s, load)
            self._core.latency.add(time.perf_counter() - started)
            if isinstance(outcome, Entry | Feed):
                if (found := self._brought(view, key, flight, outcome, joined)) is not MISSING:
                    return found
            elif outcome not in (Lost.TASK, Lost.NOTHING) and not self.failing.is_outdated(
                view, key, flight, outcome, stale, plan
            ):
                return self.failing.fall_back(view, key, flight, outcome, stale, plan)

    def _near_by_plan(self, view: View, key: str, load: Load, plan: Plan) -> tuple[Entry | None, Verdict]:
        if plan.refresh_every is not None:
            self.renewing.asked(view, view.address(key), load, plan)
        return self.near_sealed(view, key) if plan.sensitive else self.near(view, key)

    def near_sealed(self, view: View, key: str) -> tuple[Entry | None, Verdict]:
        """As `near`; a value that should have been sealed and was not came from somebody else's hand."""
        entry, verdict = self.near(view, key)
        is_sealed = entry is None or (entry.extra is not None and entry.extra.sensitive)
        return (entry, verdict) if is_sealed or not self._core.codec.can_seal else (None, Verdict.GONE)

    async def _first_look_further(self, view: View, key: str, plan: Plan) -> tuple[Entry | None, Verdict]:
        core = self._core
        address = view.address(key)
        if core.memory is not None:
            core.near_meter.misses += 1
        if view.map_key(key) in view.space.flights or not core.lanes:
            return None, Verdict.GONE
        started = time.perf_counter()
        entry, verdict = await self.further(view, address, sensitive=plan.sensitive)
        if entry is None:
            return self.near(view, key)  # it may have been loaded while this call waited
        if verdict in SERVED:
            self.failing.disproved(view, key)
        core.latency.add(time.perf_counter() - started)
        return entry, verdict

    def quick(self, view: View, key: str) -> tuple[bool, object]:
        """Whether memory holds the key fresh with nothing due, and its value; for callers outside an event loop."""
        if not self._core.opened:
            return False, None
        entry, verdict = self.near(view, key)
        if entry is None or verdict is not Verdict.FRESH:
            return False, None
        return True, self.serve(view, key, entry)

    async def refresh(self, view: View, key: str, load: Load, plan: Plan) -> object:
        """Load now, whatever is held, store it and return it; joins a load that is under way."""
        if not self._core.opened:
            await self.open()
        began = asyncio.get_running_loop().time()
        while True:
            joined = self.position()
            flight = self.leading.joinable(view, key, load, plan)
            if flight is None:
                job = Job(view, view.map_key(key), view.address(key), load, plan, self.near(view, key)[0], force=True)
                flight = self.leading.lead(job)
            outcome = await self.leading.join(view, flight, left_of(plan.hard_timeout, began), load)
            if isinstance(outcome, Entry | Feed):
                if (found := self._brought(view, key, flight, outcome, joined)) is not MISSING:
                    return found
            elif outcome not in (Lost.TASK, Lost.NOTHING):
                return self.failing.fall_back(view, key, flight, outcome, None, plan)

    # -- 3. what may be served at once -------------------------------------------------------------------------------

    def _serves_now(self, view: View, key: str, entry: Entry, verdict: Verdict, load: Load, plan: Plan) -> bool:
        """Whether an entry past its best is the answer: refreshed behind, or held while a failing load rests."""
        core = self._core
        resting = self.failing.resting(view.address(key))
        if verdict is Verdict.IF_ERROR:
            if resting:
                self.failing.stale_served(view, key)
            return resting
        aside = core.settings.cache_read_strategy is ReadStrategy.CACHE_ASIDE
        if verdict is Verdict.WHILE_REVALIDATE:
            if aside and not resting:
                return False
            self.failing.stale_served(view, key)
        elif verdict is Verdict.REFRESH:
            self.serve(view, key, entry)
        if not resting and not aside:
            self._refresh(view, key, load, plan, entry)
        return True

    def _refresh(self, view: View, key: str, load: Load, plan: Plan, old: Entry) -> None:
        address, map_key = view.address(key), view.map_key(key)
        if map_key not in view.space.flights and self.failing.admits_behind(view, [address]):
            self.leading.lead(Job(view, map_key, address, load, plan, old, background=True))

    # -- 4. join or lead the flight ----------------------------------------------------------------------------------

    def _join_or_lead(self, view: View, key: str, load: Load, plan: Plan, stale: Entry | None) -> Flight:
        flight = self.leading.joinable(view, key, load, plan)
        if flight is not None:
            view.space.meter.coalesced += 1
            return flight
        self.missed(view, key)
        if (known := self.failing.known(view, key)) is not None:
            return known
        return self.leading.lead(Job(view, view.map_key(key), view.address(key), load, plan, stale))

    # -- 6. whether what the load brought is good enough for this caller ---------------------------------------------

    def _brought(self, view: View, key: str, flight: Flight, outcome: Entry | Feed, joined: int) -> object:
        """The value of a load, or the feed of a stream; MISSING where it was invalidated meanwhile."""
        if isinstance(outcome, Feed):
            return outcome
        return MISSING if self.killed_since(view, key, flight, outcome, joined) else own_value(outcome)

    def killed_since(self, view: View, key: str, flight: Flight, entry: Entry, joined: int) -> bool:
        """Whether the value may have been invalidated after its load began and before this caller asked for it."""
        if entry.seq >= joined:
            return False
        if flight.generation != self._core.floors.generation:
            return True  # what killed it may have been forgotten since
        # The highest killer may be younger than the call and hide one that is not, so any of them counts.
        return bool(self._core.floors.killer(view.reach, key, tags_of(entry), entry.seq))

    async def open(self) -> None:
        """Open the cache at its first use; CacheClosed if it was closed."""
        if self.opener is not None:
            await self.opener()

    def forget(self) -> None:
        """In a forked child: no load of the parent is under way here."""
        self.leading.forget()
        self.renewing.forget()
        self.late_replies.forget()
        for space in self._core.spaces.values():
            space.flights.clear()
            space.hung.clear()
            space.gate = space.gate.anew()
