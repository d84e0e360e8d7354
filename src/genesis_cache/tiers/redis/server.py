"""One server as its callers see it: requests in, replies out, and every failure an `Outage` with its sentence."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Any, Protocol, TypeVar

from genesis_cache.tiers.redis.connection import Connection, connect, pack
from genesis_cache.tiers.redis.outage import ConnectionLost, ReplyError, outage
from genesis_cache.tiers.redis.place import Host, Place
from genesis_cache.tiers.redis.pool import Pool
from genesis_cache.tiers.redis.scripts import Argument, Script

FAILURES = (OSError, ReplyError, ConnectionLost, UnicodeError)  # the last for host names that can be none

_T = TypeVar("_T")


class Endpoint(Protocol):
    """Whatever answers like one server: a server, or the node of a cluster that serves some slot at the moment."""

    shown: str

    async def read(self, request: bytes) -> Any:
        """As `Server.read`."""

    async def batch(self, requests: Sequence[bytes]) -> list[Any]:
        """As `Server.batch`."""

    async def run(self, script: Script, keys: Sequence[bytes], arguments: Sequence[Argument]) -> Any:
        """As `Server.run`."""

    def checked(self, reply: _T) -> _T:
        """As `Server.checked`."""

    async def connect(self) -> Connection:
        """As `Server.connect`."""

    def reporting(self) -> contextlib.AbstractAsyncContextManager[None]:
        """As `Server.reporting`."""

    def borrowed(self) -> contextlib.AbstractAsyncContextManager[Connection]:
        """As `Server.borrowed`."""


class Limits:
    """What the settings allow a server's connections."""

    __slots__ = ("connect_s", "connections", "timeout_s")

    def __init__(self, connections: int, connect_s: float, timeout_s: float) -> None:
        self.connections = connections
        self.connect_s = connect_s
        self.timeout_s = timeout_s


class Server:
    """One event loop's connections to one server: given by address, or found by asking Sentinels."""

    __slots__ = ("_find", "_limits", "_place", "_pool", "shown")

    def __init__(self, place: Place, limits: Limits, find: Callable[[], Awaitable[Host]] | None = None) -> None:
        self._place = place
        self._limits = limits
        self._find = find
        self._pool = Pool(self.connect, limits.connections, limits.timeout_s)
        self.shown = place.shown

    async def read(self, request: bytes) -> Any:
        """The reply to a request that may be made twice: a connection found dead is replaced within the call."""
        try:
            return await self._pool.call(request)
        except ConnectionLost:
            pass
        except FAILURES as error:
            raise outage(error, self._place) from error
        return await self._guarded(self._pool.again(request))

    async def call_once(self, request: bytes) -> Any:
        """The reply to a request that is not made twice; an error reply comes as a `ReplyError` value."""
        return await self._guarded(self._pool.call(request))

    async def batch(self, requests: Sequence[bytes]) -> list[Any]:
        """The replies to several requests in one round trip; they may be made twice."""
        try:
            return await self._pool.batch(requests)
        except ConnectionLost:
            self._pool.drop_idle()
        except FAILURES as error:
            raise outage(error, self._place) from error
        return await self._guarded(self._pool.batch(requests))

    async def run(self, script: Script, keys: Sequence[bytes], arguments: Sequence[Argument]) -> Any:
        """The reply of a script; an error reply is an `Outage`."""
        return self.checked(await script.run(self.call_once, keys, arguments))

    def checked(self, reply: _T) -> _T:
        """The reply, or an `Outage` in place of an error reply."""
        if isinstance(reply, ReplyError):
            if reply.code in {"READONLY", "MASTERDOWN"}:
                self._pool.drop_idle()  # whoever is the primary now has to be looked for
            raise outage(reply, self._place)
        return reply

    async def connect(self) -> Connection:
        """A connection beside the pool, which its owner aborts; raises what went wrong as it is."""
        place = self._place
        host = (place.hosts[0] if place.hosts else None) if self._find is None else await self._find()
        connection = await connect(place, host, self._limits.connect_s)
        role = bytes(connection.hello.get(b"role", b"master"))
        if role != b"master" and place.kind != "cluster":
            connection.abort()
            raise ReplyError(f"READONLY role is {role.decode('ascii', 'replace')}")
        return connection

    @contextlib.asynccontextmanager
    async def reporting(self) -> AsyncIterator[None]:
        """What goes wrong inside comes out as an `Outage`."""
        try:
            yield
        except FAILURES as error:
            raise outage(error, self._place) from error

    @contextlib.asynccontextmanager
    async def borrowed(self) -> AsyncIterator[Connection]:
        """A connection of the pool for requests that belong together; what goes wrong is an `Outage`."""
        async with self.reporting(), asyncio.timeout(self._limits.timeout_s + self._limits.connect_s):
            connection = await self._pool.take()
            try:
                yield connection
            except BaseException:
                connection.abort()
                raise
            self._pool.give(connection)

    async def open(self) -> None:
        """Connect once, so that what is wrong is told now; `Outage`."""
        self._pool.give(await self._guarded(self._pool.take()))

    async def close(self) -> None:
        """Hang up on all connections."""
        await self._pool.close()

    def abandon(self, *, forked: bool) -> None:
        """As `Connection.abandon`, for all."""
        self._pool.abandon(forked=forked)

    async def _guarded(self, asked: Awaitable[_T]) -> _T:
        try:
            return await asked
        except FAILURES as error:
            raise outage(error, self._place) from error


class Sentinels:
    """The group of Sentinels that knows which server is the primary."""

    __slots__ = ("_limits", "_place")

    def __init__(self, place: Place, limits: Limits) -> None:
        self._place = place
        self._limits = limits

    async def find(self) -> Host:
        """The primary's host and port, by the first Sentinel that knows one; raises what went wrong with the last."""
        failure: Exception = ConnectionLost("is known to none of its Sentinels")
        for host in self._place.hosts:
            try:
                found = await self._ask(host)
            except FAILURES as error:
                failure = error
                continue
            if found is not None:
                return found
        raise failure

    async def _ask(self, host: Host) -> Host | None:
        place, each_s = self._place, self._limits.connect_s / len(self._place.hosts)
        try:
            connection = await connect(place, host, each_s, as_sentinel=True)
        except ReplyError as error:
            if error.code != "NOAUTH" or place.password is None or place.sentinel_password is not None:
                raise
            place = replace(place, sentinel_username=place.username, sentinel_password=place.password)
            connection = await connect(place, host, each_s, as_sentinel=True)
        try:
            async with asyncio.timeout(each_s):
                reply = await connection.ask(pack(("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self._place.master)))
        finally:
            connection.abort()
        if isinstance(reply, ReplyError):
            raise reply
        return None if reply is None else (bytes(reply[0]).decode(), int(reply[1]))
