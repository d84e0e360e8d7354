"""Room for new records: the oldest segment goes, and what was read since it was written gets a second chance.

FIFO by segment with reinsertion, the CLOCK idea at the grain of a file: no work per read beyond one byte, no holes, and
the bytes of all files stay within the limit at every moment, because a segment is removed before another is made.
A segment whose records have all expired goes first.
"""

import errno
from collections.abc import Iterator
from typing import NamedTuple

from genesis_cache.tiers.segments.breath import breathe
from genesis_cache.tiers.segments.index import Index, Place, Slot
from genesis_cache.tiers.segments.layout import FIRST_RECORD, State, record_bytes
from genesis_cache.tiers.segments.parts import Parts

_CHUNK_BYTES = 256 * 1024
_FEWEST = 2  # segments that a full disk must leave before one of them makes room for another
_KEPT_PRIORITY = 2  # HIGH: a second chance without having been read


class Survivor(NamedTuple):
    """A record that is written again."""

    place: Place
    slot: Slot
    record: bytes


def make_room(parts: Parts, state: State, now: float) -> None:
    """Begin a new head segment, with the survivors of the one that had to go. Raises `OSError` on a full disk."""
    index = parts.index
    index.set_dirty(True)
    survivors: list[Survivor] = []
    try:
        survivors = _leave_room(parts, state, now)
        state.head = _create(parts, state, now)
        state.head_end = state.pending_from = FIRST_RECORD
        index.set_hint(state.head, 0, 0.0)
        _write_again(parts, state, survivors)
    except OSError:
        for survivor in survivors:
            _evict(index, state, survivor.slot, alive=True)
        _settle(index, state)
        raise
    _settle(index, state)


def _settle(index: Index, state: State) -> None:
    index.write_state(state)
    index.set_dirty(False)


def _leave_room(parts: Parts, state: State, now: float) -> list[Survivor]:
    """Remove as many segments as the limit wants; the survivors of the last of them."""
    index = parts.index
    numbers = parts.folder.segments()
    if state.head in numbers:
        index.set_hint(state.head, state.head_end, index.hint(state.head)[1])
    survivors: list[Survivor] = []
    while len(numbers) >= index.geometry.segments:
        for survivor in survivors:
            _evict(index, state, survivor.slot, alive=True)
        number = _choose(index, numbers, now)
        survivors = _drop(parts, state, number, now, index.geometry.segment_bytes // 2)
        numbers.remove(number)
    return survivors


def _create(parts: Parts, state: State, now: float) -> int:
    """A new segment; where the disk is full of other things, in the place of an old one."""
    numbers = parts.folder.segments()
    number = max([state.head, *numbers]) + 1
    try:
        parts.segments.create(number)
    except OSError as error:
        if error.errno not in {errno.ENOSPC, errno.EDQUOT} or len(numbers) < _FEWEST:
            raise
        _drop(parts, state, _choose(parts.index, numbers, now), now, 0)
        parts.segments.create(number)
    return number


def _choose(index: Index, numbers: list[int], now: float) -> int:
    """The segment to go: one whose records have all expired, else the oldest."""
    for number in numbers:
        if _all_expired(index, number, now):
            return number
    return numbers[0]


def _all_expired(index: Index, number: int, now: float) -> bool:
    used, gone_at = index.hint(number)
    return used > 0 and gone_at <= now


def _drop(parts: Parts, state: State, number: int, now: float, budget: int) -> list[Survivor]:
    """Remove a segment; its survivors, of so many bytes, still have slots that point to it, to be pointed elsewhere."""
    index, segments = parts.index, parts.segments
    used = index.hint(number)[0]
    survivors: list[Survivor] = []
    reached = FIRST_RECORD
    for step, stored in enumerate(segments.walk(number, FIRST_RECORD, used or index.geometry.segment_bytes), 1):
        breathe(step)
        place = index.place(stored.digest)
        slot = index.find(place)
        size = record_bytes(stored.row[2])
        reached = stored.row[1] + size
        if slot is None or slot.row[:4] != stored.row[:4]:
            continue
        if size <= budget and _deserves(slot, now):
            budget -= size
            survivors.append(Survivor(place, slot, segments.raw(stored.row)))
        else:
            _evict(index, state, slot, alive=slot.row[4] > now)
    if reached != used:
        _evict_rest(index, state, number, survivors)
    segments.remove(number)
    index.forget_hint(number)
    index.count_drop()
    return survivors


def _deserves(slot: Slot, now: float) -> bool:
    return slot.row[4] > now and (slot.used or slot.priority >= _KEPT_PRIORITY)


def _evict(index: Index, state: State, slot: Slot, *, alive: bool) -> None:
    index.clear(slot)
    state.entries -= 1
    state.evicted_size += alive
    state.evicted_ttl += not alive


def _evict_rest(index: Index, state: State, number: int, survivors: list[Survivor]) -> None:
    """The slow way, for a segment that could not be walked to its end: look at every slot."""
    kept = {(survivor.slot.at, survivor.slot.number) for survivor in survivors}
    for step, at in enumerate(index.buckets(), 1):
        breathe(step)
        _, slots = index.bad_slots(at, lambda segment, _offset, _length: segment != number)
        for slot in slots:
            if (slot.at, slot.number) not in kept:
                _evict(index, state, slot, alive=True)


def _write_again(parts: Parts, state: State, survivors: list[Survivor]) -> None:
    """Append the survivors to the new head: the data, then the state that makes it count, then their slots."""
    at = state.head_end
    for chunk in _chunks(survivors):  # not in one piece: copying many megabytes would stop all other threads
        parts.segments.write(state.head, chunk, state.head_end)
        state.head_end += len(chunk)
    parts.index.write_state(state)
    latest = 0.0
    for step, survivor in enumerate(survivors, 1):
        breathe(step)
        slot = survivor.slot
        parts.index.fill(survivor.place, slot.number, (state.head, at, *slot.row[2:]), slot.priority)
        latest = max(latest, slot.row[4])
        at += len(survivor.record)
    state.pending_from = state.head_end
    parts.index.set_hint(state.head, 0, latest)


def _chunks(survivors: list[Survivor]) -> Iterator[bytes]:
    records: list[bytes] = []
    size = 0
    for survivor in survivors:
        records.append(survivor.record)
        size += len(survivor.record)
        if size >= _CHUNK_BYTES:
            yield b"".join(records)
            records, size = [], 0
    yield b"".join(records)


def drop_expired(parts: Parts, state: State, now: float) -> None:
    """Give back the files of segments in which everything has expired."""
    numbers = [number for number in parts.folder.segments() if _all_expired(parts.index, number, now)]
    done = [number for number in numbers if number != state.head]
    if not done:
        return
    parts.index.set_dirty(True)
    for number in done:
        _drop(parts, state, number, now, 0)
    _settle(parts.index, state)
