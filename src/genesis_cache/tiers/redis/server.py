"""One server as its callers see it: requests in, replies out, and every failure an `Outage` with its sentence."""

import contextlib
from collections.abc import AsyncIterator, Awaitable, Sequence
from typing import Any, Protocol, TypeVar

from redis.asyncio import ConnectionPool, Redis
from redis.asyncio.sentinel import Sentinel
from redis.exceptions import RedisError

from genesis_cache.tiers.redis.connection import Connection, client_of, connect
from genesis_cache.tiers.redis.outage import ConnectionLost, ReplyError, Unsent, outage
from genesis_cache.tiers.redis.place import Host, Place
from genesis_cache.tiers.redis.pool import Pool
from genesis_cache.tiers.redis.scripts import Argument, Script
from genesis_cache.tiers.remote_known import Known, Replaced

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


class Limits:
    """What the settings allow a server's connections."""

    __slots__ = ("connect_s", "connections", "timeout_s")

    def __init__(self, connections: int, connect_s: float, timeout_s: float) -> None:
        self.connections = connections
        self.connect_s = connect_s
        self.timeout_s = timeout_s


class Server:
    """One event loop's connections to one server: given by address, or found by asking Sentinels.

    Whoever joins the log has to talk to servers that nobody has joined it on: by a `Known` in which none is noted.
    """

    __slots__ = ("_find", "_known", "_limits", "_place", "_pool", "shown")

    def __init__(self, place: Place, limits: Limits, known: Known) -> None:
        self._place = place
        self._limits = limits
        self._known = known
        self._find = Sentinels(place, limits).find if place.kind == "sentinel" else None
        self._pool = Pool(self._admitted, known, limits.connections, limits.timeout_s)
        self.shown = place.shown

    @property
    def pool_size(self) -> int:
        """Connections at most."""
        return self._limits.connections

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
        """The reply to a request that must not reach the server twice; an error reply comes as a `ReplyError` value.

        Where its connection was found dead before anything was sent, it is sent over a new one.
        """
        try:
            return await self._pool.call(request, looks=True)
        except Unsent:
            pass
        except FAILURES as error:
            raise outage(error, self._place) from error
        return await self._guarded(self._pool.again(request, looks=True))

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
        """A connection beside the pool, to whichever server; its owner aborts it. Raises what went wrong as it is."""
        place = self._place
        host = (place.hosts[0] if place.hosts else None) if self._find is None else await self._find()
        connection = await connect(place, host, self._limits.connect_s)
        if connection.role != "master" and place.kind != "cluster":
            connection.abort()
            raise ReplyError(f"READONLY role is {connection.role}")
        return connection

    async def _admitted(self) -> Connection:
        connection = await self.connect()
        try:
            connection.turn = self._known.admit(connection.who)
        except Replaced:
            connection.abort()
            raise
        return connection

    @contextlib.asynccontextmanager
    async def reporting(self) -> AsyncIterator[None]:
        """What goes wrong inside comes out as an `Outage`."""
        try:
            yield
        except FAILURES as error:
            raise outage(error, self._place) from error

    def rest(self) -> None:
        """Hang up on connections that nobody uses at the moment."""
        self._pool.drop_idle()

    async def open(self) -> None:
        """Connect once, so that what is wrong is told now; `Outage`. A server that others were before is no fault."""
        async with self.reporting():
            with contextlib.suppress(Replaced):
                self._pool.add(await self._admitted())

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
        """The primary's host and port, by the first Sentinel that knows one; `ConnectionLost` where none does.

        Sentinels that want a password, where the URL has none for them, are told that of the servers.
        """
        place = self._place
        logins = [(place.sentinel_username, place.sentinel_password)]
        if place.password is not None and place.sentinel_password is None:
            logins.append((place.username, place.password))
        failure: Exception | None = None
        for login in logins:
            try:
                return await self._ask(*login)
            except RedisError as error:
                failure = error
        what = "is known to none of its Sentinels: are they running, and is the primary's name right?"
        raise ConnectionLost(what) from failure

    async def _ask(self, user: str | None, password: str | None) -> Host:
        each_s = self._limits.connect_s / len(self._place.hosts)
        group = Sentinel([])  # type: ignore[no-untyped-call]  # redis-py has types, but not here
        for host in self._place.hosts:
            kind, settings = client_of(self._place, host)
            settings |= {"socket_timeout": each_s, "socket_connect_timeout": each_s}
            pool = ConnectionPool(connection_class=kind, username=user, password=password, **settings)
            group.sentinels.append(Redis.from_pool(pool))
        try:
            name, port = await group.discover_master(self._place.master)
        finally:
            await group.aclose()
        return str(name), int(port)
