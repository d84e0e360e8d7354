"""Delivery: how changes reach the far tiers, in which order, and what becomes of those that a tier does not take."""

import asyncio
from collections.abc import Awaitable, Sequence

import msgspec

from genesis_cache.engine.background import Background
from genesis_cache.engine.core import Core, Lane
from genesis_cache.engine.hearing import Hearing
from genesis_cache.model.notice import Kind, Notice
from genesis_cache.tiers.base import Change, Kill, Receipt, Remove

Lanes = Sequence[tuple[Lane, Sequence[Change]]]
Answers = Sequence[list[Receipt] | None]
Queued = Awaitable[list[Receipt] | None] | None

MAX_OWED = 100_000  # changes remembered for a tier that is down


class Delivery:
    """Tells the far tiers of changes, and remembers what they are owed."""

    def __init__(self, core: Core, hearing: Hearing, background: Background) -> None:
        self._core = core
        self._hearing = hearing
        self._background = background

    async def answers(self, lanes: Lanes, *, behind: bool = False) -> Answers:
        """The receipts of each tier, which are told one after the other; see `_turns`."""
        if len(lanes) == 1:
            lane, batch = lanes[0]
            return [await self.answer(lane, batch, queue(lane, batch), behind=behind)]
        found: dict[int, list[Receipt] | None] = {}
        turns = self._turns(lanes)
        begun: set[int] = set()
        try:
            for n in turns:
                begun.add(n)
                lane, batch = lanes[n]
                found[n] = await self.answer(lane, batch, queue(lane, batch), behind=behind)
        except asyncio.CancelledError:  # the event loop ends: the tiers that are still to come have to have their share
            for n, (lane, batch) in enumerate(lanes):
                if n not in begun and lane.owed:
                    lane.owe(batch)
                elif n not in begun:
                    lane.tier.take_over(batch)
            raise
        return [found[n] for n in range(len(lanes))]

    def _turns(self, lanes: Lanes) -> Sequence[int]:
        """In which order tiers are told: from the last to the first, so that no reader brings up what is gone above.

        Other shared tiers come before the one whose log the processes hear: who has heard of a change must not find the
        old value there. One that stands above it forgets once more after it, because a reader may have brought the old
        value up in between. Tiers of this host that stand above it come last: who brings a value up to them must not
        find them told of what it does not know yet; and who hears of a change forgets there by himself.
        """
        authority = self._core.authority
        places = [self._core.lanes.index(lane) for lane, _ in lanes]
        upwards = sorted(range(len(lanes)), key=places.__getitem__, reverse=True)
        logs = [n for n in upwards if lanes[n][0] is authority]
        log_place = places[logs[0]] if logs else -1
        before = [n for n in upwards if n not in logs and (lanes[n][0].tier.is_shared or places[n] > log_place)]
        again = [n for n in before if places[n] < log_place and _removes(lanes[n][1])]
        after = [n for n in upwards if n not in logs and n not in before]
        return [*before, *logs, *again, *after]

    async def answer(
        self, lane: Lane, batch: Sequence[Change], queued: Queued, *, behind: bool = False
    ) -> list[Receipt] | None:
        """One tier's receipts, or None: then the changes are owed.

        A caller who is cancelled takes nothing back: the tier goes on, and what it says then still counts. ``behind``,
        only the end of the event loop cancels: the tier's queue holds the changes, and they are written from there.
        """
        try:
            receipts = None if queued is None else await asyncio.shield(queued)
        except asyncio.CancelledError:
            if not behind and queued is not None:
                asyncio.ensure_future(queued).add_done_callback(lambda ended: self._answered(lane, batch, ended))
            raise
        self._note(lane, batch, receipts)
        return receipts

    def _answered(self, lane: Lane, batch: Sequence[Change], ended: asyncio.Future[list[Receipt] | None]) -> None:
        self._note(lane, batch, None if ended.cancelled() else ended.result())

    def _note(self, lane: Lane, batch: Sequence[Change], receipts: Sequence[Receipt] | None) -> None:
        if receipts is None:
            self.owe(lane, batch)
        elif receipts and lane is self._core.authority:
            self._core.floors.hear(receipts[-1].seq)
            self._hearing.own(receipts)

    def owe(self, lane: Lane, batch: Sequence[Change]) -> None:
        """Remember what a tier could not be told; more than can be remembered becomes one order to forget all."""
        lane.owe(batch)
        if lane.owed > MAX_OWED:
            everything = Kill(Notice(Kind.CLEAR, "", None, ""))
            lane.forgive()
            for one in {self._core.authority or lane, *([lane] if lane in self._core.keepers else [])}:
                one.owe([everything])
            self._core.floors.overrule(everything.notice)
        self._background.pay_later()

    async def pay(self) -> bool:
        """Tell the far tiers what they are owed; whether nothing is left.

        The log comes last, and tells again what another shared tier was owed: meanwhile others may have read the old
        value there, and brought it up. Not what a tier of this host was owed: whoever heard of the change believes that
        tier no more until it has forgotten, and what the log's own tier holds may be newer than the change.
        """
        core = self._core
        for lane in sorted(core.lanes, key=lambda lane: lane is core.authority):
            while lane.owed:
                kills, removes = list(lane.kills), dict(lane.removes)  # more may come while these are told
                changes: list[Change] = [*kills, *removes.values()]
                receipts = await lane.tier.commit(changes)
                if receipts is None:
                    break
                lane.paid(len(kills), removes)
                if lane is core.authority:
                    if kills:
                        self._hearing.start_over()
                    for kill, receipt in zip(kills, receipts, strict=False):  # which may not have been heard of yet
                        core.floors.apply(msgspec.structs.replace(kill.notice, seq=receipt.seq))
                    core.floors.hear(receipts[-1].seq)
                elif core.authority is not None and lane.tier.is_shared:
                    self.owe(core.authority, changes)
        return not any(lane.owed for lane in core.lanes)


def _removes(batch: Sequence[Change]) -> bool:
    """Whether some of the changes remove a key's value."""
    return any(isinstance(change, Remove) for change in batch)


def queue(lane: Lane, batch: Sequence[Change]) -> Queued:
    """Have the tier queue changes at once; None where it is owed something, so that these have to wait too."""
    return None if lane.owed else lane.tier.commit(batch)
