"""The shared index: one mapped file that says where each key's record lies and how far the log has come.

Writers change it under the writer lock. Readers take no lock: what they find is believed only if the record it points
to names the same key with the same checksum, so a row caught in mid-change, or damaged, is at worst a miss.
"""

import mmap
import os
import struct
from collections.abc import Callable, Iterator

import msgspec

from genesis_cache.tiers.segments import layout
from genesis_cache.tiers.segments.layout import BUCKET, SLOTS, Geometry, Row, State

_pack_word = struct.Struct("<Q").pack_into
_split = layout.SPLIT.unpack
_pack_row = layout.ROW.pack_into
_ROWS_AT, _USED_AT, _PRIORITY_AT = layout.ROWS_AT, layout.USED_AT, layout.PRIORITY_AT
_LOOKS = 3  # two writers in a row can spoil one look of a reader without the lock
_KILLS_AT = layout.KILLS_AT // 8
_ROW_SIZE = layout.ROW.size


class Slot(msgspec.Struct, frozen=True, gc=False):
    """One occupied slot as it was read."""

    at: int
    """Where its bucket begins."""
    number: int
    fingerprint: int
    row: Row
    used: bool
    priority: int


class Place(msgspec.Struct, frozen=True, gc=False):
    """Where a digest belongs."""

    bucket: int
    kill: int
    fingerprint: int


class Index:
    """The mapped index file; offsets in bytes from its start."""

    def __init__(self, fd: int, geometry: Geometry, *, read_only: bool) -> None:
        access = mmap.ACCESS_READ if read_only else mmap.ACCESS_WRITE
        self.geometry = geometry
        self.fd = fd
        self.map = mmap.mmap(fd, geometry.index_bytes, access=access)
        self.words = memoryview(self.map).cast("Q")
        self._state: State | None = None
        self._kill_mask = geometry.kills - 1
        self._buckets_at, self._buckets = geometry.buckets_at, geometry.buckets

    def close(self) -> None:
        """Close the file; the mapping goes when the last reader has let go of it."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)

    def flush(self) -> None:
        """Bring the index to the disk; by the file, because flushing a mapping would stop all other threads."""
        os.fsync(self.fd)

    # --- header and state ---------------------------------------------------------------------------------------

    def write_header(self, geometry: Geometry) -> None:
        """State another limit."""
        self.geometry = geometry
        self.map[: layout.HEADER.size] = geometry.pack()

    def newest(self) -> State | None:
        """The newest whole state, read afresh; None if neither is whole, also not at a second look."""
        for _ in range(_LOOKS):
            states = [self._parse(at) for at in layout.STATE_AT]
            found = max((state for state in states if state), key=lambda state: state.generation, default=None)
            if found is not None:
                return found
        return None

    def _parse(self, at: int) -> State | None:
        return layout.parse_state(self.map[at : at + layout.STATE_SIZE])

    def trusted(self) -> State | None:
        """The newest state if the live words agree that it is the newest that was ever written whole, else None."""
        state = self.newest()
        live = self.words[layout.LIVE_GENERATION]
        if state is None or live not in (state.generation, state.generation - 1):
            return None
        return state if state.log_end <= self.geometry.log_bytes else None

    def state(self) -> State | None:
        """The newest state; cheap for the writer who wrote it. Only under the writer lock; None if none is whole."""
        known = self._state
        if known is None or known.generation != self.words[layout.LIVE_GENERATION]:
            known = self._state = self.newest()
        return known

    @property
    def drops(self) -> int:
        """How many segments were ever removed; where it has changed, mappings may keep the space of some."""
        return self.words[layout.LIVE_DROPS]

    def count_drop(self) -> None:
        """Note that a segment was removed."""
        self.words[layout.LIVE_DROPS] += 1

    def write_state(self, state: State) -> None:
        """Make a changed state the newest: first itself, in the place of the older one, then the live words."""
        state.generation += 1
        at = layout.STATE_AT[state.generation & 1]
        self.map[at : at + layout.STATE_SIZE] = layout.pack_state(state)
        words = self.words
        words[layout.LIVE_SEQ] = state.seq
        words[layout.LIVE_GENERATION] = state.generation
        self._state = state

    def forget_state(self) -> None:
        """What this process remembers may be half-done: read it again next time."""
        self._state = None

    @property
    def dirty(self) -> bool:
        """Whether a writer is, or died, between the first and the last step of a change."""
        return self.words[layout.LIVE_DIRTY] != 0

    def set_dirty(self, dirty: bool) -> None:  # noqa: FBT001  # a setter of one flag
        """Say that a change begins or has ended."""
        self.words[layout.LIVE_DIRTY] = dirty

    def set_epoch(self) -> None:
        """Write the store's identity where readers look for it."""
        self.words[layout.LIVE_EPOCH] = self.geometry.epoch

    # --- kill slots and segment hints ---------------------------------------------------------------------------

    def killed(self, place: Place) -> int:
        """The last sequence that changed or killed a key of this kill slot."""
        return self.words[place.kill]

    def kill(self, place: Place, seq: int) -> None:
        """Refuse fills of this kill slot that began before a sequence."""
        self.words[place.kill] = seq

    def forget_kills(self) -> None:
        """Clear all kill slots; the state's ``oldest_fill`` must stand in for them."""
        self.map[layout.KILLS_AT : self.geometry.buckets_at] = bytes(8 * self.geometry.kills)

    def hint(self, segment: int) -> tuple[int, float]:
        """Of a full segment: bytes in use and when its last record has expired; 0 and never if that isn't known."""
        number, used, gone_at = layout.HINT.unpack_from(self.map, _hint_at(segment))
        return (used, gone_at) if number == segment else (0, layout.NEVER)

    def set_hint(self, segment: int, used: int, gone_at: float) -> None:
        """Note both for a segment."""
        layout.HINT.pack_into(self.map, _hint_at(segment), segment, used, gone_at)

    def forget_hint(self, segment: int) -> None:
        """Note that a segment is no more."""
        if layout.HINT.unpack_from(self.map, _hint_at(segment))[0] == segment:
            layout.HINT.pack_into(self.map, _hint_at(segment), 0, 0, 0.0)

    def hinted(self) -> set[int]:
        """The segments that were there when somebody last wrote."""
        rows = layout.HINT.iter_unpack(self.map[layout.HINT_AT : layout.KILLS_AT])
        return {number for number, _, _ in rows if number}

    # --- slots --------------------------------------------------------------------------------------------------

    def place(self, digest: bytes) -> Place:
        """Where a digest belongs."""
        number, fingerprint = _split(digest)
        kill = (number >> 40) & self._kill_mask
        return Place(self._buckets_at + number % self._buckets * BUCKET, _KILLS_AT + kill, fingerprint or 1)

    def find(self, place: Place) -> Slot | None:
        """The slot of a place, if it is taken."""
        prints = layout.BUCKET_PRINTS.unpack_from(self.map, place.bucket)
        if place.fingerprint not in prints:
            return None
        return self._slot(place.bucket, prints.index(place.fingerprint), place.fingerprint)

    def _slot(self, at: int, number: int, fingerprint: int) -> Slot:
        view = self.map
        row = layout.ROW.unpack_from(view, at + _ROWS_AT + number * _ROW_SIZE)
        return Slot(at, number, fingerprint, row, view[at + _USED_AT + number] != 0, view[at + _PRIORITY_AT + number])

    def room(self, place: Place) -> tuple[int, bool]:
        """Number of the slot that a place has, or else of an empty one in its bucket (-1: none); whether it has it."""
        prints = layout.BUCKET_PRINTS.unpack_from(self.map, place.bucket)
        if place.fingerprint in prints:
            return prints.index(place.fingerprint), True
        return (prints.index(0) if 0 in prints else -1), False

    def fill(self, place: Place, number: int, row: Row, priority: int) -> None:
        """Write a slot: its row, then the fingerprint that makes it visible."""
        view, at = self.map, place.bucket
        _pack_row(view, at + _ROWS_AT + number * _ROW_SIZE, *row)
        view[at + _USED_AT + number] = 0
        view[at + _PRIORITY_AT + number] = priority & 0xFF
        _pack_word(view, at + number * 8, place.fingerprint)

    def mark(self, slot: Slot) -> None:
        """Note that a slot's record was read."""
        self.map[slot.at + layout.USED_AT + slot.number] = 1

    def clear(self, slot: Slot) -> None:
        """Empty a slot."""
        self.clear_at(slot.at, slot.number)

    def clear_at(self, at: int, number: int) -> None:
        """Empty a slot of a bucket."""
        _pack_word(self.map, at + number * 8, 0)

    def bucket(self, at: int) -> list[Slot]:
        """The occupied slots of a bucket."""
        prints = layout.BUCKET_PRINTS.unpack_from(self.map, at)
        if not any(prints):
            return []
        return [self._slot(at, number, fingerprint) for number, fingerprint in enumerate(prints) if fingerprint]

    def bad_slots(self, at: int, good: Callable[[int, int, int], bool]) -> tuple[int, list[Slot]]:
        """How many slots of a bucket are taken, and those whose segment, offset and length aren't good."""
        prints = layout.BUCKET_PRINTS.unpack_from(self.map, at)
        rows = layout.BUCKET_ROWS.unpack_from(self.map, at + _ROWS_AT)
        taken = SLOTS - prints.count(0)
        numbers = enumerate(zip(prints, rows[0::5], rows[1::5], rows[2::5], strict=True)) if taken else ()
        bad = [number for number, (taken_by, *where) in numbers if taken_by and not good(*where)]
        return taken, [self._slot(at, number, prints[number]) for number in bad]

    def expired(self, at: int, now: float) -> list[int]:
        """Numbers of the slots of a bucket whose records have expired."""
        prints = layout.BUCKET_PRINTS.unpack_from(self.map, at)
        if not any(prints):
            return []
        gone = layout.BUCKET_ROWS.unpack_from(self.map, at + _ROWS_AT)[4::5]
        return [number for number, taken in enumerate(prints) if taken and gone[number] <= now]

    def buckets(self, start: int = 0, stop: int | None = None) -> Iterator[int]:
        """Where the buckets of a range begin."""
        first, count = self.geometry.buckets_at, self.geometry.buckets
        return iter(range(first + start * BUCKET, first + min(count, count if stop is None else stop) * BUCKET, BUCKET))


def victim(slots: list[Slot], now: float) -> Slot:
    """Which slot of a full bucket goes: an expired one, else the oldest that was not read, else the oldest."""
    return min(slots, key=lambda slot: (slot.row[4] > now, slot.used or slot.priority > 1, slot.row[0], slot.row[1]))


def _hint_at(segment: int) -> int:
    return layout.HINT_AT + segment % layout.HINTS * layout.HINT.size
