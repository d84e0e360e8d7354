"""How a PostgreSQL server is asked: on a connection that is sound, within a time, again where that is harmless."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import TypeVar

from genesis_cache.model.clock import Clock
from genesis_cache.tiers.postgres.faults import (
    Failures,
    is_rolled_back,
    is_unsent,
    is_without_tables,
    is_worth_another,
    outage_of,
)
from genesis_cache.tiers.postgres.links import Connection, Links, has_news, settle
from genesis_cache.tiers.postgres.marks import Marks
from genesis_cache.tiers.postgres.place import Place
from genesis_cache.tiers.postgres.schema import prepare
from genesis_cache.tiers.postgres.statements import Statements

_ATTEMPTS = 6  # at a transaction that was rolled back
_POOLED_ATTEMPTS = 4  # more of a read, because a pooler may hand out several dead sessions one by one
_PAUSE_S = 0.005  # before the second attempt; each further one waits up to twice as long

_T = TypeVar("_T")


class Session:
    """What the parts of a store share: the connections, the statements, the clock and the limits."""

    def __init__(self, place: Place, name: str, links: Links, clock: Clock, marks: Marks, timeout_s: float) -> None:
        self.place = place
        self.name = name
        self.links = links
        self.clock = clock
        self.marks = marks
        self.timeout_s = timeout_s
        """The longest that a call may take."""
        self.sql = Statements(place.schema, name, is_logged=place.is_logged)
        self.is_logged = place.is_logged
        """Whether the cache's tables survive a crash, as whoever made it has said."""
        self.is_ready = False
        self._opening: asyncio.Lock | None = None

    async def open(self, timeout_s: float | None = None) -> None:
        """Connect, and make or check our tables."""
        if self._opening is None:
            self._opening = asyncio.Lock()
        async with self._opening:
            if not self.is_ready:
                await self._bounded(self._prepare, timeout_s or self.timeout_s)

    async def _prepare(self) -> None:
        self.is_logged = await self._once(self._make)
        self.sql = Statements(self.place.schema, self.name, is_logged=self.is_logged)
        self.is_ready = True

    async def _make(self, connection: Connection) -> bool:
        return await prepare(connection, self.place.schema, self.name, is_logged=self.place.is_logged)

    async def ask(
        self, act: Callable[[Connection], Awaitable[_T]], *, again: bool = True, timeout_s: float | None = None
    ) -> _T:
        """What an act on a connection gives; `Outage` where it cannot be had.

        It is tried again where the server has undone it, where our tables had to be made anew, and, if ``again`` says
        that doing it twice does no harm, once on a new connection where the old one was found dead.
        """
        if not self.is_ready:
            await self.open()
        return await self._bounded(lambda: self._repeatedly(act, again=again), timeout_s or self.timeout_s)

    async def _repeatedly(self, act: Callable[[Connection], Awaitable[_T]], *, again: bool) -> _T:
        for attempt in range(_ATTEMPTS):
            try:
                return await self._once(act, again=again)
            except Failures as error:
                if is_rolled_back(error):
                    await asyncio.sleep(random.random() * _PAUSE_S * 2**attempt)  # noqa: S311  # spreads, hides nothing
                elif attempt >= (_POOLED_ATTEMPTS if again and self.place.is_pooled else 1):
                    raise
                elif is_without_tables(error):
                    self.is_ready = False
                    await self.open()
                elif not (again or is_unsent(error)) or not is_worth_another(error):
                    raise
        return await self._once(act, again=again)

    async def _once(self, act: Callable[[Connection], Awaitable[_T]], *, again: bool = True) -> _T:
        connection = await self.links.take()
        while not again and has_news(connection):  # nothing was sent yet, so that another may be taken
            self.links.drop(connection)
            connection = await self.links.take()
        try:
            result = await act(connection)
        except BaseException as error:
            settle(self.links, connection, error)
            raise
        self.links.give(connection)
        return result

    async def _bounded(self, act: Callable[[], Awaitable[_T]], timeout_s: float) -> _T:
        """Act for at most so long; `Outage` for what a server or the network raises."""
        try:
            async with asyncio.timeout(timeout_s):
                return await act()
        except Failures as error:
            raise outage_of(error, self.place.url) from error

    def forget(self) -> None:
        """Drop the connections without a word; the next call begins anew."""
        self.links.forget()
        self.is_ready = False
        self._opening = None
