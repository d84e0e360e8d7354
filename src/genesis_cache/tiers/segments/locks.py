"""Who may write, who is present, who loads: locks between processes that the kernel frees when their holder dies."""

import fcntl
import os
import threading
import time

from genesis_cache.tiers.base import StoreError
from genesis_cache.tiers.segments.folder import Folder, in_words, plainly

PATIENCE_S = 2.0  # how long a writer waits for another before it gives up
_FIRST_NAP_S = 0.0001
_LONGEST_NAP_S = 0.005


class WriterLock:
    """One writer at a time, among threads and among processes.

    A thread lock stands before the file lock, so that threads of a process do not poll against each other.
    """

    def __init__(self, folder: Folder) -> None:
        self._folder = folder
        self._threads = threading.Lock()
        self._fd = -1

    def open(self) -> None:
        """Open the lock file, making it if need be."""
        flags = os.O_RDONLY if self._folder.read_only else os.O_RDWR | os.O_CREAT
        self._fd = self._folder.open_file("lock", flags)

    def close(self) -> None:
        """Close the lock file, which frees the lock if it is held here."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def forget(self) -> None:
        """In a forked child: the parent's threads are gone, and with them whoever would have freed the lock."""
        self._threads = threading.Lock()
        self.close()

    @property
    def deleted(self) -> bool:
        """Whether somebody removed the store's files under us."""
        try:
            return os.fstat(self._fd).st_nlink == 0
        except OSError as error:
            raise plainly(error, "look at its lock") from error

    def take(self) -> bool:
        """The lock if nobody has it at this moment."""
        if not self._threads.acquire(blocking=False):
            return False
        taken = False
        try:
            taken = _flock_now(self._fd)
        finally:
            if not taken:
                self._threads.release()
        return taken

    def wait(self, patience_s: float = PATIENCE_S) -> None:
        """The lock, or `StoreError` when others kept it for too long."""
        limit = time.monotonic() + patience_s  # a real wait for another process, whatever clock the cache was given
        if not self._threads.acquire(timeout=patience_s):
            raise StoreError(_LOCKED)
        nap = _FIRST_NAP_S
        try:
            while not _flock_now(self._fd):
                if time.monotonic() > limit:
                    raise StoreError(_LOCKED)  # noqa: TRY301  # the clause below is for everything that may come
                time.sleep(nap)
                nap = min(nap * 2, _LONGEST_NAP_S)
        except BaseException:
            self._threads.release()
            raise

    def free(self) -> None:
        """Give it back."""
        try:
            fcntl.flock(self._fd, fcntl.LOCK_UN)
        except OSError:
            self.close()  # frees it too
            with in_words("open its lock again"):
                self.open()
        finally:
            self._threads.release()


_LOCKED = "disk store: locked by another process for too long; it will be tried again"


def _flock_now(fd: int) -> bool:
    if fd < 0:
        raise StoreError("disk store: its lock is lost; close it and open it again")
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        raise plainly(error, "lock") from error
    return True


class Presence:
    """Who uses the store: all share one lock, so whoever gets it alone knows that nobody trusts the files now."""

    def __init__(self, folder: Folder) -> None:
        self._folder = folder
        self._fd = -1

    def enter(self) -> bool:
        """Open the file; True if nobody else uses the store. Called under the writer lock, then `share`."""
        flags = os.O_RDONLY if self._folder.read_only else os.O_RDWR | os.O_CREAT
        self._fd = self._folder.open_file("users", flags)
        return self.alone()

    def alone(self) -> bool:
        """Whether this is the only user; if so, the others are kept out until `share`."""
        return _flock_now(self._fd)

    def share(self) -> None:
        """Be one user among others. Under the writer lock nobody holds it alone, so it never waits."""
        fcntl.flock(self._fd, fcntl.LOCK_SH)

    def rejoin(self) -> bool:
        """In a forked child: be a user of one's own; False if a stranger is remaking the store."""
        self.leave()
        self._fd = self._folder.open_file("users", os.O_RDONLY)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def leave(self) -> None:
        """Stop being a user."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


class _LeaseFile:
    """The leases of this process on one store, shared by all its handles: closing any descriptor frees all locks."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.handles = 0
        self.held: dict[int, object] = {}


_files: dict[tuple[int, int], _LeaseFile] = {}
_guard = threading.Lock()


def _forget_all() -> None:
    global _guard  # noqa: PLW0603  # a forked child must not inherit a lock that a thread of its parent holds
    _guard = threading.Lock()
    for file in _files.values():
        os.close(file.fd)
    _files.clear()


os.register_at_fork(after_in_child=_forget_all)


class Leases:
    """One byte of a file is locked for each key that is being loaded; the kernel frees it if the process dies."""

    def __init__(self, folder: Folder) -> None:
        self._folder = folder
        self._file: _LeaseFile | None = None
        self._identity = (0, 0)

    def open(self) -> None:
        """Open the file, or join the process' other handles on it."""
        with _guard:
            file = self._known()
            if file is None:
                fd = self._folder.open_file("leases", os.O_RDWR | os.O_CREAT)
                self._identity = _identity(os.fstat(fd))
                file = _files[self._identity] = _LeaseFile(fd)
            file.handles += 1
            self._file = file

    def _known(self) -> _LeaseFile | None:
        """The open file, found without opening it again: closing that descriptor would free all its locks."""
        try:
            self._identity = _identity(os.stat("leases", dir_fd=self._folder.fd, follow_symlinks=False))
        except FileNotFoundError:
            return None
        return _files.get(self._identity)

    def close(self) -> None:
        """Free this handle's leases, and the file with the last handle of the process."""
        with _guard:
            file, self._file = self._file, None
            if file is None or _files.get(self._identity) is not file:
                return
            for at in [at for at, owner in file.held.items() if owner is self]:
                del file.held[at]
                fcntl.lockf(file.fd, fcntl.LOCK_UN, 1, at)
            file.handles -= 1
            if file.handles == 0:
                del _files[self._identity]
                os.close(file.fd)

    def forget(self) -> None:
        """In a forked child: its parent's leases are not its own."""
        self._file = None

    def take(self, digest: bytes) -> bool:
        """Whether this handle is now the one that loads the key."""
        if self._file is None:
            self.open()
        at = _byte_of(digest)
        with _guard:
            file = self._file
            if file is None or at in file.held or not _lock_byte(file.fd, at):
                return False
            file.held[at] = self
            return True

    def free(self, digest: bytes) -> None:
        """Give it back; nothing happens if it isn't ours."""
        at = _byte_of(digest)
        with _guard:
            file = self._file
            if file is not None and file.held.get(at) is self:
                del file.held[at]
                fcntl.lockf(file.fd, fcntl.LOCK_UN, 1, at)


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def _byte_of(digest: bytes) -> int:
    return int.from_bytes(digest[-6:], "little")


def _lock_byte(fd: int, at: int) -> bool:
    try:
        fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, at)
    except (BlockingIOError, PermissionError):
        return False
    return True
