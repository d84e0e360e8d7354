"""Keeping the books: recovery after a writer's death, removal of what expired, and the proof that all figures agree."""

from collections.abc import Callable, Iterator
from itertools import pairwise

from genesis_cache.tiers.base import Found
from genesis_cache.tiers.segments import layout
from genesis_cache.tiers.segments.breath import breathe
from genesis_cache.tiers.segments.data import Segments
from genesis_cache.tiers.segments.folder import Folder, is_segment, segment_name
from genesis_cache.tiers.segments.index import Index, Slot
from genesis_cache.tiers.segments.layout import FIRST_RECORD, RECORD, State
from genesis_cache.tiers.segments.log import Log, lines_of
from genesis_cache.tiers.segments.parts import Parts
from genesis_cache.tiers.segments.writing import point

SWEEP_STEP = 64  # buckets looked at between two looks at the clock


def recover(parts: Parts, state: State, now: float) -> None:
    """Finish what a writer began and did not live to end: point its records' slots, drop slots that lead nowhere."""
    folder, index, segments = parts.folder, parts.index, parts.segments
    for number in folder.segments():
        if number > state.head:
            segments.remove(number)
    if state.head:
        for stored in segments.walk(state.head, state.pending_from, state.head_end):
            point(index, state, (index.place(stored.digest), stored.row, stored.priority), now)
    there = set(folder.segments())
    for number in index.hinted() - there:
        index.forget_hint(number)
    for number in there - index.hinted():
        index.set_hint(number, 0, layout.NEVER)
    state.entries = 0
    good = may_lie_at(index, there, state)
    for step, at in enumerate(index.buckets(), 1):
        breathe(step)
        taken, bad = index.bad_slots(at, good)
        for slot in bad:
            index.clear(slot)
        state.entries += taken - len(bad)
    state.pending_from = state.head_end
    index.write_state(state)
    index.set_dirty(False)


def may_lie_at(index: Index, there: set[int], state: State) -> Callable[[int, int, int], bool]:
    """A test whether a record of some length can lie in a segment at an offset."""
    ends = dict.fromkeys(there, index.geometry.segment_bytes)
    if state.head in there:
        ends[state.head] = state.head_end

    def good(number: int, offset: int, length: int) -> bool:
        return offset >= FIRST_RECORD and offset + RECORD.size + length <= ends.get(number, 0)

    return good


def expired(index: Index, start: int, now: float) -> list[int]:
    """Where those of the next few buckets begin that hold something expired."""
    return [at for at in index.buckets(start, start + SWEEP_STEP) if index.expired(at, now)]


def clear_expired(index: Index, state: State, buckets: list[int], now: float) -> int:
    """Clear what has expired in these buckets, under the lock; how many went."""
    went = 0
    for at in buckets:
        for number in index.expired(at, now):
            index.clear_at(at, number)
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


def faults(parts: Parts, state: State) -> Iterator[str]:
    """A sentence for everything in the books that does not agree. Under the writer lock."""
    index, segments = parts.index, parts.segments
    yield from _file_faults(parts.folder, index)
    if index.dirty:
        yield "a change was begun and not ended"
    if state.generation != index.words[layout.LIVE_GENERATION] or state.seq != index.words[layout.LIVE_SEQ]:
        yield "the live words do not say what the newest state says"
    yield from _log_faults(parts.log, state)
    entries = 0
    good = may_lie_at(index, set(parts.folder.segments()), state)
    for at in index.buckets():
        slots = index.bucket(at)
        entries += len(slots)
        if len({slot.fingerprint for slot in slots}) != len(slots):
            yield f"the bucket at {at} has a fingerprint twice"
        for slot in slots:
            fault = _slot_fault(index, segments, slot, good)
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
    seqs = [line.seq for line in lines_of(log.raw(state))]
    if any(later <= earlier for earlier, later in pairwise(seqs)):
        yield "the log's sequences do not grow"
    if seqs and seqs[-1] > state.seq:
        yield "the log is ahead of its state"


def _slot_fault(index: Index, segments: Segments, slot: Slot, good: Callable[[int, int, int], bool]) -> str | None:
    if not good(*slot.row[:3]):
        return f"it points to {segment_name(slot.row[0])} at {slot.row[1]}, where no record can be"
    digest = segments.digest_at(slot.row)
    if digest is None:
        return "its segment cannot be read"
    place = index.place(digest)
    if (place.bucket, place.fingerprint) != (slot.at, slot.fingerprint):
        return "the record it points to belongs to another key"
    return None if segments.envelope(digest, slot.row) is not None else "its record is damaged"


def discard(index: Index, segments: Segments, state: State, digest: bytes, now: float) -> bool:
    """Clear the slot of a digest if it leads to nothing whole; whether that was so."""
    slot = index.find(index.place(digest))
    if slot is None or slot.row[4] <= now or segments.envelope(digest, slot.row) is not None:
        return False
    index.clear(slot)
    state.entries -= 1
    state.damaged += 1
    index.write_state(state)
    return True
