"""Hearing: how this process learns what others have changed, and how it takes that in.

A hit is quick only while `Floors.heard_until` lies ahead; past it the next call looks at the log's end, which for an
embedded tier is one read of shared memory, and applies what is new. So no timer and no thread stands between a change
in one process and the others, and a stalled loop cannot serve what it has not checked.
"""

from collections.abc import Callable, Sequence

from genesis_cache.engine.core import Core, Lane, MapKey
from genesis_cache.model.keys import Address, address_of, scope_of
from genesis_cache.model.notice import Kind, Notice, Position
from genesis_cache.model.settings import OnPartition
from genesis_cache.tiers.base import Receipt, Remove

HEAR_EVERY_S = 0.01
REMEMBERED_OWN = 65_536  # sequences of this process' own changes, until the log tells of them
FOREVER = float("inf")
NEVER = 0.0  # before every reading of the clock: each hit takes the judged path


class Hearing:
    """Keeps the floors up to date with the log of the widest shared tier."""

    __slots__ = (
        "_complete_until",
        "_core",
        "_expected",
        "_follows",
        "_heard",
        "_local",
        "_news",
        "_own",
        "_spared",
        "debtor",
        "interval_s",
        "keeper",
        "killed",
        "loser",
    )

    def __init__(self, core: Core) -> None:
        self._core = core
        self._heard: Position | None = None
        self._complete_until = NEVER
        """Monotonic seconds: all that the log was given before then has been taken in."""
        self._news = False
        self._own: dict[int, None] = {}
        self._spared: set[int] = set()
        """Sequences of this process' own notices that its near copies outlive, until they are heard."""
        self._expected: dict[tuple[int, MapKey], list[int]] = {}
        authority = core.authority
        self._follows = authority.tier if authority is not None and authority.tier.is_shared else None
        self._local = tuple(lane for lane in core.lanes if lane is not core.authority and not lane.tier.is_shared)
        self.debtor: Callable[[], None] = _nobody
        """Called when a tier is owed something."""
        self.keeper: Callable[[], None] = _nobody
        """Called at each look: whether the work behind has an event loop to run on."""
        self.killed: Callable[[], None] = _nobody
        """Called when many may have died at once: their memory can be freed."""
        self.loser: Callable[[tuple[int, MapKey]], None] | None = None
        """Called, where somebody wants it, with what another process has changed though it was used here."""
        self.interval_s = min(HEAR_EVERY_S, core.settings.cache_max_staleness / 4)

    def listen(self) -> None:
        """Take in what the log says now, then let hits be quick for a moment, unless somebody wants to see each."""
        core = self._core
        self.keeper()
        looked_at = core.clock.now()
        self._news = False
        heard_at = None if self._follows is None else self._follows.heard_at  # before the position that it vouches for
        if core.authority is not None:
            position = core.authority.tier.position()
            if position is not None and position != self._heard:
                with core.lock:
                    self._catch_up(core.authority, position)
        watched = core.events.wants("hit") or core.log.hits
        now = core.clock.now()
        self._complete_until = looked_at if self._follows is None else heard_at or self._complete_until
        if core.floors.spreads:
            core.floors.end_spreads(now)
        quick_until = now + self.interval_s
        if self._follows is not None:
            quick_until = min(quick_until, self._proven_until(heard_at, now))
        core.floors.heard_until = NEVER if watched or core.is_deaf else quick_until
        if self._news:  # it came while this was looking
            core.floors.heard_until = NEVER

    def _proven_until(self, heard_at: float | None, now: float) -> float:
        """Until when nothing can have been missed; where that is over, this process no longer hears.

        Whatever was changed before the last answered question was asked has been taken in, so that what is served is
        never older than ``CACHE_MAX_STALENESS``, whatever has failed: connection, server, thread or process.
        """
        core = self._core
        proven_until = NEVER if heard_at is None else heard_at + core.settings.cache_max_staleness
        core.is_cut_off = core.is_quiet or now >= proven_until
        core.is_deaf = core.is_cut_off and core.settings.cache_on_partition is OnPartition.BYPASS
        return FOREVER if core.is_cut_off else proven_until

    @property
    def heard_seq(self) -> int:
        """The sequence up to which everything was taken in."""
        return 0 if self._heard is None else self._heard.seq

    def known_seq(self, lane: Lane) -> int:
        """The tier's sequence up to which the tiers of this host can have been told of all that was changed there.

        A receipt of this process may be younger than a change of another that it has not heard of yet.
        """
        return min(lane.seq(), self.heard_seq) if lane is self._core.authority else lane.seq()

    def listen_far(self) -> None:
        """Before a far tier is read: as `listen`, unless the log makes itself heard, as at the last look near."""
        if self._follows is None:
            self.listen()

    def told(self) -> None:
        """The log has something new: the next call looks at it. For tiers that follow their log; from any thread."""
        self._news = True
        self._core.floors.heard_until = NEVER

    def listen_if_due(self, now: float) -> None:
        """As `listen`, where the last look has grown old."""
        if now >= self._core.floors.heard_until:
            self.listen()

    @property
    def expects(self) -> bool:
        """Whether writes have to be announced: something of this host would be forgotten by their own notices."""
        return self._core.memory is not None or bool(self._local)

    def expect(self, key: tuple[int, MapKey]) -> None:
        """A write of this key by this process is on its way: notices of the key are judged when it has its sequence."""
        self._expected.setdefault(key, [0, 0])[0] += 1

    def is_expected(self, key: tuple[int, MapKey]) -> bool:
        """Whether a write of this key by this process is on its way."""
        return key in self._expected

    def settle(self, key: tuple[int, MapKey], seq: int) -> bool:
        """The write has its sequence; whether its near copy is still the newest that was heard of."""
        expected = self._expected[key]
        expected[0] -= 1
        if not expected[0]:
            del self._expected[key]
        return expected[1] <= seq

    def settle_told(self, key: tuple[int, MapKey], seq: int) -> None:
        """As `settle`, for a notice of this process that says nothing against its own near copy."""
        heard = self._expected[key][1]
        if not self.settle(key, seq):
            self._core.fills.kill(key)
            memory = self._core.memory
            if memory is not None and (held := memory.get(*key)) is not None:
                memory.drop(held, "invalidated")
            self.outrun(key)
        elif heard < seq:
            self._spared.add(seq)

    def _catch_up(self, authority: Lane, position: Position) -> None:
        core, heard = self._core, self._heard
        known = heard is not None and heard.epoch == position.epoch and not core.floors.is_ahead
        news = authority.tier.notices(heard) if known and heard is not None else None
        if news is None:
            self._start_over(authority, position)
            return
        for notice in news:
            self.apply(notice)
        self._heard = position if not news else Position(position.epoch, max(position.seq, news[-1].seq))
        core.floors.hear(self._heard.seq)

    def start_over(self) -> None:
        """Believe only what the log says: what this process ordered by itself while it was away has no place in it."""
        authority = self._core.authority
        position = None if authority is None else authority.tier.position()
        if authority is not None and position is not None:
            with self._core.lock:
                self._start_over(authority, position)

    def _start_over(self, authority: Lane, position: Position) -> None:
        """The log is new to us, or no longer reaches back to where we were: nothing held before can be believed."""
        core = self._core
        core.fills.kill_all()
        self._spared.clear()
        if core.memory is not None:
            core.memory.flush("invalidated")
        core.log_epoch = position.epoch
        core.floors.reset(0)
        for notice in authority.tier.floors():
            core.floors.apply(notice)
        core.floors.hear(position.seq)
        self._heard = position
        if authority.tier.is_shared:
            for lane in self._local:
                lane.floor = position.seq
        for kill in authority.kills:  # still owed, and other tiers hold what they kill
            core.floors.overrule(kill.notice)
        for space in core.spaces.values():  # a load under way may bring what was changed: nobody joins it any more
            space.flights.clear()
            space.gate.slow_down()

    def apply(self, notice: Notice) -> None:
        """Make one notice effective here: a key is forgotten at once, the rest by its floor."""
        core = self._core
        core.take_in(notice, self._complete_until)
        if notice.kind is not Kind.KEY:
            if notice.kind is Kind.CLEAR and notice.owner is None:
                core.slow_down(notice.namespace)
            self.killed()
            return
        space = core.spaces.get(notice.namespace)
        if space is None or notice.seq in self._spared:
            self._spared.discard(notice.seq)
            return
        key = notice.name if notice.owner is None else (notice.owner, notice.name)
        place = (space.number, key)
        if (expected := self._expected.get(place)) is not None:
            expected[1] = max(expected[1], notice.seq)
            return
        core.fills.hear(place, notice.seq)
        flight = space.flights.get(key)
        if flight is not None and flight.since < notice.seq:
            space.changed(key)
        entry = core.memory.get(space.number, key) if core.memory is not None else None
        if entry is not None and entry.seq >= notice.seq:
            return  # this process has told it itself, or knows better
        if entry is not None and core.memory is not None:
            core.memory.drop(entry, "invalidated")
            if entry.mark and self.loser is not None:
                self.loser(place)
        if self._local and notice.seq not in self._own:
            scope = scope_of(core.settings.cache_name, notice.namespace, notice.owner)
            self.forget_here(address_of(scope, notice.name))

    def own(self, receipts: Sequence[Receipt]) -> None:
        """The log has given these to changes of this process, which every tier of this host has been told."""
        if self._local:
            self._own.update((receipt.seq, None) for receipt in receipts)
            while len(self._own) > REMEMBERED_OWN:
                del self._own[next(iter(self._own))]

    def forget(self) -> None:
        """In a forked child: the writes that were on their way are the parent's, and nobody here hears how they end."""
        self._expected.clear()

    def outrun(self, place: tuple[int, MapKey]) -> None:
        """Somebody's younger change of a key was heard while this process was writing its own."""
        if self._local:
            owner, key = place[1] if isinstance(place[1], tuple) else (None, place[1])
            name = self._core.names[place[0]]
            self.forget_here(address_of(scope_of(self._core.settings.cache_name, name, owner), key))

    def forget_here(self, address: Address) -> None:
        """A key was changed: what other tiers of this host hold of it goes too, and is not read until it has.

        Whoever changed it may be on another host, or may have a copy of the old value on its way up there.
        """
        removes = [Remove(address)]
        for lane in self._local:
            if lane.owed or lane.tier.commit_now(removes) is None:
                lane.owe(removes)
                self.debtor()


def _nobody() -> None:
    """Nobody asked to be called."""
