"""Room for new records: the oldest segment goes, and what was read since it was written gets a second chance.

FIFO by segment with reinsertion, the CLOCK idea at the grain of a file: no work per read beyond one byte, no holes, and
the bytes of all files stay within the limit at every moment, because a segment is removed before another is made.
A segment whose records have all expired goes first.
"""

import errno
import time
from typing import NamedTuple

from genesis_cache.tiers.segments.data import Segments, Stored
from genesis_cache.tiers.segments.folder import Folder
from genesis_cache.tiers.segments.index import Index, Place, Slot
from genesis_cache.tiers.segments.layout import FIRST_RECORD, State, record_bytes

_BREATH_EVERY = 128  # records or buckets of a long walk between two pauses
_BREATH_S = 0.00005  # long enough for another thread of this process to take the interpreter
_KEPT_PRIORITY = 2  # HIGH: a second chance without having been read


class Survivor(NamedTuple):
    """A record that is written again."""

    place: Place
    slot: Slot
    record: bytes


def breathe(step: int) -> None:
    """In a long walk: let other threads of this process run, above all an event loop."""
    if step % _BREATH_EVERY == 0:
        time.sleep(_BREATH_S)


def make_room(folder: Folder, index: Index, segments: Segments, state: State, now: float) -> None:
    """Begin a new head segment, with the survivors of the one that had to go. Raises `OSError` on a full disk."""
    index.set_dirty(True)
    survivors: list[Survivor] = []
    try:
        survivors = _leave_room(folder, index, segments, state, now)
        number = _create(folder, index, segments, state, now)
        state.head = number
        state.head_end = state.pending_from = FIRST_RECORD
        index.set_hint(number, 0, 0.0)
        _write_again(index, segments, state, survivors)
    except OSError:
        for survivor in survivors:
            _evict(index, state, survivor.slot, alive=True)
        index.write_state(state)
        index.set_dirty(False)
        raise
    index.write_state(state)
    index.set_dirty(False)


def _leave_room(folder: Folder, index: Index, segments: Segments, state: State, now: float) -> list[Survivor]:
    """Remove as many segments as the limit wants; the survivors of the last of them."""
    numbers = folder.segments()
    if state.head in numbers:
        index.set_hint(state.head, state.head_end, index.hint(state.head)[1])
    survivors: list[Survivor] = []
    while len(numbers) >= index.geometry.segments:
        for survivor in survivors:
            _evict(index, state, survivor.slot, alive=True)
        number = choose(index, numbers, now)
        survivors = _drop(index, segments, state, number, now, index.geometry.segment_bytes // 2)
        numbers.remove(number)
    return survivors


def _create(folder: Folder, index: Index, segments: Segments, state: State, now: float) -> int:
    """A new segment; where the disk is full of other things, in the place of an old one."""
    numbers = folder.segments()
    number = max([state.head, *numbers]) + 1
    try:
        segments.create(number)
    except OSError as error:
        if error.errno not in {errno.ENOSPC, errno.EDQUOT} or len(numbers) < 2:  # noqa: PLR2004  # keep at least one
            raise
        _drop(index, segments, state, choose(index, numbers, now), now, 0)
        segments.create(number)
    return number


def choose(index: Index, numbers: list[int], now: float) -> int:
    """The segment to go: one whose records have all expired, else the oldest."""
    for number in numbers:
        if _all_expired(index, number, now):
            return number
    return numbers[0]


def _drop(  # noqa: PLR0913  # what a walk over all books needs
    index: Index, segments: Segments, state: State, number: int, now: float, budget: int
) -> list[Survivor]:
    """Remove a segment; its survivors' slots still point to it until they are written again."""
    used = index.hint(number)[0]
    end = used or index.geometry.segment_bytes
    survivors: list[Survivor] = []
    reached = FIRST_RECORD
    for step, stored in enumerate(segments.walk(number, FIRST_RECORD, end), 1):
        breathe(step)
        size = record_bytes(stored.row[2])
        reached = stored.row[1] + size
        survivor = _judge(index, segments, state, stored, now, budget)
        if survivor is not None:
            budget -= size
            survivors.append(survivor)
    if not used or reached != used:
        kept = {(survivor.slot.at, survivor.slot.number) for survivor in survivors}
        _clear_all_of(index, state, number, kept)
    segments.remove(number)
    index.forget_hint(number)
    return survivors


def _judge(  # noqa: PLR0913  # one step of the walk above
    index: Index, segments: Segments, state: State, stored: Stored, now: float, budget: int
) -> Survivor | None:
    place = index.place(stored.digest)
    slot = index.find(place)
    if slot is None or slot.row[:4] != stored.row[:4]:
        return None
    size = record_bytes(stored.row[2])
    alive = slot.row[4] > now
    if alive and size <= budget and (slot.used or slot.priority >= _KEPT_PRIORITY):
        view = segments.mapped[stored.row[0]].view
        return Survivor(place, slot, bytes(view[stored.row[1] : stored.row[1] + size]))
    _evict(index, state, slot, alive=alive)
    return None


def _evict(index: Index, state: State, slot: Slot, *, alive: bool) -> None:
    index.clear(slot)
    state.entries -= 1
    state.evicted_size += alive
    state.evicted_ttl += not alive


def _clear_all_of(index: Index, state: State, number: int, kept: set[tuple[int, int]]) -> None:
    """The slow way, for a segment that cannot be walked to its end: look at every slot."""
    for step, at in enumerate(index.buckets(), 1):
        breathe(step)
        for slot in index.bucket(at):
            if slot.row[0] == number and (slot.at, slot.number) not in kept:
                _evict(index, state, slot, alive=True)


def _write_again(index: Index, segments: Segments, state: State, survivors: list[Survivor]) -> None:
    data = b"".join(survivor.record for survivor in survivors)
    if data:
        segments.write(state.head, data, state.head_end)
    at = state.head_end
    state.head_end += len(data)
    index.write_state(state)
    latest = 0.0
    for step, (place, slot, record) in enumerate(survivors, 1):
        breathe(step)
        row = (state.head, at, *slot.row[2:])
        index.fill(place, slot.number, row, slot.priority)
        latest = max(latest, row[4])
        at += len(record)
    state.pending_from = state.head_end
    index.set_hint(state.head, 0, latest)


def drop_expired(folder: Folder, index: Index, segments: Segments, state: State, now: float) -> None:
    """Give back the files of segments in which everything has expired."""
    done = [number for number in folder.segments() if number != state.head and _all_expired(index, number, now)]
    if not done:
        return
    index.set_dirty(True)
    for number in done:
        _drop(index, segments, state, number, now, 0)
    index.write_state(state)
    index.set_dirty(False)


def _all_expired(index: Index, number: int, now: float) -> bool:
    used, gone_at = index.hint(number)
    return used > 0 and gone_at <= now
