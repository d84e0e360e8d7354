"""Keeping the books: recovery after a writer's death, removal of what expired, and the proof that all figures agree."""

from collections.abc import Iterator
from itertools import pairwise

from genesis_cache.tiers.base import Found
from genesis_cache.tiers.segments import layout
from genesis_cache.tiers.segments.data import Segments
from genesis_cache.tiers.segments.eviction import breathe
from genesis_cache.tiers.segments.folder import Folder, is_segment, segment_name
from genesis_cache.tiers.segments.index import Index, Slot
from genesis_cache.tiers.segments.layout import FIRST_RECORD, RECORD, State
from genesis_cache.tiers.segments.log import Log, parse_notices
from genesis_cache.tiers.segments.writing import point

SWEEP_STEP = 64  # buckets looked at between two looks at the clock


def recover(folder: Folder, index: Index, segments: Segments, state: State, now: float) -> None:
    """Finish what a writer began and did not live to end: point its records' slots, drop slots that lead nowhere."""
    for number in folder.segments():
        if number > state.head:
            segments.remove(number)
    if state.head:
        for stored in segments.walk(state.head, state.pending_from, state.head_end):
            point(index, state, index.place(stored.digest), stored.row, stored.priority, now)
    there = set(folder.segments())
    for number in index.hinted() - there:
        index.forget_hint(number)
    for number in there - index.hinted():
        index.set_hint(number, 0, layout.NEVER)
    state.entries = 0
    for step, at in enumerate(index.buckets(), 1):
        breathe(step)
        for slot in index.bucket(at):
            if leads_somewhere(index, slot, there, state):
                state.entries += 1
            else:
                index.clear(slot)
    state.pending_from = state.head_end
    index.write_state(state)
    index.set_dirty(False)


def leads_somewhere(index: Index, slot: Slot, there: set[int], state: State) -> bool:
    """Whether a slot points into a segment that exists, and there to where a record may be."""
    number, offset, length, _, _ = slot.row
    end = state.head_end if number == state.head else index.geometry.segment_bytes
    return number in there and offset >= FIRST_RECORD and offset + RECORD.size + length <= end


def expired(index: Index, start: int, now: float) -> list[Slot]:
    """The slots of the next few buckets whose records have expired."""
    return [slot for at in index.buckets(start, start + SWEEP_STEP) for slot in index.bucket(at) if slot.row[4] <= now]


def clear_expired(index: Index, state: State, seen: list[Slot], now: float) -> int:
    """Clear them under the lock, if they are still what they were; how many went."""
    went = 0
    for slot in seen:
        if any(slot.number == other.number and other.row[4] <= now for other in index.bucket(slot.at)):
            index.clear(slot)
            went += 1
    state.entries -= went
    state.evicted_ttl += went
    return went


def living(index: Index, segments: Segments, now: float) -> Iterator[Found]:
    """Every record that is whole and has not expired, copied."""
    for step, at in enumerate(index.buckets(), 1):
        breathe(step)
        for slot in index.bucket(at):
            digest = segments.digest_at(slot.row) if slot.row[4] > now else None
            envelope = segments.envelope(digest, slot.row) if digest else None
            if envelope is not None:
                yield Found(bytes(envelope), slot.used)


def faults(folder: Folder, index: Index, segments: Segments, log: Log, state: State) -> Iterator[str]:
    """A sentence for everything in the books that does not agree. Under the writer lock."""
    yield from _file_faults(folder, index)
    if index.dirty:
        yield "a change was begun and not ended"
    if state.generation != index.words[layout.LIVE_GENERATION] or state.seq != index.words[layout.LIVE_SEQ]:
        yield "the live words do not say what the newest state says"
    yield from _log_faults(log, state)
    entries = 0
    there = set(folder.segments())
    for at in index.buckets():
        slots = index.bucket(at)
        entries += len(slots)
        if len({slot.fingerprint for slot in slots}) != len(slots):
            yield f"the bucket at {at} has a fingerprint twice"
        for slot in slots:
            fault = _slot_fault(index, segments, slot, there, state)
            if fault:
                yield f"slot {slot.number} of the bucket at {at}: {fault}"
    if entries != state.entries:
        yield f"{state.entries} entries are counted and {entries} are there"


def _file_faults(folder: Folder, index: Index) -> Iterator[str]:
    geometry = index.geometry
    sizes = folder.sizes()
    expected = {"index": geometry.index_bytes, "log-0": geometry.log_bytes, "log-1": geometry.log_bytes}
    expected |= {name: geometry.segment_bytes for name in sizes if is_segment(name)}
    for name, size in expected.items():
        if sizes.get(name) != size:
            yield f"{name} has {sizes.get(name)} bytes instead of {size}"
    total = sum(sizes.values())
    if total > geometry.max_bytes:
        yield f"the files have {total} bytes, the limit is {geometry.max_bytes}"


def _log_faults(log: Log, state: State) -> Iterator[str]:
    if not log.intact(state):
        yield "the log is not what was written"
        return
    seqs = [notice.seq for notice in parse_notices(log.raw(state))]
    if any(later <= earlier for earlier, later in pairwise(seqs)):
        yield "the log's sequences do not grow"
    if seqs and seqs[-1] > state.seq:
        yield "the log is ahead of its state"


def _slot_fault(index: Index, segments: Segments, slot: Slot, there: set[int], state: State) -> str | None:
    if not leads_somewhere(index, slot, there, state):
        return f"it points to {segment_name(slot.row[0])} at {slot.row[1]}, where no record can be"
    digest = segments.digest_at(slot.row)
    if digest is None:
        return "its segment cannot be read"
    place = index.place(digest)
    if (place.bucket, place.fingerprint) != (slot.at, slot.fingerprint):
        return "the record it points to belongs to another key"
    return None if segments.envelope(digest, slot.row) is not None else "its record is damaged"
