"""A batch of changes, applied under the writer lock so that ``kill -9`` at any point leaves each change done or not.

The order is what makes it so: records and log lines go where nothing points to yet; slots of removed keys are cleared;
one checksummed state makes lines and records count; then slots are pointed at the new records. A writer that dies after
the state leaves the store marked dirty, and the next one points the missing slots (`upkeep.recover`).
"""

from collections.abc import Callable, Sequence

from genesis_cache.model.keys import Address
from genesis_cache.tiers.base import Change, Drop, Kill, Notice, Put, Receipt, Remove
from genesis_cache.tiers.segments.data import pack_record
from genesis_cache.tiers.segments.eviction import make_room
from genesis_cache.tiers.segments.index import Index, Place, victim
from genesis_cache.tiers.segments.layout import FIRST_RECORD, Row, State, record_bytes
from genesis_cache.tiers.segments.log import pack_key_notice, pack_notice
from genesis_cache.tiers.segments.parts import Parts

Spot = tuple[Place, Row, int]  # where a key belongs, where its record lies, its priority
VersionOf = Callable[[bytes | memoryview], int | None]

_DONE = Receipt()
_REFUSED = Receipt(refused=True)
_LOWEST = -(2**63)
_LINE_BOUND = 128  # bytes of a log line beyond its names


class Batch:
    """Plans changes in order and brings them into the store, in one step if head and log have room, else in several."""

    def __init__(self, parts: Parts, wall: Callable[[], float], version_of: VersionOf, origin: int) -> None:
        self.parts = parts
        self._index = parts.index
        self._wall = wall
        self._version_of = version_of
        self._origin = origin
        self._largest = parts.index.geometry.largest
        self._state = State()
        self._room = self._log_room = 0
        self._records: list[bytes] = []
        self._puts: dict[bytes, tuple[Spot, int | None]] = {}
        self._removes: list[Place] = []
        self._lines: list[bytes] = []
        self._gone_at = 0.0

    def begin(self, state: State) -> None:
        """Start from a state that was read under the lock; whatever an earlier batch could not finish is dropped."""
        self._state = state
        for plans in (self._records, self._puts, self._removes, self._lines):
            plans.clear()
        self._gone_at = 0.0
        self._measure()

    def _measure(self) -> None:
        state = self._state
        self._room = self._index.geometry.segment_bytes - state.head_end if state.head else 0
        self._log_room = self.parts.log.room(state)

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
            return Receipt(self._tell_notice(change.notice))
        place = self._index.place(change.address.digest)
        if isinstance(change, Remove):
            return self._remove(change.address, place)
        self._forget(change.address, place)
        return _DONE

    def _remove(self, address: Address, place: Place) -> Receipt:
        self._forget(address, place)
        return Receipt(self._tell_key(address, place))

    def _forget(self, address: Address, place: Place) -> None:
        if address.digest in self._puts:
            self._flush()  # a put of this batch comes first, also where it is finished after a crash
        self._removes.append(place)

    def _put(self, put: Put) -> Receipt:
        address = put.address
        place = self._index.place(address.digest)
        since = put.since
        if since is not None and not self._in_time(since, place):
            return _REFUSED
        if put.version is not None and self._stored_version(address.digest, place) > put.version:
            return _REFUSED
        size = len(put.envelope)
        if not 0 < size <= self._largest:
            return self._too_large(put, place)
        if record_bytes(size) > self._room:
            self._reserve()
        if since is not None:
            self._store(put, place, since)
            return _DONE
        seq = self._tell_key(address, place)
        self._store(put, place, seq)
        return Receipt(seq)

    def _in_time(self, since: int, place: Place) -> bool:
        """Whether a fill's key is unchanged since it began, as far as that is known: not before, not in another log."""
        state = self._state
        return max(self._index.killed(place), state.oldest_fill) <= since <= state.seq

    def _stored_version(self, digest: bytes, place: Place) -> int:
        """The version of what is stored or about to be; below every version if there is none."""
        planned = self._puts.get(digest)
        if planned is not None:
            return _LOWEST if planned[1] is None else planned[1]
        slot = self._index.find(place)
        if slot is None or slot.row[4] <= self._wall():
            return _LOWEST
        envelope = self.parts.segments.envelope(digest, slot.row)
        version = None if envelope is None else self._version_of(envelope)
        return _LOWEST if version is None else version

    def _too_large(self, put: Put, place: Place) -> Receipt:
        """What no segment can take is evicted at once; the older value of its key goes too."""
        self._state.evicted_size += 1
        if put.since is None:
            return self._remove(put.address, place)
        self._forget(put.address, place)
        return _DONE

    def _reserve(self) -> None:
        """Make room, before a set is told to others: should that fail, nothing was said."""
        self._flush()
        make_room(self.parts, self._state, self._wall())
        self._measure()

    def _tell_key(self, address: Address, place: Place) -> int:
        """Tell others that a key changed, and refuse fills of it that began before."""
        seq = self._state.seq + 1
        self._tell(pack_key_notice(address, seq, self._origin))
        self._index.kill(place, seq)
        return seq

    def _tell_notice(self, notice: Notice) -> int:
        seq = self._state.seq + 1
        self._tell(pack_notice(notice, seq))
        return seq

    def _tell(self, line: bytes) -> None:
        if len(line) > self._log_room:
            self._flush()
            if self.parts.log.room(self._state) < len(line):
                self.parts.log.compact(self._state)
            self._measure()
        self._state.seq += 1
        self._log_room -= len(line)
        self._lines.append(line)

    def _store(self, put: Put, place: Place, seq: int) -> None:
        checksum, pieces = pack_record(put, seq)
        length = len(put.envelope)
        offset = self._index.geometry.segment_bytes - self._room
        self._room -= record_bytes(length)
        self._records += pieces
        row = (self._state.head, offset, length, checksum, put.gone_at)
        self._puts[put.address.digest] = ((place, row, put.priority), put.version)
        self._gone_at = max(self._gone_at, put.gone_at)

    # --- doing --------------------------------------------------------------------------------------------------

    def _flush(self) -> None:
        state, index = self._state, self._index
        if self._records:
            data = b"".join(self._records)
            self.parts.segments.write(state.head, data, state.head_end)
            state.pending_from = state.head_end
            state.head_end += len(data)
        if self._lines:
            self.parts.log.append(state, b"".join(self._lines))
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
            slot = self._index.find(place)
            if slot is not None:
                self._index.clear(slot)
                self._state.entries -= 1
        self._removes.clear()

    def _point(self) -> None:
        state, index = self._state, self._index
        now = self._wall()
        for spot, _ in self._puts.values():
            point(index, state, spot, now)
        if self._puts:
            gone_at = index.hint(state.head)[1] if state.pending_from > FIRST_RECORD else 0.0
            index.set_hint(state.head, 0, max(gone_at, self._gone_at))
        self._puts.clear()
        self._gone_at = 0.0
        state.pending_from = state.head_end


def point(index: Index, state: State, spot: Spot, now: float) -> None:
    """Make a slot say where a record lies; a full bucket gives up one of its slots."""
    place, row, priority = spot
    number, known = index.room(place)
    if number < 0:
        loser = victim(index.bucket(place.bucket), now)
        index.clear(loser)
        number = loser.number
        state.evicted_ttl += loser.row[4] <= now
        state.evicted_size += loser.row[4] > now
        state.entries -= 1
    index.fill(place, number, row, priority)
    state.entries += not known


def _line_bound(change: Change) -> int:
    if isinstance(change, Kill):
        notice = change.notice
        return _LINE_BOUND + 4 * (len(notice.name) + len(notice.namespace) + len(notice.owner or ""))
    if isinstance(change, Drop) or (isinstance(change, Put) and change.since is not None):
        return 0
    scope = change.address.scope
    return _LINE_BOUND + 4 * (len(change.address.key) + len(scope.prefix))
