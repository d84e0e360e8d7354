"""Keeping house in a PostgreSQL store: who is evicted, what stays to refuse late fills, how the log is trimmed."""

import asyncio
import math
import secrets
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest
import pytest_asyncio

from genesis_cache.codecs.codec import Codec
from genesis_cache.model.entry import Record
from genesis_cache.model.keys import Address, address_of, scope_of
from genesis_cache.model.settings import CacheSettings
from genesis_cache.testing.clock import FakeClock
from genesis_cache.testing.store_words import MB, kill
from genesis_cache.tiers.base import Change, Kind, Position, Put, Receipt, Remove
from genesis_cache.tiers.postgres import sweeping
from genesis_cache.tiers.postgres.schema import ROW_BYTES, cache_id
from genesis_cache.tiers.postgres.store import PostgresStore, postgres_store
from genesis_cache.tiers.remote_base import RemoteStore

codec = Codec(compression="off", max_bytes=64 * MB)


class House:
    """A store on the shared server under a name of its own, with a clock that is moved by hand."""

    def __init__(self, url: str, capacity_bytes: int) -> None:
        self.url = url
        self.name = f"house-{secrets.token_hex(6)}"
        self.clock = FakeClock()
        self.make = postgres_store(CacheSettings(database_url=url, cache_name=self.name), capacity_bytes, self.clock)
        self.store: RemoteStore = self.make()
        self.epoch = 0

    def address(self, key: str) -> Address:
        return address_of(scope_of(self.name), key)

    def put(
        self, key: str, size: int = 10, *, since: int | None = None, priority: int = 1, life_s: float = math.inf
    ) -> Put:
        address = self.address(key)
        envelope = codec.encode(Record(address, bytes(size), self.clock.wall(), 60.0, 1, 1))
        return Put(address, envelope, self.clock.wall() + life_s, since, None, priority)

    async def commit(self, *changes: Change) -> list[Receipt]:
        return (await self.store.commit(changes, self.epoch)).receipts

    async def position(self) -> Position:
        position = (await self.store.join(None)).position
        self.epoch = position.epoch
        return position

    async def there(self, *keys: str) -> list[str]:
        found = await self.store.get_many([self.address(key) for key in keys])
        return [key for key, one in zip(keys, found, strict=True) if one is not None]

    async def sql(self, text: str, *values: object) -> list[Any]:
        """A statement over this cache's rows; ``$1`` is its number."""
        connection: Any = await asyncpg.connect(self.url)
        try:
            rows: list[Any] = await connection.fetch(text, cache_id(self.name), *values)
        finally:
            await connection.close()
        return rows

    async def age(self, seconds: float) -> None:
        """Make all that was changed and told so much older."""
        for table, column in (("entries", "changed_at"), ("log", "at")):
            await self.sql(f"UPDATE genesis_cache.{table} SET {column} = {column} - $2 WHERE cache = $1", seconds)  # noqa: S608  # fixed words


@pytest_asyncio.fixture
async def house(postgres_url: str) -> AsyncIterator[House]:
    house = House(postgres_url, MB)
    await house.store.open()
    await house.position()
    yield house
    faults = await house.store.check()
    await house.store.close()
    assert not faults


async def test_the_largest_go_first(house: House) -> None:
    """Over its bound the store evicts large entries and keeps the small, down to 95% of the bound."""
    await house.commit(*(house.put(f"small{i}", 500) for i in range(500)))
    await house.commit(*(house.put(f"large{i}", 50_000) for i in range(20)))
    await house.store.sweep(1.0)
    stats = await house.store.stats()
    assert 0.85 * MB < stats.size_bytes <= 0.95 * MB
    assert len(await house.there(*(f"small{i}" for i in range(500)))) == 500
    assert stats.evictions["size"] == 520 - stats.entries


async def test_of_equal_size_the_useful_stay(house: House) -> None:
    """What was read is evicted after what never was, and CRITICAL entries after all others."""
    await house.commit(*(house.put(f"k{i}", 20_000, priority=1) for i in range(60)))
    await house.commit(*(house.put(f"c{i}", 30_000, priority=3) for i in range(5)))
    read = [f"k{i}" for i in range(0, 60, 3)]
    assert await house.there(*read) == read
    await house.store.sweep(1.0)
    assert await house.there(*read) == read
    assert len(await house.there(*(f"c{i}" for i in range(5)))) == 5
    assert len(await house.there(*(f"k{i}" for i in range(60)))) < 60


async def test_uses_are_noted_by_whichever_store_sweeps(house: House) -> None:
    """Reads of one event loop's store are written by the sweep of another's, made by the same factory."""
    await house.commit(house.put("a"), house.put("b"))
    await house.there("a")
    other = house.make()
    await other.sweep(1.0)
    await other.close()
    rows = await house.sql("SELECT digest, read FROM genesis_cache.entries WHERE cache = $1")
    assert dict(rows) == {
        house.address("a").digest: True,
        house.address("b").digest: False,
    }


async def test_expired_entries_go_by_the_callers_clock(house: House) -> None:
    """What is past its time by the clock that was given is swept and counted, in any number."""
    await house.commit(*(house.put(f"old{i}", life_s=5) for i in range(1200)), house.put("new", life_s=50))
    house.clock.advance(10)
    assert await house.store.sweep(5.0) == 1200
    stats = await house.store.stats()
    assert (stats.entries, stats.evictions["ttl"]) == (1, 1200)


async def test_what_refuses_a_fill_is_kept_as_long_as_a_load_may_live(house: House) -> None:
    """Swept or not, a removal refuses older fills; once its trace has gone, every fill from before it is refused."""
    since = (await house.position()).seq
    await house.commit(Remove(house.address("gone")), house.put("short", life_s=1))
    house.clock.advance(5)
    await house.store.sweep(1.0)
    traces = "SELECT digest FROM genesis_cache.entries WHERE cache = $1 AND gone_at IS NULL"
    assert len(await house.sql(traces)) == 2
    await house.age(400)
    await house.store.sweep(1.0)
    assert await house.sql(traces) == []
    receipts = await house.commit(house.put("gone", since=since), house.put("short", since=since))
    assert [receipt.refused for receipt in receipts] == [True, True]
    now = (await house.position()).seq
    assert not (await house.commit(house.put("gone", since=now)))[0].refused


async def test_an_eviction_revives_no_old_fill(house: House) -> None:
    """A set that was evicted for its size still refuses the fill of a load that began before it."""
    since = (await house.position()).seq
    await house.commit(*(house.put(f"k{i}", 100_000) for i in range(12)))
    await house.store.sweep(1.0)
    gone = sorted({f"k{i}" for i in range(12)} - set(await house.there(*(f"k{i}" for i in range(12)))))
    assert gone
    receipts = await house.commit(*(house.put(key, since=since) for key in gone))
    assert all(receipt.refused for receipt in receipts)


async def test_what_a_clear_killed_gives_its_space_back(house: House) -> None:
    """After a clear of everything the sweep takes the dead away, and fills that began before it are refused."""
    since = (await house.position()).seq
    await house.commit(*(house.put(f"old{i}") for i in range(700)))
    await house.commit(kill(Kind.CLEAR, namespace=""))
    await house.commit(*(house.put(f"new{i}") for i in range(50)))
    assert (await house.commit(house.put("late", since=since)))[0].refused
    assert await house.store.sweep(5.0) == 700
    assert (await house.store.stats()).entries == 50
    assert await house.store.sweep(1.0) == 0


async def test_the_log_is_trimmed_by_number_and_age(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """Old messages beyond the number that is kept go; whoever stands before them is told of the gap."""
    monkeypatch.setattr(sweeping, "KEPT_MESSAGES", 5)
    start = await house.position()
    for i in range(20):
        await house.commit(kill(Kind.TAG, f"t{i}"))
    await house.store.sweep(1.0)
    assert len(await house.store.follow(start, 0.0) or []) == 20
    await house.age(1000)
    await house.store.sweep(1.0)
    assert await house.store.follow(start, 0.0) is None
    kept = await house.store.follow(Position(start.epoch, start.seq + 15), 0.0)
    assert [notice.name for notice in kept or []] == [f"t{i}" for i in range(15, 20)]
    assert len((await house.store.join(None)).floors) == 20


async def test_too_many_floors_become_one_that_kills_everything(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """The number of floors is bounded: the older are replaced by a clear, which kills no less."""
    monkeypatch.setattr(sweeping, "MAX_FLOORS", 10)
    receipts = [(await house.commit(kill(Kind.TAG, f"t{i}")))[0] for i in range(30)]
    await house.store.sweep(1.0)
    floors = (await house.store.join(None)).floors
    assert len(floors) <= 10
    clear = next(notice for notice in floors if notice.kind is Kind.CLEAR)
    kept = {notice.name for notice in floors if notice.kind is Kind.TAG}
    assert {f"t{i}" for i, receipt in enumerate(receipts) if receipt.seq > clear.seq} == kept


async def test_one_process_sweeps_at_a_time(house: House) -> None:
    """While another holds the sweep's lock nothing is swept; afterwards it is."""
    await house.commit(*(house.put(f"k{i}", life_s=1) for i in range(10)))
    house.clock.advance(5)
    connection: Any = await asyncpg.connect(house.url)
    try:
        async with connection.transaction():
            await connection.execute("SELECT pg_advisory_xact_lock($1)", cache_id(house.name))
            assert await house.store.sweep(1.0) == 0
    finally:
        await connection.close()
    assert await house.store.sweep(1.0) == 10


async def test_a_check_finds_what_is_wrong(house: House) -> None:
    """Damaged or exchanged envelopes and books that do not add up are each a sentence."""
    await house.commit(house.put("a"), house.put("b"))
    change = "UPDATE genesis_cache.entries SET envelope = set_byte(envelope, 160, 7) WHERE cache = $1 AND digest = $2"
    await house.sql(change, house.address("a").digest)
    await house.sql("UPDATE genesis_cache.control SET entries = entries + 1, floors = 3 WHERE cache = $1")
    faults = await house.store.check()
    assert len(faults) == 3
    assert any("entries" in fault for fault in faults)
    assert any("damaged" in fault for fault in faults)
    await house.sql("DELETE FROM genesis_cache.entries WHERE cache = $1")
    await house.sql("UPDATE genesis_cache.control SET entries = 0, bytes = 0, floors = 0 WHERE cache = $1")


async def test_lost_floors_begin_a_new_log(house: House) -> None:
    """Where the floors are not all there, nobody may trust an older entry: whoever joins begins a new log."""
    known = await house.position()
    await house.commit(kill(Kind.TAG, "red"), kill(Kind.TAG, "blue"))
    await house.sql("DELETE FROM genesis_cache.floors WHERE cache = $1")
    assert (await house.position()).epoch != known.epoch
    assert (await house.store.join(known)).floors == []


async def test_a_row_counts_what_it_takes(house: House) -> None:
    """The figures are those of the envelopes and a fixed size for each row, exact after every change."""
    puts = [house.put(f"k{i}", 100 * i) for i in range(20)]
    await house.commit(*puts, Remove(house.address("k3")))
    stats = await house.store.stats()
    kept = [put for put in puts if put.address.key != "k3"]
    assert stats.size_bytes == sum(len(put.envelope) + ROW_BYTES for put in kept)
    assert isinstance(house.store, PostgresStore)


async def test_many_stores_write_at_once_and_the_books_are_exact(house: House) -> None:
    """Sets, removals, fills and sweeps of four stores at the same time leave books that add up."""
    stores = [house.make() for _ in range(4)]

    async def work(number: int, store: RemoteStore) -> None:
        for turn in range(12):
            changes: list[Change] = [house.put(f"k{(turn * 7 + i * number) % 40}", i * 500) for i in range(12)]
            changes += [Remove(house.address(f"k{turn}")), house.put(f"f{number}", since=(await house.position()).seq)]
            await store.commit(changes, house.epoch)
            await store.sweep(0.01)

    try:
        await asyncio.gather(*(work(number, store) for number, store in enumerate(stores)))
    finally:
        for store in stores:
            await store.close()
    assert await house.store.check() == []
