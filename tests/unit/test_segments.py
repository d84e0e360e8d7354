"""The disk store in one process: what goes in comes out, what was killed stays away, the bytes stay in the limit."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from genesis_cache.model.keys import Address, address_of, scope_of
from genesis_cache.tiers.base import Drop, Kill, Kind, Notice, Position, Put, Remove, StoreError
from genesis_cache.tiers.segments.log import compacted, lines_of, notice_of, pack_notice
from genesis_cache.tiers.segments.store import VIEW_FROM, SegmentStore

NEVER = float("inf")
KIB, MIB = 2**10, 2**20
SCOPE = scope_of("test")


class HandClock:
    """A clock that moves when told to."""

    def __init__(self) -> None:
        self.time = 1000.0

    def now(self) -> float:
        return self.time

    def wall(self) -> float:
        return self.time + 1e9


class Stores:
    """Makes stores in one directory; every one is checked and closed after the test."""

    def __init__(self, path: Path) -> None:
        self.path = path / "store"
        self.clock = HandClock()
        self.made: list[SegmentStore] = []

    def __call__(self, max_bytes: int = MIB) -> SegmentStore:
        store = SegmentStore(self.path, max_bytes, self.clock, version_of=version_of)
        store.open()
        self.made.append(store)
        return store

    def later(self, seconds: float) -> float:
        return self.clock.wall() + seconds

    def files(self) -> int:
        return sum(entry.stat().st_size for entry in self.path.iterdir())


def version_of(envelope: bytes | memoryview) -> int | None:
    return int(bytes(envelope[1:])) if envelope[:1] == b"v" else None


@pytest.fixture
def stores(tmp_path: Path) -> Iterator[Stores]:
    """A factory of stores on one directory."""
    factory = Stores(tmp_path)
    yield factory
    for store in factory.made:
        try:
            store.open()
            assert store.check() == []
        finally:
            store.close()


def at(key: object) -> Address:
    return address_of(SCOPE, str(key))


def put(key: object, envelope: bytes, **more: object) -> Put:
    return Put(at(key), envelope, **({"gone_at": NEVER} | more))  # type: ignore[arg-type]  # fields of Put


def tag(name: str) -> Kill:
    return Kill(Notice(Kind.TAG, "", None, name))


# --- what goes in -------------------------------------------------------------------------------------------------


def test_round_trip(stores: Stores) -> None:
    """A stored envelope comes back byte for byte, from this handle and from another one on the same directory."""
    store, other = stores(), stores()
    sent = {size: os.urandom(size) for size in (1, 63, 64, 65, 1024, 60_000)}
    store.commit([put(size, envelope) for size, envelope in sent.items()])
    for size, envelope in sent.items():
        assert store.get(at(size)) == envelope
        assert other.get(at(size)) == envelope
        assert other.size(at(size)) == size
    assert store.get(at("absent")) is None
    assert store.size(at("absent")) is None


def test_replace_and_remove(stores: Stores) -> None:
    """A set replaces, a remove removes, in the order of the batch, and both are counted right."""
    store = stores()
    store.commit([put("a", b"1"), put("a", b"2"), put("b", b"1"), Remove(at("b")), Remove(at("c")), put("c", b"3")])
    assert [store.get(at(key)) for key in "abc"] == [b"2", None, b"3"]
    assert store.stats().entries == 2
    store.commit([Drop(at("a"))])
    assert store.get(at("a")) is None
    assert store.stats().entries == 1


def test_large_values_are_views_that_outlive_their_segment(stores: Stores) -> None:
    """A large value is handed out without a copy and stays right while held, even after its file is gone."""
    store = stores()
    envelope = os.urandom(VIEW_FROM + 5)
    store.commit([put("large", envelope)])
    held = store.get(at("large"))
    assert isinstance(held, memoryview)
    assert held.readonly
    for number in range(40):
        store.commit([put(number, os.urandom(100_000))])
    assert store.get(at("large")) is None or store.get(at("large")) == envelope
    store.close()
    assert held == envelope


def test_too_large_is_refused_quietly_and_hides_the_older_value(stores: Stores) -> None:
    """A value that no segment can take is not stored; the value it should replace isn't served any more."""
    store = stores()
    store.commit([put("a", b"old")])
    before = store.position()
    (receipt,) = store.commit([put("a", bytes(MIB))])
    assert receipt.seq == before.seq + 1
    assert store.get(at("a")) is None
    assert [notice.name for notice in store.notices(before) or []] == ["a"]
    store.commit([put("b", b"old"), put("b", bytes(MIB)), put("c", b"old")])
    store.commit([put("c", bytes(MIB), since=store.position().seq)])
    assert store.get(at("b")) is None
    assert store.get(at("c")) is None
    assert store.stats().evictions["size"] == 3


def test_expiry(stores: Stores) -> None:
    """An entry is gone at its time, and a sweep clears it and counts it."""
    store = stores()
    store.commit([put("short", b"1", gone_at=stores.later(10)), put("long", b"2", gone_at=stores.later(100))])
    assert store.get(at("short")) == b"1"
    stores.clock.time += 10
    assert store.get(at("short")) is None
    assert store.size(at("short")) is None
    assert store.get(at("long")) == b"2"
    assert store.sweep(1.0) == 1
    assert store.sweep(1.0) == 0
    assert store.stats().entries == 1
    assert store.stats().evictions["ttl"] == 1


def test_sweep_gives_files_back(stores: Stores) -> None:
    """When everything in a segment has expired, a sweep gives its bytes back to the disk."""
    store = stores()
    for number in range(30):
        store.commit([put(number, os.urandom(20_000), gone_at=stores.later(10))])
    before = stores.files()
    stores.clock.time += 20
    assert store.sweep(1.0) > 0
    assert stores.files() < before
    assert store.stats().entries == 0


def test_sweep_keeps_to_its_budget_and_goes_on_where_it_ended(stores: Stores) -> None:
    """With no time at all a sweep still takes one step, and steps add up to a round."""
    store = stores(8 * MIB)
    store.commit([put(number, b"x", gone_at=stores.later(1)) for number in range(500)])
    stores.clock.time += 2
    first = store.sweep(0.0)
    assert 0 < first < 500
    assert first + sum(store.sweep(0.0) for _ in range(20)) == 500


def test_scan_meets_every_living_entry_once(stores: Stores) -> None:
    """A scan yields each living envelope, with whether it was read."""
    store = stores()
    store.commit([put(number, b"%d" % number) for number in range(50)])
    store.commit([put("gone", b"x", gone_at=stores.later(-1))])
    store.get(at(7))
    found = list(store.scan())
    assert sorted(int(one.envelope) for one in found) == list(range(50))
    assert [one.envelope for one in found if one.used] == [b"7"]


# --- order --------------------------------------------------------------------------------------------------------


def test_fill_after_a_kill_is_refused(stores: Stores) -> None:
    """A load that began before its key was set or removed is not stored; one that began later is."""
    store, other = stores(), stores()
    since = store.position().seq
    other.commit([Remove(at("a"))])
    (receipt,) = store.commit([put("a", b"stale", since=since)])
    assert receipt.refused
    assert receipt.seq == 0
    assert store.get(at("a")) is None
    (receipt,) = store.commit([put("a", b"fresh", since=store.position().seq)])
    assert not receipt.refused
    assert other.get(at("a")) == b"fresh"
    since = store.position().seq
    store.commit([put("b", b"set")])
    receipts = store.commit([put("b", b"stale", since=since), put("c", b"ok", since=since + 1)])
    assert [receipt.refused for receipt in receipts] == [True, False]
    assert store.get(at("b")) == b"set"


def test_fill_from_another_log_is_refused(stores: Stores) -> None:
    """A load that read its sequence from another store, or from one that was made anew, is not stored."""
    store = stores()
    here = store.position().seq
    assert all(
        store.commit([put("a", b"x", since=since)])[0].refused for since in (0, here - 1, here + 1, here * 2 + 9)
    )
    assert store.get(at("a")) is None


def test_fill_from_before_the_store_was_opened_is_refused(stores: Stores) -> None:
    """A load that began before the store was closed and opened again is not stored: what happened since is unknown."""
    store = stores()
    since = store.position().seq
    store.commit([Remove(at("a"))])
    store.close()
    store.open()
    assert store.commit([put("a", b"stale", since=since)])[0].refused


def test_version_newest_wins(stores: Stores) -> None:
    """A put with a lower version than the stored one is refused, in a batch too; an expired one doesn't count."""
    store = stores()
    assert not store.commit([put("a", b"v5", version=5)])[0].refused
    assert store.commit([put("a", b"v4", version=4)])[0].refused
    assert not store.commit([put("a", b"v5", version=5)])[0].refused
    receipts = store.commit([put("a", b"v9", version=9), put("a", b"v8", version=8)])
    assert [receipt.refused for receipt in receipts] == [False, True]
    assert store.get(at("a")) == b"v9"
    store.commit([put("a", b"v9", version=9, gone_at=stores.later(5))])
    stores.clock.time += 6
    assert not store.commit([put("a", b"v1", version=1)])[0].refused


def test_notices_reach_other_handles_in_order(stores: Stores) -> None:
    """Sets, removes and kills are told in order with their sequences; fills and drops are not."""
    store, other = stores(), stores()
    start = other.position()
    receipts = store.commit([put("a", b"1"), Remove(at("b")), Drop(at("x")), put("f", b"f", since=start.seq), tag("t")])
    assert [receipt.seq and receipt.seq - start.seq for receipt in receipts] == [1, 2, 0, 0, 3]
    found = other.notices(start)
    assert found is not None
    assert [(notice.kind, notice.name, notice.seq - start.seq) for notice in found] == [
        (Kind.KEY, "a", 1),
        (Kind.KEY, "b", 2),
        (Kind.TAG, "t", 3),
    ]
    assert other.notices(other.position()) == []
    store.commit([tag("u")])
    assert [notice.name for notice in other.notices(Position(start.epoch, start.seq + 3)) or []] == ["u"]
    assert [notice.name for notice in other.notices(start) or []] == ["a", "b", "t", "u"]
    assert [notice.name for notice in other.floors()] == ["t", "u"]


def test_notices_of_another_log_are_a_gap(stores: Stores) -> None:
    """A position in another log, or ahead of this one, is answered by "forget all"."""
    store = stores()
    here = store.position()
    assert store.notices(Position(here.epoch ^ 1, 0)) is None
    assert store.notices(Position(here.epoch, here.seq + 1)) is None


def test_compaction_keeps_floors_and_the_latest(stores: Stores) -> None:
    """However many notices come, floors survive, close followers miss nothing and far ones are told of the gap."""
    store, other = stores(), stores()
    start = other.position()
    store.commit([tag("precious"), Kill(Notice(Kind.CLEAR, "space", "owner", ""))])
    before = other.position()
    for number in range(4000):
        store.commit([Remove(at(number % 10))])
        if number % 7 == 0:  # the other one follows a few steps behind
            names = [str(name % 10) for name in range(max(number - 6, 0), number + 1)]
            assert [notice.name for notice in other.notices(before) or []] == names
            before = other.position()
    assert other.notices(start) is None
    floors = other.floors()
    assert [(floor.kind, floor.name, floor.namespace, floor.owner) for floor in floors] == [
        (Kind.TAG, "precious", "", None),
        (Kind.CLEAR, "", "space", "owner"),
    ]


def test_too_many_floors_become_one_clear() -> None:
    """Where the floors don't fit, the oldest become one CLEAR of everything older: more goes, never less."""
    raw = b"".join(pack_notice(Notice(Kind.TAG, "", None, f"tag{number}"), number) for number in range(1, 1001))
    kept = compacted(raw, 8192)
    assert len(kept.floors) + len(raw) - kept.cut <= 8192
    clear, *rest = [notice_of(kept.floors, line) for line in lines_of(kept.floors)]
    assert (clear.kind, clear.namespace, clear.owner) == (Kind.CLEAR, "", None)
    assert [notice.seq for notice in rest] == list(range(clear.seq + 1, kept.reach + 1))
    assert next(lines_of(raw[kept.cut :])).seq == kept.reach + 1


def test_a_clear_of_all_makes_older_floors_needless(stores: Stores) -> None:
    """After a clear of everything a process that opens the store has only that to learn, and what came later."""
    store = stores()
    store.commit([tag("old"), Kill(Notice(Kind.CLEAR, "", None, "")), tag("new")])
    assert [(floor.kind, floor.name) for floor in store.floors()] == [(Kind.CLEAR, ""), (Kind.TAG, "new")]


# --- the limit ----------------------------------------------------------------------------------------------------


def test_eviction_keeps_the_files_within_the_limit(stores: Stores) -> None:
    """Whatever is written, the files never have more bytes than allowed, and the latest values are there."""
    store = stores()
    for number in range(3000):
        store.commit([put(number, os.urandom(1000))])
        if number % 50 == 0:
            assert stores.files() <= MIB
    assert store.get(at(2999)) is not None
    assert store.get(at(0)) is None
    stats = store.stats()
    assert stats.size_bytes == stores.files() <= MIB
    assert stats.entries + stats.evictions["size"] == 3000


def test_second_chance_for_what_was_read(stores: Stores) -> None:
    """Entries that are read stay; entries of HIGH priority stay; the rest goes first."""
    store = stores()
    store.commit([put("read", b"r" * 500), put("high", b"h" * 500, priority=2), put("idle", b"i" * 500)])
    for number in range(1500):
        store.commit([put(number, os.urandom(2000))])
        assert store.get(at("read")) == b"r" * 500
    assert store.get(at("high")) == b"h" * 500
    assert store.get(at("idle")) is None


def test_expired_segment_goes_before_the_oldest(stores: Stores) -> None:
    """When room is needed, what has expired goes before what is merely old."""
    store = stores()
    geometry_segments = 5
    store.commit([put("old", b"o" * 100)])
    number = 0
    while len(list(stores.path.glob("seg-*"))) < 2:
        number += 1
        store.commit([put(number, os.urandom(5000))])
    while len(list(stores.path.glob("seg-*"))) < geometry_segments:
        number += 1
        store.commit([put(number, os.urandom(5000), gone_at=stores.later(5))])
    stores.clock.time += 10
    for _ in range(60):
        number += 1
        store.commit([put(number, os.urandom(5000))])
    assert store.get(at("old")) == b"o" * 100


def test_many_small_entries_evict_by_bucket(stores: Stores) -> None:
    """More small entries than the index has slots: the oldest go, all is counted, nothing breaks."""
    store = stores(256 * KIB)
    for start in range(0, 4000, 100):
        store.commit([put(number, b"x") for number in range(start, start + 100)])
    stats = store.stats()
    assert stats.entries + stats.evictions["size"] == 4000
    assert store.get(at(3999)) == b"x"


def test_another_limit_keeps_what_fits(stores: Stores) -> None:
    """Opened with a smaller limit the store shrinks to it and keeps the newest; with a larger one it keeps all."""
    store = stores(8 * MIB)
    store.commit([put(number, os.urandom(10_000)) for number in range(700)])
    store.close()
    smaller = stores(5 * MIB)
    assert stores.files() <= 5 * MIB
    assert smaller.get(at(699)) is not None
    smaller.close()
    assert stores(16 * MIB).get(at(699)) is not None
    assert stores.made[-1].stats().rebuilt == 0


def test_too_small_a_limit_is_refused(tmp_path: Path) -> None:
    """A limit that cannot hold even the books is an error that says what is enough."""
    with pytest.raises(StoreError, match="at least 262144"):
        SegmentStore(tmp_path / "s", 1000, HandClock())


# --- the directory ------------------------------------------------------------------------------------------------


def test_directory_is_private_and_ignored_by_git(stores: Stores) -> None:
    """The directory and its files are for their owner only, and git leaves them alone."""
    stores()
    assert stat.S_IMODE(stores.path.stat().st_mode) == 0o700
    assert (stores.path / ".gitignore").read_text() == "*\n"
    assert all(stat.S_IMODE(entry.stat().st_mode) == 0o600 for entry in stores.path.iterdir())


def test_symbolic_link_is_refused(tmp_path: Path) -> None:
    """A link in the store's place is refused, so that nobody can point us at foreign files."""
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with pytest.raises(StoreError, match=r"symbolic link|not a directory"):
        SegmentStore(tmp_path / "link", MIB, HandClock()).open()


def test_closed_store_says_so(stores: Stores) -> None:
    """After close every verb raises an error in plain words, and close may be called twice."""
    store = stores()
    store.close()
    store.close()
    for verb in (lambda: store.get(at("a")), store.position, lambda: store.commit([]), store.stats):
        with pytest.raises(StoreError, match="closed"):
            verb()
    store.open()


def test_what_was_stored_outlives_a_restart(stores: Stores) -> None:
    """Closed and opened again, the store has the same identity, sequence, entries and floors."""
    store = stores()
    store.commit([put(number, b"%d" % number) for number in range(100)] + [tag("t")])
    position = store.position()
    store.close()
    again = stores()
    assert again.position() == position
    assert all(again.get(at(number)) == b"%d" % number for number in range(100))
    assert [floor.name for floor in again.floors()] == ["t"]
    assert again.stats().rebuilt == 0


def test_deleted_while_in_use_is_made_anew(stores: Stores) -> None:
    """When somebody deletes the directory under a running program, the next write begins a new store."""
    store = stores()
    store.commit([put("a", b"1")])
    old = store.position().epoch
    for entry in stores.path.iterdir():
        entry.unlink()
    stores.path.rmdir()
    store.commit([put("b", b"2")])
    assert store.get(at("b")) == b"2"
    assert store.get(at("a")) is None
    assert store.position().epoch != old
