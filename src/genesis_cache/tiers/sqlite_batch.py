"""What a batch of changes does to an SQLite store, decided on plain data: no database, no clock.

The store reads the rows that a batch names, `Batch` turns change after change into receipts and into the rows, notices
and floors to write, and the store writes them in one transaction. `victims` decides whom to evict.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple
from zlib import crc32

import msgspec

from genesis_cache.model.keys import Address
from genesis_cache.tiers.base import Change, Drop, Kill, Kind, Notice, Put, Receipt, Remove

ROW_BYTES = 112  # what a row and its index line take beside the envelope

_encode = msgspec.msgpack.Encoder().encode
_decode_name = msgspec.msgpack.Decoder(tuple[Kind, str, str | None, str]).decode

_OUTDATED = Receipt(refused=True)
_DONE = Receipt()


class Books(msgspec.Struct):
    """The store's one row of figures; its fields are the columns, in order."""

    epoch: int
    start: int
    """The sequence this log began after: a fill that read an earlier one belongs to a log that is gone."""
    seq: int
    log_start: int
    """The log holds the notices after this sequence."""
    entries: int
    size: int
    """Bytes of envelopes and rows."""
    evicted_size: int
    evicted_ttl: int
    evicted_damaged: int
    damaged: int
    rebuilt: int
    cleared: int
    """Sequence of the last notice that killed everything."""

    def checksum(self) -> int:
        """What is stored beside them, so that damaged books are known."""
        return crc32(_encode(msgspec.structs.astuple(self)))

    def without(self, rows: "Sequence[Victim]") -> None:
        """Take deleted rows off the books."""
        self.entries -= len(rows)
        self.size -= sum(row.size + ROW_BYTES for row in rows)


class Row(NamedTuple):
    """What a batch must know of a stored entry."""

    size: int
    version: int | None
    changed: int
    """Sequence of its last set; 0 for a fill."""


class Victim(NamedTuple):
    """What the choice of whom to evict must know of a stored entry."""

    ident: int
    size: int
    changed: int
    gone_at: float
    used: float
    """Wall seconds of its last use that is known."""
    read: int
    """Whether it was ever read since it was written."""
    priority: int
    made: int
    """Sequence read before its value was made."""


def ident_of(digest: bytes) -> int:
    """The row number of an address: the first 64 bits of its digest."""
    return int.from_bytes(digest[:8], "little", signed=True)


def name_of(notice: Notice) -> bytes:
    """What a notice kills, as bytes that are equal for equal targets."""
    return _encode((notice.kind, notice.namespace, notice.owner, notice.name))


def checksum_of(name: bytes, seq: int) -> int:
    """What is stored beside a notice, so that a damaged one is known."""
    return crc32(name, seq & 0xFFFFFFFF)


def notice_of(name: object, seq: int, origin: int, checksum: int) -> Notice | None:
    """The notice that `name_of` encoded; None where it is damaged."""
    if not isinstance(name, bytes) or checksum_of(name, seq) != checksum:
        return None
    kind, namespace, owner, key = _decode_name(name)
    return Notice(kind, namespace, owner, key, seq, origin)


class Batch:
    """One transaction's worth of changes, applied in order to the rows they name."""

    __slots__ = (
        "_books", "_kills", "_now", "_origin", "_rows", "_slots", "_widest", "floors", "gone", "killed", "log", "puts",
    )  # fmt: skip

    def __init__(self, books: Books, *, slots: int, widest: int, now: float, origin: int) -> None:
        self._books = books
        self._slots = slots
        self._widest = widest
        self._now = now
        self._origin = origin
        self._rows: dict[int, Row] = {}
        self._kills: dict[int, int] = {}
        self.puts: dict[int, tuple[object, ...]] = {}
        """Rows to write, by row number."""
        self.gone: set[int] = set()
        """Row numbers to delete."""
        self.killed: dict[int, int] = {}
        """Slots of the table of kills to raise."""
        self.log: list[tuple[int, bytes, int, int]] = []
        self.floors: dict[bytes, tuple[bytes, int, int]] = {}

    def knows(self, rows: Iterable[tuple[int, int, int | None, int]], kills: Iterable[tuple[int, int]]) -> None:
        """Take in the stored rows and kills that the changes name."""
        self._rows.update({ident: Row(size, version, changed) for ident, size, version, changed in rows})
        self._kills.update(kills)

    def slot_of(self, ident: int) -> int:
        """Where in the table of kills an entry's deletion is remembered."""
        return ident % self._slots

    def apply(self, change: Change) -> Receipt:
        """What one change does, and its receipt."""
        match change:
            case Put():
                return self._put(change)
            case Remove(address):
                seq = self._tell(Kind.KEY, address)
                self._delete(ident_of(address.digest), seq)
                return Receipt(seq)
            case Kill(notice):
                return self._kill(notice)
            case Drop(address):
                self._delete(ident_of(address.digest), 0)
                return _DONE
        raise TypeError(f"a change must be a Put, Remove, Kill or Drop, got {type(change).__name__}")

    def _put(self, put: Put) -> Receipt:
        ident = ident_of(put.address.digest)
        row = self._rows.get(ident)
        if put.version is not None and row is not None and row.version is not None and row.version > put.version:
            return _OUTDATED
        if put.since is None:
            seq = made = changed = self._tell(Kind.KEY, put.address)
        else:
            if self._is_outdated(ident, row, put.since):
                return _OUTDATED
            seq, made, changed = 0, put.since, 0 if row is None else row.changed
        if put.gone_at <= self._now or len(put.envelope) > self._widest:
            self._books.evicted_size += put.gone_at > self._now
            self._delete(ident, changed)
        else:
            self._store(ident, put, made, changed)
        return Receipt(seq) if seq else _DONE

    def _is_outdated(self, ident: int, row: Row | None, since: int) -> bool:
        if not self._books.start <= since <= self._books.seq or since < self._books.cleared:
            return True  # read from a log that is not this one, or before everything was killed
        return (row is not None and row.changed > since) or self._kills.get(self.slot_of(ident), 0) > since

    def _store(self, ident: int, put: Put, made: int, changed: int) -> None:
        size = len(put.envelope)
        self._take_off(ident)
        self._books.entries += 1
        self._books.size += size + ROW_BYTES
        self._rows[ident] = Row(size, put.version, changed)
        self.gone.discard(ident)
        self.puts[ident] = (
            ident, put.address.digest, put.gone_at, self._now, 0, put.priority, size, made, changed, put.version,
            crc32(put.envelope), put.envelope,
        )  # fmt: skip

    def _delete(self, ident: int, seq: int) -> None:
        row = self._take_off(ident)
        self.puts.pop(ident, None)
        if row is not None:
            self.gone.add(ident)
        self._raise_kill(ident, max(seq, 0 if row is None else row.changed))

    def _take_off(self, ident: int) -> Row | None:
        row = self._rows.pop(ident, None)
        if row is not None:
            self._books.entries -= 1
            self._books.size -= row.size + ROW_BYTES
        return row

    def _raise_kill(self, ident: int, seq: int) -> None:
        slot = self.slot_of(ident)
        if seq > self._kills.get(slot, 0):
            self._kills[slot] = self.killed[slot] = seq

    def _kill(self, notice: Notice) -> Receipt:
        seq = self._append(name := name_of(notice), notice.origin)
        if notice.kind is not Kind.KEY:
            self.floors[name] = name, seq, checksum_of(name, seq)
        if notice.kind is Kind.CLEAR and not notice.namespace and notice.owner is None:
            self._books.cleared = seq
        return Receipt(seq)

    def _tell(self, kind: Kind, address: Address) -> int:
        return self._append(_encode((kind, address.scope.namespace, address.scope.owner, address.key)))

    def _append(self, name: bytes, origin: int = 0) -> int:
        self._books.seq += 1
        self.log.append((self._books.seq, name, origin or self._origin, checksum_of(name, self._books.seq)))
        return self._books.seq


def victims(rows: Sequence[Victim], wanted: int, *, by_size: bool, cleared: int, now: float) -> list[Victim]:
    """Whom of a sample to evict so that ``wanted`` bytes go.

    The dead go first: expired, or made before everything was killed. Then by use: the longest unused. Or by size: the
    largest first in powers of two, and among those the never read, the lower priority and the longest unused.
    """

    def worth(row: Victim) -> tuple[float, ...]:
        alive = row.gone_at > now and row.made >= cleared
        if not by_size:
            return alive, row.used
        return alive, -(row.size.bit_length()), row.read, row.priority, row.used

    chosen = []
    for row in sorted(rows, key=worth):
        if wanted <= 0:
            break
        wanted -= row.size + ROW_BYTES
        chosen.append(row)
    return chosen
