"""`SegmentStore`, the disk engine: a log of records in segments, an index that all processes map, one writer at a time.

Reading takes no lock and, warm, no system call. Nothing that was damaged while the store was closed can end a process
or be served: files are mapped only at their full size, every record names its key and is checked on its first read in
a process, and a store whose books were touched is made anew (`opening`). POSIX only: locks need `fcntl`.
"""

import mmap
import os
import struct
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

import msgspec

from genesis_cache.model.clock import Clock
from genesis_cache.model.keys import Address
from genesis_cache.tiers.base import Buffer, Change, Found, Notice, Position, Receipt, StoreError, StoreStats
from genesis_cache.tiers.segments import eviction, opening, upkeep
from genesis_cache.tiers.segments.breath import breathe
from genesis_cache.tiers.segments.data import Mapped, Segments
from genesis_cache.tiers.segments.folder import Folder, in_words, plainly
from genesis_cache.tiers.segments.index import Slot
from genesis_cache.tiers.segments.layout import (
    BUCKET,
    CORE,
    FINGERPRINTS,
    GRAIN_BITS,
    LIVE_EPOCH,
    LIVE_SEQ,
    RECORD,
    ROW,
    ROWS_AT,
    SMALLEST,
    USED_AT,
    Geometry,
    State,
)
from genesis_cache.tiers.segments.locks import Leases, Presence, WriterLock
from genesis_cache.tiers.segments.log import Log, floors_of
from genesis_cache.tiers.segments.parts import Parts
from genesis_cache.tiers.segments.writing import Batch, VersionOf

VIEW_FROM = 64 * 1024  # bytes from which an envelope is handed out without copying it
SWEEP_PATIENCE_S = 0.1  # how long upkeep waits for a writer before it leaves its work for the next round
OPEN_PATIENCE_S = 30.0  # how long an opener waits for another that makes or recovers the store

KNOWN_SLOTS = 4096  # places of records read lately, remembered by a process: about a megabyte

_split = struct.Struct("<Q8s16x").unpack
_row = ROW.unpack_from
_core = CORE.unpack_from
_ROW_SIZE = ROW.size
_RECORD_SIZE = RECORD.size

_Made = TypeVar("_Made")
_Book = TypeVar("_Book", State, Geometry)


def _no_version(_envelope: Buffer) -> int | None:
    return None


class SegmentStore:
    """A `Store` in a directory, shared by the processes of one host.

    Args:
        path: its directory; made with mode 0700, refused where others could have prepared it.
        max_bytes: what all its files together may have, at every moment. Under another limit than last time the oldest
            entries go, or the files are made anew; while other processes use the store, their limit holds.
        clock: wall seconds for expiry, monotonic seconds for the budget of `sweep`.
        version_of: reads the version out of an envelope, for puts that carry one.
        origin: number of this handle, written into the KEY notices of its sets and removes.

    Raises:
        StoreError: from every method, in plain words.

    """

    def __init__(
        self, path: Path, max_bytes: int, clock: Clock, version_of: VersionOf = _no_version, origin: int = 0
    ) -> None:
        if max_bytes < SMALLEST:
            raise StoreError(f"disk store: {max_bytes} bytes are too few: give it at least {SMALLEST}")
        self._max_bytes = max_bytes
        self._clock = clock
        self._wall = clock.wall
        self._version_of = version_of
        self._origin = origin
        self._folder = Folder(Path(path))
        self._lock = WriterLock(self._folder)
        self._presence = Presence(self._folder)
        self._leases = Leases(self._folder)
        self._opening = threading.RLock()
        self._batch: Batch | None = None
        self._sweep_at = 0
        self._recount = False
        self._drops_seen = 0
        # what `get` needs, flat: the mapped index (None while closed), its geometry, the segments, whether to mark
        self._view: mmap.mmap | None = None
        self._buckets_at = self._buckets = 1
        self._mapped: dict[int, Mapped] = {}
        self._marks = False
        self._known: dict[bytes, tuple[int, bytes, int, bytes, float, int, int, int, int]] = {}
        _stores.add(self)

    @property
    def path(self) -> Path:
        """Its directory."""
        return self._folder.path

    # --- life -----------------------------------------------------------------------------------------------------

    def open(self) -> None:
        """Make or open it. Whoever opens it while nobody else does checks its books and makes it anew if need be."""
        with self._opening:
            if self._batch is not None:
                return
            try:
                with in_words("open the store"):
                    self._folder.open()
                    self._lock.open()
                    self._enter()
            except BaseException:
                self._let_go()
                raise

    def _enter(self) -> None:
        self._lock.wait(OPEN_PATIENCE_S)
        try:
            if self._presence.enter():
                opening.prepare(self._folder, self._max_bytes)
            self._presence.share()
            self._adopt()
        finally:
            self._lock.free()

    def _adopt(self) -> None:
        geometry = _whole(opening.read_geometry(self._folder))
        index = opening.map_index(self._folder, geometry)
        segments = Segments(self._folder, geometry)
        log = Log(self._folder, geometry.log_bytes)
        parts = Parts(self._folder, index, segments, log)
        log.open()
        if index.dirty and not self._folder.read_only:
            self._recovered(parts)
        self._buckets_at, self._buckets = geometry.buckets_at, geometry.buckets
        self._mapped = segments.mapped
        self._marks = not self._folder.read_only
        log.follow(_whole(index.newest()))
        self._batch = Batch(parts, self._wall, self._version_of, self._origin)
        self._view = index.map

    def close(self) -> None:
        """Let go of everything; the last user of the store also brings its books to the disk."""
        with self._opening:
            if self._batch is not None and self._marks:
                with suppress(OSError, StoreError):
                    self._leave(self._batch.parts)
            self._let_go()

    def _leave(self, parts: Parts) -> None:
        self._lock.wait()
        try:
            state = parts.index.state()
            if state is not None and not parts.index.dirty and not self._lock.deleted and self._presence.alone():
                opening.leave_clean(parts.index, parts.log, state)
        finally:
            self._lock.free()

    def _let_go(self) -> None:
        self._view = None
        self._known.clear()
        batch, self._batch = self._batch, None
        if batch is not None:
            batch.parts.close()
        self._leases.close()
        self._presence.leave()
        self._lock.close()
        self._folder.close()

    def after_fork(self) -> None:
        """In a forked child: mappings stay good; locks are the parent's, so the child takes its own."""
        self._opening = threading.RLock()
        self._lock.forget()
        self._leases.forget()
        if self._batch is None:
            return
        self._batch.parts.segments.stop_writing()
        with suppress(OSError):
            if self._presence.rejoin():
                self._lock.open()
                return
        self._let_go()

    def _opened(self) -> Batch:
        batch = self._batch
        if batch is None:
            raise StoreError("disk store: it is closed; call open() first")
        return batch

    # --- reading --------------------------------------------------------------------------------------------------

    def get(self, address: Address) -> Buffer | None:
        """The envelope: bytes, or from 64 KiB on a read-only view that stays valid as long as it is held."""
        digest = address.digest
        view = self._view
        if view is None:
            raise StoreError("disk store: it is closed; call open() first")
        known = self._known.get(digest)
        if known is None:
            return self._search(view, digest)
        print_at, fingerprint, row_at, row, gone_at, used_at, segment, start, end = known
        if view[print_at : print_at + 8] != fingerprint or view[row_at : row_at + _ROW_SIZE] != row:
            self._known.pop(digest, None)
            return self._search(view, digest)
        if gone_at <= self._wall():
            return None
        if self._marks and not view[used_at]:
            view[used_at] = 1
        try:
            mapped, whole, _ = self._mapped[segment]
            return mapped[start:end] if end - start < VIEW_FROM else whole[start:end]
        except (KeyError, ValueError):  # gone, or unmapped by another thread
            return self._search(view, digest)

    def _search(self, view: mmap.mmap, digest: bytes) -> Buffer | None:
        """Find the slot, and remember it if its record was checked before: next time it only has to be unchanged."""
        number, fingerprint = _split(digest)
        bucket = self._buckets_at + number % self._buckets * BUCKET
        found = view.find(fingerprint, bucket, bucket + FINGERPRINTS)
        if found < 0:
            return None
        at = (found - bucket) >> 3
        row_at = bucket + ROWS_AT + at * _ROW_SIZE
        row = view[row_at : row_at + _ROW_SIZE]
        segment, offset, length, checksum, gone_at = _row(row)
        if gone_at <= self._wall():
            return None
        try:
            mapped, whole, checked = self._mapped[segment]
            if not checked[offset >> GRAIN_BITS] or _core(mapped, offset) != (checksum, length, digest):
                return self._look_closer(digest)
            start = offset + _RECORD_SIZE
            envelope = mapped[start : start + length] if length < VIEW_FROM else whole[start : start + length]
        except (KeyError, IndexError, ValueError, struct.error):  # gone, damaged, or unmapped by another thread
            return self._look_closer(digest)
        used_at = bucket + USED_AT + at
        if self._marks and not view[used_at]:
            view[used_at] = 1
        if len(self._known) >= KNOWN_SLOTS:
            self._known.clear()
        self._known[digest] = (found, fingerprint, row_at, row, gone_at, used_at, segment, start, start + length)
        return envelope

    def _look_closer(self, digest: bytes) -> Buffer | None:
        """The first read of a record in this process, or a slot and a record that do not agree."""
        parts = self._opened().parts
        with in_words("read"):
            envelope = self._checked(parts, digest)
            if envelope is None and self._marks and self._lock.take():
                try:
                    envelope = self._checked(parts, digest)
                    if envelope is None:
                        self._discard(parts, digest)
                finally:
                    self._lock.free()
        return envelope if envelope is None or len(envelope) >= VIEW_FROM else bytes(envelope)

    def _checked(self, parts: Parts, digest: bytes) -> memoryview | None:
        """What the slot leads to, if it is whole. Without the lock a slot may be caught in mid-change: None then."""
        slot = self._slot(parts, digest)
        envelope = None if slot is None else parts.segments.envelope(digest, slot.row)
        if slot is not None and envelope is not None and self._marks:
            parts.index.mark(slot)
        return envelope

    def _discard(self, parts: Parts, digest: bytes) -> None:
        """Under the lock the slot still leads to nothing whole: it is damaged, and goes."""
        if not parts.index.dirty:  # else the next writer goes through all slots; a reader must not take that long
            state = self._begun(parts)
            self._recount |= upkeep.discard(parts.index, parts.segments, state, digest, self._wall())

    def size(self, address: Address) -> int | None:
        """Bytes of the envelope, from the index alone."""
        slot = self._slot(self._opened().parts, address.digest)
        return None if slot is None else slot.row[2]

    def _slot(self, parts: Parts, digest: bytes) -> Slot | None:
        slot = parts.index.find(parts.index.place(digest))
        return None if slot is None or slot.row[4] <= self._wall() else slot

    def scan(self) -> Iterator[Found]:
        """Every living envelope once."""
        parts = self._opened().parts
        with in_words("scan"):
            yield from upkeep.living(parts.index, parts.segments, self._wall())

    # --- writing --------------------------------------------------------------------------------------------------

    def commit(self, changes: Sequence[Change]) -> list[Receipt]:
        """Apply a batch, waiting at most two seconds for other writers."""
        parts = self._stay_writable()
        self._lock.wait()
        try:
            self._give_back(parts)
            return self._with_batch(lambda batch: batch.apply(changes))
        finally:
            self._lock.free()

    def try_commit(self, changes: Sequence[Change]) -> list[Receipt] | None:
        """Apply it now, or None: another writer is at work, or room must be made first, which takes a while."""
        parts = self._stay_writable()
        if not self._lock.take():
            return None
        try:
            if parts.index.dirty:
                return None
            return self._with_batch(lambda batch: batch.apply(changes) if batch.fits(changes) else None)
        finally:
            self._lock.free()

    def _give_back(self, parts: Parts) -> None:
        """Unmap what other processes have removed."""
        if parts.index.drops != self._drops_seen:
            self._drops_seen = parts.index.drops
            with in_words("look at its files"):
                parts.segments.drop_gone()

    def _stay_writable(self) -> Parts:
        """Refuse to write where that cannot be; begin anew where somebody deleted the store under us."""
        parts = self._opened().parts
        if not self._marks:
            raise StoreError("disk store: the file system is read-only, or permission is denied")
        if self._lock.deleted:
            self._let_go()
            self.open()
            parts = self._opened().parts
        return parts

    def _with_batch(self, work: Callable[[Batch], _Made]) -> _Made:
        batch = self._opened()
        parts = batch.parts
        try:
            batch.begin(self._begun(parts))
            return work(batch)
        except BaseException as error:
            parts.index.forget_state()
            if isinstance(error, OSError):
                raise plainly(error, "write") from error
            raise

    def _begun(self, parts: Parts) -> State:
        """The newest state, with whatever a dead writer left undone done. Under the lock."""
        if parts.index.dirty:
            return self._recovered(parts)
        return _whole(parts.index.state())

    def _recovered(self, parts: Parts) -> State:
        state = _whole(parts.index.newest())
        with in_words("recover"):
            upkeep.recover(parts, state, self._wall())
        return state

    # --- the log --------------------------------------------------------------------------------------------------

    def position(self) -> Position:
        """Two words of memory."""
        words = self._opened().parts.index.words
        return Position(words[LIVE_EPOCH], words[LIVE_SEQ])

    def notices(self, after: Position) -> list[Notice] | None:
        """Notices after a position in order; None where a compaction has dropped some of them."""
        parts = self._opened().parts
        state = parts.index.newest()
        if state is None or after.epoch != parts.index.geometry.epoch or not state.reach <= after.seq <= state.seq:
            return None
        with in_words("read the log"), suppress(ValueError, msgspec.DecodeError):
            found = parts.log.after(state, after.seq)
            return None if self._overtaken(state) else found
        return None

    def _overtaken(self, state: State) -> bool:
        """Whether the file that a state's log lies in was meanwhile used again, two compactions later."""
        newer = self._opened().parts.index.newest()
        return newer is None or newer.log_number > state.log_number + 1

    def floors(self) -> list[Notice]:
        """The newest TAG, PATTERN and CLEAR of each name and scope."""
        parts = self._opened().parts
        with in_words("read the log"):
            while True:
                state = _whole(parts.index.newest())
                raw = parts.log.raw(state)
                if not self._overtaken(state):
                    return floors_of(raw)

    # --- leases ---------------------------------------------------------------------------------------------------

    def lease(self, address: Address) -> bool:
        """Try to become the one that loads this key, among the handles of all processes."""
        self._opened()
        if not self._marks:
            return True  # nothing can be stored here: a load must not wait for another
        with in_words("take a lease"):
            return self._leases.take(address.digest)

    def release(self, address: Address) -> None:
        """Give it back."""
        with in_words("release a lease"):
            self._leases.free(address.digest)

    # --- upkeep ---------------------------------------------------------------------------------------------------

    def sweep(self, budget_s: float) -> int:
        """Clear expired entries, at most one round, and give back files in which everything has expired."""
        parts = self._stay_writable() if self._marks else self._opened().parts
        limit = self._clock.now() + budget_s
        went = 0
        with in_words("sweep"):
            parts.segments.drop_gone()
            for _ in range(0, self._buckets, upkeep.SWEEP_STEP):
                went += self._sweep_step(parts)
                if self._clock.now() >= limit:
                    break
        return went

    def _sweep_step(self, parts: Parts) -> int:
        breathe(0)
        now = self._wall()
        seen = upkeep.expired(parts.index, self._sweep_at, now)
        went = 0
        if seen and self._locked_soon():
            try:
                state = self._begun(parts)
                went = upkeep.clear_expired(parts.index, state, seen, now)
                parts.index.write_state(state)
            finally:
                self._lock.free()
        self._sweep_at += upkeep.SWEEP_STEP
        if self._sweep_at >= self._buckets:
            self._sweep_at = 0
            self._end_round(parts, now)
        return went

    def _end_round(self, parts: Parts, now: float) -> None:
        """What a round of sweeping ends with: slots counted again if damage was met, and files given back."""
        if self._locked_soon():
            try:
                state = self._recovered(parts) if self._recount else self._begun(parts)
                self._recount = False
                eviction.drop_expired(parts, state, now)
            finally:
                self._lock.free()

    def _locked_soon(self) -> bool:
        """The writer lock for upkeep, if writers leave it free for a moment."""
        if not self._marks:
            return False
        try:
            self._lock.wait(SWEEP_PATIENCE_S)
        except StoreError:
            return False
        return True

    def stats(self) -> StoreStats:
        """The figures as the newest state has them, and the bytes of all files."""
        parts = self._opened().parts
        with in_words("count its files"):
            size_bytes = sum(self._folder.sizes().values())
        state = parts.index.newest() or State()
        return StoreStats(
            entries=state.entries,
            size_bytes=size_bytes,
            capacity_bytes=parts.index.geometry.max_bytes,
            evictions={"size": state.evicted_size, "ttl": state.evicted_ttl, "damaged": state.damaged},
            damaged=state.damaged,
            rebuilt=state.rebuilt,
        )

    def check(self) -> list[str]:
        """Verify files, state, log, every slot and every record."""
        parts = self._opened().parts
        with in_words("check"):
            self._lock.wait()
            try:
                state = self._begun(parts) if self._marks else parts.index.newest() or State()
                return list(upkeep.faults(parts, state))
            finally:
                self._lock.free()


def _whole(book: _Book | None) -> _Book:
    if book is None:
        raise StoreError("disk store: its books were damaged while in use; close every process that uses it")
    return book


_stores: "weakref.WeakSet[SegmentStore]" = weakref.WeakSet()


def _after_fork() -> None:
    for store in list(_stores):
        store.after_fork()


os.register_at_fork(after_in_child=_after_fork)
