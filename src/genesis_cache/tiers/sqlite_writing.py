"""How an SQLite store writes: batches in bounded transactions, eviction before insertion, sweeps.

Every method is called with the writer's lock held. Sizes hold at every moment: the database by ``max_page_count`` with
room made beforehand, the write-ahead log because a transaction begins only where the log has room for all it may write.
"""

import contextlib
import os
import random
import secrets
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence

import msgspec

from genesis_cache.tiers.base import Change, Kill, Put, Receipt, StoreError
from genesis_cache.tiers.sqlite_batch import ROW_BYTES, Batch, Books, Victim, ident_of, victims
from genesis_cache.tiers.sqlite_links import Links
from genesis_cache.tiers.sqlite_schema import Statements, books_of, is_busy, is_full, sealed

PAGE = 4096
_FRAME = PAGE + 24  # a page in the write-ahead log
_SHM_BYTES = 32 * 1024  # of the log's index, for each 4,096 frames

_FIXED_PAGES = 24  # books, floors, list of free pages, upper levels of the trees
_SLIM_PAGES = 6  # at most written for a change without its envelope: leaves, siblings, index, kill, notice
_SMALL_PAGES = 64  # a batch that may be written on the event loop
_ATTEMPTS = 4
_WAL_ATTEMPTS = 9  # half a second in all
_SAMPLE = 256  # rows ranked for an eviction
_MANY_TOUCHED = 1024  # reads after which a commit notes them
_TOUCH_GRAIN_S = 60.0  # a use is not noted again within so many seconds
_SELECT = 256  # row numbers asked for in one statement
_LOWEST, _HIGHEST = -(2**63), 2**63 - 1


class Limits(msgspec.Struct, frozen=True):
    """The bounds that follow from ``max_bytes``."""

    max_bytes: int
    max_pages: int
    """Of the database file."""
    wal_bytes: int
    batch_pages: int
    """That one transaction may write."""
    widest: int
    """Bytes of an envelope beyond which it is not kept."""
    slots: int
    """Of the table of kills: keys that share one share their deletions' effect on fills."""
    log_rows: int


def limits_of(max_bytes: int, *, by_size: bool) -> Limits:
    """Of files a quarter goes to the write-ahead log (32 MiB at most), the rest to the database."""
    wal_pages = 8192 if by_size else min(max(max_bytes // PAGE // 4, 48), 8192)
    wal_bytes = 32 + wal_pages * _FRAME
    shm_bytes = _SHM_BYTES * (1 + (wal_pages + 34) // 4096)
    batch_pages = wal_pages * 3 // 4
    return Limits(
        max_bytes=max_bytes,
        max_pages=(max_bytes - wal_bytes - shm_bytes) // PAGE - 1,
        wal_bytes=wal_bytes,
        batch_pages=batch_pages,
        widest=min((batch_pages - _FIXED_PAGES - _SLIM_PAGES - 1) * 4000, max_bytes // 4),
        slots=min(max(max_bytes // 4096, 256), 65536),
        log_rows=min(max(max_bytes // 8192, 64), 10_000),
    )


class Writing:
    """The writing half of an SQLite store."""

    def __init__(
        self, links: Links, sql: Statements, limits: Limits, wall: Callable[[], float], *, by_size: bool
    ) -> None:
        self._links = links
        self._sql = sql
        self._limits = limits
        self._wall = wall
        self._by_size = by_size
        self._random = random.Random()  # noqa: S311  # picks samples, guards nothing
        self._origin, self._origin_pid = 0, 0
        self._swept_clear = 0
        self.guest = False
        """Whether the file holds tables of others, whose settings are not ours to make."""
        self.touched: set[int] = set()
        """Rows read since it was last noted."""
        self.bad: set[tuple[int, int]] = set()
        """Rows, with their checksums, that were found damaged and are to be deleted."""

    @property
    def origin(self) -> int:
        """This handle's number in the notices it writes; a forked child gets its own."""
        if self._origin_pid != os.getpid():
            self._origin, self._origin_pid = secrets.randbits(62) + 1, os.getpid()
        return self._origin

    @property
    def bounds_file(self) -> bool:
        """Whether the bound is that of the files; else it is that of the rows."""
        return not self._by_size and not self.guest

    # -- committing ---------------------------------------------------------------------------------------------

    def commit(self, changes: Sequence[Change]) -> list[Receipt]:
        """Apply a batch in as few transactions as its bounds allow."""
        self.drop_damaged()
        receipts: list[Receipt] = []
        for part in self._parts(changes):
            receipts += self._apply(part)
        if len(self.touched) >= _MANY_TOUCHED:
            self.note_touched()
        if not self.guest and self._links.size_of("-wal") > self._limits.wal_bytes // 2:
            self.checkpoint()
        return receipts

    def try_commit(self, changes: Sequence[Change]) -> list[Receipt] | None:
        """Apply a small batch if nothing has to be waited for or evicted, else None."""
        pages = sum(map(self._pages_of, changes))
        if pages > _SMALL_PAGES or not self._fits_wal(pages + _FIXED_PAGES) or self._lacks(changes) > 0:
            return None
        writer = self._links.writer()
        writer.execute("PRAGMA busy_timeout=0")
        try:
            with self._transaction(pages) as books:
                return self._write(books, changes)
        except sqlite3.OperationalError as error:
            if is_busy(error) or is_full(error):
                return None
            raise
        finally:
            writer.execute(f"PRAGMA busy_timeout={self._links.patience_s * 1e3:.0f}")

    def _parts(self, changes: Sequence[Change]) -> Iterator[Sequence[Change]]:
        """The batch in pieces that may be written in one transaction."""
        start = pages = 0
        for index, change in enumerate(changes):
            needed = self._pages_of(change)
            if pages + needed > self._limits.batch_pages - _FIXED_PAGES and index > start:
                yield changes[start:index]
                start, pages = index, 0
            pages += needed
        if start < len(changes):
            yield changes[start:]

    def _pages_of(self, change: Change) -> int:
        """The most pages that a change may write."""
        if not isinstance(change, Put) or len(change.envelope) > self._limits.widest:
            return _SLIM_PAGES
        return _SLIM_PAGES + 1 + len(change.envelope) // 4000

    def _apply(self, changes: Sequence[Change]) -> list[Receipt]:
        """One piece; where the file is full in spite of the room made, more is evicted, and at last everything."""
        pages = sum(map(self._pages_of, changes))
        for attempt in range(_ATTEMPTS):
            try:
                if (lacking := self._lacks(changes)) > 0:
                    self.evict(lacking)
                with self._transaction(pages) as books:
                    return self._write(books, changes)
            except sqlite3.OperationalError as error:
                if not is_full(error) or not self.bounds_file or attempt == _ATTEMPTS - 1:
                    raise
                self.evict(self._limits.max_bytes >> (2 * (_ATTEMPTS - 2 - attempt)))
        raise AssertionError("the last attempt returns or raises")

    def _write(self, books: Books, changes: Sequence[Change]) -> list[Receipt]:
        """Decide a batch on the rows it names, then write what came of it."""
        writer, sql, before = self._links.writer(), self._sql, books.seq
        batch = Batch(books, slots=self._limits.slots, widest=self._limits.widest, now=self._wall(), origin=self.origin)
        idents = list({ident_of(change.address.digest) for change in changes if not isinstance(change, Kill)})
        for start in range(0, len(idents), _SELECT):
            some = idents[start : start + _SELECT]
            slots = [batch.slot_of(ident) for ident in some]
            holes = f"({','.join('?' * len(some))})"
            batch.knows(writer.execute(sql.known + holes, some), writer.execute(sql.kills + holes, slots))
        receipts = [batch.apply(change) for change in changes]
        for statement, rows in (
            (sql.delete, [(ident,) for ident in batch.gone]),
            (sql.put, list(batch.puts.values())),
            (sql.kill, list(batch.killed.items())),
            (sql.tell, batch.log),
            (sql.floor, list(batch.floors.values())),
        ):
            if rows:
                writer.executemany(statement, rows)
        self._shorten(writer, books, before)
        return receipts

    def _shorten(self, writer: sqlite3.Connection, books: Books, before: int) -> None:
        """Keep the log and the floors within their bounds."""
        keep = self._limits.log_rows
        if books.seq - books.log_start > keep + max(keep // 16, 16):
            books.log_start = books.seq - keep
            writer.execute(self._sql.trim, (books.log_start,))
        if books.cleared > before:
            writer.execute(self._sql.unfloor, (books.cleared,))
        if before // 64 != books.seq // 64:
            self._merge_floors(writer, books)

    def _merge_floors(self, writer: sqlite3.Connection, books: Books) -> None:
        """Where too many floors are kept, let one that kills everything stand for the older half."""
        seqs = [seq for (seq,) in writer.execute(self._sql.floor_seqs)]
        if len(seqs) <= self._limits.log_rows:
            return
        books.cleared = max(books.cleared, seqs[len(seqs) // 2])
        writer.execute(self._sql.unfloor, (books.cleared,))

    # -- transactions -------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _transaction(self, pages: int) -> Iterator[Books]:
        """One that writes at most so many pages beside the fixed ones; the books are read first and kept last."""
        writer = self._links.writer()
        self._begin(writer, pages + _FIXED_PAGES)
        try:
            books = self._books()
            yield books
            writer.execute(self._sql.keep_books, sealed(books))
            writer.execute("COMMIT")
        except BaseException:
            with contextlib.suppress(sqlite3.Error):  # a full disk or a damaged file has rolled back by itself
                writer.execute("ROLLBACK")
            raise

    def _books(self) -> Books:
        return books_of(self._links.writer().execute(self._sql.books).fetchone())

    def _begin(self, writer: sqlite3.Connection, pages: int) -> None:
        for attempt in range(_WAL_ATTEMPTS):
            if attempt:
                time.sleep(0.001 * 2**attempt)  # another process is at the same checkpoint, for which SQLite waits not
            if not self._fits_wal(pages):
                self.checkpoint()
            writer.execute("BEGIN IMMEDIATE")
            if self._fits_wal(pages):
                return
            writer.execute("ROLLBACK")
        raise StoreError(f"{self._links.path}-wal cannot be emptied: somebody has been reading for too long")

    def _fits_wal(self, pages: int) -> bool:
        return self.guest or self._links.size_of("-wal") + pages * _FRAME <= self._limits.wal_bytes

    def checkpoint(self) -> None:
        """Move the write-ahead log into the database and cut it to nothing, if no reader is in the way."""
        self._links.writer().execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    # -- evicting -----------------------------------------------------------------------------------------------

    def _lacks(self, changes: Sequence[Change]) -> int:
        """Bytes of rows to evict before the batch; 0 or less if there is room."""
        incoming = sum(len(change.envelope) + ROW_BYTES for change in changes if isinstance(change, Put))
        if incoming == 0:
            return 0
        writer, size = self._links.writer(), self._books().size
        if not self.bounds_file:
            return size + min(incoming, self._limits.max_bytes) - self._limits.max_bytes
        used: int = writer.execute("PRAGMA page_count").fetchone()[0]
        used -= writer.execute("PRAGMA freelist_count").fetchone()[0]
        reserve = max(self._limits.max_pages // 16, 12)
        lacking = used + incoming * 3 // (2 * PAGE) + 2 + reserve - self._limits.max_pages
        return lacking * max(size // max(used, 1), PAGE // 4)

    def evict(self, wanted: int) -> None:
        """Delete rows of so many bytes: the expired first, then the least worth of a random sample."""
        most = max((self._limits.batch_pages - _FIXED_PAGES) // _SLIM_PAGES, 1)
        while wanted > 0:
            with self._transaction(most * _SLIM_PAGES) as books:
                now = self._wall()
                rows = self._expired(now, most) or self._sample()
                chosen = victims(rows, wanted, by_size=self._by_size, cleared=books.cleared, now=now)[:most]
                self._delete(books, chosen, now)
            if not chosen:
                return
            wanted -= sum(row.size + ROW_BYTES for row in chosen)

    def _expired(self, now: float, most: int) -> list[Victim]:
        return [Victim(*row) for row in self._links.writer().execute(self._sql.expired, (now, most))]

    def _sample(self) -> list[Victim]:
        """Rows from a random place on, and from the beginning if the end comes first."""
        start = self._random.getrandbits(64) + _LOWEST
        writer = self._links.writer()
        rows = writer.execute(self._sql.sample, (start, _HIGHEST, _SAMPLE)).fetchall()
        if len(rows) < _SAMPLE and start > _LOWEST:
            rows += writer.execute(self._sql.sample, (_LOWEST, start - 1, _SAMPLE - len(rows))).fetchall()
        return [Victim(*row) for row in rows]

    def _delete(self, books: Books, rows: Sequence[Victim], now: float) -> None:
        """Delete rows; that their last set killed older fills is remembered in their stead."""
        writer = self._links.writer()
        writer.executemany(self._sql.delete, [(row.ident,) for row in rows])
        kills = [(row.ident % self._limits.slots, row.changed) for row in rows if row.changed]
        writer.executemany(self._sql.kill, kills)
        expired = sum(row.gone_at <= now for row in rows)
        books.evicted_ttl += expired
        books.evicted_size += len(rows) - expired
        books.without(rows)

    # -- keeping house ------------------------------------------------------------------------------------------

    def sweep(self, is_over: Callable[[], bool]) -> int:
        """Delete what expired or was cleared until it is over, restore the bound, empty the log."""
        self.drop_damaged()
        self.note_touched()
        removed = self._sweep_expired(is_over) + self._sweep_cleared(is_over)
        if not self.bounds_file:
            self.evict(self._books().size - self._limits.max_bytes)
        if not self.guest:
            self.checkpoint()
        return removed

    def _sweep_expired(self, is_over: Callable[[], bool]) -> int:
        most = max((self._limits.batch_pages - _FIXED_PAGES) // _SLIM_PAGES, 1)
        removed = 0
        while True:
            with self._transaction(most * _SLIM_PAGES) as books:
                now = self._wall()
                rows = self._expired(now, most)
                self._delete(books, rows, now)
            removed += len(rows)
            if len(rows) < most or is_over():
                return removed

    def _sweep_cleared(self, is_over: Callable[[], bool]) -> int:
        """Give back the space of rows that a clear of everything has killed."""
        most = max((self._limits.batch_pages - _FIXED_PAGES) // _SLIM_PAGES, 1)
        removed = 0
        while not is_over():
            with self._transaction(most * _SLIM_PAGES) as books:
                if books.cleared <= self._swept_clear:
                    return removed
                rows = [Victim(*row) for row in self._links.writer().execute(self._sql.cleared, (books.cleared, most))]
                self._delete(books, rows, self._wall())
            removed += len(rows)
            if len(rows) < most:
                self._swept_clear = books.cleared
        return removed

    def note_touched(self) -> None:
        """Write down what was read, so that eviction and other processes know."""
        most = min(len(self.touched), max((self._limits.batch_pages - _FIXED_PAGES) // 2, 1))
        idents = [self.touched.pop() for _ in range(most)]
        if not idents:
            return
        now = self._wall()
        with self._transaction(most * 2):
            self._links.writer().executemany(
                self._sql.touch, [(now, ident, now - _TOUCH_GRAIN_S) for ident in sorted(idents)]
            )

    def drop_damaged(self) -> None:
        """Delete the rows that were found damaged, and count them."""
        while self.bad:
            ident, checksum = self.bad.pop()
            with self._transaction(_SLIM_PAGES) as books:
                found = self._links.writer().execute(self._sql.damaged, (ident, checksum))
                rows = [Victim(*row) for row in found]
                evicted = books.evicted_ttl, books.evicted_size
                self._delete(books, rows, self._wall())
                books.evicted_ttl, books.evicted_size = evicted
                books.evicted_damaged += len(rows)
                books.damaged += len(rows)
