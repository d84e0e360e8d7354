"""The disk store among processes: forks, leases, full and read-only disks, damage, a restarted machine."""

import contextlib
import json
import os
import resource
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from genesis_cache.model.keys import Address, address_of, scope_of
from genesis_cache.tiers.base import Kill, Kind, Notice, Put, Remove, StoreError
from genesis_cache.tiers.segments import opening
from genesis_cache.tiers.segments.layout import STATE_AT, STATE_SIZE, parse_state
from genesis_cache.tiers.segments.store import SegmentStore

# Python 3.12 and later warn of a fork beside threads, which other tests may have left; forks are the point here.
pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")

NEVER = float("inf")
MIB = 2**20
SCOPE = scope_of("test")


class StillClock:
    """A clock that stands still."""

    def now(self) -> float:
        return 1000.0

    def wall(self) -> float:
        return 1e9


def at(key: object) -> Address:
    return address_of(SCOPE, str(key))


def put(key: object, envelope: bytes, since: int | None = None) -> Put:
    return Put(at(key), envelope, NEVER, since=since)


def make(path: Path, max_bytes: int = MIB) -> SegmentStore:
    store = SegmentStore(path, max_bytes, StillClock())
    store.open()
    return store


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where a test's store lies."""
    return tmp_path / "store"


@pytest.fixture
def store(path: Path) -> Iterator[SegmentStore]:
    """An open store, checked after the test."""
    store = make(path)
    yield store
    try:
        assert store.check() == []
    finally:
        store.close()


def fork(work: Callable[[], object]) -> tuple[int, int]:
    """Start a child that does some work; its process and the pipe on which its result comes."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            try:
                result = work()
            except StoreError as error:
                result = f"StoreError: {error}"
            os.write(writing, json.dumps(result).encode())
        finally:
            os._exit(0)
    os.close(writing)
    return pid, reading


def result_of(child: tuple[int, int]) -> object:
    """What a child's work returned; fails if it died."""
    pid, reading = child
    with os.fdopen(reading) as pipe:
        text = pipe.read()
    assert os.waitpid(pid, 0)[1] == 0
    return json.loads(text)


def in_child(work: Callable[[], object]) -> object:
    return result_of(fork(work))


# --- several processes --------------------------------------------------------------------------------------------


def test_forked_child_goes_on_by_itself(store: SegmentStore) -> None:
    """After a fork both sides read, write and hear each other, though the parent never reopened anything."""
    store.commit([put("a", b"1")])
    before = store.position()

    def work() -> object:
        seen = store.get(at("a")) == b"1"
        store.commit([put("b", b"2"), Remove(at("a"))])
        return [seen, store.get(at("b")) == b"2", store.lease(at("x"))]

    assert in_child(work) == [True, True, True]
    assert store.get(at("a")) is None
    assert store.get(at("b")) == b"2"
    assert [notice.name for notice in store.notices(before) or []] == ["b", "a"]
    assert store.lease(at("x"))


def test_fork_while_a_thread_holds_the_lock(store: SegmentStore) -> None:
    """A child forked while a thread of its parent writes isn't blocked by a lock that nobody in it will free."""
    store.commit([put("a", b"1")])
    store._lock.wait()  # the moment that matters cannot be met from outside
    child = fork(lambda: [store.try_commit([put("c", b"3")]) is None, store.get(at("c")) is None])
    assert result_of(child) == [True, True]
    store._lock.free()
    assert in_child(lambda: store.try_commit([put("c", b"3")]) is not None) is True
    assert store.get(at("c")) == b"3"


def test_writer_that_dies_frees_the_lock(store: SegmentStore, path: Path) -> None:
    """A process killed while it holds the writer lock blocks nobody."""
    ready, go = os.pipe()
    pid = os.fork()
    if pid == 0:
        other = make(path)
        other._lock.wait()
        os.write(go, b"x")
        signal.pause()
    os.read(ready, 1)
    assert store.try_commit([put("a", b"1")]) is None
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    store.commit([put("a", b"1")])
    assert store.get(at("a")) == b"1"
    os.close(ready)
    os.close(go)


def test_locked_for_too_long_is_an_error(store: SegmentStore, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A commit that cannot get the lock within its patience says so; reading goes on meanwhile."""
    monkeypatch.setattr(store._lock.wait.__func__, "__defaults__", (0.02,))  # no need to wait 2 s
    store.commit([put("a", b"1")])
    other = make(path)
    other._lock.wait()
    with pytest.raises(StoreError, match="locked by another process"):
        store.commit([put("a", b"2")])
    assert store.get(at("a")) == b"1"
    other._lock.free()
    other.close()


def test_threads_write_at_once(store: SegmentStore) -> None:
    """Threads of one process write through one handle without losing anything."""
    first = store.position().seq

    def work(thread: int) -> None:
        for number in range(100):
            store.commit([put(f"{thread}:{number}", b"%d" % thread)])

    threads = [threading.Thread(target=work, args=(thread,)) for thread in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert store.position().seq - first == 400
    assert all(store.get(at(f"{thread}:{number}")) == b"%d" % thread for thread in range(4) for number in range(100))


def test_lease_is_one_process_only(store: SegmentStore, path: Path) -> None:
    """One holder for each key among processes and among handles of one process; freed by release, close and death."""
    other = make(path)
    assert store.lease(at("a"))
    assert not store.lease(at("a"))
    assert not other.lease(at("a"))
    assert other.lease(at("b"))
    assert in_child(lambda: [(s := make(path)).lease(at("a")), s.lease(at("b")), s.lease(at("c"))]) == [
        False,
        False,
        True,
    ]
    assert store.lease(at("c"))  # its holder is dead
    other.release(at("a"))  # not the holder
    assert not other.lease(at("a"))
    store.release(at("a"))
    assert other.lease(at("a"))
    other.close()
    assert store.lease(at("a"))
    assert store.lease(at("b"))
    assert in_child(lambda: make(path).lease(at("a"))) is False


@pytest.mark.usefixtures("store")
def test_four_processes_evict_within_the_limit(path: Path) -> None:
    """While four processes fill the store far beyond its limit, its files never have more bytes than allowed."""

    def work(writer: int) -> object:
        mine = make(path)
        for number in range(400):
            mine.commit([put(f"{writer}:{number}", os.urandom(3000))])
        return mine.check()

    children = [fork(lambda writer=writer: work(writer)) for writer in range(4)]
    most = 0
    while any(os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None for pid, _ in children):
        with contextlib.suppress(FileNotFoundError):  # removed between listing and looking
            most = max(most, sum(entry.stat().st_size for entry in list(path.iterdir())))
    assert [result_of(child) for child in children] == [[], [], [], []]
    assert MIB // 2 < most <= MIB


# --- disks that fail ----------------------------------------------------------------------------------------------


def run(*command: str) -> None:
    subprocess.run(command, check=True)  # noqa: S603  # words of this file


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of 1 MiB; only root can have one."""
    disk = tmp_path / "disk"
    disk.mkdir()
    run("/bin/mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk))
    yield disk
    run("/bin/umount", "-l", str(disk))


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root; the next tests cover it by ulimit")


@needs_root
def test_full_disk_keeps_serving_and_recovers(small_disk: Path) -> None:
    """On a full disk sets fail in plain words, reads and invalidations go on; with space again sets work again."""
    store = make(small_disk / "store", 700 * 1024)
    store.commit([put("a", b"1")])
    with (small_disk / "other").open("wb", buffering=0) as other, contextlib.suppress(OSError):
        while True:
            other.write(bytes(4096))
    before = store.position()
    with pytest.raises(StoreError, match="disk is full"):
        store.commit([put(number, bytes(20_000)) for number in range(100)])
    assert store.get(at("a")) == b"1"
    assert store.try_commit([Kill(Notice(Kind.TAG, "", None, "t"))]) is not None
    store.commit([Remove(at("a"))])
    assert [notice.name for notice in store.notices(before) or []][-2:] == ["t", "a"]
    assert store.check() == []
    (small_disk / "other").unlink()
    store.commit([put("b", bytes(60_000))])
    assert store.get(at("b")) == bytes(60_000)
    assert store.check() == []
    store.close()


@needs_root
def test_disk_smaller_than_the_limit_turns_over(small_disk: Path) -> None:
    """On a disk that is smaller than the limit the store goes on with what there is: old entries make room."""
    store = make(small_disk / "store", 4 * MIB)
    for number in range(200):
        with contextlib.suppress(StoreError):
            store.commit([put(number, os.urandom(10_000))])
    assert store.check() == []
    store.close()


def test_file_size_limit_is_an_error(path: Path) -> None:
    """Under ``ulimit -f`` opening or writing fails in plain words; no signal, no half-made store."""

    def work() -> object:
        resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, 40_000))
        make(path)
        return "opened"

    assert "may not grow that large" in str(in_child(work))
    made = make(path)
    made.commit([put("a", b"1")])
    assert made.get(at("a")) == b"1"
    assert made.check() == []
    made.close()


def test_ulimit_while_in_use(store: SegmentStore) -> None:
    """When no new segment may be made, sets fail in plain words and what is there is still served."""
    store.commit([put("a", b"1")])

    def work() -> object:
        resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, 30_000))
        said = ""
        for number in range(30):
            try:
                store.commit([put(number, os.urandom(20_000))])
            except StoreError as error:
                said = str(error)
        return ["may not grow" in said, store.get(at("a")) == b"1", store.check()]

    assert in_child(work) == [True, True, []]


def test_too_many_open_files_is_an_error(path: Path) -> None:
    """Without file descriptors left opening fails in plain words."""

    def work() -> object:
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3))
        make(path)
        return "opened"

    make(path).close()
    assert "too many open files" in str(in_child(work))


@needs_root
def test_read_only_disk_is_read(small_disk: Path) -> None:
    """On a read-only file system an intact store is served and writing fails in plain words."""
    first = make(small_disk / "store", 700 * 1024)
    first.commit([put("a", b"1"), put("b", b"2" * 70_000)])
    first.close()
    run("/bin/mount", "-o", "remount,ro", str(small_disk))
    store = make(small_disk / "store", 700 * 1024)
    assert store.get(at("a")) == b"1"
    assert store.get(at("b")) == b"2" * 70_000
    assert store.stats().entries == 2
    assert store.check() == []
    with pytest.raises(StoreError, match="read-only"):
        store.commit([put("c", b"3")])
    store.close()


def test_unreadable_directory_is_an_error(path: Path) -> None:
    """A directory that may not be written by this user is served if a store is there, and refused if not."""

    def work(folder: Path) -> object:
        os.setuid(12345) if os.geteuid() == 0 else None
        return make(folder).get(at("a")) is not None

    path.mkdir()
    path.chmod(0o500)
    path.parent.chmod(0o755)
    assert "cannot" in str(in_child(lambda: work(path)))
    path.chmod(0o700)


def test_world_writable_directory_of_another_is_refused(path: Path) -> None:
    """What lies in a directory of somebody else's is not trusted."""
    if os.geteuid() != 0:
        folder = Path("/tmp")  # noqa: S108  # root's and open to all: what must be refused
    else:
        path.mkdir()
        os.chown(path, 12345, 12345)
        folder = path
    with pytest.raises(StoreError, match="another user"):
        make(folder)


# --- trust --------------------------------------------------------------------------------------------------------


def test_damaged_record_is_a_miss_and_counted(path: Path) -> None:
    """A flipped bit in a value makes exactly that value a miss, counts it, and leaves the others."""
    store = make(path)
    store.commit([put("a", b"a" * 1000), put("b", b"b" * 1000)])
    store.close()
    segment = path / "seg-1"
    raw = bytearray(segment.read_bytes())
    raw[raw.index(b"a" * 1000) + 500] ^= 4
    segment.write_bytes(raw)
    store = make(path)
    assert store.get(at("a")) is None
    assert store.get(at("a")) is None
    assert store.get(at("b")) == b"b" * 1000
    stats = store.stats()
    assert (stats.damaged, stats.entries, stats.rebuilt) == (1, 1, 0)
    assert stats.evictions["damaged"] == 1
    assert store.check() == []
    store.close()


@pytest.mark.parametrize("name", ["log", "index"])
def test_damaged_books_make_the_store_anew(path: Path, name: str) -> None:
    """When a bit of the log or of the books has flipped, everything goes and the identity changes."""
    store = make(path)
    store.commit([put("a", b"1"), Kill(Notice(Kind.TAG, "", None, "t"))])
    old = store.position().epoch
    store.close()
    file = path / ("log-0" if name == "log" else "index")
    raw = bytearray(file.read_bytes())
    raw[20] ^= 1
    file.write_bytes(raw)
    store = make(path)
    assert store.get(at("a")) is None
    assert store.position().epoch != old
    assert store.stats().rebuilt == 1
    assert store.check() == []
    store.close()


def test_state_that_was_half_written_is_no_damage(path: Path) -> None:
    """A writer killed in the middle of writing a state leaves the one before it, and nothing is thrown away."""
    in_child(lambda: len(make(path).commit([put("a", b"1")])))
    raw = bytearray((path / "index").read_bytes())
    states = [parse_state(bytes(raw[place : place + STATE_SIZE])) for place in STATE_AT]
    newest = max(state.generation for state in states if state)
    next_at = STATE_AT[(newest + 1) & 1]
    raw[next_at : next_at + 20] = os.urandom(20)
    (path / "index").write_bytes(raw)
    store = make(path)
    assert store.get(at("a")) == b"1"
    assert store.stats().rebuilt == 0
    store.close()


def test_machine_restart(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a crash of the machine only a store that its last user had closed is trusted; of others all goes."""
    closed = make(path)
    closed.commit([put("a", b"1")])
    closed.close()
    monkeypatch.setattr(opening, "boot_identity", lambda: b"another run....!")
    after = make(path)
    assert after.get(at("a")) == b"1"
    after.close()

    def die() -> object:
        make(path).commit([put("b", b"2")])
        return "left open"

    in_child(die)
    monkeypatch.setattr(opening, "boot_identity", lambda: b"a third run.....")
    again = make(path)
    assert again.get(at("a")) is None
    assert again.stats().rebuilt == 1
    again.close()


def test_store_left_open_is_trusted_on_the_same_machine_run(path: Path) -> None:
    """A process that died without closing loses nothing that it committed."""
    in_child(lambda: len(make(path).commit([put("a", b"1")])))
    store = make(path)
    assert store.get(at("a")) == b"1"
    assert store.check() == []
    store.close()
