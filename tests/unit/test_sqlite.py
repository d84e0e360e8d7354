"""The SQLite store beyond the contract of stores: damage, strangers in the file, whom it evicts, who may write."""

import math
import sqlite3
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from genesis_cache.model.keys import Address, address_of, scope_of
from genesis_cache.testing.clock import FakeClock
from genesis_cache.tiers.base import Change, Kill, Kind, Notice, Put, Remove, StoreError
from genesis_cache.tiers.sqlite import MIN_BYTES, SqliteStore
from genesis_cache.tiers.sqlite_batch import Victim, victims

MB = 1024 * 1024
SCOPE = scope_of("unit", "shop")

Make = Callable[..., SqliteStore]


@pytest.fixture
def clock() -> FakeClock:
    """A clock that the test moves."""
    return FakeClock()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the store is."""
    return tmp_path / "cache.db"


@pytest.fixture
def make(path: Path, clock: FakeClock) -> Iterator[Make]:
    """Makes open stores on the one path; the last must be sound when the test ends."""
    made: list[SqliteStore] = []

    def make(max_bytes: int = 8 * MB, **options: object) -> SqliteStore:
        store = SqliteStore(path, max_bytes, clock, **options)  # type: ignore[arg-type]  # passed on as they are
        made.append(store)
        store.open()
        return store

    yield make
    faults = made[-1].check() if made[-1:] and made[-1].is_open else []
    for store in made:
        store.close()
    assert faults == []


def where(key: str) -> Address:
    """An address of these tests."""
    return address_of(SCOPE, key)


def put(key: str, envelope: bytes, gone_at: float = math.inf, **options: int) -> Put:
    """A set, or with ``since`` a fill."""
    return Put(where(key), envelope, gone_at, **options)


def kill(kind: Kind, name: str = "", namespace: str = "shop") -> Kill:
    """A notice to append."""
    return Kill(Notice(kind, namespace, None, name))


def overwrite(path: Path, offset: int, data: bytes) -> None:
    """Put other bytes into a file, as a failing disk would."""
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(data)


# -- damage -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("garbage", [b"not a database at all" * 500, b"\x00" * 8192], ids=["words", "zeros"])
def test_a_garbage_file_is_made_anew(make: Make, path: Path, garbage: bytes) -> None:
    """A file that is no database is thrown away, counted, and replaced by one with a log of its own."""
    store = make()
    store.commit([put("a", b"1")])
    before = store.position()
    store.close()
    overwrite(path, 0, garbage)
    store = make()
    assert store.get(where("a")) is None
    assert store.stats().rebuilt == 1
    assert store.position().epoch != before.epoch
    assert store.position().seq > before.seq
    store.commit([put("a", b"2")])
    assert store.get(where("a")) == b"2"


def test_garbage_in_a_database_of_the_user_is_kept_aside(make: Make, path: Path) -> None:
    """Where the folder is not the cache's own, nothing is deleted."""
    path.write_bytes(b"my diary " * 1000)
    store = make(evict="size")
    store.commit([put("a", b"1")])
    (aside,) = path.parent.glob("cache.db.damaged-*")
    assert aside.read_bytes() == b"my diary " * 1000


def test_damage_under_a_running_store_is_survived(make: Make, path: Path) -> None:
    """When the file is overwritten in use, reads fail cleanly and the next change makes it anew."""
    store = make()
    store.commit([put(f"k{i}", bytes(3000)) for i in range(300)])
    store.sweep(1.0)
    overwrite(path, 0, b"\xff" * path.stat().st_size)
    served = 0
    for i in range(300):
        try:
            served += store.get(where(f"k{i}")) not in {None, bytes(3000)}
        except StoreError:
            continue
    assert served == 0
    store.commit([put("a", b"1")])
    assert store.get(where("a")) == b"1"
    assert store.stats().rebuilt == 1


def test_a_flipped_bit_is_a_miss(make: Make, path: Path) -> None:
    """A value that is not what was written is never returned; it is counted, and its row goes with the next change."""
    store = make()
    store.commit([put("a", b"precious " * 50), put("b", b"1")])
    store.close()
    overwrite(path, path.read_bytes().index(b"precious precious"), b"q")
    store = make()
    assert store.get(where("a")) is None
    assert store.get(where("b")) == b"1"
    assert store.stats().damaged == 1
    assert [found.envelope for found in store.scan()] == [b"1"]
    store.commit([put("c", b"1")])
    stats = store.stats()
    assert (stats.entries, stats.damaged, stats.evictions["damaged"], stats.rebuilt) == (2, 1, 1, 0)


def test_an_own_check_of_intactness_replaces_the_checksum(make: Make) -> None:
    """With ``intact`` the store asks it instead of its own checksum."""
    store = make(intact=lambda envelope: not envelope.startswith(b"bad"))
    store.commit([put("a", b"good"), put("b", b"bad")])
    assert store.get(where("a")) == b"good"
    assert store.get(where("b")) is None


def test_a_truncated_file_is_made_anew(make: Make, path: Path) -> None:
    """Half a file is not trusted, whatever half it is."""
    store = make()
    store.commit([put(f"k{i}", bytes(5000)) for i in range(100)])
    store.close()
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size // 2)
    store = make()
    for i in range(100):
        try:
            assert store.get(where(f"k{i}")) in {None, bytes(5000)}
        except StoreError:
            continue
    store.commit([put("a", b"1")])
    assert store.get(where("a")) == b"1"
    assert store.check() == []


@pytest.mark.parametrize("suffixes", [("",), ("-wal", "-shm"), ("", "-wal", "-shm")])
def test_files_deleted_under_a_running_store(make: Make, path: Path, suffixes: tuple[str, ...]) -> None:
    """Whatever of its files is deleted, the store goes on with the next change, and others can open it."""
    store = make()
    store.commit([put("a", b"1")])
    for suffix in suffixes:
        Path(f"{path}{suffix}").unlink()
    store.commit([put("b", b"1")])
    assert store.get(where("b")) == b"1"
    store.close()
    store = make()
    store.commit([put("c", b"1")])
    assert store.get(where("c")) == b"1"


def test_two_handles_agree_on_a_new_file(make: Make, path: Path) -> None:
    """When one handle makes the file anew, the other finds the new one and its new log."""
    one, two = make(), make()
    one.commit([put("a", b"1")])
    before = two.position()
    for suffix in ("", "-wal", "-shm"):
        Path(f"{path}{suffix}").unlink()
    one.commit([put("b", b"2")])
    assert two.position().epoch == one.position().epoch != before.epoch
    two.commit([put("c", b"3")])
    assert (one.get(where("c")), two.get(where("b"))) == (b"3", b"2")
    assert two.notices(before) is None


def test_a_fill_from_a_lost_log_is_refused(make: Make, path: Path) -> None:
    """A load that began before the file was made anew stores nothing: nobody knows what it missed."""
    store = make()
    store.commit([put("a", b"1")])
    since = store.position().seq
    store.close()
    overwrite(path, 0, b"garbage " * 1000)
    store.open()
    assert store.commit([put("a", b"stale", since=since)])[0].refused


# -- strangers --------------------------------------------------------------------------------------------------------


def test_a_guest_in_the_users_database(make: Make, path: Path) -> None:
    """In a file with tables of the user's, theirs are left alone, and so are the file's settings."""
    with sqlite3.connect(path) as users:
        users.execute("CREATE TABLE orders (id INTEGER)")
        users.execute("INSERT INTO orders VALUES (7)")
    users.close()
    store = make(MIN_BYTES, evict="size")
    for i in range(10):
        store.commit([put(f"k{i}-{j}", bytes(3000)) for j in range(40)])
    assert store.stats().size_bytes <= MIN_BYTES
    assert store.get(where("k9-39")) == bytes(3000)
    assert store.sweep(1.0) == 0
    store.close()
    users = sqlite3.connect(path)
    assert users.execute("SELECT id FROM orders").fetchall() == [(7,)]
    assert users.execute("PRAGMA journal_mode").fetchone() == ("delete",)
    users.close()


def test_a_damaged_database_of_the_users_is_left_to_them(make: Make, path: Path) -> None:
    """Nothing of the user's is moved or deleted when it turns out to be damaged."""
    with sqlite3.connect(path) as users:
        users.execute("CREATE TABLE orders (id INTEGER)")
    users.close()
    store = make(evict="size")
    store.commit([put("a", b"1")])
    store.close()
    overwrite(path, 4096, b"\xff" * (path.stat().st_size - 4096))
    damaged = path.read_bytes()
    with pytest.raises(StoreError, match="restore it"):
        store.open()
    assert path.read_bytes() == damaged
    assert not list(path.parent.glob("*.damaged-*"))
    store.close()


def test_names_share_a_file_without_meeting(make: Make) -> None:
    """Caches of different names in one file have their own entries, logs and bounds."""
    one, two = make(evict="size", name="one"), make(evict="size", name="Zwei: zwei")
    one.commit([put("a", b"1"), kill(Kind.CLEAR, namespace="")])
    assert two.get(where("a")) is None
    assert two.floors() == []
    two.commit([put("a", b"2")])
    assert one.get(where("a")) == b"1"
    assert two.stats().entries == 1


def test_a_folder_that_others_can_write_to_is_refused(tmp_path: Path, clock: FakeClock) -> None:
    """What others could swap is not opened as a disk tier."""
    folder = tmp_path / "open"
    folder.mkdir()
    folder.chmod(0o777)
    with pytest.raises(StoreError, match="mode 0700"):
        SqliteStore(folder / "c.db", MB, clock).open()


def test_a_link_is_refused(tmp_path: Path, path: Path, clock: FakeClock) -> None:
    """A path that leads elsewhere is not followed."""
    (tmp_path / "other").write_bytes(b"")
    path.symlink_to(tmp_path / "other")
    with pytest.raises(StoreError, match="not a regular file"):
        SqliteStore(path, MB, clock).open()


def test_files_are_private(make: Make, path: Path) -> None:
    """Only this user can read what the store writes."""
    make().commit([put("a", b"1")])
    assert {file.stat().st_mode & 0o077 for file in path.parent.glob("cache.db*")} == {0}


# -- bounds -----------------------------------------------------------------------------------------------------------


def test_too_small_a_bound_is_refused(path: Path, clock: FakeClock) -> None:
    """A bound that no SQLite file could hold is an error when it is set."""
    with pytest.raises(ValueError, match="at least"):
        SqliteStore(path, MIN_BYTES - 1, clock)


def test_a_lowered_bound_is_kept(make: Make, path: Path) -> None:
    """A file larger than the bound it is opened with is begun anew."""
    store = make(8 * MB)
    store.commit([put(f"k{i}", bytes(5000)) for i in range(800)])
    store.close()
    make(MB)
    assert sum(file.stat().st_size for file in path.parent.iterdir()) <= MB


def test_the_longest_unused_goes_first(make: Make, clock: FakeClock) -> None:
    """On disk, what is read again and again outlives a flood of what is not."""
    store = make(MB)
    store.commit([put("hot", bytes(2000))])
    for i in range(250):
        clock.advance(100)
        assert store.get(where("hot")) == bytes(2000)
        store.sweep(0.0)
        store.commit([put(f"k{i}", bytes(4000))])
    assert store.stats().evictions["size"] > 50
    assert store.get(where("k0")) is None


def test_the_largest_goes_first(make: Make) -> None:
    """As a database it gives up the largest entries before any small one."""
    store = make(MB, evict="size")
    store.commit([put(f"small{i}", bytes(1000)) for i in range(100)])
    for i in range(40):
        store.commit([put(f"large{i}", bytes(50_000))])
    assert all(store.get(where(f"small{i}")) for i in range(100))
    assert store.stats().evictions["size"] > 0
    assert store.stats().size_bytes <= MB


def test_the_expired_go_before_the_living(make: Make, clock: FakeClock) -> None:
    """Room is made of what has expired as long as there is any."""
    store = make(MB)
    store.commit([put(f"old{i}", bytes(1000), clock.wall() + 1) for i in range(300)])
    store.commit([put(f"new{i}", bytes(1000)) for i in range(60)])
    clock.advance(2)
    store.commit([put(f"more{i}", bytes(1000)) for i in range(150)])
    stats = store.stats()
    assert stats.evictions["ttl"] > 0
    assert stats.evictions["size"] == 0
    assert all(store.get(where(f"new{i}")) for i in range(60))


def test_what_was_cleared_is_swept(make: Make) -> None:
    """After a clear of everything the sweep gives the space back, and only that of older entries."""
    store = make()
    store.commit([put(f"k{i}", bytes(1000)) for i in range(500)])
    since = store.position().seq
    store.commit([kill(Kind.CLEAR, namespace="")])
    store.commit([put("after", b"1")])
    assert store.sweep(1.0) == 500
    assert store.stats().entries == 1
    assert store.get(where("after")) == b"1"
    assert store.commit([put("k1", b"stale", since=since - 1)])[0].refused


def test_too_many_floors_become_one(make: Make) -> None:
    """A flood of distinct tags is bounded: one floor that kills everything older stands for the oldest of them."""
    store = make(MB)
    last = 0
    for i in range(40):
        last = store.commit([kill(Kind.TAG, f"tag{i}-{j}") for j in range(20)])[-1].seq
    floors = store.floors()
    assert len(floors) < 400
    assert floors[0].kind is Kind.CLEAR
    assert {floor.seq for floor in floors if floor.seq > floors[0].seq} == set(range(floors[0].seq + 1, last + 1))


def test_victims_are_chosen_by_rule() -> None:
    """The dead first; then by use the longest unused, or by size the largest, never read, of low priority."""

    def row(ident: int, size: int = 100, gone_at: float = 99.0, used: float = 1.0, **rest: int) -> Victim:
        return Victim(ident, size, 0, gone_at, used, rest.get("read", 0), rest.get("priority", 1), rest.get("made", 9))

    rows = [row(1, used=5), row(2, used=3), row(3, gone_at=9), row(4, used=9, size=9000), row(5, made=1, used=8)]
    order = [v.ident for v in victims(rows, 10**9, by_size=False, cleared=2, now=10.0)]
    assert (set(order[:2]), order[2:]) == ({3, 5}, [2, 1, 4])
    rows = [row(1, size=9000), row(2, size=8500, read=1), row(3, priority=0), row(4), row(5, used=0)]
    assert [v.ident for v in victims(rows, 10**9, by_size=True, cleared=0, now=10.0)] == [1, 2, 3, 5, 4]
    assert len(victims(rows, 1, by_size=True, cleared=0, now=10.0)) == 1


# -- who may write ----------------------------------------------------------------------------------------------------


def test_a_lock_held_by_another_is_not_waited_for_long(make: Make, path: Path) -> None:
    """A commit gives up after its patience, a try at once, and neither leaves anything half done."""
    store = make()
    store.close()
    store._links.patience_s = 0.01
    store.open()
    store.commit([put("a", b"1")])
    blocker = sqlite3.connect(path, isolation_level=None)
    blocker.execute("BEGIN IMMEDIATE")
    assert store.try_commit([put("a", b"2")]) is None
    with pytest.raises(StoreError, match="locked"):
        store.commit([put("a", b"2")])
    assert store.get(where("a")) == b"1"
    blocker.close()
    assert store.try_commit([put("a", b"2")]) is not None
    assert store.get(where("a")) == b"2"


def test_a_try_does_not_wait_for_a_thread(make: Make) -> None:
    """While another thread of this process writes, a try says no at once."""
    store = make()
    busy, go_on = threading.Event(), threading.Event()

    class Slow(list[Change]):
        def __len__(self) -> int:
            busy.set()
            go_on.wait(10)
            return super().__len__()

    thread = threading.Thread(target=lambda: store.commit(Slow([Remove(where("a"))])))
    thread.start()
    busy.wait(10)
    assert store.try_commit([put("a", b"1")]) is None
    go_on.set()
    thread.join()


def test_a_closed_store_says_so(make: Make) -> None:
    """Every call on a closed store is a StoreError, not something of SQLite's."""
    store = make()
    store.close()
    for act in (
        lambda: store.get(where("a")),
        lambda: store.commit([put("a", b"1")]),
        store.position,
        store.stats,
        store.check,
        lambda: store.lease(where("a")),
    ):
        with pytest.raises(StoreError, match="not open"):
            act()
