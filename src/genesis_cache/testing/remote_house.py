"""What tests of remote stores stand on: stores that are open until the test ends, and their verbs in few words."""

import asyncio
import secrets
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import ClassVar, TypeVar

import pytest_asyncio

from genesis_cache.codecs.codec import Codec
from genesis_cache.model.clock import Clock, SystemClock
from genesis_cache.model.entry import Record
from genesis_cache.model.keys import Address, address_of, scope_of
from genesis_cache.testing.store_words import MB, NEVER
from genesis_cache.tiers.base import Change, Kind, Notice, Position, Put, Receipt
from genesis_cache.tiers.remote_base import Outage, RemoteStore

PATIENCE_S = 10.0  # for what must come about, however slow the machine

Result = TypeVar("Result")

_codec = Codec(compression="off", max_bytes=64 * MB)


class RemoteHouse(ABC):
    """The server under test, and the stores that a test has opened there; closed and checked when it is over."""

    capacity_bytes: ClassVar[int] = 64 * MB
    small_bytes: ClassVar[int] = 1 * MB
    """A bound for the tests that fill the store."""

    @abstractmethod
    def make_store(self, cache_name: str, capacity_bytes: int, clock: Clock) -> RemoteStore:
        """A new store of this event loop, not yet open."""

    @abstractmethod
    async def lose_everything(self) -> None:
        """Have the server lose all that it holds, and serve on, or again, at the same place."""

    @abstractmethod
    async def save(self) -> None:
        """Have the server keep what it holds now."""

    @abstractmethod
    async def set_back(self) -> None:
        """Have the server hold again what it held at `save`, as after a restored backup."""

    @abstractmethod
    async def cut_connections(self) -> None:
        """Have the server end every connection to it."""

    @abstractmethod
    async def trim_log(self, cache_name: str) -> None:
        """Have the server's log of a cache forget all but its newest message, as when it has grown too long."""

    @pytest_asyncio.fixture(autouse=True)
    async def _begin_and_check(self) -> AsyncIterator[None]:
        self.clock = SystemClock()
        self.cache_name = f"contract-{secrets.token_hex(6)}"
        self._stores: dict[str, list[RemoteStore]] = {}
        self._epochs: dict[str, int] = {}
        yield
        faults = []
        try:
            for stores in self._stores.values():
                await self.again(lambda store=stores[-1]: store.join(None))  # type: ignore[misc]  # bound at once
                faults += await stores[-1].check()
        finally:
            for stores in self._stores.values():
                for store in stores:
                    await store.close()
        assert not faults

    async def opened(self, cache_name: str | None = None, capacity_bytes: int | None = None) -> RemoteStore:
        """A store that is open, and has joined its log, until the test ends."""
        name = cache_name or self.cache_name
        store = self.make_store(name, capacity_bytes or self.capacity_bytes, self.clock)
        self._stores.setdefault(name, []).append(store)
        await store.open()
        self._epochs[name] = (await store.join(None)).position.epoch
        return store

    # -- words --------------------------------------------------------------------------------------------------

    def address(self, key: str, owner: str | None = None, cache_name: str | None = None) -> Address:
        """An address in the namespace of these tests."""
        return address_of(scope_of(cache_name or self.cache_name, "shop", owner), key)

    def envelope(self, address: Address, value: bytes, version: int | None = None) -> bytes:
        """A whole and sound envelope of an address."""
        record = Record(address, value, self.clock.wall(), 60.0, 1, 1)
        record.version = version
        return _codec.encode(record)

    def put(self, key: str, value: bytes, since: int | None = None, life_s: float = NEVER) -> Put:
        """A set, or a fill where ``since`` is given."""
        return self.put_at(self.address(key), value, since, life_s)

    def put_at(self, address: Address, value: bytes, since: int | None = None, life_s: float = NEVER) -> Put:
        """As `put`, of an address."""
        return Put(address, self.envelope(address, value), self.clock.wall() + life_s, since)

    def put_version(self, key: str, version: int, since: int | None = None, life_s: float = NEVER) -> Put:
        """A set or fill with a version, which is its value too."""
        address = self.address(key)
        envelope = self.envelope(address, b"%d" % version, version)
        return Put(address, envelope, self.clock.wall() + life_s, since, version)

    async def commit(self, store: RemoteStore, *changes: Change) -> list[Receipt]:
        """Apply a batch under the epoch that was joined."""
        return (await store.commit(changes, self._epochs[self.cache_name])).receipts

    async def read(self, store: RemoteStore, key: str) -> bytes | None:
        """The value of a key."""
        address = self.address(key)
        return self.value(address, await store.get(address))

    async def read_many(self, store: RemoteStore, keys: Sequence[str]) -> list[bytes | None]:
        """The values of keys."""
        addresses = [self.address(key) for key in keys]
        found = await store.get_many(addresses)
        assert len(found) == len(addresses)
        return [self.value(address, envelope) for address, envelope in zip(addresses, found, strict=True)]

    def value(self, address: Address, envelope: bytes | memoryview | None) -> bytes | None:
        """The value in an envelope, which must be the address's own."""
        if envelope is None:
            return None
        record = _codec.decode(envelope, address)
        assert record is not None, f"the answer for {address.key!r} is not its envelope"
        assert isinstance(record.value, bytes)
        return record.value

    async def position(self, store: RemoteStore) -> Position:
        """The log's end."""
        return (await store.join(None)).position

    async def heard(self, store: RemoteStore, after: Position, count: int) -> list[Notice]:
        """The next so many notices after a position, however many steps they come in."""
        found: list[Notice] = []
        end = time.monotonic() + PATIENCE_S
        while len(found) < count and time.monotonic() < end:
            more = await store.follow(after, 1.0)
            assert more is not None, f"the log says that it no longer reaches back to {after}"
            if more:
                found += more
                after = Position(after.epoch, more[-1].seq)
        return found

    async def none_of(self, store: RemoteStore, keys: list[str]) -> bool:
        """Whether none of these is found."""
        return not any(await self.read_many(store, keys))

    async def comes_about(self, condition: Callable[[], Awaitable[bool]]) -> None:
        """Wait for something that a server does in its own time."""
        end = time.monotonic() + PATIENCE_S
        while not await condition():
            assert time.monotonic() < end, "it never came about"
            await asyncio.sleep(0.02)

    async def again(self, act: Callable[[], Awaitable[Result]]) -> Result:
        """What a call gives after its outages: each lost connection may tell of itself once."""
        end = time.monotonic() + PATIENCE_S
        while True:
            try:
                return await act()
            except Outage:
                assert time.monotonic() < end, "the outage never ended"
                await asyncio.sleep(0.02)


def told(notice: Notice) -> tuple[Kind, str, str | None, str]:
    """What a notice kills."""
    return notice.kind, notice.namespace, notice.owner, notice.name
