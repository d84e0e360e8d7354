"""The contract of a `RemoteStore`, as tests: derive a class, say how a store is made and the server hurt, run pytest.

    class TestMyStore(RemoteStoreContract):
        def make_store(self, cache_name, capacity_bytes, clock):
            return MyStore(...)                         # of the running event loop, not yet open
        async def lose_everything(self): ...            # and save, set_back, cut_connections, trim_log

After each test the books on the server must pass the store's own `check()`. Time is the machine's own, because a server
has no other: nothing here is timed, and what has to come about is waited for. Needs pytest and pytest-asyncio.
"""

import asyncio
import random
import secrets

import pytest

from genesis_cache.testing.remote_house import PATIENCE_S, RemoteHouse, told
from genesis_cache.testing.remote_life import BoundsContract, ConnectionsContract, EpochContract, LeaseContract
from genesis_cache.testing.store_words import MB, kill
from genesis_cache.tiers.base import Change, Drop, Kind, Position, Remove
from genesis_cache.tiers.remote_base import Joined

__all__ = ["RemoteStoreContract"]

NASTY = "it's \"a\" key'); DROP TABLE x; -- %s $1 {a}\r\nGET \x00 ünï ☃"


class ValuesContract(RemoteHouse):
    """Values, batches, time and versions."""

    async def test_what_was_put_comes_back(self) -> None:
        """An envelope is returned byte for byte, alone and among others."""
        store = await self.opened()
        change = self.put("a", b"\x00one\xff\r\n")
        (receipt,) = await self.commit(store, change)
        assert bytes(await store.get(change.address) or b"") == change.envelope
        assert [bytes(one or b"") for one in await store.get_many([change.address])] == [change.envelope]
        assert receipt.seq > 0
        assert not receipt.refused

    async def test_what_was_never_put_is_not_there(self) -> None:
        """An unknown key is None, not an error; nothing asked is nothing answered."""
        store = await self.opened()
        assert await self.read(store, "a") is None
        assert await self.read_many(store, ["a", "b"]) == [None, None]
        assert await store.get_many([]) == []
        assert await self.commit(store) == []

    async def test_small_and_large_values(self) -> None:
        """No byte, one, and two megabytes come back as they were."""
        store = await self.opened()
        large = random.Random(1).randbytes(2 * MB)
        await self.commit(store, self.put("none", b""), self.put("small", b"1"), self.put("large", large))
        assert await self.read_many(store, ["large", "none", "small"]) == [large, b"", b"1"]
        assert await self.read(store, "large") == large

    async def test_any_name_is_only_a_name(self) -> None:
        """Quotes, line ends, braces, zero bytes: in keys, owners, tags and cache names they are nothing special."""
        self.cache_name = "".join(filter(str.isprintable, NASTY)) + secrets.token_hex(4)
        store = await self.opened()
        start = await self.position(store)
        owned = self.put_at(self.address(NASTY, NASTY), b"owned")
        await self.commit(store, self.put(NASTY, b"1"), owned, kill(Kind.TAG, NASTY), kill(Kind.PATTERN, "☃*" * 40))
        assert await self.read(store, NASTY) == b"1"
        assert self.value(owned.address, await store.get(owned.address)) == b"owned"
        heard = await self.heard(store, start, 4)
        assert [told(notice)[2:] for notice in heard] == [
            (None, NASTY),
            (NASTY, NASTY),
            (None, NASTY),
            (None, "☃*" * 40),
        ]

    async def test_many_are_answered_in_the_order_asked(self) -> None:
        """Found, missing and repeated keys each in their place."""
        store = await self.opened()
        await self.commit(store, *(self.put(f"k{i}", b"%d" % i) for i in range(0, 200, 2)))
        keys = [f"k{i}" for i in random.Random(3).choices(range(200), k=300)]
        assert await self.read_many(store, keys) == [
            key[1:].encode() if int(key[1:]) % 2 == 0 else None for key in keys
        ]

    async def test_a_second_put_replaces_the_first(self) -> None:
        """The newest set wins, larger or smaller, and counts as one entry."""
        store = await self.opened()
        for value in (b"one", b"two" * 1000, b"3"):
            await self.commit(store, self.put("a", value))
            assert await self.read(store, "a") == value
        await store.sweep(1.0)
        assert (await store.stats()).entries == 1

    async def test_a_batch_applies_in_order(self) -> None:
        """Of equal keys in one batch the last change wins, and each change has its own receipt."""
        store = await self.opened()
        batch: list[Change] = [
            self.put("a", b"1"),
            Remove(self.address("a")),
            self.put("a", b"2"),
            self.put("b", b"1"),
            self.put("b", b"2"),
        ]
        receipts = await self.commit(store, *batch)
        assert await self.read_many(store, ["a", "b"]) == [b"2", b"2"]
        seqs = [receipt.seq for receipt in receipts]
        assert len(seqs) == 5
        assert seqs == sorted(set(seqs))
        await self.commit(store, self.put("a", b"3"), Remove(self.address("a")))
        assert await self.read(store, "a") is None

    async def test_a_large_batch_is_taken(self) -> None:
        """Thousands of changes, megabytes of them: each has its receipt, and all are there."""
        store = await self.opened()
        start = await self.position(store)
        batch: list[Change] = [self.put(f"k{i}", b"%d;" % i * 500) for i in range(3000)]
        batch += [Remove(self.address(f"k{i}")) for i in range(0, 3000, 3)]
        receipts = await self.commit(store, *batch)
        seqs = [receipt.seq for receipt in receipts]
        assert seqs == sorted(set(seqs))
        assert len(seqs) == 4000
        found = await self.read_many(store, [f"k{i}" for i in range(3000)])
        assert found == [None if i % 3 == 0 else b"%d;" % i * 500 for i in range(3000)]
        assert [notice.seq for notice in await self.heard(store, start, 4000)] == seqs

    async def test_a_removed_entry_is_gone(self) -> None:
        """Remove and Drop both delete; deleting what is not there is no error; a drop takes no sequence."""
        store = await self.opened()
        await self.commit(store, self.put("a", b"1"), self.put("b", b"1"))
        addresses = [self.address(key) for key in "abcd"]
        receipts = await self.commit(
            store, Remove(addresses[0]), Drop(addresses[1]), Remove(addresses[2]), Drop(addresses[3])
        )
        assert [receipt.seq > 0 for receipt in receipts] == [True, False, True, False]
        assert await self.read_many(store, list("abcd")) == [None] * 4
        await store.sweep(1.0)
        assert (await store.stats()).entries == 0

    async def test_owners_do_not_meet(self) -> None:
        """The same key of another owner is another entry."""
        store = await self.opened()
        one, two = self.address("a", "user:1"), self.address("a", "user:2")
        await self.commit(store, self.put_at(one, b"1"), self.put_at(two, b"2"))
        assert self.value(one, await store.get(one)) == b"1"
        assert self.value(two, await store.get(two)) == b"2"
        assert await self.read(store, "a") is None

    async def test_an_entry_expires(self) -> None:
        """Past its time an entry is not served, swept or not; others and those without an end are."""
        store = await self.opened()
        short = [self.put(f"short{i}", b"1", life_s=0.2) for i in range(20)]
        await self.commit(store, *short, self.put("long", b"1", life_s=600), self.put("ever", b"1"))
        assert await self.read_many(store, ["long", "ever"]) == [b"1", b"1"]
        await asyncio.sleep(0.3)
        await self.comes_about(lambda: self.none_of(store, [f"short{i}" for i in range(20)]))
        await store.sweep(1.0)
        assert await self.read_many(store, ["long", "ever"]) == [b"1", b"1"]
        assert 2 <= (await store.stats()).entries <= 2.2

    async def test_what_comes_too_late_is_not_served(self) -> None:
        """An entry put after its own end is not there, nor is what it replaced."""
        store = await self.opened()
        await self.commit(store, self.put("a", b"old"))
        (receipt,) = await self.commit(store, self.put("a", b"late", life_s=-5))
        assert receipt.seq > 0
        assert await self.read(store, "a") is None

    async def test_the_newest_version_wins(self) -> None:
        """A set with a lower version than the stored one is refused; an equal or higher one is taken."""
        store = await self.opened()
        refused = [(await self.commit(store, self.put_version("a", n)))[0].refused for n in (5, 3, 5, 7, 6, -1)]
        assert refused == [False, True, False, False, True, True]
        assert await self.read(store, "a") == b"7"
        since = (await self.position(store)).seq
        assert (await self.commit(store, self.put_version("a", 6, since)))[0].refused
        assert not (await self.commit(store, self.put_version("a", 8, since)))[0].refused
        assert not (await self.commit(store, self.put("a", b"unversioned")))[0].refused
        assert not (await self.commit(store, self.put_version("a", 1)))[0].refused

    async def test_versions_are_exact(self) -> None:
        """Versions beyond 53 bits, such as nanoseconds, are told apart by one; negative ones are in order."""
        store = await self.opened()
        for low in (2**53, 2**62, -(2**62), -2, 9, 99):
            key = f"v{low}"
            receipts = await self.commit(
                store, self.put_version(key, low + 1), self.put_version(key, low), self.put_version(key, low + 1)
            )
            assert [receipt.refused for receipt in receipts] == [False, True, False]
            assert await self.read(store, key) == b"%d" % (low + 1)

    async def test_a_dead_entry_has_no_version(self) -> None:
        """Removed or expired, an entry's version refuses nothing."""
        store = await self.opened()
        await self.commit(store, self.put_version("gone", 9), Remove(self.address("gone")))
        assert not (await self.commit(store, self.put_version("gone", 1)))[0].refused
        await self.commit(store, self.put_version("short", 9, life_s=0.1))
        await asyncio.sleep(0.2)
        await self.comes_about(lambda: self.none_of(store, ["short"]))
        assert not (await self.commit(store, self.put_version("short", 1)))[0].refused
        assert await self.read(store, "short") == b"1"


class FillsContract(RemoteHouse):
    """Fills: what was loaded before a change is not stored after it."""

    async def test_a_fill_is_stored_and_tells_nobody(self) -> None:
        """A fill of an unchanged key is taken, moves no sequence and writes no notice."""
        store = await self.opened()
        before = await self.position(store)
        (receipt,) = await self.commit(store, self.put("a", b"1", before.seq))
        assert not receipt.refused
        assert receipt.seq == 0
        assert await self.read(store, "a") == b"1"
        assert await self.position(store) == before
        assert await store.follow(before, 0.01) == []

    @pytest.mark.parametrize("change", ["set", "remove"])
    async def test_a_fill_that_began_before_a_change_is_refused(self, change: str) -> None:
        """A load that was under way when its key was set or removed stores nothing; one that began after does."""
        store = await self.opened()
        await self.commit(store, self.put("a", b"old"))
        since = (await self.position(store)).seq
        await self.commit(store, self.put("a", b"new") if change == "set" else Remove(self.address("a")))
        (receipt,) = await self.commit(store, self.put("a", b"stale", since))
        assert receipt.refused
        assert await self.read(store, "a") == (b"new" if change == "set" else None)
        now = (await self.position(store)).seq
        (receipt,) = await self.commit(store, self.put("a", b"loaded", now))
        assert not receipt.refused
        assert await self.read(store, "a") == b"loaded"

    async def test_a_fill_in_the_batch_of_a_change_is_judged_in_order(self) -> None:
        """In one batch a fill before a change of its key is taken and one after it refused."""
        store = await self.opened()
        since = (await self.position(store)).seq
        receipts = await self.commit(
            store,
            self.put("a", b"fill", since), Remove(self.address("a")), self.put("a", b"stale", since),
            self.put("b", b"fill", since), self.put("c", b"set"), self.put("c", b"stale", since),
        )  # fmt: skip
        assert [receipt.refused for receipt in receipts] == [False, False, True, False, False, True]
        assert await self.read_many(store, ["a", "b", "c"]) == [None, b"fill", b"set"]

    async def test_a_change_kills_fills_of_an_entry_that_was_never_there(self) -> None:
        """Removing a key that is not stored still refuses the fill of the load under way, swept or not."""
        store = await self.opened()
        since = (await self.position(store)).seq
        await self.commit(store, Remove(self.address("a")))
        await store.sweep(1.0)
        assert (await self.commit(store, self.put("a", b"stale", since)))[0].refused
        assert await self.read(store, "a") is None

    async def test_dropping_an_entry_revives_no_old_fill(self) -> None:
        """When the entry that refused a fill is dropped, the fill is refused all the same; a drop refuses none."""
        store = await self.opened()
        since = (await self.position(store)).seq
        await self.commit(store, self.put("a", b"new"), Drop(self.address("a")))
        assert (await self.commit(store, self.put("a", b"stale", since)))[0].refused
        since = (await self.position(store)).seq
        await self.commit(store, Drop(self.address("a")))
        assert not (await self.commit(store, self.put("a", b"1", since)))[0].refused

    async def test_the_end_of_an_entry_revives_no_old_fill(self) -> None:
        """A set refuses older fills as long as a load may take, even when the value it wrote has expired."""
        store = await self.opened()
        since = (await self.position(store)).seq
        await self.commit(store, self.put("a", b"new", life_s=0.1), self.put("late", b"1", life_s=-1))
        await asyncio.sleep(0.2)
        await self.comes_about(lambda: self.none_of(store, ["a"]))
        await store.sweep(1.0)
        receipts = await self.commit(store, self.put("a", b"stale", since), self.put("late", b"stale", since))
        assert [receipt.refused for receipt in receipts] == [True, True]

    async def test_a_fill_is_refused_by_changes_of_others(self) -> None:
        """What another store removed, this one cannot fill over; nor a store opened later."""
        one, two = await self.opened(), await self.opened()
        since = (await self.position(one)).seq
        await self.commit(two, self.put("a", b"1"), Remove(self.address("a")))
        assert (await self.commit(one, self.put("a", b"stale", since)))[0].refused
        await one.close()
        await two.close()
        later = await self.opened()
        assert (await self.commit(later, self.put("a", b"stale", since)))[0].refused

    async def test_a_change_leaves_fills_of_other_keys_alone(self) -> None:
        """Changing two keys refuses at most a few fills of 200 others that began before."""
        store = await self.opened()
        since = (await self.position(store)).seq
        await self.commit(store, self.put("changed", b"1"), Remove(self.address("removed")))
        receipts = await self.commit(store, *(self.put(f"k{i}", b"1", since) for i in range(200)))
        assert sum(receipt.refused for receipt in receipts) <= 8

    async def test_a_fill_of_another_log_is_refused(self) -> None:
        """A caller who knows no log, or another one, fills nothing; its changes are taken, and it learns the log."""
        store = await self.opened()
        position = await self.position(store)
        for epoch in (0, position.epoch ^ 1):
            fill, change = self.put("a", b"fill", position.seq), self.put("b", b"set")
            committed = await store.commit([fill, change], epoch)
            assert committed.epoch == position.epoch
            assert [receipt.refused for receipt in committed.receipts] == [True, False]
        assert await self.read_many(store, ["a", "b"]) == [None, b"set"]


class LogContract(RemoteHouse):
    """The log: notices in order, floors, gaps."""

    async def test_notices_come_in_order(self) -> None:
        """Sets and removes tell their key, kills what they name; sequences only grow and agree with the receipts."""
        store = await self.opened()
        start = await self.position(store)
        changes: list[Change] = [
            self.put("a", b"1"),
            kill(Kind.TAG, "red"),
            Remove(self.address("b", "user:7")),
            kill(Kind.PATTERN, "user:*", owner="user:1"),
            kill(Kind.CLEAR),
            kill(Kind.CLEAR, namespace=""),
        ]
        receipts = await self.commit(store, *changes)
        notices = await self.heard(store, start, 6)
        assert [told(notice) for notice in notices] == [
            (Kind.KEY, "shop", None, "a"),
            (Kind.TAG, "shop", None, "red"),
            (Kind.KEY, "shop", "user:7", "b"),
            (Kind.PATTERN, "shop", "user:1", "user:*"),
            (Kind.CLEAR, "shop", None, ""),
            (Kind.CLEAR, "", None, ""),
        ]
        seqs = [receipt.seq for receipt in receipts]
        assert [notice.seq for notice in notices] == seqs
        assert seqs == list(range(start.seq + 1, start.seq + 7))
        assert await self.position(store) == Position(start.epoch, seqs[-1])
        assert await store.follow(await self.position(store), 0.01) == []

    async def test_following_resumes_in_the_middle_of_a_batch(self) -> None:
        """Whoever heard a part of a batch hears the rest of it, and nothing twice."""
        store = await self.opened()
        start = await self.position(store)
        await self.commit(store, *(self.put(f"k{i}", b"1") for i in range(10)))
        for heard in range(10):
            after = Position(start.epoch, start.seq + heard)
            rest = await self.heard(store, after, 10 - heard)
            assert [notice.name for notice in rest] == [f"k{i}" for i in range(heard, 10)]

    async def test_kills_touch_no_entry(self) -> None:
        """Tags, patterns and clears are only told: who reads judges by the sequence."""
        store = await self.opened()
        await self.commit(store, self.put("a", b"1"))
        await self.commit(store, kill(Kind.TAG, "red"), kill(Kind.PATTERN, "*"))
        assert await self.read(store, "a") == b"1"

    async def test_a_refused_put_tells_nobody(self) -> None:
        """What was not stored moves no sequence."""
        store = await self.opened()
        await self.commit(store, self.put_version("a", 2))
        before = await self.position(store)
        await self.commit(store, self.put_version("a", 1))
        assert await self.position(store) == before

    async def test_whoever_waits_is_woken(self) -> None:
        """A notice of another store ends the wait, long before its time."""
        one, two = await self.opened(), await self.opened()
        start = await self.position(one)
        waiting = asyncio.ensure_future(one.follow(start, 60.0))
        await asyncio.sleep(0.05)
        await self.commit(two, kill(Kind.TAG, "red"))
        async with asyncio.timeout(PATIENCE_S):
            heard = await waiting
        assert [notice.name for notice in heard or []] == ["red"]

    async def test_silence_is_told_too(self) -> None:
        """With nothing new the wait ends by itself with an empty list."""
        store = await self.opened()
        async with asyncio.timeout(PATIENCE_S):
            assert await store.follow(await self.position(store), 0.2) == []

    async def test_a_gap_is_told(self) -> None:
        """A position of another log, from the future, or behind the log's beginning gives None: forget all."""
        store = await self.opened()
        start = await self.position(store)
        for name in ("red", "blue", "white"):
            await self.commit(store, kill(Kind.TAG, name))
        end = await self.position(store)
        assert await store.follow(Position(end.epoch ^ 1, end.seq), 0.01) is None
        assert await store.follow(Position(end.epoch, end.seq + 1), 0.01) is None
        await self.trim_log(self.cache_name)
        assert await store.follow(start, 0.01) is None
        assert await store.follow(end, 0.01) == []
        await self.commit(store, kill(Kind.TAG, "green"))
        assert [notice.name for notice in await self.heard(store, end, 1)] == ["green"]

    async def test_a_log_of_many_notices_has_no_hole(self) -> None:
        """Two stores write hundreds of batches at once: both hear every sequence, once, in order."""
        one, two = await self.opened(), await self.opened()
        start = await self.position(one)
        work = [
            self.commit(store, *(self.put(f"{i}:{j}", b"1") for j in range(1 + i % 4)))
            for i in range(150)
            for store in (one, two)
        ]
        receipts = [receipt for done in await asyncio.gather(*work) for receipt in done]
        seqs = sorted(receipt.seq for receipt in receipts)
        assert seqs == list(range(start.seq + 1, start.seq + 1 + len(receipts)))
        for store in (one, two):
            assert [notice.seq for notice in await self.heard(store, start, len(seqs))] == seqs

    async def test_floors_survive(self) -> None:
        """Whoever joins later learns of the newest tag, pattern and clear of each name, and of no key."""
        store = await self.opened()
        await self.commit(store, kill(Kind.TAG, "red"), kill(Kind.PATTERN, "a*"), self.put("a", b"1"))
        receipts = await self.commit(store, kill(Kind.TAG, "red"), kill(Kind.CLEAR, owner="user:1"))
        for one in (store, await self.opened()):
            floors = (await one.join(None)).floors
            assert {told(notice) for notice in floors} == {
                (Kind.TAG, "shop", None, "red"),
                (Kind.PATTERN, "shop", None, "a*"),
                (Kind.CLEAR, "shop", "user:1", ""),
            }
            assert {notice.seq for notice in floors if notice.kind is Kind.TAG} == {receipts[0].seq}
        await store.sweep(1.0)
        assert len((await store.join(None)).floors) == 3

    async def test_a_clear_is_the_floor_of_what_it_covers(self) -> None:
        """After a clear whoever joins knows of it, whatever older floors it made needless."""
        store = await self.opened()
        await self.commit(store, kill(Kind.TAG, "red"), kill(Kind.CLEAR, namespace=""))
        (receipt,) = await self.commit(store, kill(Kind.TAG, "blue"))
        floors = (await store.join(None)).floors
        newest = {told(notice): notice.seq for notice in floors}
        assert newest[Kind.TAG, "shop", None, "blue"] == receipt.seq
        assert newest[Kind.CLEAR, "", None, ""] == receipt.seq - 1

    async def test_two_stores_share_one_server(self) -> None:
        """What one writes the other reads at once, hears in one order, and cannot fill over."""
        one, two = await self.opened(), await self.opened()
        start = await self.position(two)
        await self.commit(one, self.put("a", b"1"), kill(Kind.TAG, "red"))
        await self.commit(two, self.put("b", b"2"))
        assert await self.read(two, "a") == b"1"
        assert await self.read(one, "b") == b"2"
        heard = await self.heard(two, start, 3)
        assert [notice.name for notice in heard] == ["a", "red", "b"]
        assert await self.heard(one, start, 3) == heard
        assert (await self.commit(two, self.put("a", b"stale", start.seq)))[0].refused

    async def test_two_cache_names_never_meet(self) -> None:
        """On one server they share neither values nor log, leases, floors nor figures, even with like names."""
        one = await self.opened()
        other_name = f"{self.cache_name}:"
        two = await self.opened(other_name)
        start = await self.position(two)
        mine, theirs = self.address("a"), self.address("a", cache_name=other_name)
        await self.commit(one, self.put_at(mine, b"mine"), kill(Kind.TAG, "red"), kill(Kind.CLEAR, namespace=""))
        assert await two.get(theirs) is None
        assert await two.get(mine) is None
        joined = await two.join(None)
        assert joined == Joined(start, [])
        assert await two.follow(start, 0.01) == []
        assert await one.lease(mine, b"1" * 16, 60)
        assert await two.lease(theirs, b"2" * 16, 60)
        await two.sweep(1.0)
        assert (await two.stats()).entries == 0
        assert await two.scan(10) == []
        assert await self.read(one, "a") == b"mine"


class RemoteStoreContract(
    ValuesContract, FillsContract, LogContract, EpochContract, LeaseContract, BoundsContract, ConnectionsContract
):
    """What every remote store must do; one test for each promise of `genesis_cache.tiers.remote_base.RemoteStore`."""
