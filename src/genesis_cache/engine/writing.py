"""Writing: how a value, a deletion or an invalidation reaches every tier, and what is owed when one does not answer.

Local first: this process forgets the old value before the far tiers are told, so that it reads its own writes.
"""

import asyncio
from collections.abc import Awaitable, Coroutine, Iterable, Sequence
from typing import Any

import msgspec

from genesis_cache.coherence.fills import Token
from genesis_cache.coherence.spreading import spread_name, spread_of
from genesis_cache.engine.background import Background
from genesis_cache.engine.core import Core, Lane, MapKey, View
from genesis_cache.engine.delivery import Answers, Delivery, Lanes, queue
from genesis_cache.engine.entries import age, lifetime, make_record, near_entry, stored_record
from genesis_cache.engine.hearing import Hearing
from genesis_cache.model.entry import Entry, Record
from genesis_cache.model.errors import SerializationError
from genesis_cache.model.keys import address_of
from genesis_cache.model.missing import MISSING, Missing
from genesis_cache.model.notice import Kind, Notice
from genesis_cache.model.options import Plan
from genesis_cache.model.outcome import Outcome
from genesis_cache.model.settings import WriteStrategy
from genesis_cache.policies.freshness import Verdict, gone, judge
from genesis_cache.policies.placement import far_wanted, near_wanted
from genesis_cache.tiers.base import Buffer, Change, Kill, Put, Receipt, Remove

Written = Sequence[tuple[tuple[int, MapKey], Entry | None]]

DONE = Outcome()
SAME_AGE_S = 0.001  # what two readings of the clocks may make of one age
Victim = tuple[Entry, Token, int]  # with the token and the nearest log's sequence of the moment it left memory
DEMOTE_PER_TURN = 256  # victims looked at once; the rest of a burst is let go


class Writing:
    """The mutating verbs over all tiers."""

    def __init__(self, core: Core, hearing: Hearing, background: Background) -> None:
        self._core = core
        self._hearing = hearing
        self._background = background
        self._delivery = Delivery(core, hearing, background)
        self.pay = self._delivery.pay
        self._victims: list[Victim] = []
        first = core.lanes[0] if core.lanes else None
        self._keeps_victims = first is not None and first is core.authority and not first.tier.is_shared
        """A shared tier was given each value when it was made: asking about each victim costs more than it brings.

        Only the log's own tier can refuse a victim whose key was changed before this process has heard of it.
        """

    # -- values ------------------------------------------------------------------------------------------------------

    def set_many(self, view: View, items: Iterable[tuple[str, object]], plan: Plan) -> Coroutine[Any, Any, Outcome]:
        """Store values by the plan. Nothing is stored anywhere if one of the keys or values cannot be."""
        core = self._core
        self._hearing.listen_if_due(core.clock.now())  # a record has to name the log that there is now
        wall, seq = core.clock.wall(), self.position()
        return self.write(
            view,
            [
                make_record(
                    view.address(key), value, plan, lifetime(plan, value, loaded=False), wall, seq, core.log_epoch
                )
                for key, value in items
            ],
            plan,
        )

    def write(self, view: View, records: Sequence[Record], plan: Plan) -> Coroutine[Any, Any, Outcome]:
        """Store records where the plan wants them; old copies elsewhere are removed. Near at once, far when awaited."""
        core = self._core
        strategy = core.settings.cache_write_strategy
        wanted = far_wanted(plan, core.far_kinds, strategy, loaded=False, can_seal=core.codec.can_seal)
        encode = core.envelope if True in wanted else None
        envelopes = [b"" if encode is None else encode(record) for record in records]
        batches: list[list[Change]] = [[] for _ in core.lanes]
        written: list[tuple[tuple[int, MapKey], Entry | None]] = []
        for record, envelope in zip(records, envelopes, strict=True):
            place = (view.space.number, view.map_key(record.address.key))
            entry = self._set_near(view, place, record, plan)
            if entry is MISSING:
                continue  # a newer version is known here
            if core.lanes and self._hearing.expects:
                self._hearing.expect(place)
                written.append((place, entry))
            for batch, wants in zip(batches, wanted, strict=True):
                put = Put(record.address, envelope, record.gone_at, None, plan.version, plan.priority)
                batch.append(put if wants else Remove(record.address))
        self._after_puts()
        lanes = [(lane, batch) for lane, batch in zip(core.lanes, batches, strict=True) if batch]
        return self._commit(lanes, written)

    def _set_near(self, view: View, place: tuple[int, MapKey], record: Record, plan: Plan) -> Entry | None | Missing:
        """Replace the near copy: the entry, None where memory does not take it, MISSING where it holds a newer one."""
        core = self._core
        core.fills.kill(place)
        view.space.changed(place[1])
        if core.memory is None:
            return None
        old = core.memory.get(*place)
        if old is not None and plan.version is not None and self._newer(view, old, plan.version):
            return MISSING
        strategy = core.settings.cache_write_strategy
        if not near_wanted(plan, core.far_kinds, strategy, loaded=False, can_seal=core.codec.can_seal):
            if old is not None:
                core.memory.drop(old, "explicit")
            return None
        entry = near_entry(core, view, place[1], record)
        self.admit(entry)
        return entry

    def _newer(self, view: View, old: Entry, version: int) -> bool:
        known = None if old.extra is None else old.extra.version
        alive = not self._core.floors.killer(view.reach, _plain_key(old.key), (), old.seq)
        return known is not None and known > version and alive

    def _settle_near(self, place: tuple[int, MapKey], entry: Entry | None, receipt: Receipt) -> None:
        """The store has spoken: the near copy takes its sequence, or goes if something newer is known."""
        core = self._core
        newest = self._hearing.settle(place, receipt.seq) or not receipt.seq
        held = None if core.memory is None else core.memory.get(*place)
        if not newest:
            self._hearing.outrun(place)
        if entry is None or receipt.refused or not newest:
            core.fills.kill(place)
            if core.memory is not None and held is not None and (entry is None or held is entry):
                core.memory.drop(held, "explicit")
        elif held is entry and held is not None:
            held.seq = max(held.seq, receipt.seq)
            core.floors.hear(receipt.seq)
        elif not self._hearing.is_expected(place):
            self._outlive(place, held, receipt.seq)

    def _outlive(self, place: tuple[int, MapKey], held: Entry | None, seq: int) -> None:
        """The near copy of a write has gone before the write ended: what came instead may be from before it."""
        core = self._core
        if seq:
            core.fills.hear(place, seq)
        else:
            core.fills.kill(place)
        if core.memory is not None and held is not None and (held.seq < seq or not seq):
            core.memory.drop(held, "explicit")

    def admit(self, entry: Entry) -> None:
        """Put an entry into memory; what has to leave for it may be kept below."""
        core = self._core
        if core.memory is None:
            return
        if core.fills.negatives:
            core.fills.negatives.forget((entry.space & ~1, entry.key))
        victims = core.memory.put(entry)
        if not victims:
            return
        wants = core.events.wants("evict")
        for victim in victims:
            core.log.evicted(core.near_label, _plain_key(victim.key), "size")
            if wants:
                core.events.emit("evict", key=_plain_key(victim.key), layer=core.near_label, reason="size")
            if self._keeps_victims and len(self._victims) < DEMOTE_PER_TURN:
                self._victims.append((victim, core.fills.begin(core.floors.given), core.lanes[0].seq()))

    def forget(self) -> None:
        """In a forked child: the parent keeps below what memory had no room for, and its fills are not ours to end."""
        self._victims.clear()

    def _after_puts(self) -> None:
        if self._victims:
            self._background.soon(self._demote)

    async def _demote(self) -> None:
        """Keep below what memory had no room for, where a far tier would take it and does not hold it yet."""
        while self._victims:
            victims, self._victims = self._victims, []
            try:
                await self._keep_below(victims)
            finally:
                for _ in victims:
                    self._core.fills.end()

    async def _keep_below(self, victims: Sequence[Victim]) -> None:
        core = self._core
        lane, now = core.lanes[0], core.clock.now()
        self._hearing.listen()
        changes: list[Change] = []
        for victim, token, seq in victims:
            if judge(victim, now) is not Verdict.FRESH or not self._fits_below(victim):
                continue
            space = core.space(core.namespace_of(victim))
            owner = victim.key[0] if isinstance(victim.key, tuple) else None
            view = core.view(space.name, owner, space.defaults)
            address = address_of(view.scope, _plain_key(victim.key))
            answer = lane.get(address)
            held = await answer if isinstance(answer, Awaitable) else answer
            alive = core.fills.alive(token, (view.space.number, victim.key)) and core.living(victim)
            if held is None and alive:
                record = stored_record(core, address, victim)
                try:
                    envelope = core.envelope(record)
                except SerializationError:
                    continue
                since = victim.seq if lane is core.authority else seq  # each log has sequences of its own
                changes.append(Put(address, envelope, record.gone_at, since, record.version, int(record.priority)))
        if changes and not lane.owed:
            await lane.tier.commit(changes)

    def _fits_below(self, victim: Entry) -> bool:
        extra = victim.extra
        return extra is None or not (extra.tiers or (extra.sensitive and not self._core.codec.can_seal))

    async def fill(self, view: View, record: Record, plan: Plan, token: Token, since: Sequence[int]) -> Entry:
        """Store what a load brought wherever the plan wants it, unless its key has changed since it began."""
        core = self._core
        key = view.map_key(record.address.key)
        entry = near_entry(core, view, key, record)
        dead = core.floors.killer(view.reach, record.address.key, record.tags, record.seq)
        if dead or not core.fills.alive(token, (view.space.number, key)):
            return entry
        held = None if core.memory is None or plan.version is None else core.memory.get(view.space.number, key)
        if held is not None and plan.version is not None and self._newer(view, held, plan.version):
            return entry
        strategy = core.settings.cache_write_strategy
        can_seal = core.codec.can_seal
        if near_wanted(plan, core.far_kinds, strategy, loaded=True, can_seal=can_seal):
            self.admit(entry)
        wanted = far_wanted(plan, core.far_kinds, strategy, loaded=True, can_seal=can_seal)
        if any(wanted):
            await self._fill_far(view, record, entry, wanted, since)
        self._after_puts()
        return entry

    def raise_up(self, record: Record, envelope: Buffer, source: Lane, above: Sequence[tuple[Lane, int]]) -> None:
        """Copy what a lower tier held to the far tiers above it that were asked in vain, with the time it has left.

        ``above`` has each with its sequence of the moment before it was asked. Nobody waits for it. Only the log's own
        tier can refuse what this host has not heard of yet, so no other shared one is given what a tier of it held.
        """
        for lane, since in above:
            if lane.owed or (record.tiers is not None and lane.tier.kind not in record.tiers):
                continue
            if lane.tier.is_shared and lane is not self._core.authority and not source.tier.is_shared:
                continue
            stored = bytes(envelope)
            priority = int(record.priority)
            put = Put(record.address, stored, record.gone_at, since, record.version, priority, is_copy=True)
            lane.tier.commit([put])

    async def _fill_far(
        self, view: View, record: Record, entry: Entry, wanted: Sequence[bool], since: Sequence[int]
    ) -> None:
        core = self._core
        try:
            envelope = core.envelope(record)
        except SerializationError:
            view.space.meter.unencodable += 1
            return
        pending = []
        for lane, wants, seq in zip(core.lanes, wanted, since, strict=True):
            if wants and not lane.owed:
                put = Put(record.address, envelope, record.gone_at, seq, record.version, int(record.priority))
                pending.append(asyncio.ensure_future(lane.tier.commit([put])))
        if not pending:
            return
        budget = core.settings.cache_far_budget_ms / 1000
        done, _late = await asyncio.wait(pending, timeout=budget)
        for answer in done:
            receipts = answer.result()
            if receipts and receipts[0].refused and core.memory is not None:
                held = core.memory.get(view.space.number, entry.key)
                if held is entry:
                    core.memory.drop(entry, "invalidated")

    def promote(self, view: View, record: Record, token: Token) -> Entry:
        """An entry for a value found below; kept in memory too if its key is unchanged and it may live there."""
        core = self._core
        key = view.map_key(record.address.key)
        entry = near_entry(core, view, key, record)
        near = record.tiers is None or "memory" in record.tiers
        if core.memory is not None and near and core.fills.alive(token, (view.space.number, key)):
            held = core.memory.get(view.space.number, key)
            if held is not None and self._as_good((view.space.number, key), held, entry):
                return held
            self.admit(entry)
            self._after_puts()
        return entry

    def _as_good(self, place: tuple[int, MapKey], held: Entry, found: Entry) -> bool:
        """Whether memory holds an entry already that what was found below must not replace: fresh, or no staler.

        One that is due for a refresh is replaced by a younger one: another process has made the refresh.
        """
        now = self._core.clock.now()
        if gone(held, now) or not self._core.living(held):
            return False
        if judge(held, now) is Verdict.REFRESH and not self._hearing.is_expected(place):
            held_age, found_age = age(held, now), age(found, now)
            return held_age is None or found_age is None or found.seq < held.seq or held_age <= found_age + SAME_AGE_S
        return now < held.until or now >= found.until

    # -- invalidations -----------------------------------------------------------------------------------------------

    async def delete(self, view: View, keys: Sequence[str]) -> Outcome:
        """Forget keys in every tier and make every load of them that has begun worthless."""
        addresses = [address_of(view.scope, key) for key in keys]
        self._forget(view, keys)
        removes: list[Change] = [Remove(address) for address in addresses]
        outcome = await self._commit([(lane, removes) for lane in self._core.lanes])
        self._forget(view, keys)
        view.space.meter.invalidations["key"] += len(keys)
        self._tell("key", keys)
        return outcome

    def _forget(self, view: View, keys: Sequence[str]) -> None:
        core = self._core
        for plain in keys:
            key = view.map_key(plain)
            core.fills.kill((view.space.number, key))
            view.space.changed(key)
            if core.memory is not None and (entry := core.memory.get(view.space.number, key)) is not None:
                core.memory.drop(entry, "explicit")

    async def kill(self, view: View, kind: Kind, names: Sequence[str], spread_s: float | None = None) -> Outcome:
        """Invalidate by tags, a pattern or a whole scope: a sequence in the log, no scan, no set of keys.

        ``spread_s``, for tags: not at once, but by then.
        """
        told = names if spread_s is None else [spread_name(name, spread_s) for name in names]
        notices = [Notice(kind, view.space.name, view.owner, name) for name in told]
        if kind is Kind.CLEAR and view.owner is None:
            self._core.slow_down(view.space.name)
        outcome = await self._kill(notices)
        view.space.meter.invalidations[kind.value] += len(names)
        self._tell(kind.value, names)
        self._background.reap()
        return outcome

    async def _kill(self, notices: Sequence[Notice]) -> Outcome:
        authority = self._core.authority
        if authority is None:
            for notice in notices:
                self._core.take_in(msgspec.structs.replace(notice, seq=self._core.floors.seq + 1))
            return DONE
        kills = [Kill(notice) for notice in notices]
        told = None if authority.owed or self._core.keepers else authority.tier.commit_now(kills)
        if told is None:
            return await self._kill_slowly(authority, kills)
        for notice, receipt in zip(notices, told, strict=True):
            self._core.take_in(msgspec.structs.replace(notice, seq=receipt.seq))
        return DONE

    async def _kill_slowly(self, authority: Lane, kills: Sequence[Kill]) -> Outcome:
        """Local first: nothing older is served here while the log is being told, nor where it cannot be told."""
        self.position()
        for kill in kills:
            if spread_of(kill.notice) is None:
                self._core.floors.foresee(kill.notice)
        lanes = [(lane, kills) for lane in (*self._core.keepers, authority)]
        order: asyncio.Task[Any] = self._background.spawn(self._order(lanes, kills))
        return _outcome(lanes, await asyncio.shield(order))  # who leaves takes nothing back

    async def _order(self, lanes: Lanes, kills: Sequence[Kill]) -> Answers:
        """Tell the log, and who keeps books besides; what the log could not be told beats everything here until then.

        Whoever keeps books is told before, as `Delivery.answers` does it.
        """
        floors = self._core.floors
        receipts: Sequence[Receipt] | None = None
        try:
            answers = await self._delivery.answers(lanes)
            receipts = answers[-1]
        finally:
            for n, kill in enumerate(kills):
                if receipts is None:
                    floors.overrule(kill.notice)
                else:
                    self._core.take_in(msgspec.structs.replace(kill.notice, seq=receipts[n].seq))
        return answers

    async def tell(self, notice: Notice) -> Outcome:
        """Have the others forget their copies of a key, whose stored value has changed in a way that kills nothing."""
        authority = self._core.authority
        if authority is None:
            return DONE
        kills = [Kill(notice)]
        key = notice.name if notice.owner is None else (notice.owner, notice.name)
        place = (self._core.space(notice.namespace).number, key)
        self._hearing.expect(place)
        receipts: list[Receipt] | None = None
        try:
            receipts = await self._delivery.answer(authority, kills, queue(authority, kills))
        finally:
            self._hearing.settle_told(place, receipts[0].seq if receipts else 0)
        return DONE if receipts is not None else Outcome((authority.tier.kind,))

    def _tell(self, scope: str, names: Sequence[str]) -> None:
        if self._core.events.wants("invalidate"):
            for name in names:
                self._core.events.emit("invalidate", scope=scope, name=name)

    # -- the far tiers -----------------------------------------------------------------------------------------------

    def listen(self) -> None:
        """Take in what was heard of the others' changes."""
        self._hearing.listen()

    def position(self) -> int:
        """The log's sequence that a value made from now on carries."""
        core = self._core
        if core.authority is not None:  # kept, because the log may be out of sight when an entry of now is to be killed
            core.floors.hear(core.authority.seq())
        return core.floors.seq

    def _commit(self, lanes: Lanes, written: Written = ()) -> Coroutine[Any, Any, Outcome]:
        """Give each far tier its changes; what one does not take is owed."""
        if self._core.settings.cache_write_strategy is WriteStrategy.WRITE_BEHIND:
            return self._commit_behind(lanes, written)
        return self._commit_lanes(lanes, written)

    async def _commit_behind(self, lanes: Lanes, written: Written) -> Outcome:
        """Have the tiers queue their changes at once, so that not even the end of this event loop loses them."""
        for lane, batch in lanes:
            lane.send(batch)
        task = self._background.spawn(self._delivery.answers(lanes, behind=True))
        task.add_done_callback(lambda ended: self._arrived(lanes, written, ended))
        return DONE

    def _arrived(self, lanes: Lanes, written: Written, ended: asyncio.Task[Any]) -> None:
        self._settled(lanes, written, ended)
        for lane, batch in lanes:
            lane.arrived(batch)

    async def _commit_lanes(self, lanes: Lanes, written: Written) -> Outcome:
        """Several tiers are changed in a task of its own: who leaves in between leaves nothing half done."""
        if len(lanes) == 1:
            answers: Answers = ()
            try:
                answers = await self._delivery.answers(lanes)
            finally:
                self._settle(lanes, written, answers)
        else:
            task: asyncio.Task[Any] = self._background.spawn(self._delivery.answers(lanes))
            task.add_done_callback(lambda ended: self._settled(lanes, written, ended))
            answers = await asyncio.shield(task)
        return _outcome(lanes, answers)

    def _settled(self, lanes: Lanes, written: Written, ended: asyncio.Task[Any]) -> None:
        self._settle(lanes, written, () if ended.cancelled() or ended.exception() is not None else ended.result())

    def _settle(self, lanes: Lanes, written: Written, answers: Answers) -> None:
        """The log has spoken, or not: near copies take its sequences."""
        told = [answer for (lane, _), answer in zip(lanes, answers, strict=False) if lane is self._core.authority]
        receipts = (told[0] if told else None) or ()
        for n, (place, entry) in enumerate(written):
            self._settle_near(place, entry, receipts[n] if receipts else Receipt())


def _outcome(lanes: Lanes, answers: Answers) -> Outcome:
    """Who is still owed something."""
    if None not in answers:
        return DONE
    return Outcome(
        tuple(lane.tier.kind for (lane, _), receipts in zip(lanes, answers, strict=True) if receipts is None)
    )


def _plain_key(key: MapKey) -> str:
    return key[1] if isinstance(key, tuple) else key
