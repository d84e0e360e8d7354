"""A bounded set of connections to one server: callers beyond the bound wait their turn, and no reply meets a stranger.

A request that is cancelled, fails or takes too long costs its connection. One timer for the whole pool watches over
requests that get no reply, because a timer for each would cost more than the request.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from genesis_cache.tiers.redis.connection import Connection
from genesis_cache.tiers.remote_known import Known, Replaced

_CHECKS_PER_TIMEOUT = 4


class Pool:
    """Connections of one event loop, made when they are needed and at most ``limit``.

    Raises what went wrong as it is: `OSError`, `TimeoutError`, `ReplyError` while connecting, `ConnectionLost`, and
    `Replaced` while there are other servers than the log was joined on.
    """

    __slots__ = (
        "_connect",
        "_idle",
        "_known",
        "_limit",
        "_making",
        "_open",
        "_timeout_s",
        "_timer",
        "_turn",
        "_waiting",
    )

    def __init__(
        self, connect: Callable[[], Awaitable[Connection]], known: Known, limit: int, timeout_s: float
    ) -> None:
        self._connect = connect
        self._known = known
        self._turn = known.turn
        self._limit = limit
        self._timeout_s = timeout_s
        self._idle: list[Connection] = []
        self._open: set[Connection] = set()
        self._making = 0
        self._waiting: deque[asyncio.Future[Connection | None]] = deque()
        self._timer: asyncio.TimerHandle | None = None

    async def call(self, request: bytes, *, looks: bool = False) -> Any:
        """The reply to one packed command; an error reply comes as a `ReplyError` value.

        ``looks`` as in `Connection.ask`.
        """
        connection = await self.take()
        if self._timer is None:
            self._watch()
        try:
            reply = await connection.ask(request, looks=looks)
        except BaseException:
            self.drop(connection)
            raise
        self.give(connection)
        return reply

    async def batch(self, requests: Sequence[bytes]) -> list[Any]:
        """The replies to several packed commands, sent in one go over one connection."""
        connection = await self.take()
        if self._timer is None:
            self._watch()
        try:
            replies = await connection.ask_all(requests)
        except BaseException:
            self.drop(connection)
            raise
        self.give(connection)
        return replies

    async def again(self, request: bytes, *, looks: bool = False) -> Any:
        """As `call`, for a request whose connection was found dead: over one that is made for it, if there is room."""
        self.drop_idle()
        return await self.call(request, looks=looks)

    # -- the set ------------------------------------------------------------------------------------------------

    async def take(self) -> Connection:
        """A connection of one's own, to be given back or dropped."""
        while True:
            if self._turn is not self._known.turn:
                await self._look_again()
            while self._idle:
                connection = self._idle.pop()
                if not connection.closed:
                    return connection
                self.drop(connection)
            if len(self._open) + self._making < self._limit:
                return await self._make()
            turn: asyncio.Future[Connection | None] = asyncio.get_running_loop().create_future()
            self._waiting.append(turn)
            try:
                given = await turn
            except BaseException:
                self._pass_on(turn)
                raise
            if given is not None:
                return given

    def add(self, connection: Connection) -> None:
        """Take in a connection that was made elsewhere."""
        self._open.add(connection)
        self.give(connection)

    def give(self, connection: Connection) -> None:
        """Take a connection back."""
        if connection.turn is not self._turn or connection.closed:
            self.drop(connection)
            return
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(connection)
                return
        self._idle.append(connection)

    def drop(self, connection: Connection) -> None:
        """Hang up on a connection, which makes room for another."""
        connection.abort()
        self._open.discard(connection)
        self._wake()

    def drop_idle(self) -> None:
        """Hang up on every connection that is not in use."""
        while self._idle:
            self.drop(self._idle.pop())

    async def close(self) -> None:
        """Hang up on all, and wait until the loop has seen to it."""
        left = list(self._open)
        self._idle.clear()
        self._open.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for connection in left:
            await connection.close()

    def abandon(self, *, forked: bool) -> None:
        """As `Connection.abandon`, for all."""
        for connection in list(self._open):
            connection.abandon(forked=forked)
        self._idle.clear()
        self._open.clear()
        self._waiting.clear()
        self._timer = None

    async def _make(self) -> Connection:
        self._making += 1
        try:
            connection = await self._connect()
        except BaseException:
            self._making -= 1
            self._wake()
            raise
        self._making -= 1
        self._open.add(connection)
        return connection

    async def _look_again(self) -> None:
        """Others may be there: hang up on those, or refuse to go on while the log is joined on none."""
        if self._known.is_doubted:
            await asyncio.sleep(0)  # who has just joined it notes that a turn of the loop later
        if self._known.is_doubted:
            raise Replaced
        self._turn = self._known.turn
        self.drop_idle()

    def _wake(self) -> None:
        """Tell the first in the queue that there is room for a connection."""
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return

    def _pass_on(self, turn: asyncio.Future[Connection | None]) -> None:
        """Somebody stopped waiting: what was given to them is for the next."""
        if turn.cancelled() or not turn.done():
            return
        given = turn.result()
        if given is None:
            self._wake()
        else:
            self.give(given)

    # -- the watch ----------------------------------------------------------------------------------------------

    def _watch(self) -> None:
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(self._timeout_s / _CHECKS_PER_TIMEOUT, self._look)

    def _look(self) -> None:
        """Give up requests that are older than the timeout; rest when nothing is under way."""
        self._timer = None
        now = asyncio.get_running_loop().time()
        under_way = [connection for connection in self._open if connection.asked_at]
        for connection in under_way:
            if now - connection.asked_at > self._timeout_s:
                connection.expire()
                self.drop_idle()  # the others lead to the same silence
        if under_way:
            self._watch()
