"""Explaining: where a key is, what state it is in, and why a read of it would miss. Changes and promotes nothing."""

from collections.abc import Awaitable
from typing import Final

from genesis_cache.engine.core import Core, Lane, View
from genesis_cache.engine.entries import WEIGHT_UNIT_BYTES, age, own_value, tags_of
from genesis_cache.engine.hearing import Hearing
from genesis_cache.model.entry import CachePriority, Entry, Record
from genesis_cache.model.keys import Address, address_of
from genesis_cache.model.outcome import Explanation, Inspection, TierView, Verdict
from genesis_cache.policies.freshness import FOREVER, gone, remaining
from genesis_cache.tiers.base import Late

ABSENT: Final = "absent"
INVALIDATED: Final = "invalidated"
STALE: Final = "stale"
FRESH: Final = "fresh"
_RANK: tuple[Verdict, ...] = (ABSENT, INVALIDATED, STALE, FRESH)


class Explaining:
    """Answers `Cache.explain`."""

    def __init__(self, core: Core, hearing: Hearing) -> None:
        self._core = core
        self._hearing = hearing

    async def explain(self, view: View, key: str) -> Explanation:
        """The key's state in every tier and the verdict over all of them."""
        return (await self.inspect(view, key)).explanation

    async def inspect(self, view: View, key: str) -> Inspection:
        """The same, with the value from the nearest tier whose copy decided the verdict."""
        core = self._core
        address = address_of(view.scope, key)
        self._hearing.listen()
        views: list[TierView] = []
        states: list[Verdict] = []
        held: list[Entry | Record | None] = []
        if core.memory is not None:
            entry = core.memory.get(view.space.number, view.map_key(key))
            state, row = self._near(view, key, entry)
            states.append(state)
            views.append(row)
            held.append(entry)
        for lane in core.lanes:
            state, row, record = await self._far(view, lane, address)
            states.append(state)
            views.append(row)
            held.append(record)
        verdict: Verdict = max(states, key=_RANK.index) if states else ABSENT
        reason = "; ".join(
            [self._reason(verdict, views, states), *([] if verdict == FRESH else self._known(view, key))]
        )
        told = Explanation(key=key, namespace=view.space.name, verdict=verdict, reason=reason, tiers=tuple(views))
        chosen = held[states.index(verdict)] if verdict in (FRESH, STALE) else None
        return Inspection(explanation=told) if chosen is None else _shown(told, chosen)

    def _near(self, view: View, key: str, entry: Entry | None) -> tuple[Verdict, TierView]:
        core, now = self._core, self._core.clock.now()
        label = core.near_label
        if entry is None:
            return ABSENT, TierView(layer=label, tier="memory", present=False)
        killer = core.floors.killer(view.reach, key, tags_of(entry), entry.seq)
        state: Verdict = (
            INVALIDATED if killer else FRESH if now < entry.until else ABSENT if gone(entry, now) else STALE
        )
        extra = entry.extra
        return state, TierView(
            layer=label,
            tier="memory",
            present=True,
            fresh=state == FRESH,
            age=age(entry, now),
            ttl_left=None if entry.until == FOREVER else entry.until - now,
            size_bytes=entry.weight * WEIGHT_UNIT_BYTES,
            tags=tags_of(entry),
            priority=self._priority(entry),
            version=None if extra is None else extra.version,
        )

    @staticmethod
    def _priority(entry: Entry) -> str:
        return (CachePriority.NORMAL if entry.extra is None else entry.extra.priority).name

    async def _far(self, view: View, lane: Lane, address: Address) -> tuple[Verdict, TierView, Record | None]:
        core = self._core
        answer = lane.get(address)
        found = await answer if isinstance(answer, Awaitable) else answer
        envelope = None if isinstance(found, Late) else found
        record = None if envelope is None else core.codec.decode(envelope, address)
        if envelope is None or record is None:
            return ABSENT, TierView(layer=lane.label, tier=lane.tier.kind, present=False), None
        wall = core.clock.wall()
        left = remaining(record, wall)
        state = self._far_state(view, record, left, wall)
        row = TierView(
            layer=lane.label,
            tier=lane.tier.kind,
            present=True,
            fresh=state == FRESH,
            age=max(0.0, wall - record.created),
            ttl_left=None if left == FOREVER else left,
            size_bytes=len(envelope),
            tags=record.tags,
            priority=record.priority.name,
            version=record.version,
        )
        return state, row, record

    def _far_state(self, view: View, record: Record, left: float, wall: float) -> Verdict:
        core = self._core
        killer = core.floors.killer(view.reach, record.address.key, record.tags, record.seq)
        if killer or record.epoch != core.log_epoch:
            return INVALIDATED
        return FRESH if left > 0 else STALE if wall < record.gone_at else ABSENT

    def _reason(self, verdict: Verdict, views: list[TierView], states: list[Verdict]) -> str:
        names = [f"{view.layer} ({view.tier})" for view, state in zip(views, states, strict=True) if state == verdict]
        down = [
            f"{lane.label} ({lane.tier.kind}) is down: {lane.tier.down}" for lane in self._core.lanes if lane.tier.down
        ]
        sentence = {
            FRESH: f"fresh in {' and '.join(names)}: a read is a hit",
            STALE: f"past its ttl in {' and '.join(names)}: served only where a stale value is allowed",
            INVALIDATED: "still held, but a delete, tag, pattern or clear came after it was made: a read is a miss",
            ABSENT: "no tier holds it: it was never stored, has expired, was deleted or was evicted",
        }[verdict]
        return "; ".join([sentence, *down])

    def _known(self, view: View, key: str) -> list[str]:
        """What a load has found out that is no value, while that is remembered."""
        core, now = self._core, self._core.clock.now()
        negative = core.fills.negatives.look((view.space.number, view.map_key(key)), now)
        if negative is None or core.floors.killer(view.reach, key, negative.tags, negative.seq):
            return []
        finding = negative.finding
        what = f"failed with {type(finding).__name__}" if isinstance(finding, Exception) else "found nothing"
        left = negative.until - now
        return [f"a load {what} {now - negative.since:.3g} s ago, which callers are told for {left:.3g} s more"]


def _shown(told: Explanation, held: Entry | Record) -> Inspection:
    if isinstance(held, Record):
        return Inspection(explanation=told, value=held.value, sensitive=held.sensitive)
    extra = held.extra
    return Inspection(explanation=told, value=own_value(held), sensitive=extra is not None and extra.sensitive)
