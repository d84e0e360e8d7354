"""The engine: one per cache, shared by views, loops and threads. Wires the roads; opens, closes, survives a fork."""

import asyncio
import contextlib
import os
import threading
import weakref
from collections.abc import Callable, Sequence
from typing import get_type_hints

from genesis_cache.engine.background import Background
from genesis_cache.engine.bulk import Bulk
from genesis_cache.engine.core import Core, Lane, View
from genesis_cache.engine.explaining import Explaining
from genesis_cache.engine.hearing import NEVER, Hearing
from genesis_cache.engine.portal import Portal
from genesis_cache.engine.reading import Reading
from genesis_cache.engine.resident import Resident
from genesis_cache.engine.rewriting import Rewriting
from genesis_cache.engine.streams import Streams
from genesis_cache.engine.writing import Writing
from genesis_cache.model.clock import Clock
from genesis_cache.model.options import EntryOptions
from genesis_cache.model.settings import CacheSettings
from genesis_cache.tiers.base import Tier
from genesis_cache.tiers.memory import MemoryTier

_engines: "weakref.WeakSet[Engine]" = weakref.WeakSet()


class Engine:
    """Everything behind the door."""

    def __init__(
        self, settings: CacheSettings, clock: Clock, memory: MemoryTier | None, far: Sequence[Tier], near_position: int
    ) -> None:
        self.core = Core(settings, clock, memory, far, near_position)
        self.background = Background(self.core)
        self.hearing = Hearing(self.core)
        self.writing = Writing(self.core, self.hearing, self.background)
        self.reading = Reading(self.core, self.hearing, self.writing, self.background)
        self.streams = Streams(self.core, self.reading)
        self.bulk = Bulk(self.core, self.hearing, self.reading)
        self.rewriting = Rewriting(self.core, self.hearing, self.reading, self.writing)
        self.portal = Portal()
        self.explaining = Explaining(self.core, self.hearing)
        self.background.payer = self.writing.pay
        self.hearing.keeper = self.background.stay_awake
        self.hearing.debtor = self.background.pay_later
        self.hearing.killed = self.background.reap_soon
        self.reading.opener = self.open
        self.core.events.changed = self._look_at_hits
        self.core.log.changed = self._look_at_hits
        for lane in self.core.lanes:
            self._watch(lane)
        self.resident = self._resident()
        _engines.add(self)

    def _resident(self) -> Resident | None:
        lane, core = self.core.authority, self.core
        wanted = core.settings.cache_refresh_resident == "on" and core.memory is not None
        if lane is None or not lane.tier.is_shared or not wanted:
            return None
        resident = Resident(core, lane, self.hearing, self.reading, self.writing, self.background)
        told, awake = lane.tier.on_news, self.hearing.keeper

        def news() -> None:
            told()
            resident.told()

        def keep() -> None:
            awake()
            resident.settle()

        lane.tier.on_news, self.hearing.keeper, self.hearing.loser = news, keep, resident.lost
        return resident

    def view(self, namespace: str, owner: str | None, defaults: EntryOptions) -> View:
        """A view of a namespace for one owner or for none."""
        return self.core.view(namespace, owner, defaults)

    def _look_at_hits(self) -> None:
        self.core.floors.heard_until = NEVER  # the next hit takes the judged path, which finds out who watches

    def _watch(self, lane: Lane) -> None:
        core = self.core

        def down(reason: str) -> None:
            working = [] if core.memory is None else ["memory"]
            working += [other.tier.kind for other in core.lanes if other is not lane and other.tier.down is None]
            core.log.tier_down(lane.tier.kind, reason, working)
            core.events.emit("tier_down", layer=lane.label, tier=lane.tier.kind, reason=reason)

        def up() -> None:
            core.log.tier_up(lane.tier.kind)
            if lane.owed:
                self.background.pay_now()
            core.events.emit("tier_up", layer=lane.label, tier=lane.tier.kind)

        lane.tier.on_down = down
        lane.tier.on_up = up
        if lane is core.authority:
            lane.tier.on_news = self.hearing.told

    def expect(self, function: Callable[..., object]) -> None:
        """Let values come back as the classes that a function's return annotation names."""
        with contextlib.suppress(NameError, TypeError):  # an annotation that cannot be resolved names no class
            self.core.codec.expect(get_type_hints(function).get("return"))

    async def open(self) -> None:
        """Open what is behind the cache; safe to call twice, from any loop. CacheClosed after `close`."""
        self.core.require_open()
        if not self.core.opened:
            await asyncio.gather(*(lane.tier.open() for lane in self.core.lanes))
            with self.core.lock:
                if not self.core.opened:
                    self.hearing.listen()
                    self.core.opened = True
        self.hearing.keeper()

    async def close(self) -> None:
        """Finish what is under way, write what is queued, let go of everything. Every later call raises CacheClosed."""
        if self.core.closed:
            return
        self.reading.renewing.close()
        await self.background.drain(self._shut)
        self.reading.leading.close()
        self.portal.stop()
        for lane in self.core.lanes:
            await lane.tier.close()
        if self.core.memory is not None:
            self.core.memory.flush("explicit")

    def _shut(self) -> None:
        """From here on no load begins, so that callers whose load is ended do not begin another."""
        self.core.closed, self.core.opened = True, False
        self.core.floors.heard_until = NEVER

    def reopen(self) -> None:
        """Undo `close`, so that the next call opens again."""
        self.core.closed = False

    def after_fork(self) -> None:
        """In a forked child: locks, loads, jobs and loops of the parent are not ours; tiers reopen by themselves."""
        self.core.lock = self.core.floors.lock = threading.RLock()
        self.core.fills.reset()
        for lane in self.core.lanes:
            lane.forget()
        self.hearing.forget()
        self.writing.forget()
        self.background.forget()
        self.reading.forget()
        self.portal.forget()
        if self.resident is not None:
            self.resident.forget()
        self.core.floors.heard_until = NEVER
        if self.core.memory is not None:
            self.core.memory.after_fork()


def _after_fork_in_child() -> None:
    for engine in list(_engines):
        engine.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
