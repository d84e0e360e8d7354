"""The second half of the contract of a `RemoteStore`: a new log, leases, bounds, lost connections, cancelled calls."""

import asyncio
import contextlib
import os
import random
import secrets
from typing import Any

from genesis_cache.model.clock import SystemClock
from genesis_cache.model.finding import Severity
from genesis_cache.testing.remote_house import RemoteHouse
from genesis_cache.testing.store_words import kill
from genesis_cache.tiers.base import Kind, Position, Remove
from genesis_cache.tiers.remote_base import Outage, RemoteStore

_MOMENTS = 31  # steps of the event loop after which a call is cancelled


class EpochContract(RemoteHouse):
    """When a log is another one, all who join it agree on that."""

    async def test_a_log_goes_on(self) -> None:
        """Joined again, by another store, closed and opened again: the same log, at the same sequence."""
        store = await self.opened()
        await self.commit(store, self.put("a", b"1"), Remove(self.address("b")))
        before = await self.position(store)
        assert before.epoch > 0
        assert await self.position(store) == before
        assert (await store.join(before)).position == before
        assert await self.position(await self.opened()) == before
        await store.close()
        await store.close()
        await store.open()
        assert (await store.join(before)).position == before
        assert await self.read(store, "a") == b"1"
        assert (await self.commit(store, self.put("a", b"2")))[0].seq == before.seq + 1

    async def test_all_who_join_at_once_join_one_log(self) -> None:
        """Ten stores that come at the same moment to a server that has nothing make one log, not ten."""
        stores = [self.make_store(self.cache_name, self.capacity_bytes, self.clock) for _ in range(10)]
        try:
            await asyncio.gather(*(store.open() for store in stores))
            joined = await asyncio.gather(*(store.join(None) for store in stores))
        finally:
            for store in stores:
                await store.close()
        assert len({one.position.epoch for one in joined}) == 1

    async def test_an_emptied_server_has_a_new_log(self) -> None:
        """After the server lost all, nothing is found, the old log has ended, and all agree on the new one."""
        one, two = await self.opened(), await self.opened()
        await self.commit(one, self.put("a", b"1"), self.put("b", b"1"))
        known = await self.position(one)
        await self.lose_everything()
        joined = [await self.again(lambda store=store: store.join(known)) for store in (one, two)]  # type: ignore[misc]  # bound at once
        assert joined[0].position == joined[1].position
        assert joined[0].position.epoch != known.epoch
        assert joined[0].floors == []
        assert await one.follow(known, 0.01) is None
        assert await self.read_many(one, ["a", "b"]) == [None, None]
        committed = await one.commit([self.put("a", b"stale", known.seq), self.put("b", b"new")], known.epoch)
        assert [receipt.refused for receipt in committed.receipts] == [True, False]
        assert committed.epoch == joined[0].position.epoch

    async def test_a_follower_learns_that_the_server_was_emptied(self) -> None:
        """Whoever was waiting for notices when the server lost all is told that the log has ended, or of the outage."""
        store = await self.opened()
        await self.commit(store, self.put("a", b"1"))
        known = await self.position(store)
        waiting = asyncio.ensure_future(store.follow(known, 1.0))
        await asyncio.sleep(0.05)
        await self.lose_everything()
        try:
            assert await waiting is None
        except Outage:
            assert (await self.again(lambda: store.join(known))).position.epoch != known.epoch
            assert await store.follow(known, 0.01) is None

    async def test_changes_after_an_emptied_server_are_told_in_the_new_log(self) -> None:
        """A change that finds the server empty makes the new log itself, and says which."""
        one = await self.opened()
        await self.commit(one, self.put("a", b"1"))
        known = await self.position(one)
        await self.lose_everything()
        committed = await self.again(lambda: one.commit([Remove(self.address("a"))], known.epoch))
        position = await self.position(one)
        assert committed.epoch == position.epoch != known.epoch
        assert committed.receipts[0].seq <= position.seq

    async def test_a_server_set_back_has_a_new_log(self) -> None:
        """After a restored backup no process takes an older sequence for the present: the log is a new one for all."""
        one, two = await self.opened(), await self.opened()
        await self.commit(one, self.put("a", b"old"))
        await self.save()
        await self.commit(one, Remove(self.address("a")), kill(Kind.TAG, "red"))
        known = await self.position(one)
        await self.set_back()
        joined = [await self.again(lambda store=store: store.join(known)) for store in (one, two)]  # type: ignore[misc]  # bound at once
        assert joined[0].position.epoch != known.epoch
        assert joined[0].position == joined[1].position
        assert await one.follow(known, 0.01) is None
        committed = await one.commit([self.put("b", b"stale", known.seq)], known.epoch)
        assert committed.receipts[0].refused

    async def test_a_follower_ahead_of_a_server_set_back_is_told(self) -> None:
        """Even if nobody joins, following from where the server has not been yet is a gap."""
        store = await self.opened()
        await self.save()
        await self.commit(store, kill(Kind.TAG, "red"))
        known = await self.position(store)
        await self.set_back()
        assert await self.again(lambda: store.follow(known, 0.01)) is None


class LeaseContract(RemoteHouse):
    """One holder for each key."""

    async def test_one_token_holds_a_lease(self) -> None:
        """A key's lease is one token's until that gives it back; it may ask again; other keys are free."""
        one, two = await self.opened(), await self.opened()
        a, b = self.address("a"), self.address("b")
        assert await one.lease(a, b"1" * 16, 60)
        assert await one.lease(a, b"1" * 16, 60)
        assert not await two.lease(a, b"2" * 16, 60)
        assert await two.lease(b, b"2" * 16, 60)
        await two.release(a, b"2" * 16)
        assert not await two.lease(a, b"2" * 16, 60)
        await one.release(a, b"1" * 16)
        assert await two.lease(a, b"2" * 16, 60)
        await one.release(a, b"1" * 16)
        assert not await one.lease(a, b"1" * 16, 60)

    async def test_of_many_who_ask_at_once_one_gets_it(self) -> None:
        """Twenty tokens at the same moment: one holder."""
        one, two = await self.opened(), await self.opened()
        asked = [(one, two)[i % 2].lease(self.address("a"), bytes([i]) * 16, 60) for i in range(20)]
        assert sum(await asyncio.gather(*asked)) == 1

    async def test_a_lease_ends_by_itself(self) -> None:
        """A holder that never comes back loses it after its time, and cannot give away what it no longer has."""
        store = await self.opened()
        a = self.address("a")
        assert await store.lease(a, b"1" * 16, 0.2)
        await self.comes_about(lambda: store.lease(a, b"2" * 16, 60))
        await store.release(a, b"1" * 16)
        assert not await store.lease(a, b"1" * 16, 60)

    async def test_a_renewed_lease_lasts(self) -> None:
        """Asked for again by its holder it lasts from then on."""
        store = await self.opened()
        a = self.address("a")
        if not await store.lease(a, b"1" * 16, 5) or not await store.lease(a, b"1" * 16, 60):
            raise AssertionError("its own holder was refused")
        await asyncio.sleep(0.1)
        await store.sweep(1.0)
        assert not await store.lease(a, b"2" * 16, 60)

    async def test_a_lease_is_no_value(self) -> None:
        """The leased key has no value, and leases count as no entry."""
        store = await self.opened()
        assert await store.lease(self.address("a"), b"1" * 16, 60)
        assert await self.read(store, "a") is None
        await store.sweep(1.0)
        assert (await store.stats()).entries == 0
        assert await store.scan(10) == []


class BoundsContract(RemoteHouse):
    """Size, scan and figures."""

    async def test_a_sweep_brings_the_size_within_its_bound(self) -> None:
        """Overfilled four times, sweeps bring it within a tenth of its bound, count what went, and empty nothing."""
        store = await self.opened(capacity_bytes=self.small_bytes)
        dice, written, number = random.Random(2), 0, 0
        while written < 4 * self.small_bytes:
            batch = [
                self.put(f"k{number + i}", dice.randbytes(dice.choice((50, 500, 1500, 9000))), life_s=600 + i)
                for i in range(64)
            ]
            await self.commit(store, *batch)
            written += sum(len(change.envelope) for change in batch)
            number += len(batch)
        for _ in range(20):
            await store.sweep(0.5)
            if (await store.stats()).size_bytes <= self.small_bytes * 1.1:
                break
        stats = await store.stats()
        assert self.small_bytes * 0.5 < stats.size_bytes <= self.small_bytes * 1.1
        assert stats.evictions["size"] > 0
        found = await store.scan(100_000)
        assert 0.9 * stats.entries <= len(found) <= 1.1 * stats.entries
        assert sum(len(one.envelope) for one in found) <= self.small_bytes * 1.1

    async def test_a_sweep_within_bounds_takes_nothing(self) -> None:
        """Below its bound everything that lives stays, sweep after sweep."""
        store = await self.opened()
        await self.commit(store, *(self.put(f"k{i}", b"x" * 500, life_s=600) for i in range(300)))
        for _ in range(3):
            await store.sweep(0.5)
        assert await self.read_many(store, [f"k{i}" for i in range(300)]) == [b"x" * 500] * 300

    async def test_replacing_does_not_fill_it_up(self) -> None:
        """The space of replaced envelopes comes back: overwriting a few keys for long keeps them all."""
        store = await self.opened(capacity_bytes=self.small_bytes)
        for number in range(100):
            await self.commit(store, *(self.put(f"k{i}", bytes([number]) * 5000) for i in range(10)))
        await store.sweep(1.0)
        assert await self.read_many(store, [f"k{i}" for i in range(10)]) == [bytes([99]) * 5000] * 10

    async def test_a_scan_meets_the_living(self) -> None:
        """Each living envelope comes once, expired and removed ones do not, and never more than were asked for."""
        store = await self.opened()
        await self.commit(store, *(self.put(f"k{i}", b"%d" % i) for i in range(100)))
        await self.commit(store, self.put("old", b"old", life_s=0.1), Remove(self.address("k0")))
        await asyncio.sleep(0.2)
        await self.comes_about(lambda: self.none_of(store, ["old"]))
        found = [bytes(one.envelope) for one in await store.scan(1000)]
        sizes = {f"k{i}": self.envelope(self.address(f"k{i}"), b"%d" % i) for i in range(1, 100)}
        assert len(found) == len(set(found)) == len(sizes)
        assert {self.value(self.address(key), one) for key in sizes for one in found if self._is(key, one)} == {
            b"%d" % i for i in range(1, 100)
        }
        assert len(await store.scan(10)) == 10

    def _is(self, key: str, envelope: bytes) -> bool:
        return self.address(key).digest in envelope

    async def test_stats_are_counted(self) -> None:
        """Entries and bytes are right within a tenth after a sweep, for whoever asks; capacity is as it was said."""
        store = await self.opened()
        await self.commit(store, *(self.put(f"k{i}", bytes(1000)) for i in range(200)))
        await self.commit(store, *(Remove(self.address(f"k{i}")) for i in range(100)))
        await store.sweep(1.0)
        for one in (store, await self.opened()):
            stats = await one.stats()
            assert 90 <= stats.entries <= 110
            assert stats.size_bytes >= 90_000
            assert stats.capacity_bytes == self.capacity_bytes
            assert (stats.damaged, stats.rebuilt) == (0, 0)

    async def test_one_of_many_sweeps_at_once(self) -> None:
        """Sweeps of several stores at the same time spoil no books."""
        stores = [await self.opened(capacity_bytes=self.small_bytes) for _ in range(3)]
        await self.commit(stores[0], *(self.put(f"k{i}", bytes(3000), life_s=600) for i in range(800)))
        await asyncio.gather(*(store.sweep(0.3) for store in stores))
        assert await stores[0].check() == []

    async def test_an_operator_is_told(self) -> None:
        """The examination of a sound server finds no fault, and each finding is a sentence."""
        store = await self.opened()
        await self.commit(store, self.put("a", b"1"))
        findings = await store.diagnose()
        assert findings
        assert [one for one in findings if one.severity is Severity.FAULT] == []
        assert all(one.subject and one.sentence for one in findings)
        assert all(one.fix for one in findings if one.severity is not Severity.OK)


class ConnectionsContract(RemoteHouse):
    """Connections are lost, calls are given up: nobody ever gets another's answer."""

    async def test_reads_outlive_lost_connections(self) -> None:
        """When the server has ended all connections, reads come back by themselves without an error."""
        store = await self.opened()
        await self.commit(store, self.put("a", b"1"), self.put("b", b"2"))
        await asyncio.gather(*(self.read(store, "a") for _ in range(10)))
        await self.cut_connections()
        assert await asyncio.gather(*(self.read(store, "a") for _ in range(10))) == [b"1"] * 10
        await self.cut_connections()
        assert await self.read_many(store, ["a", "b"]) == [b"1", b"2"]

    async def test_changes_outlive_lost_connections(self) -> None:
        """After lost connections a change is an outage at most as often as there were connections, then works."""
        store = await self.opened()
        await self.commit(store, self.put("a", b"1"))
        known = await self.position(store)
        await self.cut_connections()
        await self.again(lambda: store.commit([self.put("a", b"2")], known.epoch))
        assert await self.read(store, "a") == b"2"

    async def test_a_follower_whose_connection_is_cut_misses_nothing(self) -> None:
        """Cut off in the middle of its wait, it is told of that or goes on; then it hears what was said meanwhile."""
        one, two = await self.opened(), await self.opened()
        known = await self.position(one)
        waiting = asyncio.ensure_future(one.follow(known, 1.0))
        await asyncio.sleep(0.05)
        await self.cut_connections()
        await self.again(lambda: two.commit([kill(Kind.TAG, "red")], known.epoch))
        with contextlib.suppress(Outage):
            assert await waiting is not None
        assert (await self.again(lambda: one.join(known))).position.epoch == known.epoch
        heard = await self.again(lambda: one.follow(known, 1.0))
        assert {notice.name for notice in heard or []} == {"red"}

    async def test_many_calls_at_once_each_get_their_own_answer(self) -> None:
        """More calls than connections, of every kind: they wait, and every answer is its own."""
        store = await self.opened()
        await self.commit(store, *(self.put(f"k{i}", b"%d" % i) for i in range(300)))

        async def read_one(i: int) -> bool:
            return await self.read(store, f"k{i}") == b"%d" % i

        async def read_some(i: int) -> bool:
            keys = [f"k{(i + j) % 300}" for j in range(7)]
            return await self.read_many(store, keys) == [key[1:].encode() for key in keys]

        async def write(i: int) -> bool:
            receipts = await self.commit(store, self.put(f"w{i}", b"%d" % i))
            return receipts[0].seq > 0 and await self.read(store, f"w{i}") == b"%d" % i

        work = [act(i) for i in range(300) for act in (read_one, read_some, write)]
        assert all(await asyncio.gather(*work))

    async def test_cancelled_at_any_moment_the_next_call_gets_its_own_answer(self) -> None:
        """A call given up after any number of steps leaves no answer behind for the next one."""
        store = await self.opened()
        await self.commit(store, *(self.put(f"k{i}", b"%d" % i) for i in range(_MOMENTS)))
        for steps in range(_MOMENTS):
            key = f"k{steps}"
            calls = [
                lambda: store.get(self.address("k0")),
                lambda: store.get_many([self.address(f"k{i}") for i in range(5)]),
                lambda: store.commit([self.put("c", b"1"), Remove(self.address("d"))], self._epochs[self.cache_name]),
                lambda: store.lease(self.address("l"), secrets.token_bytes(16), 1.0),
                lambda: store.follow(Position(self._epochs[self.cache_name], 0), 0.0),
                lambda: store.join(None),
                store.stats,
            ]
            for call in calls:
                await self._given_up(asyncio.ensure_future(call()), steps)
                assert await self.read(store, key) == b"%d" % steps
            assert await self.read_many(store, [key, "k1"]) == [b"%d" % steps, b"1"]
            assert len(await self.commit(store, self.put(f"n{steps}", b"1"), Remove(self.address("n")))) == 2

    async def test_a_storm_of_cancellations_mixes_nothing_up(self) -> None:
        """Half of 400 calls at once are given up at any moment; the other half get their own answers."""
        store = await self.opened()
        await self.commit(store, *(self.put(f"k{i}", b"%d" % i) for i in range(50)))
        dice = random.Random(4)

        async def one(number: int) -> None:
            call = asyncio.ensure_future(self.read(store, f"k{number % 50}"))
            if dice.random() < 0.5:
                await self._given_up(call, dice.randrange(20))
            else:
                assert await call == b"%d" % (number % 50)

        await asyncio.gather(*(one(number) for number in range(400)))
        assert await self.read_many(store, ["k1", "k2"]) == [b"1", b"2"]

    async def _given_up(self, call: "asyncio.Future[Any]", steps: int) -> None:
        for _ in range(steps):
            await asyncio.sleep(0)
        if steps % 3 == 2:
            await asyncio.sleep(steps * 2e-5)  # so that some are given up while the reply is on its way
        call.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await call

    async def test_a_forked_child_leaves_its_parents_connections_alone(self) -> None:
        """A child forgets what it inherited; the parent's next answers are its own."""
        store = await self.opened()
        await self.commit(store, self.put("a", b"1"))
        child = os.fork()
        if child == 0:
            try:
                store.forget()
            finally:
                os._exit(0)
        os.waitpid(child, 0)  # noqa: ASYNC222  # it ends at once
        assert await self.read(store, "a") == b"1"
        assert len(await self.commit(store, self.put("a", b"2"))) == 1
        assert await self.read(store, "a") == b"2"

    async def test_a_store_that_forgot_its_connections_makes_new_ones(self) -> None:
        """After `forget` the same object works again."""
        store = await self.opened()
        await self.commit(store, self.put("a", b"1"))
        store.forget()
        await store.open()
        assert await self.read(store, "a") == b"1"

    def test_a_store_may_be_forgotten_after_its_loop_has_ended(self) -> None:
        """A loop that ends without a close leaves connections that are dropped without a warning."""

        async def use() -> RemoteStore:
            store = self.make_store(f"contract-{secrets.token_hex(6)}", self.capacity_bytes, SystemClock())
            await store.open()
            await store.join(None)
            return store

        asyncio.run(use()).forget()
