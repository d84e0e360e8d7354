"""A cluster as its callers see it: requests go to the node that serves their slot, wherever that has moved to.

After the Redis cluster specification: MOVED corrects the table of slots, ASK sends one request to the node that a slot
is moving to, TRYAGAIN waits for the move. A node that cannot be reached has the table read again.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from genesis_cache.tiers.redis.connection import Connection, pack
from genesis_cache.tiers.redis.names import SLOTS
from genesis_cache.tiers.redis.outage import ReplyError, outage
from genesis_cache.tiers.redis.place import Host, Place
from genesis_cache.tiers.redis.scripts import Argument, Script
from genesis_cache.tiers.redis.server import FAILURES, Limits, Server
from genesis_cache.tiers.remote_base import Outage
from genesis_cache.tiers.remote_known import Known

_HOPS = 6  # from node to node for one request
_PAUSE_S = 0.02  # while a slot's keys are under way
_TABLE_S = 1.0  # for one node to tell the table of slots
_REDIRECTS = frozenset({"MOVED", "ASK", "TRYAGAIN"})
_ASKING = pack(("ASKING",))

_T = TypeVar("_T")


class Cluster:
    """One event loop's connections to the nodes of a cluster."""

    __slots__ = ("_is_stale", "_known", "_limits", "_place", "_reading", "_servers", "_table")

    def __init__(self, place: Place, limits: Limits, known: Known) -> None:
        self._place = place
        self._known = known
        self._limits = limits
        self._servers: dict[Host, Server] = {}
        self._table: list[Host | None] = [None] * SLOTS
        self._is_stale = True
        self._reading = asyncio.Lock()

    @property
    def shown(self) -> str:
        """Its nodes, for sentences."""
        return self._place.shown

    async def read(self, request: bytes, slot: int) -> Any:
        """As `Server.read`, at the node of a slot."""
        try:
            return await self._ask(request, slot, lambda server: server.read(request))
        except Outage:
            self._is_stale = True  # its slots may have another node by now
        return await self._ask(request, slot, lambda server: server.read(request))

    async def call_once(self, request: bytes, slot: int) -> Any:
        """As `Server.call_once`, at the node of a slot."""
        return await self._ask(request, slot, lambda server: server.call_once(request))

    async def run(self, script: Script, keys: Sequence[bytes], arguments: Sequence[Argument], slot: int) -> Any:
        """As `Server.run`, at the node of a slot."""
        return self.checked(await script.run(lambda request: self.call_once(request, slot), keys, arguments))

    async def batch(self, requests: Sequence[tuple[int, bytes]]) -> list[Any]:
        """The replies to requests that each have a slot: one round trip to each node, all at the same time."""
        await self._refreshed()
        by_server: dict[Server, list[int]] = {}
        for number, (slot, _) in enumerate(requests):
            by_server.setdefault(await self.server_of(slot), []).append(number)
        replies: list[Any] = [None] * len(requests)

        async def ask(server: Server, numbers: list[int]) -> None:
            try:
                told = await server.batch([requests[number][1] for number in numbers])
            except Outage:
                self._is_stale = True
                raise
            for number, reply in zip(numbers, told, strict=True):
                replies[number] = reply

        await together([ask(server, numbers) for server, numbers in by_server.items()])
        for number, reply in enumerate(replies):
            if isinstance(reply, ReplyError) and reply.code in _REDIRECTS:
                slot, request = requests[number]
                self._note(reply, slot)
                replies[number] = await self.read(request, slot)
        return replies

    def checked(self, reply: _T) -> _T:
        """As `Server.checked`."""
        if isinstance(reply, ReplyError):
            self._is_stale = True
            raise outage(reply, self._place)
        return reply

    # -- the nodes ----------------------------------------------------------------------------------------------

    async def server_of(self, slot: int) -> Server:
        """The node that serves a slot."""
        await self._refreshed()
        host = self._table[slot]
        if host is None:
            raise Outage(f"The Redis cluster at {self.shown} has no node for slot {slot}: bring the missing node back")
        return self._server_at(host)

    async def nodes(self) -> list[Server]:
        """The nodes that serve slots."""
        await self._refreshed()
        return [self._server_at(host) for host in sorted({host for host in self._table if host is not None})]

    def doubt(self) -> None:
        """Have the table of slots read again before the next request."""
        self._is_stale = True

    def rest(self) -> None:
        """As `Server.rest`, for all."""
        for server in self._servers.values():
            server.rest()

    async def close(self) -> None:
        """Hang up on all connections."""
        for server in list(self._servers.values()):
            await server.close()

    def abandon(self, *, forked: bool) -> None:
        """As `Connection.abandon`, for all."""
        for server in self._servers.values():
            server.abandon(forked=forked)
        self._reading = asyncio.Lock()

    def _server_at(self, host: Host) -> Server:
        server = self._servers.get(host)
        if server is None:
            server = self._servers[host] = Server(replace(self._place, hosts=(host,)), self._limits, self._known)
        return server

    async def _ask(self, request: bytes, slot: int, act: Callable[[Server], Awaitable[Any]]) -> Any:
        server = await self.server_of(slot)
        for _ in range(_HOPS):
            reply = await act(server)
            if not isinstance(reply, ReplyError) or reply.code not in _REDIRECTS:
                return reply
            if reply.code == "ASK":
                _, reply = await self._server_at(_target(reply)).batch([_ASKING, request])
                if not isinstance(reply, ReplyError) or reply.code not in _REDIRECTS:
                    return reply
            self._note(reply, slot)
            if reply.code == "TRYAGAIN":
                await asyncio.sleep(_PAUSE_S)
            server = await self.server_of(slot)
        raise outage(reply, self._place)

    def _note(self, reply: ReplyError, slot: int) -> None:
        if reply.code == "MOVED":
            self._table[slot] = _target(reply)

    # -- the table of slots -------------------------------------------------------------------------------------

    async def _refreshed(self) -> None:
        if not self._is_stale:
            return
        async with self._reading:
            if self._is_stale:
                self._table = await self._read_table()
                self._is_stale = False

    async def _read_table(self) -> list[Host | None]:
        failure: Exception = Outage(f"No node of the Redis cluster at {self.shown} answers: is it running?")
        for host in dict.fromkeys([*self._servers, *self._place.hosts]):
            try:
                async with asyncio.timeout(_TABLE_S):
                    told = await self._tell_table(host)
            except FAILURES as error:
                failure = outage(error, self._place)
                continue
            if isinstance(told, ReplyError):
                no_cluster = "cluster support disabled" in str(told)
                failure = outage(told, self._place)
                if no_cluster:
                    failure = Outage(f"Redis at {host[0]}:{host[1]} is no cluster: use redis:// in REDIS_URL")
                continue
            return _table_of(told, host)
        raise failure

    async def _tell_table(self, host: Host) -> Any:
        """Any node may tell it, also one that the log was not joined on."""
        connection = await self._server_at(host).connect()
        try:
            return await connection.ask(pack(("CLUSTER", "SLOTS")))
        finally:
            connection.abort()


class SlotServer:
    """The node of one slot, whichever that is at the moment, in the words of a `Server`."""

    __slots__ = ("_cluster", "_place", "_probe", "_slot", "shown")

    def __init__(self, cluster: Cluster, place: Place, slot: int, key: bytes) -> None:
        self._cluster = cluster
        self._place = place
        self._slot = slot
        self._probe = pack(("EXISTS", key))
        self.shown = place.shown

    async def read(self, request: bytes) -> Any:
        """As `Server.read`."""
        return await self._cluster.read(request, self._slot)

    async def call_once(self, request: bytes) -> Any:
        """As `Server.call_once`."""
        return await self._cluster.call_once(request, self._slot)

    async def batch(self, requests: Sequence[bytes]) -> list[Any]:
        """As `Server.batch`."""
        return await self._cluster.batch([(self._slot, request) for request in requests])

    async def run(self, script: Script, keys: Sequence[bytes], arguments: Sequence[Argument]) -> Any:
        """As `Server.run`."""
        return await self._cluster.run(script, keys, arguments, self._slot)

    def checked(self, reply: _T) -> _T:
        """As `Server.checked`."""
        return self._cluster.checked(reply)

    async def connect(self) -> Connection:
        """As `Server.connect`."""
        return await (await self._found()).connect()

    @contextlib.asynccontextmanager
    async def reporting(self) -> AsyncIterator[None]:
        """As `Server.reporting`."""
        try:
            yield
        except FAILURES as error:
            raise outage(error, self._place) from error

    async def _found(self) -> Server:
        """The node, asked once whether it is: whoever takes a connection of its own is not redirected."""
        self.checked(await self.read(self._probe))
        return await self._cluster.server_of(self._slot)


async def together(work: Sequence[Coroutine[Any, Any, _T]]) -> list[_T]:
    """What several calls give that run at the same time; where one fails the others are given up."""
    if len(work) == 1:
        return [await work[0]]
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one) for one in work]
    except ExceptionGroup as failures:
        raise failures.exceptions[0] from None
    return [task.result() for task in tasks]


def _target(reply: ReplyError) -> Host:
    """Where a redirection leads: ``MOVED 3999 127.0.0.1:6381``."""
    host, _, port = str(reply).split(" ")[2].rpartition(":")
    return host.strip("[]"), int(port)


def _table_of(told: Sequence[Any], asked: Host) -> list[Host | None]:
    table: list[Host | None] = [None] * SLOTS
    for first, last, primary, *_ in told:
        name = bytes(primary[0] or b"").decode()
        host = (name if name not in {"", "?"} else asked[0], int(primary[1]))
        table[first : last + 1] = [host] * (last + 1 - first)
    return table
