"""A small server for tests of the tier over a server: real semantics in memory, and answers that can be held back."""

import asyncio
import contextlib
import itertools
import struct
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from genesis_cache.codecs.envelope import FORMAT, HEADER, LEAD_BYTES, MAGIC, NO_KEY, with_checksum
from genesis_cache.model.clock import SystemClock
from genesis_cache.model.finding import Finding, Severity
from genesis_cache.model.keys import Address, address_of, scope_of
from genesis_cache.model.notice import Kind, Notice, Position
from genesis_cache.tiers.base import Change, Drop, Found, Kill, Put, Receipt, Remove, StoreStats
from genesis_cache.tiers.remote import RemoteTier
from genesis_cache.tiers.remote_base import Committed, Joined, Outage
from genesis_cache.tiers.remote_line import NOWHERE

SCOPE = scope_of("unit", "shop")


def where(key: str) -> Address:
    """An address of these tests."""
    return address_of(SCOPE, key)


def envelope(key: str, payload: bytes = b"") -> bytes:
    """A sound envelope of a key, with bytes of the test's own as payload."""
    address = where(key)
    names = address.scope.prefix + key.encode()
    lengths = struct.pack("<II2Q", len(names), 0, len(payload), len(payload))
    header = HEADER.pack(
        MAGIC, 0, FORMAT, 0, 0, 1, 0, 0.0, 0.0, 0.0, 0.0, 0.0, 0, 0, 0, address.digest, NO_KEY, 0, 0, 0, 0
    )
    front = header[LEAD_BYTES : HEADER.size - len(lengths)] + lengths + names
    return with_checksum(front, payload)


@dataclass
class Server:
    """What all event loops of all processes would share, with a switch for each thing that can go wrong."""

    values: dict[bytes, bytes] = field(default_factory=dict)
    changed: dict[bytes, int] = field(default_factory=dict)
    log: list[Notice] = field(default_factory=list)
    kept_after: int = 0
    epoch: int = 7
    seq: int = 0
    leases: dict[bytes, bytes] = field(default_factory=dict)
    fails: dict[str, Exception] = field(default_factory=dict)
    """By verb: what it raises."""
    held: set[str] = field(default_factory=set)
    """Verbs whose answers are held back."""
    asked: list[tuple[str, object]] = field(default_factory=list)
    stores: list["HeldStore"] = field(default_factory=list)
    guard: threading.RLock = field(default_factory=threading.RLock)
    waiting: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = field(default_factory=list)

    def hold(self, *verbs: str) -> None:
        """Answer these verbs no more."""
        with self.guard:
            self.held |= set(verbs)

    def let_go(self) -> None:
        """Answer what was held back."""
        with self.guard:
            self.held.clear()
            self.wake()

    def wake(self) -> None:
        """Let everybody look again who waits for something of this server."""
        with self.guard:
            waiting, self.waiting = self.waiting, []
        for loop, event in waiting:
            if not loop.is_closed():
                loop.call_soon_threadsafe(event.set)

    def fail(self, sentence: str, *verbs: str) -> None:
        """Refuse these verbs."""
        with self.guard:
            self.fails.update(dict.fromkeys(verbs, Outage(sentence)))

    def mend(self) -> None:
        """Refuse nothing."""
        with self.guard:
            self.fails.clear()

    def times(self, verb: str) -> int:
        """How often a verb was asked."""
        with self.guard:
            return sum(one == verb for one, _ in self.asked)

    def replace(self, epoch: int) -> None:
        """Another log, and nothing stored."""
        with self.guard:
            self.epoch, self.seq, self.kept_after = epoch, 0, 0
            self.values.clear()
            self.changed.clear()
            self.log.clear()
            self.wake()

    def tell(self, notice: Notice) -> int:
        """A change of another process."""
        with self.guard:
            self.seq += 1
            self.log.append(Notice(notice.kind, notice.namespace, notice.owner, notice.name, self.seq))
            self.wake()
            return self.seq

    def apply(self, changes: Sequence[Change], epoch: int) -> list[Receipt]:
        """As `RemoteStore.commit`."""
        return [self._one(change, epoch) for change in changes]

    def _one(self, change: Change, epoch: int) -> Receipt:
        if isinstance(change, Kill):
            return Receipt(self.tell(change.notice))
        digest = change.address.digest
        if isinstance(change, Drop):
            self.values.pop(digest, None)
            return Receipt()
        if isinstance(change, Put) and change.since is not None:
            if epoch != self.epoch or self.changed.get(digest, 0) > change.since:
                return Receipt(refused=True)
            self.values[digest] = change.envelope
            return Receipt()
        scope = change.address.scope
        seq = self.changed[digest] = self.tell(Notice(Kind.KEY, scope.namespace, scope.owner, change.address.key))
        if isinstance(change, Remove):
            self.values.pop(digest, None)
        else:
            self.values[digest] = change.envelope
        return Receipt(seq)


class HeldStore:
    """A `RemoteStore` over a `Server`."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.is_open = self.is_closed = self.is_forgotten = False
        self.cancelled = 0
        server.stores.append(self)

    async def _ask(self, verb: str, about: object = None) -> None:
        """Note what is asked; wait while its answer is held back; refuse it if that is what the server does."""
        server = self.server
        if about == NOWHERE.key:  # what is asked when a tier opens
            return
        with server.guard:
            server.asked.append((verb, about))
        while verb in server.held:
            await self._wait()
        with server.guard:
            if (error := server.fails.get(verb)) is not None:
                raise error

    async def _wait(self, wait_s: float | None = None) -> None:
        event = asyncio.Event()
        with self.server.guard:
            self.server.waiting.append((asyncio.get_running_loop(), event))
        try:
            async with asyncio.timeout(wait_s):
                await event.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise

    async def open(self) -> None:
        await self._ask("open")
        self.is_open = True

    async def close(self) -> None:
        self.is_closed = True

    def forget(self) -> None:
        self.is_forgotten = True

    async def get(self, address: Address) -> bytes | None:
        await self._ask("get", address.key)
        return self.server.values.get(address.digest)

    async def get_many(self, addresses: Sequence[Address]) -> list[bytes | None]:
        await self._ask("get_many", [address.key for address in addresses])
        return [self.server.values.get(address.digest) for address in addresses]

    async def commit(self, changes: Sequence[Change], epoch: int) -> Committed:
        await self._ask("commit", list(changes))
        if any(isinstance(change, Put) for change in changes):
            await self._ask("commit of a value")
        with self.server.guard:
            return Committed(self.server.epoch, self.server.apply(changes, epoch))

    async def lease(self, address: Address, token: bytes, ttl_s: float) -> bool:
        await self._ask("lease", address.key)
        with self.server.guard:
            return self.server.leases.setdefault(address.digest, token) == token

    async def release(self, address: Address, token: bytes) -> None:
        await self._ask("release", address.key)
        with self.server.guard:
            if self.server.leases.get(address.digest) == token:
                del self.server.leases[address.digest]

    async def join(self, known: Position | None) -> Joined:
        await self._ask("join", known)
        with self.server.guard:
            floors = [notice for notice in self.server.log if notice.kind is not Kind.KEY]
            return Joined(Position(self.server.epoch, self.server.seq), floors)

    async def follow(self, after: Position, wait_s: float) -> list[Notice] | None:
        await self._ask("follow", after)
        for last in (False, True):
            with self.server.guard:
                if after.epoch != self.server.epoch or after.seq < self.server.kept_after:
                    return None
                news = [notice for notice in self.server.log if notice.seq > after.seq]
            if news or last:
                return news
            try:
                await self._wait(wait_s)
            except TimeoutError:
                continue
        return None

    async def sweep(self, budget_s: float) -> int:
        await self._ask("sweep")
        return 3

    async def scan(self, limit: int) -> list[Found]:
        await self._ask("scan")
        return [Found(value, used=True) for value in itertools.islice(self.server.values.values(), limit)]

    async def stats(self) -> StoreStats:
        await self._ask("stats")
        return StoreStats(entries=len(self.server.values), size_bytes=sum(map(len, self.server.values.values())))

    async def check(self) -> list[str]:
        return []

    async def diagnose(self) -> list[Finding]:
        await self._ask("diagnose")
        return [Finding("server: use", Severity.OK, "it answers")]


async def until(holds: Callable[[], object], patience_s: float = 10.0) -> None:
    """Wait until something holds that another thread or a callback brings about."""
    async with asyncio.timeout(patience_s):
        while not holds():  # noqa: ASYNC110  # what is waited for has no event of its own
            await asyncio.sleep(0.002)


async def ticks(count: int = 5) -> None:
    """Let the event loop turn."""
    for _ in range(count):
        await asyncio.sleep(0)


async def both(*waits: Awaitable[object]) -> list[object]:
    """What several awaitables give."""
    return [await wait for wait in waits]


def tier_over(server: Server, budget_s: float = 30.0, timeout_s: float = 30.0, **more: Any) -> RemoteTier:
    """A tier over a server, with times that never pass unless a test says so."""
    return RemoteTier(
        lambda: HeldStore(server),
        kind="redis",
        capacity_bytes=1024,
        clock=more.pop("clock", None) or SystemClock(),
        budget_s=budget_s,
        timeout_s=timeout_s,
        **{"follow_s": 0.02, **more},
    )


@contextlib.asynccontextmanager
async def opened(
    server: Server, budget_s: float = 30.0, timeout_s: float = 30.0, **more: Any
) -> AsyncIterator[RemoteTier]:
    """An open tier, whose books must be right in the end."""
    tier = tier_over(server, budget_s, timeout_s, **more)
    await tier.open()
    try:
        yield tier
        assert tier.check() == []
    finally:
        server.mend()
        server.let_go()
        await tier.close()
