"""One connection to one server, by redis-py: RESP3 read by hiredis, one request under way at a time.

redis-py brings sockets, TLS, the introduction and the reading of replies. It is given no timeouts and no retries, for
deadlines are its owners': whoever stops waiting for a reply gives the connection up.
"""

import asyncio
import contextlib
import os
import select
from collections.abc import Callable, Sequence
from typing import Any

import hiredis
from redis.asyncio import connection as clients
from redis.exceptions import InvalidResponse, RedisError, ResponseError
from redis.exceptions import TimeoutError as ClientTimeoutError

from genesis_cache.tiers.forgotten import keep_for_ever
from genesis_cache.tiers.redis.known import Who, info_of, who_of
from genesis_cache.tiers.redis.outage import LEAST_VERSION, ConnectionLost, ReplyError, Unsent
from genesis_cache.tiers.redis.place import Host, Place

pack: Callable[[tuple[str | bytes, ...]], bytes] = hiredis.pack_command  # type: ignore[assignment]  # of any length

WHO = [pack(("INFO", "server")), pack(("INFO", "replication"))]
"""What a server is asked so that it tells who it is, of which version, in which role."""


class Connection:
    """A connection that is ready for requests. One at a time: its owner sees to that."""

    __slots__ = ("_is_late", "_is_over", "_loop", "_raw", "_stream", "_transport", "asked_at", "role", "turn", "who")

    def __init__(self, raw: Any) -> None:
        self._loop = asyncio.get_running_loop()
        self._raw = raw
        self._stream: asyncio.StreamReader = raw._reader  # noqa: SLF001  # redis-py has no way to hang up at once
        self._transport: asyncio.WriteTransport = raw._writer.transport  # noqa: SLF001  # as above
        self._is_over = self._is_late = False
        self.asked_at = 0.0
        """When the request under way was sent, by the loop's clock; 0 where none is."""
        self.who: Who = ("", "")
        self.role = ""
        """``master`` or ``slave``."""
        self.turn: object = None
        """Since when it is in use, as `Known.turn`."""

    @property
    def closed(self) -> bool:
        """Whether either side has hung up; that of the server shows without a request."""
        return self._is_over or self._stream.at_eof() or self._transport.is_closing()

    async def ask(self, request: bytes, *, looks: bool = False) -> Any:
        """The reply to one packed command, an error reply as a `ReplyError` value.

        Raises `ConnectionLost`, or `TimeoutError` after `expire`; the connection has to be given up then. ``looks``: at
        the socket itself before anything is sent, for its end may be there and the event loop not know it yet.
        """
        raw = self._raw
        self.asked_at = self._loop.time()
        try:
            if self._is_over or await raw.can_read() or (looks and self._has_news()):  # its end, or a reply to nothing
                raise Unsent("closed the connection")
            await raw.send_packed_command(request, check_health=False)
            return await raw.read_response()
        except ResponseError as error:
            return _reply_error(error)
        except (RedisError, OSError) as error:
            raise self._failure(error) from error
        finally:
            self.asked_at = 0.0

    async def ask_all(self, requests: Sequence[bytes]) -> list[Any]:
        """As `ask`, for several packed commands sent in one go: the list of their replies."""
        replies = [await self.ask(b"".join(requests))] if requests else []
        self.asked_at = self._loop.time()
        try:
            while len(replies) < len(requests):
                try:
                    replies.append(await self._raw.read_response())
                except ResponseError as error:
                    replies.append(_reply_error(error))
        except (RedisError, OSError) as error:
            raise self._failure(error) from error
        finally:
            self.asked_at = 0.0
        return replies

    def _has_news(self) -> bool:
        """Whether the socket has something to be read, its end too; False where the system cannot tell at once."""
        socket = self._transport.get_extra_info("socket")
        if socket is None or socket.fileno() < 0 or not hasattr(select, "poll"):
            return False
        looking = select.poll()
        looking.register(socket, select.POLLIN)
        return bool(looking.poll(0))

    def expire(self) -> None:
        """Hang up because the reply took too long; whoever waits for it gets a `TimeoutError`."""
        self._is_late = True
        self.abort()

    def abort(self) -> None:
        """Hang up at once; a reply that is still to come is for nobody."""
        if not self._is_over:
            self._is_over = True
            self._transport.abort()
            self._raw._close()  # noqa: SLF001  # its public name has to be awaited

    async def close(self) -> None:
        """Hang up, and wait until the loop has seen to it."""
        self._is_over = True
        self._transport.abort()
        await self._raw.disconnect()

    def abandon(self, *, forked: bool) -> None:
        """Let go where the event loop cannot be asked to: in a forked child, or after the loop was closed.

        In a child the socket is the parent's too, and so is what its loop waits on: neither may be told anything.
        """
        if self._is_over:
            return
        transport = self._transport
        if not forked and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self.abort)
            return
        finish = getattr(_innermost(transport), "_call_connection_lost", None)
        if forked or finish is None:
            self._is_over = True
            _lead_nowhere(transport)
            keep_for_ever(self._raw, transport)
            return
        for end in (self.abort, lambda: finish(None), self._raw._close):  # noqa: SLF001  # as in `abort`
            with contextlib.suppress(RuntimeError):  # all tell the loop, which does not listen any more
                end()

    def _failure(self, error: Exception) -> Exception:
        if self._is_late:
            return TimeoutError()
        failure = _meaning(error)
        return failure if isinstance(failure, ReplyError | ConnectionLost) else ConnectionLost(f"closed it: {failure}")


def _innermost(transport: asyncio.BaseTransport) -> object:
    """The transport that has the socket: the one under TLS."""
    return getattr(getattr(transport, "_ssl_protocol", None), "_transport", transport)


def _lead_nowhere(transport: asyncio.BaseTransport) -> None:
    """Take the connection away from under a transport; the descriptor stays taken, so that it is nobody else's."""
    descriptor = transport.get_extra_info("socket").fileno()
    if descriptor < 0:
        return
    nowhere = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    os.dup2(nowhere, descriptor, inheritable=False)
    os.close(nowhere)


def _reply_error(error: RedisError) -> ReplyError:
    """An error reply as the server sent it: redis-py takes the code off the codes that it knows."""
    return ReplyError(f"{error.status_code} {error}" if error.status_code else str(error))


def _meaning(error: BaseException) -> Exception:
    """What went wrong below redis-py's errors."""
    if isinstance(error, ResponseError) or getattr(error, "status_code", None):
        assert isinstance(error, RedisError)  # noqa: S101  # nothing else has a code
        return _reply_error(error)
    if isinstance(error, InvalidResponse):
        return ConnectionLost(f"answers in a way that is not Redis: {str(error)[:100]}")
    if isinstance(error, ConnectionResetError | BrokenPipeError):
        return ConnectionLost(f"closed the connection ({error})")
    if isinstance(error, OSError | ConnectionLost | UnicodeError):
        return error
    if isinstance(error, ClientTimeoutError):
        return TimeoutError()
    below = error.__cause__ or error.__context__
    return ConnectionLost("closed the connection") if below is None else _meaning(below)


class TlsConnection(clients.SSLConnection):
    """redis-py's connection over TLS, by settings that were made and checked before."""

    def __init__(self, *, tls: Any, **settings: Any) -> None:
        super().__init__(**settings)
        self.ssl_context.context = tls


def client_of(place: Place, host: Host | None) -> tuple[type[clients.AbstractConnection], dict[str, Any]]:
    """The class of redis-py's connections to one server of a place, and what it has to be made with."""
    settings: dict[str, Any] = {
        "protocol": 3,
        "socket_timeout": None,
        "socket_connect_timeout": None,
        "driver_info": None,
    }
    if host is None:
        return clients.UnixDomainSocketConnection, settings | {"path": place.path}
    settings |= {"host": host[0], "port": host[1]}
    return (clients.Connection, settings) if place.tls is None else (TlsConnection, settings | {"tls": place.tls})


async def connect(place: Place, host: Host | None, timeout_s: float) -> Connection:
    """A connection that has introduced itself and knows who is there, in at most so many seconds.

    Raises what went wrong as it is: `OSError`, `TimeoutError`, `ReplyError`, `ConnectionLost`.
    """
    kind, settings = client_of(place, host)
    raw: Any = kind(
        db=place.database,
        username=place.username,
        password=place.password,
        client_name=place.client_name,
        **settings,
    )
    try:
        async with asyncio.timeout(timeout_s):
            await raw.connect()
            connection = Connection(raw)
            told = await connection.ask_all(WHO)
        connection.who = who_of(told)
        connection.role = info_of(told[1]).get("role", "master")
        _check_version(info_of(told[0]))
    except BaseException as error:
        await raw.disconnect(nowait=True)
        if isinstance(error, RedisError):
            raise _meaning(error) from error
        raise
    return connection


def _check_version(info: dict[str, str]) -> None:
    found = info.get("redis_version", "0")
    if tuple(int(part) for part in found.split(".")[:3] if part.isdecimal()) < LEAST_VERSION:
        raise ConnectionLost(f"is version {found}: 6.2 or newer is needed, or any Valkey")
