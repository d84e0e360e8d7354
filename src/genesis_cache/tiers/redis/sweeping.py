"""The size of what is stored, measured and held: walks over the keys in small steps with pauses between.

The server drops what expires. What is left is measured, and where it is more than allowed, those that would expire
first go until 95% are left. Sizes are the server's own (MEMORY USAGE), which unlike reading a length does not make an
entry look used. Only one process at a time walks.
"""

import asyncio
import math
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence

from genesis_cache.model.clock import Clock
from genesis_cache.tiers.base import StoreStats
from genesis_cache.tiers.redis.connection import pack
from genesis_cache.tiers.redis.names import Names
from genesis_cache.tiers.redis.outage import ReplyError
from genesis_cache.tiers.redis.scripts import EVICT, LEASE, NOTE, PRUNE, RELEASE
from genesis_cache.tiers.redis.server import Endpoint, Server

ENTRY_BYTES = 160  # of a server's memory for an entry beyond its value: key, table entries, object, expiry

_KEYS_A_STEP = 500
_LEAST_PAUSE_S = 0.001
_FILL_SHARE = 0.95
_STEPS_PER_OCTAVE = 16  # of the times to live by which entries are told apart
_LEASE_MS = 30_000
_LONGEST_LEFT_MS = 2**52
_FLOOR_LIFE_MS = 31 * 24 * 3600 * 1000  # a day more than any value's
_MOST_FLOORS = 65_536
_STAMP_SEQ = 8

Nodes = Callable[[], Awaitable[Sequence[Server]]]
"""The servers that have values, as they are now."""
Met = tuple[bytes, int, int]
"""A key that a walk met: its name, its bytes of memory, its milliseconds left."""


class Walk:
    """One way through all values of a cache, a step at a time; what comes or goes meanwhile may be met or not."""

    __slots__ = ("_cursor", "_names", "_nodes", "node")

    def __init__(self, nodes: Sequence[Server], names: Names) -> None:
        self._nodes = list(nodes)
        self._names = names
        self._cursor = "0"
        self.node = self._nodes[0]
        """The server that the last step was made on."""

    @property
    def is_over(self) -> bool:
        """Whether everything was met."""
        return not self._nodes

    async def step(self, keys_a_step: int = _KEYS_A_STEP) -> list[bytes]:
        """The keys of the next step: none, some, or a few more than asked for."""
        self.node = self._nodes[0]
        scan = pack(("SCAN", self._cursor, "MATCH", self._names.pattern, "COUNT", str(keys_a_step)))
        cursor, keys = self.node.checked(await self.node.read(scan))
        self._cursor = bytes(cursor).decode()
        if self._cursor == "0":
            self._nodes.pop(0)
        return [key for key in dict.fromkeys(keys) if self._names.is_value(key)]


async def measured(node: Server, keys: Sequence[bytes]) -> list[Met]:
    """The memory and the time left of keys; those that went meanwhile are left out."""
    if not keys:
        return []
    asked = [pack(("MEMORY", "USAGE", key, "SAMPLES", "0")) for key in keys]
    replies = await node.batch(asked + [pack(("PTTL", key)) for key in keys])
    if isinstance(replies[0], ReplyError):  # a server that does not tell: by the length, which makes it look used
        replies[: len(keys)] = [
            length + ENTRY_BYTES for length in await node.batch([pack(("STRLEN", key)) for key in keys])
        ]
    sizes, lives = replies[: len(keys)], replies[len(keys) :]
    return [
        (key, node.checked(size), node.checked(left) if left >= 0 else _LONGEST_LEFT_MS)
        for key, size, left in zip(keys, sizes, lives, strict=True)
        if size is not None
    ]


async def note(server: Endpoint, names: Names, verb: str, numbers: Mapping[str, int]) -> None:
    """Set numbers of the books (``HSET``) or move them (``HINCRBY``), whether the server has room or not."""
    said = [part for field, number in numbers.items() for part in (field, str(number))]
    await server.run(NOTE, [names.control, names.nothing], [verb, *said])


class Sweeper:
    """One process's part in keeping a cache within its bound; it goes on where the last call ended."""

    __slots__ = (
        "_bytes", "_capacity_bytes", "_clock", "_entries", "_excess", "_longest_ms", "_names", "_nodes", "_server",
        "_spread", "_token", "_walk",
    )  # fmt: skip

    def __init__(self, server: Endpoint, nodes: Nodes, names: Names, capacity_bytes: int, clock: Clock) -> None:
        self._server = server
        self._nodes = nodes
        self._names = names
        self._capacity_bytes = capacity_bytes
        self._clock = clock
        self._token = secrets.token_bytes(16)
        self._walk: Walk | None = None
        self._entries = self._bytes = 0
        self._spread: dict[int, int] = {}
        self._excess = 0.0
        self._longest_ms = 0

    async def stats(self) -> StoreStats:
        """The figures by the books, which a walk sets right and every change moves."""
        fields = pack(("HMGET", self._names.control, "entries", "bytes", "evicted"))
        noted = self._server.checked(await self._server.read(fields))
        entries, size, evicted = (int(number or 0) for number in noted)
        entries = max(0, entries)
        return StoreStats(
            entries=entries,
            size_bytes=max(0, size + entries * ENTRY_BYTES),
            capacity_bytes=self._capacity_bytes,
            evictions={"size": evicted} if evicted else {},
        )

    async def sweep(self, budget_s: float) -> int:
        """As `RemoteStore.sweep`."""
        loop = asyncio.get_running_loop()
        end = loop.time() + budget_s
        if not await self._server.run(
            LEASE, [self._names.sweeper], [self._token, str(_LEASE_MS + int(budget_s * 1000))]
        ):
            return 0
        gone = 0
        while True:
            began = loop.time()
            gone += await self._step()
            if self._walk is None or loop.time() >= end:
                break
            await asyncio.sleep(max(_LEAST_PAUSE_S, loop.time() - began))
        await self._server.run(RELEASE, [self._names.sweeper], [self._token])
        return gone

    async def _step(self) -> int:
        if self._walk is None:
            await self._begin()
        walk = self._walk
        assert walk is not None  # noqa: S101  # it was begun just now
        met = await measured(walk.node, keys) if (keys := await walk.step()) else []
        gone = await self._evict(walk.node, met) if self._excess > 0 else self._note(met)
        if walk.is_over or (gone and self._excess <= 0):
            await self._end(was_evicting=self._excess > 0 or gone > 0)
        return gone

    # -- measuring ----------------------------------------------------------------------------------------------

    async def _begin(self) -> None:
        self._walk = Walk(await self._nodes(), self._names)
        self._entries = self._bytes = 0
        self._spread = {}

    def _note(self, met: Sequence[Met]) -> int:
        self._entries += len(met)
        for _, size, left_ms in met:
            self._bytes += size
            step = _step_of(left_ms)
            self._spread[step] = self._spread.get(step, 0) + size
        return 0

    async def _end(self, *, was_evicting: bool) -> None:
        """After a walk: note what it found, and begin the next where something has to go."""
        self._walk = None
        if was_evicting:
            self._excess = 0.0
            return
        size = self._bytes - self._entries * ENTRY_BYTES
        await note(self._server, self._names, "HSET", {"entries": self._entries, "bytes": size})
        await self._prune_floors()
        if self._bytes > self._capacity_bytes:
            self._excess = self._bytes - _FILL_SHARE * self._capacity_bytes
            self._longest_ms = _threshold(self._spread, self._excess)
            self._walk = Walk(await self._nodes(), self._names)

    # -- evicting -----------------------------------------------------------------------------------------------

    async def _evict(self, node: Server, met: Sequence[Met]) -> int:
        """Delete those of a step that would expire first, until enough have gone."""
        chosen = []
        left = self._excess
        for one in sorted(met, key=lambda one: one[2]):
            if left <= 0 or one[2] > self._longest_ms:
                break
            chosen.append(one)
            left -= one[1]
        gone = freed = 0
        for shard in {self._names.shard_of_key(key) for key, _, _ in chosen}:
            of_shard = [one for one in chosen if self._names.shard_of_key(one[0]) == shard]
            places = await node.run(
                EVICT, [key for key, _, _ in of_shard], [str(left_ms) for _, _, left_ms in of_shard]
            )
            gone += len(places)
            freed += sum(of_shard[place][1] for place in places)
        if gone:
            self._excess -= freed
            moves = {"entries": -gone, "bytes": gone * ENTRY_BYTES - freed, "evicted": gone}
            await note(self._server, self._names, "HINCRBY", moves)
        return gone

    # -- floors -------------------------------------------------------------------------------------------------

    async def _prune_floors(self) -> None:
        """Forget floors that nothing stored can be older than; of far too many let one CLEAR stand for the oldest."""
        epoch = self._server.checked(await self._server.read(pack(("HGET", self._names.control, "epoch"))))
        floors = [floor async for floor in self._floors()]
        oldest_ms = self._clock.wall() * 1000 - _FLOOR_LIFE_MS
        outlived = [one for one in floors if int.from_bytes(one[1][_STAMP_SEQ:], "big") < oldest_ms]
        await self._prune(epoch, outlived, 0)
        alive = sorted(set(floors) - set(outlived), key=lambda one: one[1])
        if len(alive) > _MOST_FLOORS:
            merged = alive[: len(alive) - _MOST_FLOORS // 2]
            await self._prune(epoch, merged, int.from_bytes(merged[-1][1][:_STAMP_SEQ], "big"))

    async def _floors(self) -> AsyncIterator[tuple[bytes, bytes]]:
        cursor = "0"
        while True:
            scan = pack(("HSCAN", self._names.floors, cursor, "COUNT", str(_KEYS_A_STEP)))
            told, pairs = self._server.checked(await self._server.read(scan))
            for pair in zip(pairs[::2], pairs[1::2], strict=True):
                yield pair
            cursor = bytes(told).decode()
            if cursor == "0":
                return
            await asyncio.sleep(_LEAST_PAUSE_S)

    async def _prune(self, epoch: bytes | None, floors: Sequence[tuple[bytes, bytes]], cleared: int) -> None:
        for start in range(0, len(floors), _KEYS_A_STEP):
            some = [part for floor in floors[start : start + _KEYS_A_STEP] for part in floor]
            keys = [self._names.control, self._names.floors]
            await self._server.run(PRUNE, keys, [epoch or b"", str(cleared), *some])
            await asyncio.sleep(_LEAST_PAUSE_S)


def _step_of(left_ms: int) -> int:
    return int(math.log2(max(left_ms, 1)) * _STEPS_PER_OCTAVE)


def _threshold(spread: dict[int, int], excess: float) -> int:
    """The time left, in milliseconds, up to which entries have to go to free so many bytes."""
    for step in sorted(spread):
        excess -= spread[step]
        if excess <= 0:
            return math.ceil(2 ** ((step + 1) / _STEPS_PER_OCTAVE))
    return _LONGEST_LEFT_MS
