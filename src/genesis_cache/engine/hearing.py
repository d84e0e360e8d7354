"""Hearing: how this process learns what others have changed, and how it takes that in.

A hit is quick only while `Floors.heard_until` lies ahead; past it the next call looks at the log's end, which for an
embedded tier is one read of shared memory, and applies what is new. So no timer and no thread stands between a change
in one process and the others, and a stalled loop cannot serve what it has not checked.
"""

from genesis_cache.engine.core import Core, Lane
from genesis_cache.model.notice import Kind, Notice, Position

HEAR_EVERY_S = 0.01
NEVER = 0.0  # before every reading of the clock: each hit takes the judged path


class Hearing:
    """Keeps the floors up to date with the log of the widest shared tier."""

    __slots__ = ("_core", "_heard", "_own", "interval_s")

    def __init__(self, core: Core) -> None:
        self._core = core
        self._heard: Position | None = None
        self._own: set[int] = set()
        self.interval_s = min(HEAR_EVERY_S, core.settings.cache_max_staleness / 4)

    def listen(self) -> None:
        """Take in what the log says now, then let hits be quick for a moment, unless somebody wants to see each."""
        core = self._core
        if core.authority is not None:
            position = core.authority.tier.position()
            if position is not None and position != self._heard:
                with core.lock:
                    self._catch_up(core.authority, position)
        watched = core.events.wants("hit") or core.log.hits
        core.floors.heard_until = NEVER if watched else core.clock.now() + self.interval_s

    def listen_if_due(self, now: float) -> None:
        """As `listen`, where the last look has grown old."""
        if now >= self._core.floors.heard_until:
            self.listen()

    def mine(self, seq: int) -> None:
        """A KEY notice with this sequence is this process' own: its near copy is newer than the notice, not older."""
        if self._heard is None or seq > self._heard.seq:
            self._own.add(seq)

    def _catch_up(self, authority: Lane, position: Position) -> None:
        core, heard = self._core, self._heard
        news = None if heard is None or heard.epoch != position.epoch else authority.tier.notices(heard)
        if news is None:
            self._start_over(authority, position, first=heard is None)
            return
        for notice in news:
            self.apply(notice)
        self._heard = position if not news else Position(position.epoch, max(position.seq, news[-1].seq))
        core.floors.seq = max(core.floors.seq, self._heard.seq)

    def _start_over(self, authority: Lane, position: Position, *, first: bool) -> None:
        """The log is new to us, or no longer reaches back to where we were: nothing held before can be believed."""
        core = self._core
        core.fills.kill_all()
        if not first and core.memory is not None:
            core.memory.flush("invalidated")
        core.log_epoch = position.epoch
        core.floors.reset(0)
        for notice in authority.tier.floors():
            core.floors.apply(notice)
        core.floors.seq = max(core.floors.seq, position.seq)
        self._heard = position
        self._own.clear()

    def apply(self, notice: Notice) -> None:
        """Make one notice effective here: a key is forgotten at once, the rest by its floor."""
        core = self._core
        core.floors.apply(notice)
        if notice.kind is not Kind.KEY:
            return
        if notice.seq in self._own:
            self._own.discard(notice.seq)
            return
        space = core.spaces.get(notice.namespace)
        if space is None:
            return
        key = notice.name if notice.owner is None else (notice.owner, notice.name)
        core.fills.kill((space.number, key))
        space.flights.pop(key, None)
        entry = core.memory.get(space.number, key) if core.memory is not None else None
        if entry is not None and entry.seq < notice.seq and core.memory is not None:
            core.memory.drop(entry, "invalidated")
