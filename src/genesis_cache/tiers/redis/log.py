"""The invalidation log on a server: joined by whoever begins to listen, followed for ever on a connection of its own.

Every answer is proof: the books are read behind each wait, on the same connection, so that "nothing new" is never said
of a log that was emptied, replaced or trimmed.
"""

import asyncio
import secrets
from collections.abc import Sequence
from typing import Any

from genesis_cache.model.clock import Clock
from genesis_cache.model.notice import Kind, Notice, Position
from genesis_cache.tiers.redis.connection import Connection, pack
from genesis_cache.tiers.redis.known import Who, identity_of
from genesis_cache.tiers.redis.names import Names
from genesis_cache.tiers.redis.outage import ConnectionLost, ReplyError
from genesis_cache.tiers.redis.scripts import JOIN
from genesis_cache.tiers.redis.server import Endpoint
from genesis_cache.tiers.remote_base import Joined
from genesis_cache.tiers.remote_known import Known
from genesis_cache.tiers.wire import named_notice, unpack_notices

_STEP_S = 0.1  # a blocked read hears nothing of FLUSHALL, so it is not left alone for longer
_MESSAGES_AT_ONCE = 128
_BLIND_STEPS = 3  # after so many reads that show nothing of what the books say is there, it is gone
EPOCH_BYTES = 8
_MICROSECONDS = 1_000_000  # a second; new logs begin at the microsecond of their making, beyond any log before


class Log:
    """One event loop's view of a cache's log."""

    __slots__ = ("_clock", "_known", "_names", "_own", "_server", "_timeout_s")

    def __init__(self, server: Endpoint, known: Known, names: Names, clock: Clock, timeout_s: float) -> None:
        self._server = server  # which takes whatever server is there
        self._known = known
        self._names = names
        self._clock = clock
        self._timeout_s = timeout_s
        self._own: Connection | None = None

    # -- joining ------------------------------------------------------------------------------------------------

    async def join(self, known: Position | None) -> Joined:
        """As `RemoteStore.join`. From the next turn of the loop on, when the caller knows it too, all believe it."""
        joined, servers = await self._join(known)
        asyncio.get_running_loop().call_soon(self._known.note, servers)
        return joined

    async def make(self) -> Position:
        """Have a log where there is none, without believing the servers that it is on."""
        joined, _ = await self._join(None)
        return joined.position

    async def _join(self, known: Position | None) -> tuple[Joined, frozenset[Who]]:
        """Over a connection made for it, which tells who is there: a restart in between must show."""
        names = self._names
        keys = [names.control, names.log, names.floors, names.marks[0]]
        async with self._server.reporting():
            connection = await self._server.connect()
            try:
                arguments = self._joining(known, identity_of([connection.who]), "")
                async with asyncio.timeout(self._timeout_s):
                    reply = await JOIN.run(connection.ask, keys, arguments)
            finally:
                connection.abort()
        return joined_of(self._server.checked(reply)), frozenset([connection.who])

    def _joining(self, known: Position | None, identity: tuple[bytes, bytes], mode: str) -> list[bytes | str]:
        told = Position(0, 0) if known is None else known
        return [
            *identity,
            b"" if known is None else told.epoch.to_bytes(EPOCH_BYTES, "big"),
            str(told.seq),
            secrets.token_bytes(EPOCH_BYTES),
            str(int(self._clock.wall() * _MICROSECONDS)),
            str(self._names.marks_bytes),
            mode,
        ]

    # -- following ----------------------------------------------------------------------------------------------

    async def follow(self, after: Position, wait_s: float) -> list[Notice] | None:
        """As `RemoteStore.follow`."""
        connection, self._own = self._own, None
        try:
            async with self._server.reporting():
                if connection is not None and connection.closed:
                    connection.abort()  # the server has hung up, and our end is still to be let go
                    connection = None
                if connection is None:
                    connection = await self._begin()
                notices = None if connection is None else await self._wait(connection, after, wait_s)
        except BaseException:
            if connection is not None:
                connection.abort()
            raise
        if connection is not None:
            if self._own is None:
                self._own = connection
            else:
                connection.abort()  # two follow at once: one connection is enough between calls
        return notices

    def close(self) -> None:
        """Hang up."""
        own, self._own = self._own, None
        if own is not None:
            own.abort()

    def abandon(self, *, forked: bool) -> None:
        """As `Connection.abandon`."""
        own, self._own = self._own, None
        if own is not None:
            own.abandon(forked=forked)

    async def _begin(self) -> Connection | None:
        """A connection to the very server that the log was joined on; None where it is another."""
        connection = await self._server.connect()
        books = pack(("HMGET", self._names.control, "run", "replication"))
        try:
            async with asyncio.timeout(self._timeout_s):
                noted = _good(await connection.ask(books))
                if tuple(noted) == await self._identity(connection.who):
                    return connection
        except BaseException:
            connection.abort()
            raise
        connection.abort()
        return None

    async def _identity(self, who: Who) -> tuple[bytes, bytes]:
        """Which servers these are, one of which is already known."""
        return identity_of([who])

    async def _still_there(self) -> None:
        """Raise `ConnectionLost` if a server that the log relies on may have been another in the meantime."""

    async def _wait(self, connection: Connection, after: Position, wait_s: float) -> list[Notice] | None:
        loop = asyncio.get_running_loop()
        end = loop.time() + wait_s
        blind = 0
        while True:
            left_s = min(_STEP_S, end - loop.time())
            async with asyncio.timeout(max(left_s, 0.0) + self._timeout_s):
                page, books = await connection.ask_all(self._request(after.seq, left_s))
            await self._still_there()
            notices = _notices(_good(page), after.seq)
            verdict = _judged(_good(books), after, notices)
            if notices is None or verdict is None or self._known.is_doubted:
                return None
            if notices or (verdict == after.seq and loop.time() >= end):
                return notices
            blind = blind + 1 if verdict > after.seq else 0
            if blind >= _BLIND_STEPS:
                return None

    def _request(self, seq: int, wait_s: float) -> list[bytes]:
        block = ("BLOCK", str(max(1, int(wait_s * 1000)))) if wait_s > 0 else ()
        read = ("XREAD", "COUNT", str(_MESSAGES_AT_ONCE), *block, "STREAMS", self._names.log, f"{seq}-0")
        return [pack(read), pack(("HMGET", self._names.control, "epoch", "seq"))]


def joined_of(reply: Sequence[Any]) -> Joined:
    """What the script that joins has told."""
    epoch, seq, cleared, floors = reply
    return Joined(Position(int.from_bytes(epoch, "big"), seq), _floors(floors, cleared))


def _good(reply: Any) -> Any:
    if isinstance(reply, ReplyError):
        raise reply
    return reply


def _floors(pairs: Sequence[bytes], cleared: int) -> list[Notice]:
    """The floors of a hash in the order of their sequences; one that cannot be read is as bad as a lost one."""
    found = [Notice(Kind.CLEAR, "", None, "", cleared)] if cleared else []
    for name, stamp in zip(pairs[::2], pairs[1::2], strict=True):
        notice = named_notice(name, int.from_bytes(stamp[:8], "big"))
        if notice is None:
            raise ConnectionLost("holds floors that cannot be read: was another version of this cache used with it?")
        found.append(notice)
    return sorted(found, key=lambda notice: notice.seq)


def _notices(page: dict[bytes, list[Any]] | None, after: int) -> list[Notice] | None:
    """The notices of a page that are new, if they join on without a gap."""
    found: list[Notice] = []
    for messages in (page or {}).values():
        for ident, fields in messages:
            notices = unpack_notices(fields[1], int(ident.partition(b"-")[0]))
            if not notices or notices[0].seq > after + 1:
                return None
            found += notices[after + 1 - notices[0].seq :]
            after = notices[-1].seq
    return found


def _judged(books: list[bytes | None], after: Position, notices: list[Notice] | None) -> int | None:
    """The log's last sequence, if it is still the same log and has not been set back."""
    epoch, seq = books
    if epoch is None or seq is None or int.from_bytes(epoch, "big") != after.epoch:
        return None
    heard = notices[-1].seq if notices else after.seq
    return int(seq) if int(seq) >= heard else None
