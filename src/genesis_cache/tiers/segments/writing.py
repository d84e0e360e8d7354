"""A batch of changes, applied under the writer lock so that ``kill -9`` at any point leaves each change done or not.

The order is what makes it so: records and log lines go where nothing points to yet; slots of removed keys are cleared;
one checksummed state makes lines and records count; then slots are pointed at the new records. A writer that dies after
the state leaves the store marked dirty, and the next one points the missing slots (`upkeep.recover`).
"""

from collections.abc import Callable, Sequence

from genesis_cache.tiers.base import Change, Drop, Kill, Kind, Notice, Put, Receipt, Remove
from genesis_cache.tiers.segments.data import Segments, pack_record
from genesis_cache.tiers.segments.eviction import make_room
from genesis_cache.tiers.segments.folder import Folder
from genesis_cache.tiers.segments.index import Index, Place, victim
from genesis_cache.tiers.segments.layout import FIRST_RECORD, Row, State, record_bytes
from genesis_cache.tiers.segments.log import Log, pack_notice

VersionOf = Callable[[bytes | memoryview], int | None]

_DONE = Receipt()
_REFUSED = Receipt(refused=True)
_LINE_BOUND = 128  # bytes of a log line beyond its names


class Batch:
    """Plans changes in order and brings them into the store, in one step if head and log have room, else in several."""

    def __init__(  # noqa: PLR0913  # the parts of one open store, which live and die together
        self,
        folder: Folder,
        index: Index,
        segments: Segments,
        log: Log,
        wall: Callable[[], float],
        version_of: VersionOf,
    ) -> None:
        self.folder = folder
        self.index = index
        self.segments = segments
        self.log = log
        self.wall = wall
        self.version_of = version_of
        self.state = State()
        self._records: list[bytes] = []
        self._room = 0
        self._puts: dict[bytes, tuple[Place, Row, int, int | None]] = {}
        self._removes: list[Place] = []
        self._lines: list[bytes] = []
        self._log_room = 0
        self._gone_at = 0.0

    def begin(self, state: State) -> None:
        """Start from a state that was read under the lock."""
        self.state = state
        self._measure()

    def _measure(self) -> None:
        state = self.state
        self._room = self.index.geometry.segment_bytes - state.head_end if state.head else 0
        self._log_room = self.log.room(state)

    def fits(self, changes: Sequence[Change]) -> bool:
        """Whether it can be done without eviction or compaction."""
        data = sum(record_bytes(len(change.envelope)) for change in changes if isinstance(change, Put))
        return data <= self._room and sum(map(_line_bound, changes)) <= self._log_room

    def apply(self, changes: Sequence[Change]) -> list[Receipt]:
        """All changes, in order; may raise `OSError` and `StoreError`."""
        receipts = [self._plan(change) for change in changes]
        self._flush()
        return receipts

    # --- planning -----------------------------------------------------------------------------------------------

    def _plan(self, change: Change) -> Receipt:
        if isinstance(change, Put):
            return self._put(change)
        if isinstance(change, Kill):
            return Receipt(self._tell(change.notice))
        place = self.index.place(change.address.digest)
        if isinstance(change, Remove):
            return self._remove(change, place)
        self._forget(change, place)
        return _DONE

    def _remove(self, change: Remove | Put, place: Place) -> Receipt:
        self._forget(change, place)
        seq = self._tell(_notice_of(change))
        self.index.kill(place, seq)
        return Receipt(seq)

    def _forget(self, change: Remove | Put | Drop, place: Place) -> None:
        if change.address.digest in self._puts:
            self._flush()  # a put of this batch comes first, also where it is finished after a crash
        self._removes.append(place)

    def _put(self, put: Put) -> Receipt:
        place = self.index.place(put.address.digest)
        if self._outdated(put, place):
            return _REFUSED
        if len(put.envelope) > self.index.geometry.largest or not put.envelope:
            return self._too_large(put, place)
        self._reserve(record_bytes(len(put.envelope)))
        if put.since is not None:
            self._store(put, place, put.since)
            return _DONE
        seq = self._tell(_notice_of(put))
        self.index.kill(place, seq)
        self._store(put, place, seq)
        return Receipt(seq)

    def _outdated(self, put: Put, place: Place) -> bool:
        if put.since is not None and put.since < max(self.index.killed(place), self.state.oldest_fill):
            return True
        return put.version is not None and (self._stored_version(put.address.digest, place) or 0) > put.version

    def _stored_version(self, digest: bytes, place: Place) -> int | None:
        planned = self._puts.get(digest)
        if planned is not None:
            return planned[3]
        slot = self.index.find(place)
        if slot is None or slot.row[4] <= self.wall():
            return None
        envelope = self.segments.envelope(digest, slot.row)
        return None if envelope is None else self.version_of(envelope)

    def _too_large(self, put: Put, place: Place) -> Receipt:
        """What no segment can take is evicted at once; the older value of its key goes too."""
        self.state.evicted_size += 1
        if put.since is None:
            return self._remove(put, place)
        self._forget(put, place)
        return _DONE

    def _tell(self, notice: Notice) -> int:
        line = pack_notice(notice, self.state.seq + 1)
        if len(line) > self._log_room:
            self._flush()
            if len(line) > self._log_room:
                self.log.compact(self.state)
                self._measure()
                line = pack_notice(notice, self.state.seq + 1)
        self.state.seq += 1
        self._log_room -= len(line)
        self._lines.append(line)
        return self.state.seq

    def _reserve(self, size: int) -> None:
        """Make room before a set is told to others: should that fail, nothing was said."""
        if size > self._room:
            self._flush()
            make_room(self.folder, self.index, self.segments, self.state, self.wall())
            self._measure()

    def _store(self, put: Put, place: Place, seq: int) -> None:
        digest = put.address.digest
        record, checksum = pack_record(digest, put.envelope, put.gone_at, seq, put.priority)
        offset = self.index.geometry.segment_bytes - self._room
        self._room -= len(record)
        self._records.append(record)
        row = (self.state.head, offset, len(put.envelope), checksum, put.gone_at)
        self._puts.pop(digest, None)
        self._puts[digest] = (place, row, put.priority, put.version)
        self._gone_at = max(self._gone_at, put.gone_at)

    # --- doing --------------------------------------------------------------------------------------------------

    def _flush(self) -> None:
        state, index = self.state, self.index
        if self._records:
            data = b"".join(self._records)
            self.segments.write(state.head, data, state.head_end)
            state.pending_from = state.head_end
            state.head_end += len(data)
        if self._lines:
            self.log.append(state, b"".join(self._lines))
        slots_change = bool(self._puts or self._removes)
        if slots_change:
            index.set_dirty(True)
            self._clear_removed()
        index.write_state(state)
        if slots_change:
            self._point()
            index.write_state(state)
            index.set_dirty(False)
        self._records.clear()
        self._lines.clear()

    def _clear_removed(self) -> None:
        for place in self._removes:
            slot = self.index.find(place)
            if slot is not None:
                self.index.clear(slot)
                self.state.entries -= 1
        self._removes.clear()

    def _point(self) -> None:
        state, index = self.state, self.index
        now = self.wall()
        for place, row, priority, _ in self._puts.values():
            point(index, state, place, row, priority, now)
        if self._puts:
            gone_at = index.hint(state.head)[1] if state.pending_from > FIRST_RECORD else 0.0
            index.set_hint(state.head, 0, max(gone_at, self._gone_at))
        self._puts.clear()
        self._gone_at = 0.0
        state.pending_from = state.head_end


def point(index: Index, state: State, place: Place, row: Row, priority: int, now: float) -> None:  # noqa: PLR0913
    """Make a slot say where a record lies; a full bucket gives up one of its slots."""
    slot = index.find(place)
    if slot is not None:
        index.fill(place, slot.number, row, priority)
        return
    number = index.free_slot(place)
    if number is None:
        loser = victim(index.bucket(place.bucket), now)
        index.clear(loser)
        number = loser.number
        state.evicted_ttl += loser.row[4] <= now
        state.evicted_size += loser.row[4] > now
        state.entries -= 1
    index.fill(place, number, row, priority)
    state.entries += 1


def _notice_of(change: Put | Remove) -> Notice:
    scope = change.address.scope
    return Notice(Kind.KEY, scope.namespace, scope.owner, change.address.key)


def _line_bound(change: Change) -> int:
    if isinstance(change, Drop) or (isinstance(change, Put) and change.since is not None):
        return 0
    notice = change.notice if isinstance(change, Kill) else _notice_of(change)
    return _LINE_BOUND + 4 * (len(notice.name) + len(notice.namespace) + len(notice.owner or ""))
