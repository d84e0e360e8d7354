"""The size of what is stored, measured and held: walks over the keys in small steps with pauses between.

The server drops what expires. What is left is measured, and where it is more than allowed, those that would expire
first go until 95% are left. Sizes are the server's own (MEMORY USAGE), which unlike reading a length does not make an
entry look used. Only one process at a time walks. While the size is within its bound a sweep measures a part and leaves
the rest to the next; where it is not, a sweep lasts until it is.
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
_RENEW_S = 10.0
_MEASURING_S = 2.0  # of a sweep at least, so that a large cache is measured within some dozens of them
_ROUNDS = 4  # of measuring and evicting in one sweep, where others write faster than the size comes down
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
        "_began_at", "_bytes", "_capacity_bytes", "_clock", "_entries", "_excess", "_is_sweeping", "_is_whole",
        "_last_step", "_names", "_nodes", "_of_last", "_server", "_spread", "_token", "_walk",
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
        self._last_step, self._of_last = 0, 0.0
        self._began_at = 0.0
        self._is_sweeping = False
        self._is_whole = False  # whether this walk was begun by this sweep, so that what it finds is of now

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
        """As `RemoteStore.sweep`; past the budget where the size has to come down, for as long as that takes."""
        if self._is_sweeping or not await self._is_mine():
            return 0
        self._is_sweeping = True
        try:
            gone = await self._sweep(max(budget_s, _MEASURING_S))
        except BaseException:
            self._stop()  # its cursor may be of a server that is no more
            raise
        finally:
            self._is_sweeping = False
        await self._server.run(RELEASE, [self._names.sweeper], [self._token])
        return gone

    async def _sweep(self, measuring_s: float) -> int:
        loop = asyncio.get_running_loop()
        end, renew_at = loop.time() + measuring_s, loop.time() + _RENEW_S
        self._is_whole = False
        is_over = await self._is_over()
        if is_over or self._excess > 0:
            self._stop()
        gone = rounds = 0
        while rounds < _ROUNDS and (is_over or loop.time() < end):
            began = loop.time()
            gone += await self._step()
            if self._walk is None:  # everything was met, and has gone where it had to
                is_over = await self._is_over()
                if not is_over:
                    break
                rounds += 1
            elif self._excess > 0 or self._bytes > self._capacity_bytes:
                is_over = True
            await asyncio.sleep(max(_LEAST_PAUSE_S, loop.time() - began))
            if loop.time() >= renew_at:
                if not await self._is_mine():
                    break  # it took so long that another process is at it
                renew_at = loop.time() + _RENEW_S
        return gone

    def _stop(self) -> None:
        self._walk = None
        self._excess = 0.0

    async def _is_mine(self) -> bool:
        """Whether this process is, or stays, the one that sweeps."""
        return bool(await self._server.run(LEASE, [self._names.sweeper], [self._token, str(_LEASE_MS)]))

    async def _is_over(self) -> bool:
        """Whether the size is above its bound, by the books."""
        return (await self.stats()).size_bytes > self._capacity_bytes

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
        self._began_at = asyncio.get_running_loop().time()
        self._is_whole = True

    def _note(self, met: Sequence[Met]) -> int:
        self._entries += len(met)
        for _, size, left_ms in met:
            self._bytes += size
            step = self._step_of(left_ms)
            self._spread[step] = self._spread.get(step, 0) + size
        return 0

    async def _end(self, *, was_evicting: bool) -> None:
        """After a walk: note what it found, and begin the next where something has to go.

        Much of what was met by a walk that took several sweeps may be gone: it sets the books right, no more.
        """
        self._walk = None
        if was_evicting:
            self._excess = 0.0
            return
        size = self._bytes - self._entries * ENTRY_BYTES
        await note(self._server, self._names, "HSET", {"entries": self._entries, "bytes": size})
        await self._prune_floors()
        if self._is_whole and self._bytes > self._capacity_bytes:
            self._excess = self._bytes - _FILL_SHARE * self._capacity_bytes
            self._last_step, self._of_last = _last(self._spread, self._excess)
            self._walk = Walk(await self._nodes(), self._names)

    def _step_of(self, left_ms: int) -> int:
        """The step of the time that was left when measuring began: the same for an entry whenever it is met."""
        aged_ms = (asyncio.get_running_loop().time() - self._began_at) * 1000
        return int(math.log2(max(left_ms + aged_ms, 1)) * _STEPS_PER_OCTAVE)

    # -- evicting -----------------------------------------------------------------------------------------------

    async def _evict(self, node: Server, met: Sequence[Met]) -> int:
        """Delete those of a step that would expire first, until enough have gone."""
        chosen = []
        left = self._excess
        for one in sorted(met, key=lambda one: one[2]):
            step = self._step_of(one[2])
            if left <= 0 or step > self._last_step or (step == self._last_step and self._of_last <= 0):
                break
            chosen.append(one)
            left -= one[1]
            if step == self._last_step:
                self._of_last -= one[1]
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


def _last(spread: dict[int, int], excess: float) -> tuple[int, float]:
    """Up to which step of the times to live entries have to go to free so many bytes, and how many of that step's."""
    last, of_last = 0, 0.0
    for step in sorted(spread):
        last, of_last = step, min(excess, spread[step])
        excess -= spread[step]
        if excess <= 0:
            break
    return last, of_last
