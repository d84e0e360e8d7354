"""Keeping house in PostgreSQL: what expired goes, the size comes back within its bound, old traces and messages go.

In steps of a few hundred rows, each a transaction of its own with a pause behind it, and one process at a time.
"""

import asyncio
import secrets
from collections.abc import Sequence
from typing import Any

from genesis_cache.tiers.postgres.batch import CLEAR_ALL
from genesis_cache.tiers.postgres.links import Connection
from genesis_cache.tiers.postgres.schema import ROW_BYTES
from genesis_cache.tiers.postgres.session import Session

STEP = 500  # rows of one transaction
SAMPLE = 2000  # rows ranked for an eviction
TARGET = 0.95  # of the capacity, once it is exceeded
MAX_FLOORS = 65536
KEPT_MESSAGES = 65536
KEPT_MESSAGES_S = 600.0
LOAD_MARGIN_S = 10.0  # how much longer than a load what refuses its fill is kept

_PAUSE_S = 0.002
_EVICTION_S = 60.0  # the longest a sweep restores the bound, beyond its budget
_ELSEWHERE = -1  # another process is at it


class Sweeping:
    """The sweeps of one store."""

    def __init__(self, session: Session, capacity_bytes: int, load_deadline_s: float) -> None:
        self._session = session
        self._capacity = capacity_bytes
        self._keep_s = load_deadline_s + LOAD_MARGIN_S
        self._after = b""
        """How far the search for cleared entries has come."""
        self._searching = 0
        """The sequence of the clear that it is made for."""

    async def sweep(self, budget_s: float) -> int:
        """As `RemoteStore.sweep`."""
        loop = asyncio.get_running_loop()
        start = loop.time()
        await self._mark()
        removed = await self._expired(start + budget_s)
        if removed >= 0:
            removed += await self._cleared(start + budget_s)
            removed += await self._oversized(start + max(budget_s, _EVICTION_S))
            await self._trim(start + budget_s)
        return max(removed, 0)

    async def _ask(self, statement: str, *values: object) -> list[Any]:
        async def fetch(connection: Connection) -> list[Any]:
            rows: list[Any] = await connection.fetch(statement, *values)
            return rows

        return await self._session.ask(fetch)

    async def _mark(self) -> None:
        for digests in self._session.marks.take():
            await self._ask(self._session.sql.mark, self._session.clock.wall(), digests)

    async def _evict(self, digests: Sequence[bytes], why: str) -> int:
        wall = self._session.clock.wall()
        rows = await self._ask(self._session.sql.evict, wall, list(digests), why, self._keep_s)
        await asyncio.sleep(_PAUSE_S)
        return int(rows[0][0])

    async def _expired(self, end: float) -> int:
        """How many expired rows went; `_ELSEWHERE` where another process is at it."""
        removed = 0
        while True:
            rows = await self._ask(self._session.sql.expired, self._session.clock.wall(), STEP)
            gone = await self._evict([digest for (digest,) in rows], "ttl")
            if gone == _ELSEWHERE:
                return _ELSEWHERE if removed == 0 else removed
            removed += gone
            if len(rows) < STEP or gone == 0 or asyncio.get_running_loop().time() > end:
                return removed

    async def _cleared(self, end: float) -> int:
        """Take away what was made before everything was killed, over as many sweeps as it takes."""
        books = await self._books()
        if books is None or books["cleared"] <= books["swept"]:
            return 0
        if self._searching != books["cleared"]:
            self._searching, self._after = books["cleared"], b""
        removed = 0
        while asyncio.get_running_loop().time() <= end:
            rows = await self._ask(self._session.sql.page, self._after, STEP)
            dead = [digest for digest, made in rows if 0 < made < self._searching]
            gone = await self._evict(dead, "cleared") if dead else 0
            if gone == _ELSEWHERE:
                break
            removed += gone
            if len(rows) < STEP:
                await self._ask(self._session.sql.swept, self._searching)
                break
            self._after = rows[-1][0]
        return removed

    async def _oversized(self, end: float) -> int:
        """Evict the largest and least useful of random samples until the bound holds."""
        removed, target = 0, self._capacity
        while asyncio.get_running_loop().time() <= end:
            books = await self._books()
            if books is None or books["bytes"] <= target:
                break
            target = int(self._capacity * TARGET)
            chosen = _chosen(await self._sample(), books["bytes"] - target)
            gone = await self._evict(chosen, "size")
            if gone <= 0:
                break
            removed += gone
        return removed

    async def _sample(self) -> list[Any]:
        """Rows from a random place on, ranked; all of them where they are few."""
        sample, wall = self._session.sql.sample, self._session.clock.wall()
        rows = await self._ask(sample, secrets.token_bytes(32), SAMPLE, wall)
        return rows if len(rows) >= SAMPLE // 2 else await self._ask(sample, b"", SAMPLE, wall)

    async def _trim(self, end: float) -> None:
        sql = self._session.sql
        values = (STEP, self._keep_s, KEPT_MESSAGES, KEPT_MESSAGES_S, MAX_FLOORS, CLEAR_ALL)
        while asyncio.get_running_loop().time() <= end:
            rows = await self._ask(sql.trim, *values)
            if not rows[0][0]:
                return
            await asyncio.sleep(_PAUSE_S)

    async def _books(self) -> Any:
        rows = await self._ask(self._session.sql.books)
        return rows[0] if rows else None


def _chosen(rows: Sequence[Any], wanted: int) -> list[bytes]:
    """As many of the ranked rows as give the bytes that are wanted, within one step."""
    chosen: list[bytes] = []
    for digest, size in rows[:STEP]:
        if wanted <= 0:
            break
        chosen.append(digest)
        wanted -= size + ROW_BYTES
    return chosen
