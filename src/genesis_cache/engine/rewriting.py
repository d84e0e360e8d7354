"""Rewriting: the same value with other times: stale at once (`expire`), or fresh for longer (`touch`)."""

from collections.abc import Sequence

import msgspec

from genesis_cache.coherence.fills import Token
from genesis_cache.engine.core import Core, View
from genesis_cache.engine.entries import stored_record, tags_of
from genesis_cache.engine.hearing import Hearing
from genesis_cache.engine.reading import Reading
from genesis_cache.engine.writing import DONE, Writing
from genesis_cache.model.entry import Entry, Record
from genesis_cache.model.keys import address_of
from genesis_cache.model.options import Plan
from genesis_cache.model.outcome import Outcome
from genesis_cache.policies.freshness import Verdict

FRESH = (Verdict.FRESH, Verdict.REFRESH)


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
        token = self._begin()
        try:
            entry, _ = await self._look(view, key, token)
            if entry is None or entry.extra is None or not (entry.extra.swr_until or entry.extra.sie_until):
                return None
            record = stored_record(self._core, address_of(view.scope, key), entry)
            age = max(0.0, self._core.clock.wall() - record.created)
            stale = msgspec.structs.replace(record, ttl=age if record.ttl is None else min(record.ttl, age))
            return await self._write(view, stale, entry)
        finally:
            self._core.fills.end()

    async def touch(self, view: View, key: str, ttl: float | None) -> bool:
        """Fresh for ``ttl`` seconds from now; False where there is no fresh value."""
        token = self._begin()
        try:
            entry, verdict = await self._look(view, key, token)
            if entry is None or verdict not in FRESH:
                return False
            record = stored_record(self._core, address_of(view.scope, key), entry)
            age = max(0.0, self._core.clock.wall() - record.created)
            await self._write(view, msgspec.structs.replace(record, ttl=None if ttl is None else age + ttl), entry)
            return True
        finally:
            self._core.fills.end()

    def _begin(self) -> Token:
        self._hearing.listen()  # what was changed before now shall not count as changed meanwhile
        return self._core.fills.begin(self._core.floors.given)

    async def _look(self, view: View, key: str, token: Token) -> tuple[Entry | None, Verdict]:
        """The nearest entry, unless its key was changed or invalidated while it was being read."""
        core, address = self._core, address_of(view.scope, key)
        entry, verdict = self._reading.near(view, key)
        if entry is None:
            entry, verdict = await self._reading.further(view, address)
        if entry is None or not core.fills.alive(token, (view.space.number, entry.key)):
            return None, Verdict.GONE
        dead = core.floors.killer(view.reach, key, tags_of(entry), entry.seq)
        return (None, Verdict.GONE) if dead else (entry, verdict)

    async def _write(self, view: View, record: Record, entry: Entry) -> Outcome:
        """Store it again where it was meant to be, and nowhere else."""
        plan = Plan(
            ttl=record.ttl,
            priority=record.priority,
            version=record.version,
            sensitive=entry.extra is not None and entry.extra.sensitive,
            isolate=record.isolate,
            tiers=record.tiers,
        )
        record.seq, record.epoch = self._writing.position(), self._core.log_epoch
        return await self._writing.write(view, [record], plan)
