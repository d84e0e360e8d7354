"""Rewriting: the same value with other times: stale at once (`expire`), or fresh for longer (`touch`).

What is written is what this process holds, so it is written as a fill: only where nobody has changed the key since this
process last heard. Others are told by a notice of their own once it is there.
"""

import asyncio
from collections.abc import Sequence
from enum import Enum

import msgspec

from genesis_cache.coherence.fills import Token
from genesis_cache.engine.core import Core, Lane, View
from genesis_cache.engine.entries import near_entry, stored_record, tags_of
from genesis_cache.engine.hearing import Hearing
from genesis_cache.engine.reading import Reading
from genesis_cache.engine.writing import DONE, Writing
from genesis_cache.model.entry import Entry, Record
from genesis_cache.model.errors import SerializationError
from genesis_cache.model.keys import address_of
from genesis_cache.model.notice import Kind, Notice
from genesis_cache.model.options import Plan
from genesis_cache.model.outcome import Outcome
from genesis_cache.model.settings import WriteStrategy
from genesis_cache.policies.freshness import Verdict
from genesis_cache.policies.placement import far_wanted, near_wanted
from genesis_cache.tiers.base import Put

FRESH = (Verdict.FRESH, Verdict.REFRESH)
ATTEMPTS = 5  # where others change the key at the same time
PAUSE_S = 0.005  # for their changes to be heard


class Written(Enum):
    """Where new times have got to; true where they are in force."""

    REFUSED = "others have changed the key"
    DOWN = "the tier whose log counts does not take it"
    NEAR = "in memory, which alone has the value"
    FAR = "in the far tiers too"

    def __bool__(self) -> bool:
        return self in (Written.NEAR, Written.FAR)


class _Look(msgspec.Struct):
    """What was found of a key, and up to where each log was known when it was looked for."""

    entry: Entry | None
    verdict: Verdict
    token: Token
    since: dict[str, int]
    """By layer."""


class Rewriting:
    """`Cache.expire` and `Cache.touch`."""

    def __init__(self, core: Core, hearing: Hearing, reading: Reading, writing: Writing) -> None:
        self._core = core
        self._hearing = hearing
        self._reading = reading
        self._writing = writing

    async def expire(self, view: View, keys: Sequence[str]) -> Outcome:
        """Make keys stale now; those that no stale option keeps are deleted."""
        degraded: tuple[str, ...] = ()
        dropped: list[str] = []
        for key in keys:
            outcome = await self._expire(view, key)
            if outcome is None:
                dropped.append(key)
            else:
                degraded += outcome.degraded
        if dropped:
            degraded += (await self._writing.delete(view, dropped)).degraded
        view.space.meter.invalidations["expire"] += len(keys)
        return Outcome(tuple(dict.fromkeys(degraded))) if degraded else DONE

    async def _expire(self, view: View, key: str) -> Outcome | None:
        """What became of the key, or None where it has to be deleted."""
        for _ in range(ATTEMPTS):
            look = self._begin()
            try:
                await self._look(view, key, look)
                entry = look.entry
                if entry is None or entry.extra is None or not (entry.extra.swr_until or entry.extra.sie_until):
                    return None
                record = self._record(view, key, entry)
                age = max(0.0, self._core.clock.wall() - record.created)
                stale = msgspec.structs.replace(record, ttl=age if record.ttl is None else min(record.ttl, age))
                written = await self._write(view, stale, look)
                if written:
                    return await self._tell(view, key) if written is Written.FAR else DONE
                if written is Written.DOWN:
                    return None
            finally:
                self._core.fills.end()
            await asyncio.sleep(PAUSE_S)
        return None

    async def touch(self, view: View, key: str, ttl: float | None) -> bool:
        """Fresh for ``ttl`` seconds from now; False where there is no fresh value."""
        for _ in range(ATTEMPTS):
            look = self._begin()
            try:
                await self._look(view, key, look)
                entry = look.entry
                if entry is None or look.verdict not in FRESH:
                    return False
                record = self._record(view, key, entry)
                age = max(0.0, self._core.clock.wall() - record.created)
                longer = msgspec.structs.replace(record, ttl=None if ttl is None else age + ttl)
                written = await self._write(view, longer, look)
                if written is Written.FAR:
                    await self._tell(view, key)
                if written or written is Written.DOWN:
                    return bool(written)
            finally:
                self._core.fills.end()
            await asyncio.sleep(PAUSE_S)
        return False

    def _begin(self) -> _Look:
        self._hearing.listen()  # what was changed before now shall not count as changed meanwhile
        core = self._core
        since = {lane.label: lane.seq() for lane in core.lanes}
        if core.authority is not None:
            since[core.authority.label] = self._hearing.heard_seq
        return _Look(None, Verdict.GONE, core.fills.begin(core.floors.given), since)

    async def _look(self, view: View, key: str, look: _Look) -> None:
        """The nearest entry, unless its key was changed or invalidated while it was being read."""
        core = self._core
        entry, verdict = self._reading.near(view, key)
        if entry is None:
            entry, verdict = await self._reading.further(view, address_of(view.scope, key))
        if entry is None or not core.fills.alive(look.token, (view.space.number, entry.key)):
            return
        if not core.floors.killer(view.reach, key, tags_of(entry), entry.seq):
            look.entry, look.verdict = entry, verdict

    def _record(self, view: View, key: str, entry: Entry) -> Record:
        return stored_record(self._core, address_of(view.scope, key), entry)

    async def _write(self, view: View, record: Record, look: _Look) -> "Written":
        """Store it again where it was meant to be, unless its key was changed since this process heard."""
        core, key = self._core, view.map_key(record.address.key)
        plan = Plan(
            ttl=record.ttl,
            priority=record.priority,
            version=record.version,
            sensitive=record.sensitive,
            isolate=record.isolate,
            tiers=record.tiers,
        )
        can_seal = core.codec.can_seal
        wanted = far_wanted(plan, core.far_kinds, WriteStrategy.WRITE_THROUGH, loaded=True, can_seal=can_seal)
        lanes = [lane for lane, wants in zip(core.lanes, wanted, strict=True) if wants]
        written = await self._write_far(record, lanes, look) if lanes else Written.NEAR
        place = (view.space.number, key)
        if not written or not core.fills.alive(look.token, place):
            return written if written is Written.DOWN else Written.REFUSED
        core.fills.kill(place)  # a load that began before knows nothing of this
        view.space.flights.pop(key, None)
        near = near_wanted(plan, core.far_kinds, WriteStrategy.WRITE_THROUGH, loaded=True, can_seal=can_seal)
        if core.memory is not None and (near or core.memory.get(*place) is not None):
            self._writing.admit(near_entry(core, view, key, record))
        return written

    async def _write_far(self, record: Record, lanes: Sequence[Lane], look: _Look) -> "Written":
        """The tier whose log counts first: where that refuses, the value is not the newest."""
        try:
            envelope = self._core.envelope(record)
        except SerializationError:
            return Written.NEAR  # no far tier holds it
        for lane in sorted(lanes, key=lambda lane: lane is not self._core.authority):
            since = look.since[lane.label]
            priority = int(record.priority)
            put = Put(record.address, envelope, record.gone_at, since, record.version, priority, is_copy=True)
            receipts = None if lane.owed else await lane.tier.commit([put])
            if lane is self._core.authority and not receipts:
                return Written.DOWN
            if lane is self._core.authority and receipts and receipts[0].refused:
                return Written.REFUSED
        return Written.FAR

    async def _tell(self, view: View, key: str) -> Outcome:
        """Others forget the copies that have the old times."""
        return await self._writing.tell(Notice(Kind.KEY, view.space.name, view.owner, key))
