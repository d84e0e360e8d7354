"""Rewriting: the same value with other times: stale at once (`expire`), or fresh for longer (`touch`)."""

from collections.abc import Sequence

import msgspec

from genesis_cache.engine.core import Core, View
from genesis_cache.engine.entries import stored_record
from genesis_cache.engine.reading import Reading
from genesis_cache.engine.writing import DONE, Writing
from genesis_cache.model.entry import Record
from genesis_cache.model.keys import address_of
from genesis_cache.model.options import EntryOptions
from genesis_cache.model.outcome import Outcome
from genesis_cache.policies.freshness import Verdict

FRESH = (Verdict.FRESH, Verdict.REFRESH)


class Rewriting:
    """`Cache.expire` and `Cache.touch`."""

    def __init__(self, core: Core, reading: Reading, writing: Writing) -> None:
        self._core = core
        self._reading = reading
        self._writing = writing

    async def expire(self, view: View, keys: Sequence[str]) -> Outcome:
        """Make keys stale now; those that no stale option keeps are deleted."""
        kept: list[Record] = []
        dropped: list[str] = []
        for key in keys:
            record, _ = await self._record(view, key)
            if record is None or not (record.swr or record.sie):
                dropped.append(key)
            else:
                age = max(0.0, self._core.clock.wall() - record.created)
                kept.append(msgspec.structs.replace(record, ttl=age if record.ttl is None else min(record.ttl, age)))
        degraded = (await self._writing.delete(view, dropped)).degraded if dropped else ()
        for record in kept:
            degraded += (await self._write(view, record)).degraded
        view.space.meter.invalidations["expire"] += len(keys)
        return Outcome(tuple(dict.fromkeys(degraded))) if degraded else DONE

    async def touch(self, view: View, key: str, ttl: float | None) -> bool:
        """Fresh for ``ttl`` seconds from now; False where there is no fresh value."""
        record, fresh = await self._record(view, key)
        if record is None or not fresh:
            return False
        age = max(0.0, self._core.clock.wall() - record.created)
        renewed = msgspec.structs.replace(record, ttl=None if ttl is None else age + ttl)
        return bool(await self._write(view, renewed))

    async def _record(self, view: View, key: str) -> tuple[Record | None, bool]:
        address = address_of(view.scope, key)
        entry, verdict = self._reading.near(view, key)
        if entry is None:
            entry, verdict = await self._reading.further(view, address)
        if entry is None:
            return None, False
        return stored_record(self._core, address, entry), verdict in FRESH

    async def _write(self, view: View, record: Record) -> Outcome:
        options = (
            EntryOptions.of(priority=record.priority, tiers=record.tiers)
            if record.tiers
            else EntryOptions.of(priority=record.priority)
        )
        record.seq, record.epoch = self._writing.position(), self._core.log_epoch
        return await self._writing.write(view, [record], self._core.plan(view, options))
