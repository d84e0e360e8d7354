"""An embedded store in one SQLite file: the disk tier where segments cannot be had, and the ``sqlite:///`` database.

Rows are found by the first 64 bits of their digest, so that a random row number is a random sample of the store, and
eviction needs no index: it ranks a sample, as Redis does. The file runs in WAL mode without mmap, so that a file cut
short by somebody else is an error and not a signal.
"""

import contextlib
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Literal, TypeVar
from zlib import crc32

from genesis_cache.model.clock import Clock
from genesis_cache.model.keys import Address
from genesis_cache.model.missing import MISSING, Missing
from genesis_cache.tiers.base import Buffer, Change, Found, Kind, Notice, Position, Receipt, StoreError, StoreStats
from genesis_cache.tiers.leases import FileLeases
from genesis_cache.tiers.sqlite_batch import ROW_BYTES, Books, ident_of, notice_of
from genesis_cache.tiers.sqlite_links import Links, Rows, check_folder
from genesis_cache.tiers.sqlite_schema import (
    SqliteErrors,
    Statements,
    books_of,
    corrupt,
    examine,
    is_busy,
    is_damage,
    prepare,
)
from genesis_cache.tiers.sqlite_writing import PAGE, Writing, limits_of

MIN_BYTES = 512 * 1024

OPENING_PAUSES_S = (0.005, 0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64)  # between attempts to open it, where others do too

_MAX_TOUCHED = 4096  # reads remembered between two writes
_MAX_VERIFIED = 65536  # large rows whose checksum was seen to be right
_ALWAYS_CHECKED = 4096  # bytes up to which the checksum is verified on every read
_ANY_SIZE = 2**63 - 1
_SCAN_ROWS = 32
_LOWEST = -(2**63)

_T = TypeVar("_T")


class SqliteStore:
    """A `Store` in one SQLite file.

    ``evict="use"`` is the disk tier: the longest unused go first, the file with its companions never exceeds
    ``max_bytes`` (512 KiB at least), and its folder belongs to this user alone. ``evict="size"`` is the database tier:
    the largest go first, ``max_bytes`` bounds the rows, and a file that holds other tables too is never limited, moved
    or deleted. ``name`` is the cache's name: stores of different names in one file do not see each other.
    ``intact`` replaces the checksum that the store keeps beside each row. `ValueError` for a ``max_bytes`` too small.
    """

    def __init__(
        self,
        path: Path | str,
        max_bytes: int,
        clock: Clock,
        *,
        evict: Literal["use", "size"] = "use",
        name: str = "default",
        intact: Callable[[Buffer], bool] | None = None,
    ) -> None:
        if max_bytes < MIN_BYTES:
            raise ValueError(f"max_bytes must be at least {MIN_BYTES}, got {max_bytes}: an SQLite file needs its pages")
        self.path = Path(path)
        self._clock = clock
        self._by_size = evict == "size"
        self._intact = intact
        self._limits = limits_of(max_bytes, by_size=self._by_size)
        self._sql = Statements(name)
        self._links = Links(self.path, self._configure)
        self._leases = FileLeases(Path(f"{self.path}-lease"))
        self._writing = Writing(self._links, self._sql, self._limits, clock.wall, by_size=self._by_size)
        self._touched = self._writing.touched
        self._verified: dict[int, int] = {}
        self._suspect = False
        """Whether a read met something that an examination must judge."""
        self._doomed = False
        """Whether a read met damage that leaves no choice."""
        self._rebuilt = 0

    @property
    def origin(self) -> int:
        """This handle's number in the notices it writes; a forked child gets its own."""
        return self._writing.origin

    @property
    def is_open(self) -> bool:
        """Whether it is open in this process."""
        return self._links.is_open

    # -- opening ------------------------------------------------------------------------------------------------

    def open(self) -> None:
        """As `Store.open`; a damaged file of ours is made anew."""
        with self._links.writing, self._faults("opened"):
            if not self._by_size:
                check_folder(self.path.parent)
            alone = self._leases.open()
            if not self._links.is_open:
                self._start_in_turn(doubtful=alone and self._links.size_of("-wal") > 0)

    def close(self) -> None:
        """As `Store.close`."""
        with self._links.writing:
            if self._links.is_open:
                with contextlib.suppress(StoreError, *SqliteErrors):  # what was read is only of use, not owed
                    self._writing.note_touched()
                self._links.detach()
            self._leases.close()

    def _start_in_turn(self, *, doubtful: bool) -> None:
        """Start; where another process makes the file at this moment, SQLite does not wait by itself: try again."""
        for pause_s in OPENING_PAUSES_S:
            try:
                return self._start(doubtful=doubtful)
            except sqlite3.Error as error:
                if not is_busy(error):
                    raise
                time.sleep(pause_s)
        return self._start(doubtful=doubtful)

    def _start(self, *, doubtful: bool) -> None:
        try:
            writer = self._links.attach()
            if doubtful:
                examine(writer)
            self._prepare(writer)
            if not self._writing.bounds_file or writer.execute("PRAGMA page_count").fetchone()[0] <= self._max_pages:
                return
        except SqliteErrors as error:
            if not is_damage(error):
                self._links.detach()
                raise
        except BaseException:
            self._links.detach()
            raise
        self._rebuild()

    def _prepare(self, writer: sqlite3.Connection) -> None:
        """Make the tables. A new log begins at 0, but beyond the one before where it takes the place of a lost one."""
        start = int(self._clock.wall() * 1e6) if self._rebuilt else 0
        prepare(writer, self._sql, rebuilt=self._rebuilt, start=start)
        self._suspect = self._doomed = False

    @property
    def _max_pages(self) -> int:
        return self._limits.max_pages

    def _configure(self, writer: sqlite3.Connection) -> None:
        """Set up the connection that writes; called again after a fork."""
        tables = writer.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
        self._writing.guest = any(not name.startswith(("genesis_cache_", "sqlite_")) for (name,) in tables)
        pragmas = ["synchronous=NORMAL", "temp_store=MEMORY", "mmap_size=0", "secure_delete=OFF"]
        if not self._writing.guest:
            pragmas += [f"page_size={PAGE}", "journal_mode=WAL", "wal_autocheckpoint=0", "cache_spill=OFF"]
        if self._writing.bounds_file:
            pragmas.append(f"max_page_count={self._max_pages}")
        for pragma in pragmas:
            writer.execute(f"PRAGMA {pragma}").fetchall()

    def _rebuild(self) -> None:
        """Throw the file away, or move it aside where the folder is not ours alone, and begin a new log."""
        guest = self._writing.guest
        self._links.detach()
        if guest:
            raise StoreError(f"{self.path} is damaged and holds other tables than the cache's: restore it")
        with self._leases.rebuilding():
            self._rebuilt += 1
            self._links.remove(Path(f"{self.path}.damaged-{self._clock.wall():.0f}") if self._by_size else None)
            self._verified.clear()
            self._writing.bad.clear()
            self._prepare(self._links.attach())

    # -- reading ------------------------------------------------------------------------------------------------

    def get(self, address: Address) -> Buffer | None:
        """As `Store.get`."""
        found = self.get_within(address, _ANY_SIZE)
        return None if found is MISSING else found

    def get_within(self, address: Address, max_bytes: int) -> Buffer | Missing | None:
        """As `get`, but MISSING where the envelope has more than ``max_bytes``."""
        ident = ident_of(address.digest)
        rows = self._rows(self._sql.get, (max_bytes, ident, address.digest, self._clock.wall()))
        if not rows:
            return None
        envelope, checksum = rows[0]
        if envelope is None:
            return MISSING
        is_known = len(envelope) > _ALWAYS_CHECKED and self._verified.get(ident) == checksum
        if not is_known and not self._is_intact(ident, envelope, checksum):
            return None
        if ident not in self._touched and len(self._touched) < _MAX_TOUCHED:
            self._touched.add(ident)
        return envelope  # type: ignore[no-any-return]  # the column holds nothing but bytes

    def size(self, address: Address) -> int | None:
        """As `Store.size`."""
        rows = self._rows(self._sql.size, (ident_of(address.digest), address.digest, self._clock.wall()))
        return rows[0][0] if rows else None

    def position(self) -> Position:
        """As `Store.position`: one query."""
        if self._links.has_moved():
            self._follow()
        epoch, seq, _ = self._reach()
        return Position(epoch, seq)

    def _follow(self) -> None:
        """Go over to the file that is now under this path, made by another process or to be made here.

        Where only the write-ahead log was taken away the file has to be read through, which is a writer's work.
        """
        if not self._links.is_replaced() or not self._links.writing.acquire(blocking=False):
            raise StoreError(f"{self.path} or its write-ahead log was taken away: the next write puts it in order")
        try:
            self._guarded(lambda: None)
        finally:
            self._links.writing.release()

    def notices(self, after: Position) -> list[Notice] | None:
        """As `Store.notices`."""
        notices = self._notices(self._sql.notices, (after.seq,))
        epoch, seq, log_start = self._reach()  # after the lines, so that a trim between them shows
        if after.epoch != epoch or not log_start <= after.seq <= seq:
            return None
        return notices

    def floors(self) -> list[Notice]:
        """As `Store.floors`; where too many were kept, a CLEAR stands for the oldest."""
        floors = self._notices(self._sql.floors)
        merged = Notice(Kind.CLEAR, "", None, "", self._books().cleared)
        return [merged, *floors] if merged.seq and merged not in floors else floors

    def scan(self) -> Iterator[Found]:
        """As `Store.scan`."""
        last: int | None = None
        start = _LOWEST
        while rows := self._rows(self._sql.scan, (start, last, self._clock.wall(), _SCAN_ROWS)):
            start = last = rows[-1][0]
            for ident, envelope, checksum, read in rows:
                if self._is_intact(ident, envelope, checksum):
                    yield Found(envelope, bool(read) or ident in self._touched)

    def _rows(self, statement: str, values: Sequence[object] = ()) -> Rows:
        try:
            return self._links.rows(statement, values)
        except SqliteErrors as error:
            self._suspect = self._suspect or is_damage(error)
            raise StoreError(f"{self.path} cannot be read: {error}") from error

    def _notices(self, statement: str, values: Sequence[object] = ()) -> list[Notice]:
        notices = [notice_of(*row) for row in self._rows(statement, values)]
        sound = [notice for notice in notices if notice is not None]
        if len(sound) < len(notices):
            self._doomed = True
            raise StoreError(f"{self.path} has lost notices to damage: the next write makes it anew")
        return sound

    def _reach(self) -> tuple[int, int, int]:
        """The log's epoch, its last sequence, and the one after which it begins."""
        for epoch, seq, log_start in self._rows(self._sql.reach):
            return epoch, seq, log_start
        self._doomed = True
        raise StoreError(f"{self.path} has lost its books: the next write makes it anew")

    def _books(self) -> Books:
        try:
            return books_of(next(iter(self._rows(self._sql.books)), None))
        except sqlite3.Error as error:
            self._doomed = True
            raise StoreError(f"{self.path} cannot be read: {error}") from error

    def _is_intact(self, ident: int, envelope: bytes, checksum: int) -> bool:
        intact = self._intact
        if type(envelope) is not bytes or not (crc32(envelope) == checksum if intact is None else intact(envelope)):
            self._writing.bad.add((ident, checksum))
            return False
        if len(envelope) > _ALWAYS_CHECKED:
            if len(self._verified) >= _MAX_VERIFIED:
                self._verified.clear()
            self._verified[ident] = checksum
        return True

    # -- writing ------------------------------------------------------------------------------------------------

    def commit(self, changes: Sequence[Change]) -> list[Receipt]:
        """As `Store.commit`; a batch too large for one transaction is made of several."""
        with self._links.writing:
            return self._guarded(lambda: self._writing.commit(changes))

    def try_commit(self, changes: Sequence[Change]) -> list[Receipt] | None:
        """As `Store.try_commit`; None too where room must be made first."""
        if not self._links.writing.acquire(blocking=False):
            return None
        try:
            return self._guarded(lambda: self._writing.try_commit(changes))
        finally:
            self._links.writing.release()

    def sweep(self, budget_s: float) -> int:
        """As `Store.sweep`; it also notes what was read, restores the bound and empties the write-ahead log."""
        end = self._clock.now() + budget_s
        with self._links.writing:
            return self._guarded(lambda: self._writing.sweep(lambda: self._clock.now() > end))

    def _guarded(self, act: Callable[[], _T]) -> _T:
        """Act on a file that is there and sound; where it shows damage, make it anew and act again."""
        with self._faults("written"):
            if not self._links.is_open:
                raise StoreError(f"{self.path} is not open")
            if self._suspect or self._links.has_moved():
                self._leases.open()
                is_same_file = not self._links.is_replaced()
                self._links.detach()
                self._start(doubtful=is_same_file)
            try:
                if self._doomed:
                    raise corrupt("a read found damaged books")
                return act()
            except SqliteErrors as error:
                if not is_damage(error):
                    raise
                self._leases.open()
                self._rebuild()
                return act()

    @contextlib.contextmanager
    def _faults(self, verb: str) -> Iterator[None]:
        try:
            yield
        except (*SqliteErrors, OSError) as error:
            raise StoreError(f"{self.path} cannot be {verb}: {error}") from error

    # -- leases and figures -------------------------------------------------------------------------------------

    def lease(self, address: Address) -> bool:
        """As `Store.lease`."""
        if not self._leases.is_open and self._links.is_open:
            self._leases.open()  # a forked child holds none of its parent's
        return self._leases.take(address.digest)

    def release(self, address: Address) -> None:
        """As `Store.release`."""
        self._leases.give(address.digest)

    def stats(self) -> StoreStats:
        """As `Store.stats`; the bytes are those of the files, or those of the rows under ``evict="size"``."""
        books = self._books()
        evictions = {"size": books.evicted_size, "ttl": books.evicted_ttl, "damaged": books.evicted_damaged}
        return StoreStats(
            entries=books.entries,
            size_bytes=books.size if self._by_size else self._links.size(),
            capacity_bytes=self._limits.max_bytes,
            evictions=evictions,
            damaged=books.damaged + len(self._writing.bad),
            rebuilt=books.rebuilt,
        )

    def check(self) -> list[str]:
        """As `Store.check`."""
        with self._links.writing:
            return self._guarded(self._check)

    def _check(self) -> list[str]:
        writer = self._links.writer()
        writer.execute("BEGIN")
        try:
            faults = [line for (line,) in writer.execute("PRAGMA integrity_check") if line != "ok"]
            books = books_of(writer.execute(self._sql.books).fetchone())
            entries, envelopes, misfits = writer.execute(self._sql.count).fetchone()
            lines, first, last = writer.execute(self._sql.count_log).fetchone()
        finally:
            writer.execute("COMMIT")
        told = books.seq - books.log_start
        for wrong, fault in (
            (entries != books.entries, f"the books say {books.entries} entries, the table has {entries}"),
            (envelopes + entries * ROW_BYTES != books.size, f"the books say {books.size} bytes, the rows have other"),
            (misfits, f"{misfits} rows have a size that is not their envelope's"),
            (lines != told, f"the log should have {told} notices and has {lines}"),
            (lines and (first, last) != (books.log_start + 1, books.seq), f"the log runs from {first} to {last}"),
        ):
            if wrong:
                faults.append(fault)
        if self._writing.bounds_file and self._links.size() > self._limits.max_bytes:
            faults.append(f"the files have {self._links.size()} bytes of {self._limits.max_bytes}")
        return faults
