"""The connections of one SQLite file: a writer behind a lock, a reader for each thread, and none across a fork.

SQLite keeps its file locks in tables of the process, and a child would inherit the tables without the locks. So every
connection is closed before a fork and opened again, on both sides, by whoever needs it next.
"""

import contextlib
import os
import sqlite3
import stat
import threading
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from genesis_cache.tiers.base import StoreError

READ_PATIENCE_S = 0.02  # a reader is on the event loop: a store that is locked for longer is not there
WRITE_PATIENCE_S = 2.0

_SUFFIXES = ("", "-wal", "-shm", "-journal")

_Identity = tuple[int, int]  # device and number of a file
Rows = list[Any]  # tuples whose types each statement knows


class _Reader:
    """One thread's connection. It closes itself when its thread ends."""

    __slots__ = ("__weakref__", "connection", "lock")

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.connection: sqlite3.Connection | None = None

    def close(self) -> None:
        if self.connection is not None:
            self.connection.close()
            self.connection = None

    def __del__(self) -> None:
        self.close()


class _Mine(threading.local):
    reader: _Reader | None = None


class Links:
    """All connections of this process to one file. `StoreError` where there can be none."""

    def __init__(self, path: Path, configure: Callable[[sqlite3.Connection], None]) -> None:
        self.path = path
        self.patience_s = WRITE_PATIENCE_S
        """How long a writer waits for the lock of another process."""
        self._configure = configure
        self.writing = threading.Lock()
        """Held by whoever uses the writer; taken before everything else."""
        self._joining = threading.Lock()
        self._mine = _Mine()
        self._readers: weakref.WeakSet[_Reader] = weakref.WeakSet()
        self._writer: sqlite3.Connection | None = None
        self._identity: _Identity | None = None
        self._log_identity: _Identity | None = None
        _all_links.add(self)

    @property
    def is_open(self) -> bool:
        """Whether connections may be made."""
        return self._identity is not None

    def attach(self) -> sqlite3.Connection:
        """Make the file where there is none, and the writer. Call it with `writing` held."""
        self._identity = _identity_of(self.path, make=True)
        return self.writer()

    def detach(self) -> None:
        """Close every connection and make no more. Call it with `writing` held."""
        self._identity = None
        self._hold()
        self._let_go()

    def writer(self) -> sqlite3.Connection:
        """The connection that writes, made again after a fork. Call it with `writing` held."""
        if self._writer is None:
            if self._identity is None:
                raise StoreError(f"{self.path} is not open")
            writer = _connect(self.path, self.patience_s)
            try:
                self._configure(writer)
            except BaseException:
                writer.close()
                raise
            self._writer = writer
            self._log_identity = self._identity_of_log()
        return self._writer

    def rows(self, statement: str, values: Sequence[object] = ()) -> Rows:
        """What a statement finds, read on this thread's own connection."""
        while True:
            reader = self._mine.reader
            if reader is None or reader.connection is None:
                reader = self._join(reader)
            with reader.lock:
                if reader.connection is not None:
                    return reader.connection.execute(statement, values).fetchall()

    def has_moved(self) -> bool:
        """Whether the file under this path, or its write-ahead log, is no longer the one that was opened."""
        if self._identity is None:
            return False
        is_log_replaced = self._log_identity is not None and self._identity_of_log() != self._log_identity
        return is_log_replaced or self.is_replaced()

    def is_replaced(self) -> bool:
        """Whether the file itself is gone or another."""
        try:
            return _identity_of(self.path, make=False) != self._identity
        except OSError:
            return True

    def _identity_of_log(self) -> "_Identity | None":
        try:
            return _identity_of(Path(f"{self.path}-wal"), make=False)
        except OSError:
            return None

    def size_of(self, suffix: str) -> int:
        """Bytes of the file or of one of its companions; 0 where there is none."""
        try:
            return os.stat(f"{self.path}{suffix}").st_size  # noqa: PTH116  # on the write path, four times cheaper
        except OSError:
            return 0

    def size(self) -> int:
        """Bytes of the file and its companions."""
        return sum(map(self.size_of, _SUFFIXES))

    def remove(self, aside: Path | None) -> None:
        """Delete the file and its companions, or move the file aside. Call it detached."""
        if aside is not None:
            self.path.replace(aside)
        for suffix in _SUFFIXES:
            Path(f"{self.path}{suffix}").unlink(missing_ok=True)

    def _join(self, reader: _Reader | None) -> _Reader:
        with self._joining:
            if self._identity is None:
                raise StoreError(f"{self.path} is not open")
            if reader is None:
                reader = self._mine.reader = _Reader()
                self._readers.add(reader)
            if reader.connection is None:
                reader.connection = _connect(self.path, READ_PATIENCE_S)
        return reader

    def _hold(self) -> None:
        """Close every connection, with the locks held that keep new ones from being made."""
        self._joining.acquire()
        for reader in list(self._readers):
            with reader.lock:
                reader.close()
        if self._writer is not None:
            self._writer.close()
            self._writer = self._log_identity = None

    def _let_go(self) -> None:
        self._joining.release()


def check_folder(folder: Path) -> None:
    """Make a folder that only this user can enter, or see that nobody else can write to the one there is."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = folder.stat()
    if (
        not stat.S_ISDIR(status.st_mode)
        or status.st_mode & 0o022
        or (hasattr(os, "geteuid") and status.st_uid != os.geteuid())
    ):
        raise StoreError(f"{folder} can be written to by others: give the cache a folder of its own, mode 0700")


def _identity_of(path: Path, *, make: bool) -> _Identity:
    """Device and number of the file, which must be a regular one and no link; made empty for this user alone."""
    if make and not os.path.lexists(path):  # to open and close a file that is there would drop SQLite's locks on it
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0)
        with contextlib.suppress(FileExistsError):
            os.close(os.open(path, flags, 0o600))
    status = os.lstat(path)
    if not stat.S_ISREG(status.st_mode):
        raise StoreError(f"{path} is not a regular file: remove it or choose another path")
    return status.st_dev, status.st_ino


def _connect(path: Path, patience_s: float) -> sqlite3.Connection:
    return sqlite3.connect(
        f"file:{quote(str(path.absolute()))}?mode=rw",
        uri=True, timeout=patience_s, isolation_level=None, check_same_thread=False,
    )  # fmt: skip


_all_links: weakref.WeakSet[Links] = weakref.WeakSet()
_held: list[Links] = []


def _before_fork() -> None:
    for links in list(_all_links):
        links.writing.acquire()
        links._hold()  # noqa: SLF001  # the same module
        _held.append(links)


def _after_fork() -> None:
    while _held:
        links = _held.pop()
        links._let_go()  # noqa: SLF001  # the same module
        links.writing.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork)
