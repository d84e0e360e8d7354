"""Leases of one host: byte-range locks on a side file, which the kernel frees when their holder dies.

A key's lease is one byte of an empty file, at an offset taken from the key's digest. POSIX record locks belong to the
process (not to the file handle), so the handles of one process share one descriptor and a table of who holds what.
"""

import contextlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path

from genesis_cache.tiers.base import StoreError

try:
    import fcntl
except ImportError:  # not a POSIX system: leases then hold among the threads and handles of one process only
    fcntl = None  # type: ignore[assignment]  # its absence is asked for before each use

_OPENERS = 0  # byte locked, shared, by every process that has the store open
_REBUILD = 1  # byte locked by the process that makes the store anew
_FIRST_KEY = 1024

_FLAGS = os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOFOLLOW", 0)


class _Shared:
    """The one descriptor that this process has on a side file, and the leases its handles hold."""

    __slots__ = ("descriptor", "handles", "held", "pid")

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self.handles = 0
        self.held: dict[int, FileLeases] = {}
        self.pid = os.getpid()


_guard = threading.Lock()
_shared: dict[tuple[int, int], _Shared] = {}


def _after_fork_in_child() -> None:
    """Let go of the parent's descriptors: its locks are not ours, and closing here does not free them there."""
    global _guard  # noqa: PLW0603  # the lock may have been held by a thread that does not exist in the child
    _guard = threading.Lock()
    for shared in _shared.values():
        os.close(shared.descriptor)
    _shared.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)


class FileLeases:
    """One handle's leases on one side file."""

    __slots__ = ("_identity", "_path")

    def __init__(self, path: Path) -> None:
        self._path = path
        self._identity: tuple[int, int] | None = None

    @property
    def is_open(self) -> bool:
        """Whether leases can be taken; not in a child forked since it was opened."""
        return self._shared() is not None

    def open(self) -> bool:
        """Make or open the side file. True if nobody else, in any process, has it open; `StoreError` if it cannot."""
        with _guard:
            if self._shared() is not None:
                return False
            try:
                return self._join()
            except OSError as error:
                raise StoreError(f"the lease file {self._path} cannot be opened: {error.strerror}") from error

    def close(self) -> None:
        """Give everything back; safe to call twice."""
        with _guard:
            shared, identity = self._shared(), self._identity
            self._identity = None
            if shared is None or identity is None:
                return
            for offset in [offset for offset, holder in shared.held.items() if holder is self]:
                self._free(shared, offset)
            shared.handles -= 1
            if shared.handles == 0:
                os.close(shared.descriptor)
                del _shared[identity]

    def take(self, digest: bytes) -> bool:
        """Try to take a key's lease; False if anybody holds it. `StoreError` if this handle is not open."""
        offset = _offset_of(digest)
        with _guard:
            shared = self._shared()
            if shared is None:
                raise StoreError(f"the lease file {self._path} is not open")
            if offset in shared.held or not _lock(shared.descriptor, offset):
                return False
            shared.held[offset] = self
            return True

    def give(self, digest: bytes) -> None:
        """Give a key's lease back, if this handle holds it."""
        offset = _offset_of(digest)
        with _guard:
            shared = self._shared()
            if shared is not None and shared.held.get(offset) is self:
                self._free(shared, offset)

    @contextlib.contextmanager
    def rebuilding(self) -> Iterator[None]:
        """Be the one process that makes the store anew; `StoreError` if another is at it."""
        with _guard:
            shared = self._shared()
            if shared is None or _REBUILD in shared.held or not _lock(shared.descriptor, _REBUILD):
                raise StoreError(f"somebody else is making the store of {self._path} anew")
            shared.held[_REBUILD] = self
        try:
            yield
        finally:
            with _guard:
                self._free(shared, _REBUILD)

    def _shared(self) -> _Shared | None:
        return None if self._identity is None else _shared.get(self._identity)

    def _join(self) -> bool:
        status = self._path.stat() if self._path.exists() else None
        shared = None if status is None else _shared.get((status.st_dev, status.st_ino))
        if shared is None:
            descriptor = os.open(self._path, _FLAGS, 0o600)
            status = os.fstat(descriptor)
            shared = _shared[status.st_dev, status.st_ino] = _Shared(descriptor)
        assert status is not None  # noqa: S101  # set on both ways here; tells the type checker
        self._identity = status.st_dev, status.st_ino
        shared.handles += 1
        if shared.handles > 1:
            return False
        alone = _lock(shared.descriptor, _OPENERS)
        _lock(shared.descriptor, _OPENERS, exclusive=False)
        return alone

    @staticmethod
    def _free(shared: _Shared, offset: int) -> None:
        del shared.held[offset]
        _unlock(shared.descriptor, offset)


def _offset_of(digest: bytes) -> int:
    return _FIRST_KEY + int.from_bytes(digest[:7], "little")


def _lock(descriptor: int, offset: int, *, exclusive: bool = True) -> bool:
    if fcntl is None:
        return True
    kind = fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH
    try:
        fcntl.lockf(descriptor, kind | fcntl.LOCK_NB, 1, offset)
    except (BlockingIOError, PermissionError):
        return False
    return True


def _unlock(descriptor: int, offset: int) -> None:
    if fcntl is not None:
        fcntl.lockf(descriptor, fcntl.LOCK_UN, 1, offset)
