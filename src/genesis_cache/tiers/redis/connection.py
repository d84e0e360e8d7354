"""One connection to one server: RESP3 over asyncio, read by hiredis, one request under way at a time.

Written on transports because the streams and per-call timers of a general client cost more than the whole request. The
loop tells at once when the other side hangs up, so a connection that is not `closed` needs no check before its use.
"""

import asyncio
import contextlib
import os
from collections.abc import Callable, Sequence
from typing import Any

import hiredis

from genesis_cache.tiers.redis.outage import LEAST_VERSION, ConnectionLost, ReplyError
from genesis_cache.tiers.redis.place import Host, Place

_BUFFER_BYTES = 65536
_NOT_YET = object()
_Push = getattr(hiredis, "PushNotification", None)  # hiredis below 3.2 has none, and hands pushes out as lists

pack: Callable[[tuple[str | bytes, ...]], bytes] = hiredis.pack_command  # type: ignore[assignment]  # of any length


class Connection(asyncio.BufferedProtocol):
    """A connection that is ready for requests. One at a time: its owner sees to that."""

    __slots__ = (
        "_buffer", "_future", "_loop", "_reader", "_replies", "_transport", "_wanted", "asked_at", "closed", "hello",
        "on_lost",
    )  # fmt: skip

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._buffer = bytearray(_BUFFER_BYTES)
        self._reader = hiredis.Reader(protocolError=ConnectionLost, replyError=ReplyError, notEnoughData=_NOT_YET)
        self._transport: asyncio.Transport | None = None
        self._future: asyncio.Future[Any] | None = None
        self._replies: list[Any] = []
        self._wanted = 0
        self.asked_at = 0.0
        """When the request under way was sent, by the loop's clock; 0 where none is."""
        self.closed = False
        self.hello: dict[bytes, Any] = {}
        """What the server said of itself: version, mode, role."""
        self.on_lost: Callable[[Connection], object] = _nothing

    # -- requests -----------------------------------------------------------------------------------------------

    def ask(self, request: bytes) -> asyncio.Future[Any]:
        """Send one packed command; the future gets its reply, an error reply as a `ReplyError` value.

        Whoever stops waiting for it has to `abort` the connection.
        """
        if self.closed or self._transport is None:
            raise ConnectionLost("has closed the connection")
        future = self._future = self._loop.create_future()
        self.asked_at = self._loop.time()
        self._wanted = 0
        self._transport.write(request)
        return future

    def ask_all(self, requests: Sequence[bytes]) -> asyncio.Future[list[Any]]:
        """Send several packed commands in one go; the future gets the list of their replies."""
        future = self.ask(b"".join(requests))
        self._wanted = len(requests)
        self._replies = []
        return future

    def fail(self, error: Exception) -> None:
        """Give up the request under way for a reason, and the connection with it."""
        if self._future is not None and not self._future.done():
            self._future.set_exception(error)
        self.abort()

    def abort(self) -> None:
        """Hang up at once; a reply that is still to come is for nobody."""
        if not self.closed:
            self.closed = True
            if self._transport is not None:
                self._transport.abort()

    def abandon(self, *, forked: bool) -> None:
        """Let go where the event loop cannot be asked to: in a forked child, or after the loop was closed.

        In a child the socket is the parent's too, and so is what its loop waits on: neither may be told anything.
        """
        self.closed = True
        self.on_lost = _nothing
        self._future = None
        transport, self._transport = self._transport, None
        if transport is None:
            return
        finish = getattr(_innermost(transport), "_call_connection_lost", None)
        if not forked and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(transport.abort)
            return
        if forked or finish is None:
            _lead_nowhere(transport)
            return
        for end in (transport.abort, lambda: finish(None)):
            with contextlib.suppress(RuntimeError):  # both tell the loop, which does not listen any more
                end()

    # -- what the loop calls --------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """As `asyncio.BaseProtocol.connection_made`."""
        assert isinstance(transport, asyncio.Transport)  # noqa: S101  # a stream connection has no other
        self._transport = transport

    def get_buffer(self, sizehint: int) -> bytearray:  # noqa: ARG002  # the loop's own signature
        """As `asyncio.BufferedProtocol.get_buffer`."""
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        """As `asyncio.BufferedProtocol.buffer_updated`."""
        reader = self._reader
        try:
            reader.feed(self._buffer, 0, nbytes)  # type: ignore[arg-type]  # it takes any buffer
            while (reply := reader.gets()) is not _NOT_YET:
                if _Push is None or type(reply) is not _Push:
                    self._take(reply)
        except ConnectionLost as error:
            self.fail(ConnectionLost(f"answers in a way that is not Redis: {str(error)[:100]}"))

    def eof_received(self) -> bool:
        """As `asyncio.BaseProtocol.eof_received`: the connection is of no use any more."""
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """As `asyncio.BaseProtocol.connection_lost`."""
        self.closed = True
        self._transport = None
        self.asked_at = 0.0
        if self._future is not None and not self._future.done():
            reason = "" if exc is None else f" ({exc})"
            self._future.set_exception(ConnectionLost(f"closed the connection{reason}"))
        self.on_lost(self)

    def _take(self, reply: Any) -> None:
        future = self._future
        if future is None or future.done():
            self.abort()  # a reply to nothing: whatever comes next cannot be told apart
            return
        if self._wanted:
            self._replies.append(reply)
            if len(self._replies) < self._wanted:
                return
            reply = self._replies
        self._future = None
        self.asked_at = 0.0
        future.set_result(reply)


_abandoned: list[asyncio.Transport] = []
"""Transports of a parent's loop: kept, because their end would be told to what that loop waits on."""


def _innermost(transport: asyncio.Transport) -> object:
    """The transport that has the socket: the one under TLS."""
    return getattr(getattr(transport, "_ssl_protocol", None), "_transport", transport)


def _lead_nowhere(transport: asyncio.Transport) -> None:
    """Take the connection away from under a transport; the descriptor stays taken, so that it is nobody else's."""
    descriptor = transport.get_extra_info("socket").fileno()
    nowhere = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    os.dup2(nowhere, descriptor, inheritable=False)
    os.close(nowhere)
    _abandoned.append(transport)


def _nothing(_: Connection) -> None:
    """Nobody listens."""


async def connect(place: Place, host: Host | None, timeout_s: float, *, as_sentinel: bool = False) -> Connection:
    """A connection that has introduced itself, in at most so many seconds.

    Raises what went wrong as it is: `OSError`, `TimeoutError`, `ReplyError`, `ConnectionLost`.
    """
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(timeout_s):
        if host is None:
            _, connection = await loop.create_unix_connection(Connection, place.path)
        else:
            name = None if place.tls is None else host[0]
            _, connection = await loop.create_connection(Connection, *host, ssl=place.tls, server_hostname=name)
        try:
            await _introduce(connection, place, as_sentinel=as_sentinel)
        except BaseException:
            connection.abort()
            raise
    return connection


async def _introduce(connection: Connection, place: Place, *, as_sentinel: bool) -> None:
    user, password = place.username, place.password
    if as_sentinel:
        user, password = place.sentinel_username, place.sentinel_password
    login = () if password is None else ("AUTH", user or "default", password)
    requests = [pack(("HELLO", "3", *login, "SETNAME", place.client_name))]
    if place.database and not as_sentinel:
        requests.append(pack(("SELECT", str(place.database))))
    hello, *rest = await connection.ask_all(requests)
    for reply in (hello, *rest):
        if isinstance(reply, ReplyError):
            raise reply
    if not isinstance(hello, dict):
        raise ConnectionLost(f"answers in a way that is not Redis: {str(hello)[:100]}")
    connection.hello = hello
    version = version_of(connection)
    if not as_sentinel and version < LEAST_VERSION:
        found = ".".join(map(str, version))
        raise ConnectionLost(f"is version {found}: 6.2 or newer is needed, or any Valkey")


def version_of(connection: Connection) -> tuple[int, ...]:
    """The server's version in numbers."""
    text = bytes(connection.hello.get(b"version", b"0")).decode("ascii", "replace")
    return tuple(int(part) for part in text.split(".")[:3] if part.isdecimal())
