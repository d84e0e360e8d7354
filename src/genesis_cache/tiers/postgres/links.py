"""Connections of one event loop to a PostgreSQL server: few, made when needed, handed out last in, first out.

A connection whose call was cancelled, timed out or broke is terminated and never handed out again, because its reply
may still be under way. `asyncpg.Pool` is not used for our own: it asks the server to reset each connection that is
given back, which would double the round trips of a read.
"""

import asyncio
import contextlib
import os
import select
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

import asyncpg

from genesis_cache.tiers.forgotten import keep_for_ever
from genesis_cache.tiers.postgres.faults import Failures, is_lost
from genesis_cache.tiers.postgres.place import Place

MAX_CONNECTIONS = 5
CLOSE_S = 1.0  # for a polite end

Connection = Any  # asyncpg brings no types


class Links(Protocol):
    """Where connections come from."""

    def idle(self) -> Connection | None:
        """A connection that is there at once; None where one must be waited for."""

    async def take(self) -> Connection:
        """A connection that nobody else uses; waits while all are used."""

    def give(self, connection: Connection) -> None:
        """Give one back that is as it was."""

    def drop(self, connection: Connection) -> None:
        """Give one up without waiting."""

    def purge(self) -> None:
        """Drop what is idle: the server was lost."""

    async def close(self) -> None:
        """End all; safe to call twice."""

    def forget(self) -> None:
        """End all without a word to the server."""


class OwnLinks:
    """Connections that we make ourselves.

    Each is made in a task of its own: whoever asked for it may be cancelled, then it serves the next one.
    """

    def __init__(self, connect: Callable[[], Awaitable[Connection]], limit: int = MAX_CONNECTIONS) -> None:
        self._connect = connect
        self._limit = limit
        self._free: list[Connection] = []
        self._used: set[Connection] = set()
        self._making: set[asyncio.Task[None]] = set()
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._is_closed = False

    def idle(self) -> Connection | None:
        """As `Links.idle`."""
        free = self._free
        while free:
            connection = free.pop()
            if not connection.is_closed():
                self._used.add(connection)
                return connection
            connection.terminate()
        return None

    async def take(self) -> Connection:
        """As `Links.take`."""
        self._is_closed = False
        while (connection := self.idle()) is None:
            if len(self._used) + len(self._making) < self._limit:
                task = asyncio.get_running_loop().create_task(self._make())
                self._making.add(task)
                task.add_done_callback(self._making.discard)
            await self._wait()
        return connection

    async def _make(self) -> None:
        try:
            connection = await self._connect()
        except Failures as error:
            self._wake(error)
            return
        if self._is_closed:
            await end(connection)
        else:
            self._free.append(connection)
            self._wake()

    async def _wait(self) -> None:
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(waiter)
        try:
            await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled():
                self._wake(waiter.exception())  # it was our turn: let the next one have it
            raise

    def give(self, connection: Connection) -> None:
        """As `Links.give`."""
        if connection in self._used:  # else it was forgotten or closed meanwhile
            self._used.discard(connection)
            self._free.append(connection)
            if self._waiting:
                self._wake()

    def drop(self, connection: Connection) -> None:
        """As `Links.drop`."""
        self._used.discard(connection)
        connection.terminate()
        self._wake()

    def purge(self) -> None:
        """As `Links.purge`."""
        while self._free:
            self._free.pop().terminate()

    def _wake(self, error: BaseException | None = None) -> None:
        """Tell the first who waits that there may be a connection, or that there is none."""
        while self._waiting:
            waiter = self._waiting.popleft()
            if waiter.done():
                continue
            if error is None:
                waiter.set_result(None)
            else:
                waiter.set_exception(error)
            return

    async def close(self) -> None:
        """As `Links.close`; a connection in use is terminated."""
        self._is_closed = True
        free, self._free = self._free, []
        used, self._used = self._used, set()
        for connection in used:
            connection.terminate()
        for connection in free:
            await end(connection)
        if self._making:
            _, late = await asyncio.wait(self._making, timeout=CLOSE_S)
            for task in late:
                task.cancel()
        while self._waiting:
            self._wake(ConnectionAbortedError("the store was closed"))

    def forget(self) -> None:
        """As `Links.forget`."""
        for connection in (*self._free, *self._used):
            abandon(connection)
        keep_for_ever(*self._making)
        self._free = []
        self._used = set()
        self._making = set()
        self._waiting = deque()


class PoolLinks:
    """Connections borrowed from a pool that the caller made."""

    def __init__(self, pool: Any, timeout_s: float) -> None:
        self._pool = pool
        self._timeout_s = timeout_s
        self._releases: set[asyncio.Task[None]] = set()

    def idle(self) -> Connection | None:
        """As `Links.idle`: a pool has to be asked."""
        return None

    async def take(self) -> Connection:
        """As `Links.take`."""
        return await self._pool.acquire(timeout=self._timeout_s)

    def give(self, connection: Connection) -> None:
        """As `Links.give`; the pool resets it, for which nobody waits."""
        release = asyncio.get_running_loop().create_task(self._release(connection))
        self._releases.add(release)
        release.add_done_callback(self._releases.discard)

    def drop(self, connection: Connection) -> None:
        """As `Links.drop`."""
        with contextlib.suppress(*Failures):
            connection.terminate()
        self.give(connection)

    async def _release(self, connection: Connection) -> None:
        with contextlib.suppress(*Failures):
            await self._pool.release(connection, timeout=self._timeout_s)

    def purge(self) -> None:
        """As `Links.purge`: that is the pool's matter."""

    async def close(self) -> None:
        """As `Links.close`: what was borrowed is back; the pool stays the caller's."""
        if self._releases:
            await asyncio.wait(self._releases, timeout=CLOSE_S)

    def forget(self) -> None:
        """As `Links.forget`."""
        self._releases.clear()


def connector(
    place: Place, timeout_s: float, call_s: float, *, listening: bool = False
) -> Callable[[], Awaitable[Connection]]:
    """What makes a connection to a place, in at most so many seconds."""
    url = (place.listen_url or place.url) if listening else place.url
    is_direct = listening or not place.is_pooled
    settings = {} if "application_name=" in url else {"application_name": "genesis-cache"}
    if is_direct:  # a pooler would refuse these, or hand the session to others with them
        settings |= {
            "statement_timeout": str(round(call_s * 1e3) + 1000),  # the client's own ends first; this frees the server
            "plan_cache_mode": "force_generic_plan",
            "enable_seqscan": "off",
            "jit": "off",
        }

    async def connect() -> Connection:
        return await asyncpg.connect(
            url,
            timeout=timeout_s,
            statement_cache_size=100 if is_direct else 0,
            max_cached_statement_lifetime=0,
            server_settings=settings,
        )

    return connect


async def end(connection: Connection) -> None:
    """Say goodbye, within a bounded time."""
    try:
        await connection.close(timeout=CLOSE_S)
    except Failures:
        connection.terminate()
    except BaseException:
        connection.terminate()
        raise


def settle(links: Links, connection: Connection, error: BaseException) -> None:
    """Give back or drop a connection after a call that failed."""
    if isinstance(error, Failures) and not is_lost(error):
        links.give(connection)
        return
    links.drop(connection)
    if isinstance(error, Failures) and not isinstance(error, TimeoutError):
        links.purge()  # what happened to one has happened to all


def has_news(connection: Connection) -> bool:
    """Whether the server has ended a connection that is idle, or said something unasked, which the loop has not seen.

    False where the system cannot tell at once.
    """
    transport = getattr(connection, "_transport", None)  # asyncpg has no public way to it
    socket = None if transport is None else transport.get_extra_info("socket")
    if socket is None or socket.fileno() < 0 or not hasattr(select, "poll"):
        return False
    looking = select.poll()
    looking.register(socket, select.POLLIN)
    return bool(looking.poll(0))


def abandon(connection: Connection) -> None:
    """Close our copy of a socket below the client, which may share it, and its event loop, with a parent process.

    The objects are kept for ever: their finalizers would speak to the event loop, or complain that they were not
    closed.
    """
    transport = getattr(connection, "_transport", None)  # asyncpg has no public way to it
    socket = None if transport is None else transport.get_extra_info("socket")
    descriptor = -1 if socket is None else socket.fileno()
    if descriptor >= 0:
        silence = os.open(os.devnull, os.O_RDWR | getattr(os, "O_CLOEXEC", 0))
        try:
            os.dup2(silence, descriptor, inheritable=False)
        finally:
            os.close(silence)
    keep_for_ever(connection)
