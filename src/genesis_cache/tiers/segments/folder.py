"""The store's directory: only ours, never through a symbolic link, files preallocated, errors in plain words."""

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from genesis_cache.tiers.base import StoreError

_REASONS = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "a file may not grow that large here (ulimit -f)",
    errno.EROFS: "the file system is read-only",
    errno.EACCES: "permission denied",
    errno.EPERM: "permission denied",
    errno.EIO: "the disk reports an input/output error",
    errno.EMFILE: "this process has too many open files (ulimit -n)",
    errno.ENFILE: "this machine has too many open files",
    errno.ENOENT: "the store was deleted",
    errno.ELOOP: "a symbolic link stands where the store should be",
    errno.ENOTDIR: "it is not a directory",
}
READ_ONLY = frozenset({errno.EROFS, errno.EACCES, errno.EPERM})
_PREALLOCATE = getattr(os, "posix_fallocate", None)
_LONGEST_NAME = len("seg-4294967295")
_ZEROS = bytes(1 << 20)


def plainly(error: OSError | ValueError, doing: str) -> StoreError:
    """A `StoreError` that says in words what an error of the system means."""
    reason = _REASONS.get(getattr(error, "errno", None) or 0, str(error))
    return StoreError(f"disk store: cannot {doing}: {reason}")


@contextmanager
def in_words(doing: str) -> Iterator[None]:
    """Turn errors of the system into `StoreError`."""
    try:
        yield
    except OSError as error:
        raise plainly(error, doing) from error


class Folder:
    """An open directory and the few ways in which the store touches it. Every method may raise `OSError`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.fd = -1
        self.read_only = False

    def open(self) -> None:
        """Make the directory if it is missing, refuse one that others could have prepared, and hold it open."""
        if not os.path.lexists(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with suppress(FileExistsError):  # another process made it at this moment
                self.path.mkdir(mode=0o700)
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            self.fd = os.open(self.path, flags)
            self._check_owner(os.fstat(self.fd))
            self._mark()
        except BaseException:
            self.close()
            raise

    def _check_owner(self, status: os.stat_result) -> None:
        ours = status.st_uid == os.geteuid()
        if not ours and (status.st_uid != 0 or status.st_mode & stat.S_IWOTH):
            raise StoreError(
                f"disk store: {self.path} belongs to another user or is open to all: what lies there cannot be "
                "trusted. Choose a directory of your own (CACHE_DISK_PATH)"
            )
        if ours and status.st_mode & 0o077:
            with suppress(OSError):  # a read-only file system; the files themselves are 0600
                os.fchmod(self.fd, 0o700)

    def _mark(self) -> None:
        try:
            fd = self.open_file(".gitignore", os.O_RDWR | os.O_CREAT)
        except OSError as error:
            if error.errno not in READ_ONLY:
                raise
            self.read_only = True
            return
        try:
            if os.fstat(fd).st_size == 0:
                with suppress(OSError):  # a full disk: a courtesy to git is no reason to fail
                    os.write(fd, b"*\n")
        finally:
            os.close(fd)

    def close(self) -> None:
        """Let go of the directory."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)

    def open_file(self, name: str, flags: int) -> int:
        """A file of the store, for its owner only, never through a link."""
        return os.open(name, flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=self.fd)

    def open_book(self, name: str) -> int:
        """A file to read and, unless the store is read-only, write."""
        return self.open_file(name, os.O_RDONLY if self.read_only else os.O_RDWR)

    def create(self, name: str, size: int, start: bytes = b"") -> int:
        """A new file with all its blocks, so that a full disk shows now and never as a signal later."""
        fd = self.open_file(name, os.O_RDWR | os.O_CREAT | os.O_EXCL)
        try:
            preallocate(fd, size)
            write_all(fd, start, 0)
        except BaseException:
            os.close(fd)
            self.remove(name)
            raise
        return fd

    def remove(self, name: str) -> None:
        """Delete a file if it is there."""
        with suppress(FileNotFoundError):
            os.unlink(name, dir_fd=self.fd)

    def sizes(self) -> dict[str, int]:
        """Every file's name and size."""
        found = {}
        for name in os.listdir(self.fd):  # noqa: PTH208  # by descriptor: what was opened, not what the path now is
            with suppress(FileNotFoundError):  # another process evicts
                found[name] = os.stat(name, dir_fd=self.fd, follow_symlinks=False).st_size
        return found

    def segments(self) -> list[int]:
        """Numbers of the segments that are there, oldest first."""
        return sorted(int(name[4:]) for name in os.listdir(self.fd) if is_segment(name))  # noqa: PTH208  # as above


def is_segment(name: str) -> bool:
    """Whether a file name is that of a segment."""
    return name.startswith("seg-") and name[4:].isdecimal() and len(name) <= _LONGEST_NAME


def segment_name(number: int) -> str:
    """The file name of a segment."""
    return f"seg-{number}"


def preallocate(fd: int, size: int) -> None:
    """Give a file all its blocks; on systems without the call by writing zeros."""
    if _PREALLOCATE is not None:
        _PREALLOCATE(fd, 0, size)
        return
    for at in range(0, size, len(_ZEROS)):
        write_all(fd, _ZEROS[: size - at], at)


def write_all(fd: int, data: bytes | bytearray, at: int) -> None:
    """Write all of it at a position. What cut a write short makes the next one raise and say why."""
    written = os.pwrite(fd, data, at)
    while written < len(data):
        written += os.pwrite(fd, data[written:], at + written)
