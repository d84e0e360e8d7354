"""The contract of a `Store`, as tests: derive a class from `StoreContract`, name your store, run pytest.

    class TestMyStore(StoreContract):
        factory = "my_package.store:MyStore"        # called with (path, max_bytes, clock)

``factory`` is text so that other processes can make the same store: some tests share it with a process of their own,
and kill that process. After each test every store that it made must pass its own `check()`. Needs pytest.
"""

import random
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from pkgutil import resolve_name
from typing import ClassVar

import pytest

from genesis_cache.model.clock import Clock, SystemClock
from genesis_cache.testing.clock import FakeClock
from genesis_cache.testing.store_process import OtherProcess, hammer
from genesis_cache.testing.store_words import MB, NEVER, address, kill, put, read, version_of, versioned
from genesis_cache.tiers.base import Change, Drop, Kind, Position, Put, Receipt, Remove, Store


class StoreContract:
    """What every store must do; one test for each promise of `genesis_cache.tiers.base.Store`."""

    factory: ClassVar[str]
    """``module:callable`` that makes a store from a path, its bound in bytes, and a clock."""
    bounds_files: ClassVar[bool] = True
    """Whether the bound holds for the files at every moment; else for the rows, after each sweep, within a tenth."""
    max_bytes: ClassVar[int] = 16 * MB
    small_bytes: ClassVar[int] = 1 * MB
    """A bound for the tests that fill the store."""

    def make_store(self, path: Path, max_bytes: int, clock: Clock) -> Store:
        """A new handle, not yet open; override it where the store needs more, such as `version_of`."""
        store: Store = resolve_name(self.factory)(path, max_bytes, clock)
        return store

    @pytest.fixture(autouse=True)
    def _begin_and_check(self, tmp_path: Path) -> Iterator[None]:
        self.path = tmp_path / "store"
        self.clock = FakeClock()
        self._handles: list[Store] = []
        self._others: list[OtherProcess] = []
        yield
        try:
            faults = [fault for store in self._handles[-1:] for fault in store.check()]
        finally:
            for other in self._others:
                other.kill()
            for store in self._handles:
                store.close()
        assert not faults

    def opened(self, max_bytes: int | None = None, clock: Clock | None = None) -> Store:
        """A handle that is open until the test ends."""
        store = self.make_store(self.path, max_bytes or self.max_bytes, clock or self.clock)
        store.open()
        self._handles.append(store)
        return store

    def other_process(self) -> "OtherProcess":
        """Another process that has the same store open until the test ends."""
        other = OtherProcess(self.factory, self.path, self.max_bytes)
        self._others.append(other)
        return other

    # -- values -------------------------------------------------------------------------------------------------

    def test_what_was_put_comes_back(self) -> None:
        """An envelope is returned byte for byte, and its size is known without reading it."""
        store = self.opened()
        (receipt,) = store.commit([put("a", b"\x00one\xff")])
        assert read(store, "a") == b"\x00one\xff"
        assert store.size(address("a")) == 5
        assert receipt.seq > 0
        assert not receipt.refused

    def test_what_was_never_put_is_not_there(self) -> None:
        """An unknown key is None, not an error."""
        store = self.opened()
        assert store.get(address("a")) is None
        assert store.size(address("a")) is None

    def test_small_and_large_envelopes(self) -> None:
        """One byte and a megabyte come back as they were."""
        store = self.opened()
        large = random.Random(1).randbytes(MB)
        store.commit([put("small", b"1"), put("large", large)])
        assert read(store, "small") == b"1"
        assert read(store, "large") == large
        assert store.size(address("large")) == MB

    def test_a_second_put_replaces_the_first(self) -> None:
        """The newest set wins, larger or smaller, and counts as one entry."""
        store = self.opened()
        for envelope in (b"one", b"two" * 100, b"3"):
            store.commit([put("a", envelope)])
            assert read(store, "a") == envelope
        assert store.stats().entries == 1

    def test_a_batch_applies_in_order(self) -> None:
        """Of equal keys in one batch the last change wins, and each change has its own receipt."""
        store = self.opened()
        receipts = store.commit([put("a", b"1"), Remove(address("a")), put("a", b"2"), put("b", b"1"), put("b", b"2")])
        assert read(store, "a") == b"2"
        assert read(store, "b") == b"2"
        seqs = [receipt.seq for receipt in receipts]
        assert seqs == sorted(set(seqs))
        store.commit([put("a", b"3"), Remove(address("a"))])
        assert store.get(address("a")) is None

    def test_a_removed_entry_is_gone(self) -> None:
        """Remove and Drop both delete; deleting what is not there is no error."""
        store = self.opened()
        store.commit([put("a", b"1"), put("b", b"1")])
        store.commit([Remove(address("a")), Drop(address("b")), Remove(address("c")), Drop(address("d"))])
        assert [store.get(address(key)) for key in "abcd"] == [None] * 4
        assert store.stats().entries == 0

    def test_owners_do_not_meet(self) -> None:
        """The same key of another owner is another entry."""
        store = self.opened()
        store.commit([Put(address("a", "user:1"), b"1", NEVER), Put(address("a", "user:2"), b"2", NEVER)])
        assert bytes(store.get(address("a", "user:1")) or b"") == b"1"
        assert bytes(store.get(address("a", "user:2")) or b"") == b"2"
        assert store.get(address("a")) is None

    # -- time ---------------------------------------------------------------------------------------------------

    def test_an_entry_expires_by_the_clock(self) -> None:
        """Until its time an entry is served, from then on it is not, swept or not."""
        store = self.opened()
        store.commit([put("a", b"1", gone_at=self.clock.wall() + 10), put("b", b"1")])
        self.clock.advance(9)
        assert read(store, "a") == b"1"
        self.clock.advance(2)
        assert store.get(address("a")) is None
        assert store.size(address("a")) is None
        assert read(store, "b") == b"1"

    def test_a_sweep_removes_what_expired(self) -> None:
        """Expired entries are deleted and counted, the living stay."""
        store = self.opened()
        store.commit([put(f"old{i}", b"1", gone_at=self.clock.wall() + 1) for i in range(300)])
        store.commit([put(f"new{i}", b"1", gone_at=self.clock.wall() + 100) for i in range(50)])
        self.clock.advance(2)
        removed = sum(store.sweep(1.0) for _ in range(3))
        assert removed == 300
        assert store.stats().entries == 50
        assert store.stats().evictions["ttl"] == 300
        assert all(read(store, f"new{i}") == b"1" for i in range(50))

    # -- fills --------------------------------------------------------------------------------------------------

    def test_a_fill_is_stored_and_tells_nobody(self) -> None:
        """A fill of an unchanged key is taken, moves no sequence and writes no notice."""
        store = self.opened()
        before = store.position()
        (receipt,) = store.commit([put("a", b"1", since=before.seq)])
        assert not receipt.refused
        assert receipt.seq == 0
        assert read(store, "a") == b"1"
        assert store.position() == before
        assert store.notices(before) == []

    @pytest.mark.parametrize("change", [put("a", b"new"), Remove(address("a"))], ids=["set", "remove"])
    def test_a_fill_that_began_before_a_change_is_refused(self, change: Change) -> None:
        """A load that was under way when its key was set or removed stores nothing; one that began after does."""
        store = self.opened()
        store.commit([put("a", b"old")])
        since = store.position().seq
        store.commit([change])
        (receipt,) = store.commit([put("a", b"stale", since=since)])
        assert receipt.refused
        assert read(store, "a") == (b"new" if isinstance(change, Put) else None)
        (receipt,) = store.commit([put("a", b"loaded", since=store.position().seq)])
        assert not receipt.refused
        assert read(store, "a") == b"loaded"

    def test_a_change_kills_fills_of_an_entry_that_was_never_there(self) -> None:
        """Removing a key that is not stored still refuses the fill of the load under way."""
        store = self.opened()
        since = store.position().seq
        store.commit([Remove(address("a"))])
        assert store.commit([put("a", b"stale", since=since)])[0].refused
        assert store.get(address("a")) is None

    def test_dropping_an_entry_revives_no_old_fill(self) -> None:
        """When the entry that refused a fill is dropped, the fill is refused all the same; a drop refuses none."""
        store = self.opened()
        since = store.position().seq
        store.commit([put("a", b"new"), Drop(address("a"))])
        assert store.commit([put("a", b"stale", since=since)])[0].refused
        since = store.position().seq
        store.commit([Drop(address("a"))])
        assert not store.commit([put("a", b"1", since=since)])[0].refused

    def test_a_fill_is_refused_after_reopening_too(self) -> None:
        """The memory of changes is in the store, not in the process."""
        store = self.opened()
        since = store.position().seq
        store.commit([put("a", b"1"), Remove(address("a"))])
        store.close()
        store.open()
        assert store.commit([put("a", b"stale", since=since)])[0].refused

    def test_a_change_leaves_fills_of_other_keys_alone(self) -> None:
        """Changing one key refuses at most a few fills of 200 others that began before."""
        store = self.opened()
        since = store.position().seq
        store.commit([put("changed", b"1"), Remove(address("removed"))])
        receipts = store.commit([put(f"k{i}", b"1", since=since) for i in range(200)])
        assert sum(receipt.refused for receipt in receipts) <= 8

    def test_the_newest_version_wins(self) -> None:
        """A put with a lower version than the stored one is refused; an equal or higher one is taken."""
        store = self.opened()

        def versions(*numbers: int) -> list[Receipt]:
            return [store.commit([Put(address("a"), versioned(n), NEVER, version=n)])[0] for n in numbers]

        assert [receipt.refused for receipt in versions(5, 3, 5, 7, 6)] == [False, True, False, False, True]
        assert version_of(store.get(address("a")) or b"") == 7
        since = store.position().seq
        fill = Put(address("a"), versioned(6), NEVER, since=since, version=6)
        assert store.commit([fill])[0].refused

    # -- the log ------------------------------------------------------------------------------------------------

    def test_notices_come_in_order(self) -> None:
        """Sets and removes tell their key, kills what they name; sequences only grow and agree with the receipts."""
        store = self.opened()
        start = store.position()
        changes: list[Change] = [
            put("a", b"1"),
            kill(Kind.TAG, "red"),
            Remove(address("b", "user:7")),
            kill(Kind.PATTERN, "user:*", owner="user:1"),
            kill(Kind.CLEAR),
            kill(Kind.CLEAR, namespace=""),
        ]
        receipts = store.commit(changes)
        notices = store.notices(start)
        assert notices is not None
        assert [(n.kind, n.namespace, n.owner, n.name) for n in notices] == [
            (Kind.KEY, "shop", None, "a"),
            (Kind.TAG, "shop", None, "red"),
            (Kind.KEY, "shop", "user:7", "b"),
            (Kind.PATTERN, "shop", "user:1", "user:*"),
            (Kind.CLEAR, "shop", None, ""),
            (Kind.CLEAR, "", None, ""),
        ]
        assert [n.seq for n in notices] == [receipt.seq for receipt in receipts]
        assert [n.seq for n in notices] == sorted({n.seq for n in notices})
        assert store.position() == Position(start.epoch, receipts[-1].seq)
        assert store.notices(Position(start.epoch, receipts[3].seq)) == notices[4:]
        assert store.notices(store.position()) == []

    def test_kills_touch_no_entry(self) -> None:
        """Tags, patterns and clears are only told: who reads judges by the sequence."""
        store = self.opened()
        store.commit([put("a", b"1")])
        store.commit([kill(Kind.TAG, "red"), kill(Kind.PATTERN, "*")])
        assert read(store, "a") == b"1"

    def test_a_refused_put_tells_nobody(self) -> None:
        """What was not stored moves no sequence."""
        store = self.opened()
        store.commit([Put(address("a"), versioned(2), NEVER, version=2)])
        before = store.position()
        store.commit([Put(address("a"), versioned(1), NEVER, version=1)])
        assert store.position() == before

    def test_a_gap_is_told(self) -> None:
        """A position of another log, from the future, or behind the log's beginning gives None: forget all."""
        store = self.opened(self.small_bytes)
        start = store.position()
        assert store.notices(Position(start.epoch ^ 1, start.seq)) is None
        assert store.notices(Position(start.epoch, start.seq + 1)) is None
        long_name = "x" * 1000
        for _ in range(2 * self.small_bytes // (64 * len(long_name))):  # more than the whole store could hold
            store.commit([kill(Kind.TAG, long_name)] * 64)
        assert store.notices(start) is None
        end = store.position()
        store.commit([kill(Kind.TAG, "red")])
        assert [notice.name for notice in store.notices(end) or []] == ["red"]

    def test_floors_survive(self) -> None:
        """A process that opens the store later learns of the newest tag, pattern and clear of each name."""
        store = self.opened()
        store.commit([kill(Kind.TAG, "red"), kill(Kind.TAG, "red"), kill(Kind.PATTERN, "a*"), put("a", b"1")])
        store.commit([kill(Kind.CLEAR, owner="user:1")])
        expected = {(n.kind, n.namespace, n.owner, n.name, n.seq) for n in store.floors()}
        assert {(kind, owner, name) for kind, _, owner, name, _ in expected} == {
            (Kind.TAG, None, "red"),
            (Kind.PATTERN, None, "a*"),
            (Kind.CLEAR, "user:1", ""),
        }
        store.close()
        store = self.opened()
        assert {(n.kind, n.namespace, n.owner, n.name, n.seq) for n in store.floors()} == expected

    def test_a_position_outlives_the_handle(self) -> None:
        """Reopened, the same log goes on: same epoch, same sequence."""
        store = self.opened()
        store.commit([put("a", b"1"), Remove(address("b"))])
        before = store.position()
        store.close()
        store.open()
        assert store.position() == before
        assert read(store, "a") == b"1"
        (receipt,) = store.commit([put("a", b"2")])
        assert receipt.seq > before.seq

    def test_two_handles_share_one_store(self) -> None:
        """What one handle writes the other reads, hears in one order, and cannot fill over."""
        one, two = self.opened(), self.opened()
        start = two.position()
        one.commit([put("a", b"1"), kill(Kind.TAG, "red")])
        two.commit([put("b", b"2")])
        assert read(two, "a") == b"1"
        assert read(one, "b") == b"2"
        notices = two.notices(start) or []
        assert [notice.name for notice in notices] == ["a", "red", "b"]
        assert notices == one.notices(start)
        since = start.seq
        assert two.commit([put("a", b"stale", since=since)])[0].refused

    # -- leases -------------------------------------------------------------------------------------------------

    def test_one_handle_holds_a_lease(self) -> None:
        """A key's lease is one handle's until it is given back; other keys' are free."""
        one, two = self.opened(), self.opened()
        assert one.lease(address("a"))
        assert not two.lease(address("a"))
        assert two.lease(address("b"))
        two.release(address("a"))
        assert not two.lease(address("a"))
        one.release(address("a"))
        assert two.lease(address("a"))

    def test_a_lease_dies_with_its_process(self) -> None:
        """Another process's lease is respected, and free as soon as that process is killed."""
        store = self.opened(clock=SystemClock())
        other = self.other_process()
        assert other.ask("lease", "a") is True
        assert not store.lease(address("a"))
        assert store.lease(address("b"))
        assert other.ask("lease", "b") is False
        other.kill()
        assert store.lease(address("a"))

    # -- bounds -------------------------------------------------------------------------------------------------

    def test_the_bound_holds_while_overfilled(self) -> None:
        """Filled four times over, it never exceeds its bound, counts what it evicts, and still serves the newest."""
        store = self.opened(self.small_bytes)
        dice = random.Random(2)
        written = 0
        last = ""
        while written < 4 * self.small_bytes:
            batch = [put(f"k{written + i}", dice.randbytes(dice.choice((50, 500, 1500, 9000)))) for i in range(8)]
            store.commit(batch)
            written += sum(len(change.envelope) for change in batch)
            last = batch[-1].address.key
            if self.bounds_files:
                assert _bytes_under(self.path.parent) <= self.small_bytes
        store.sweep(1.0)
        stats = store.stats()
        assert stats.size_bytes <= self.small_bytes * (1 if self.bounds_files else 1.1)
        assert stats.evictions["size"] > 0
        assert stats.entries > 0
        assert store.get(address(last)) is not None or not self.bounds_files

    def test_replacing_does_not_fill_it_up(self) -> None:
        """The space of replaced envelopes comes back: overwriting a few keys for long keeps them all."""
        store = self.opened(self.small_bytes)
        for round_number in range(200):
            store.commit([put(f"k{i}", bytes([round_number]) * 2000) for i in range(10)])
        assert all(read(store, f"k{i}") == bytes([199]) * 2000 for i in range(10))

    def test_an_envelope_larger_than_the_store_is_not_kept(self) -> None:
        """It is no error; the older value is gone and the change is told."""
        store = self.opened(self.small_bytes)
        store.commit([put("a", b"1")])
        before = store.position()
        (receipt,) = store.commit([put("a", bytes(2 * self.small_bytes))])
        assert receipt.seq > before.seq
        assert store.get(address("a")) is None
        assert len(store.notices(before) or []) == 1

    # -- life ---------------------------------------------------------------------------------------------------

    def test_closing_twice_and_opening_again(self) -> None:
        """Closing is safe at any time, and the same object opens again with everything there."""
        store = self.opened()
        store.commit([put("a", b"1")])
        store.close()
        store.close()
        store.open()
        assert read(store, "a") == b"1"

    def test_a_scan_meets_every_living_entry_once(self) -> None:
        """Each envelope comes once with whether it was read since it was written; expired and removed ones do not."""
        store = self.opened()
        store.commit([put(f"k{i}", b"%d" % i) for i in range(100)])
        store.commit([put("old", b"old", gone_at=self.clock.wall() + 1), Remove(address("k0"))])
        self.clock.advance(2)
        assert read(store, "k5") == b"5"
        found = list(store.scan())
        assert sorted(bytes(one.envelope) for one in found) == sorted(b"%d" % i for i in range(1, 100))
        assert next(one.used for one in found if one.envelope == b"5")

    def test_stats_are_counted(self) -> None:
        """Entries and capacity are exact, bytes grow with what is stored, nothing is damaged."""
        store = self.opened()
        store.commit([put(f"k{i}", bytes(1000)) for i in range(20)])
        stats = store.stats()
        assert stats.entries == 20
        assert stats.size_bytes >= 20_000
        assert stats.capacity_bytes == self.max_bytes
        assert (stats.damaged, stats.rebuilt) == (0, 0)

    def test_try_commit_commits_or_says_no(self) -> None:
        """A small batch is either applied in full or not at all."""
        store = self.opened()
        receipts = store.try_commit([put("a", b"1")])
        assert read(store, "a") == (None if receipts is None else b"1")

    # -- many at once -------------------------------------------------------------------------------------------

    def test_threads_share_a_handle(self) -> None:
        """Four threads on one handle never see a value of another key, and nothing fails."""
        store = self.opened(clock=SystemClock())
        failures: list[str] = []
        threads = [
            threading.Thread(target=_gather, args=(failures, lambda seed=seed: hammer(store, seed, 300)))
            for seed in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not failures

    def test_processes_share_a_store(self) -> None:
        """Two processes and this one never see a value of another key, and nothing fails."""
        store = self.opened(clock=SystemClock())
        others = [self.other_process() for _ in range(2)]
        for seed, other in enumerate(others):
            other.send("hammer", str(seed), "300")
        assert hammer(store, 99, 300) == ""
        assert [other.receive() for other in others] == ["", ""]

    def test_another_process_sees_changes_at_once(self) -> None:
        """What one process writes the other reads, hears, and cannot fill over."""
        store = self.opened(clock=SystemClock())
        other = self.other_process()
        start = store.position()
        assert other.ask("set", "a", "theirs") is True
        assert read(store, "a") == b"theirs"
        assert [notice.name for notice in store.notices(start) or []] == ["a"]
        store.commit([put("a", b"ours")])
        assert other.ask("get", "a") == "ours"
        assert store.commit([put("a", b"stale", since=start.seq)])[0].refused

    def test_a_killed_process_loses_nothing_it_was_told_is_stored(self) -> None:
        """After ``kill -9`` everything acknowledged is there, whole, and the store takes changes."""
        other = self.other_process()
        for i in range(30):
            assert other.ask("set", f"k{i}", "x" * (1 + i * 100)) is True
        other.send("hammer", "5", "100000")
        time.sleep(0.05)  # the process is to be in the middle of something
        other.kill()
        store = self.opened(clock=SystemClock())
        assert [read(store, f"k{i}") for i in range(30)] == [b"x" * (1 + i * 100) for i in range(30)]
        store.commit([put("after", b"1")])
        assert read(store, "after") == b"1"
        assert store.stats().rebuilt == 0


def _bytes_under(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def _gather(failures: list[str], act: Callable[[], str]) -> None:
    """Note what an act says or raises; the thread it runs on has nobody to tell."""
    try:
        said = act()
    except Exception as error:  # noqa: BLE001  # any failure is the test's to show
        said = repr(error)
    if said:
        failures.append(said)
