"""Tables and statements of an SQLite store, and what SQLite's error codes mean to it."""

import re
import secrets
import sqlite3
from hashlib import blake2b

import msgspec

from genesis_cache.tiers.sqlite_batch import Books

FORMAT = 1  # part of the tables' names: two versions of this package in one file do not read each other

# Codes of https://www.sqlite.org/rescode.html
_GENERIC = 1
_CORRUPT = 11
_FULL = 13
_NOT_A_DATABASE = 26
_SHORT_READ = 522
_BUSY = (5, 6)

# What SQLite says of a schema that is not ours, because the file was emptied or its first page damaged
_STRANGE = r"no such (table|column|index)|has no column|has \d+ columns|malformed"

_TABLES = """
CREATE TABLE IF NOT EXISTS cache_books (
    one INTEGER PRIMARY KEY CHECK (one = 1), epoch INTEGER, start INTEGER, seq INTEGER, log_start INTEGER,
    entries INTEGER, size INTEGER, evicted_size INTEGER, evicted_ttl INTEGER, evicted_damaged INTEGER,
    damaged INTEGER, rebuilt INTEGER, cleared INTEGER, checksum INTEGER);
CREATE TABLE IF NOT EXISTS cache_entries (
    id INTEGER PRIMARY KEY, digest BLOB, gone_at REAL, used REAL, read INTEGER, priority INTEGER, size INTEGER,
    made INTEGER, changed INTEGER, version INTEGER, checksum INTEGER, envelope BLOB);
CREATE INDEX IF NOT EXISTS cache_gone ON cache_entries (gone_at) WHERE gone_at < 9e999;
CREATE TABLE IF NOT EXISTS cache_kills (slot INTEGER PRIMARY KEY, seq INTEGER);
CREATE TABLE IF NOT EXISTS cache_log (seq INTEGER PRIMARY KEY, name BLOB, origin INTEGER, checksum INTEGER);
CREATE TABLE IF NOT EXISTS cache_floors (name BLOB PRIMARY KEY, seq INTEGER, checksum INTEGER) WITHOUT ROWID
"""

_VICTIM = "SELECT id, size, changed, gone_at, used, read, priority, made FROM cache_entries"


class Statements:
    """Every statement of a store, over the tables of one cache name."""

    def __init__(self, name: str) -> None:
        plain = name if re.fullmatch("[a-z0-9_]{1,32}", name) else blake2b(name.encode(), digest_size=8).hexdigest()
        prefix = f"genesis_cache_{FORMAT}_{plain}_"

        def of(text: str) -> str:
            return re.sub(r"\bcache_", prefix, text)

        self.tables = [of(statement) for statement in _TABLES.split(";")]
        self.found = of("INSERT OR IGNORE INTO cache_books VALUES (1, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)")
        self.get = of(
            "SELECT CASE WHEN size <= ? THEN envelope END, checksum FROM cache_entries"
            " WHERE id = ? AND digest = ? AND gone_at > ?"
        )
        self.size = of("SELECT size FROM cache_entries WHERE id = ? AND digest = ? AND gone_at > ?")
        self.reach = of("SELECT epoch, seq, log_start FROM cache_books")
        self.notices = of("SELECT name, seq, origin, checksum FROM cache_log WHERE seq > ? ORDER BY seq")
        self.floors = of("SELECT name, seq, 0, checksum FROM cache_floors ORDER BY seq")
        self.scan = of(
            "SELECT id, envelope, checksum, read FROM cache_entries"
            " WHERE id >= ? AND id IS NOT ? AND gone_at > ? ORDER BY id LIMIT ?"
        )
        self.books = of(
            "SELECT epoch, start, seq, log_start, entries, size, evicted_size, evicted_ttl, evicted_damaged, damaged,"
            " rebuilt, cleared, checksum FROM cache_books"
        )
        self.keep_books = of(
            "UPDATE cache_books SET epoch = ?, start = ?, seq = ?, log_start = ?, entries = ?, size = ?,"
            " evicted_size = ?, evicted_ttl = ?, evicted_damaged = ?, damaged = ?, rebuilt = ?, cleared = ?,"
            " checksum = ?"
        )
        self.known = of("SELECT id, size, version, changed FROM cache_entries WHERE id IN ")
        self.kills = of("SELECT slot, seq FROM cache_kills WHERE slot IN ")
        self.put = of("INSERT OR REPLACE INTO cache_entries VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)")
        self.delete = of("DELETE FROM cache_entries WHERE id = ?")
        self.kill = of(
            "INSERT INTO cache_kills VALUES (?, ?) ON CONFLICT (slot) DO UPDATE SET seq = max(seq, excluded.seq)"
        )
        self.tell = of("INSERT INTO cache_log VALUES (?, ?, ?, ?)")
        self.trim = of("DELETE FROM cache_log WHERE seq <= ?")
        self.floor = of("INSERT OR REPLACE INTO cache_floors VALUES (?, ?, ?)")
        self.unfloor = of("DELETE FROM cache_floors WHERE seq < ?")
        self.floor_seqs = of("SELECT seq FROM cache_floors ORDER BY seq")
        self.touch = of("UPDATE cache_entries SET used = ?, read = 1 WHERE id = ? AND (read = 0 OR used < ?)")
        self.expired = of(_VICTIM + " WHERE gone_at <= ? AND gone_at < 9e999 ORDER BY gone_at LIMIT ?")
        self.sample = of(_VICTIM + " WHERE id >= ? AND id <= ? ORDER BY id LIMIT ?")
        self.cleared = of(_VICTIM + " WHERE made < ? ORDER BY id LIMIT ?")
        self.damaged = of(_VICTIM + " WHERE id = ? AND checksum = ?")
        self.count = of("SELECT count(*), coalesce(sum(size), 0), coalesce(sum(size <> length(envelope)), 0)"
                        " FROM cache_entries")  # fmt: skip
        self.count_log = of("SELECT count(*), coalesce(min(seq), 0), coalesce(max(seq), 0) FROM cache_log")


def prepare(writer: sqlite3.Connection, sql: Statements, *, rebuilt: int, start: int) -> None:
    """Make the tables where they are not there, with the books of a new log."""
    writer.execute("BEGIN IMMEDIATE")
    try:
        for table in sql.tables:
            writer.execute(table)
        epoch = secrets.randbits(62) + 1
        writer.execute(sql.found, sealed(Books(epoch, start, start, start, 0, 0, 0, 0, 0, 0, rebuilt, 0)))
        books_of(writer.execute(sql.books).fetchone())
        writer.execute("COMMIT")
    except BaseException:
        writer.execute("ROLLBACK")
        raise


def sealed(books: Books) -> tuple[int, ...]:
    """The row of the books, with its checksum."""
    return *msgspec.structs.astuple(books), books.checksum()


def books_of(row: tuple[int, ...] | None) -> Books:
    """The books of a row; the error of a corrupt file where they are not what was written."""
    if row is not None:
        books = Books(*row[:-1])
        if books.checksum() == row[-1]:
            return books
    raise corrupt("the books are damaged")


def corrupt(fault: str) -> sqlite3.DatabaseError:
    """What SQLite would raise for a corrupt file."""
    error = sqlite3.DatabaseError(fault)
    error.sqlite_errorcode = _CORRUPT
    return error


def examine(writer: sqlite3.Connection) -> None:
    """Read through the whole file; `sqlite3.DatabaseError` with the code of a corrupt one where it is not sound."""
    verdict = writer.execute("PRAGMA quick_check(1)").fetchone()[0]
    if verdict != "ok":
        raise corrupt(f"quick_check says: {verdict}")


SqliteErrors = sqlite3.Error, UnicodeDecodeError
"""What SQLite raises; the second where its message quotes damaged bytes."""


def is_damage(error: Exception) -> bool:
    """Whether the file is not what it was, so that it has to be made anew."""
    if isinstance(error, UnicodeDecodeError):
        return True
    code = getattr(error, "sqlite_errorcode", 0)
    is_strange = code == _GENERIC and re.search(_STRANGE, str(error)) is not None
    return is_strange or code == _SHORT_READ or code & 0xFF in (_CORRUPT, _NOT_A_DATABASE)


def is_full(error: sqlite3.Error) -> bool:
    """Whether the file may not grow."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF == _FULL


def is_busy(error: sqlite3.Error) -> bool:
    """Whether another process or connection holds the lock."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in _BUSY
