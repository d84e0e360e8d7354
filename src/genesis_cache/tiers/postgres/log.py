"""The invalidation log in PostgreSQL: a table is the truth, a notification only wakes who waits for it."""

import asyncio
import contextlib
import secrets
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from genesis_cache.model.notice import Kind, Notice, Position
from genesis_cache.tiers.postgres.faults import Failures, is_without_tables, outage_of
from genesis_cache.tiers.postgres.links import Connection, OwnLinks, connector, settle
from genesis_cache.tiers.postgres.session import Session
from genesis_cache.tiers.postgres.statements import ONE_READ
from genesis_cache.tiers.remote_base import Joined, Outage
from genesis_cache.tiers.wire import named_notice, unpack_notices

POLL_S = 0.1  # how long a lost notification may go unnoticed

_HIGHEST = 2**63 - 1


class Log:
    """One reader of the log, with a connection of its own while it follows."""

    def __init__(self, session: Session, connect_s: float) -> None:
        self._session = session
        self._known: Position | None = None
        """The furthest position that this process knows of."""
        self._heard = asyncio.Event()
        self._ears: OwnLinks | None = None
        """The one connection that listens; None where the log can only be polled."""
        if session.place.listen_url is not None:
            connect = connector(session.place, min(connect_s, session.timeout_s), session.timeout_s, listening=True)
            self._ears = OwnLinks(partial(self._listen, connect), limit=1)

    @property
    def known(self) -> tuple[int, int]:
        """Epoch and sequence of the furthest position known; zeros for none."""
        return (0, 0) if self._known is None else (self._known.epoch, self._known.seq)

    def learn(self, epoch: int, seq: int) -> None:
        """Take note of a position that the server has told."""
        if self._known is None or self._known.epoch != epoch or self._known.seq < seq:
            self._known = Position(epoch, seq)

    async def join(self, known: Position | None) -> Joined:
        """As `RemoteStore.join`."""
        if known is not None and known.epoch == self.known[0]:
            known = Position(known.epoch, max(known.seq, self.known[1]))
        epoch, seq = (0, 0) if known is None else (signed(known.epoch), min(known.seq, _HIGHEST // 2))
        new = secrets.randbits(63) or 1
        session = self._session

        async def ask(connection: Connection) -> list[Any]:
            await connection.execute(session.sql.join, epoch, seq, new)
            rows: list[Any] = await connection.fetch(session.sql.floors)
            return rows

        rows = await session.ask(ask)
        if not rows:
            raise Outage("the books of the cache in PostgreSQL went away while they were read")
        position = Position(rows[0][0], rows[0][1])
        self._known = position
        return Joined(position, [floor_of(name, at) for _, _, name, at in rows if name is not None])

    async def follow(self, after: Position, wait_s: float) -> list[Notice] | None:
        """As `RemoteStore.follow`."""
        loop = asyncio.get_running_loop()
        end_at = loop.time() + wait_s
        while True:
            self._heard.clear()
            notices = await self._news(after)
            if notices is None or notices:
                return notices
            left_s = end_at - loop.time()
            if left_s <= 0:
                return []
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(left_s, POLL_S)):
                    await self._heard.wait()

    async def _news(self, after: Position) -> list[Notice] | None:
        """All notices after a position as they stand now; None for another log or a gap."""
        notices: list[Notice] = []
        since = after.seq
        while True:
            rows = await self._rows(min(since, _HIGHEST))
            if not rows or not _reaches(rows[0], after.epoch, since):
                return None
            self.learn(rows[0][0], rows[0][1])
            for _, _, _, _, last, message in rows:
                if last is None:
                    continue
                some = unpack_notices(message, last)
                if some is None:
                    return None
                notices += [notice for notice in some if notice.seq > since]
                since = last
            if len(rows) < ONE_READ:
                return notices

    async def _rows(self, since: int) -> list[Any]:
        """One query, on the connection that listens if there is one; nothing where there are no tables."""
        session, ears = self._session, self._ears
        if ears is None:
            return await session.ask(lambda connection: connection.fetch(session.sql.follow, since))
        if not session.is_ready:
            await session.open()
        try:
            async with asyncio.timeout(session.timeout_s):
                return await self._listened(ears, since)
        except Failures as error:
            if is_without_tables(error):
                session.is_ready = False
                return []
            raise outage_of(error, session.place.listen_url or session.place.url) from error

    async def _listened(self, ears: OwnLinks, since: int) -> list[Any]:
        connection = await ears.take()
        try:
            rows: list[Any] = await connection.fetch(self._session.sql.follow, since)
        except BaseException as error:
            settle(ears, connection, error)
            raise
        ears.give(connection)
        return rows

    async def _listen(self, connect: Callable[[], Awaitable[Connection]]) -> Connection:
        connection = await connect()
        try:
            await connection.add_listener(self._session.sql.channel, self._hear)
        except BaseException:
            connection.terminate()
            raise
        return connection

    def _hear(self, *_: object) -> None:
        self._heard.set()

    @property
    def is_listening(self) -> bool:
        """Whether notifications wake it; else it polls."""
        return self._ears is not None

    async def close(self) -> None:
        """End the connection; safe to call twice."""
        if self._ears is not None:
            await self._ears.close()

    def forget(self) -> None:
        """Drop the connection without a word to the server."""
        if self._ears is not None:
            self._ears.forget()
        self._heard = asyncio.Event()


def signed(epoch: int) -> int:
    """An epoch as the server's int8; no log of ours has one beyond it, so 0, which is none, stands for those."""
    return epoch if 0 <= epoch <= _HIGHEST else 0


def _reaches(row: Any, epoch: int, since: int) -> bool:
    """Whether the log is still the one that was followed, on the same server, and holds what came after."""
    now_epoch, seq, log_start, is_same_start = row[:4]
    return bool(now_epoch == epoch and is_same_start and log_start <= since <= seq)


def floor_of(name: bytes, seq: int) -> Notice:
    """A floor of the table; one that cannot be read kills everything."""
    return named_notice(name, seq) or Notice(Kind.CLEAR, "", None, "", seq)
