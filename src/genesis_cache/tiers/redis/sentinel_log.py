"""The log of a cache on a primary that Sentinels name: it is heard only while none of them has changed its mind.

A primary that its Sentinels have given up may live on for seconds, and answer whoever is still connected to it, while
everybody who comes anew is sent to the next one. So whoever follows the log asks the Sentinels too, again and again.
"""

import asyncio
from dataclasses import replace
from typing import Any

from genesis_cache.model.clock import Clock
from genesis_cache.tiers.redis.connection import Connection, connect, pack
from genesis_cache.tiers.redis.log import Log
from genesis_cache.tiers.redis.names import Names
from genesis_cache.tiers.redis.outage import ConnectionLost, ReplyError
from genesis_cache.tiers.redis.place import Host, Place
from genesis_cache.tiers.redis.server import FAILURES, Server
from genesis_cache.tiers.remote_known import Known

_LOOK_EVERY_S = 0.1
_LOOK_S = 0.1  # for a Sentinel to answer
_REST_S = 5.0  # before one that did not is asked again


class SentinelLog(Log):
    """One event loop's view of a cache's log on the primary of the moment."""

    __slots__ = ("_asked", "_look_at", "_named", "_place", "_rests", "_watches")

    def __init__(
        self, place: Place, server: Server, known: Known, names: Names, clock: Clock, timeout_s: float
    ) -> None:
        super().__init__(server, known, names, clock, timeout_s)
        self._place = place
        self._asked = pack(("SENTINEL", "GET-MASTER-ADDR-BY-NAME", place.master))
        self._named: dict[Host, Any] = {}
        """Whom each Sentinel has named when the connection was made."""
        self._rests: dict[Host, float] = {}
        self._watches: dict[Host, Connection] = {}
        self._look_at = 0.0

    async def _begin(self) -> Connection | None:
        """As `Log._begin`; what the Sentinels say is asked before, so that no change can go unnoticed."""
        self._named = await self._look()
        return await super()._begin()

    async def _still_there(self) -> None:
        """Raise `ConnectionLost` if one of the Sentinels names another primary than before."""
        now = asyncio.get_running_loop().time()
        if now < self._look_at:
            return
        self._look_at = now + _LOOK_EVERY_S
        for host, named in (await self._look()).items():
            if self._named.setdefault(host, named) != named:
                raise ConnectionLost("is no longer the primary that its Sentinels name")

    async def _look(self) -> dict[Host, Any]:
        """Whom each Sentinel that answers names at this moment."""
        hosts = self._place.hosts
        answers = await asyncio.gather(*(self._ask(host) for host in hosts))
        return {host: answer for host, answer in zip(hosts, answers, strict=True) if answer is not None}

    async def _ask(self, host: Host) -> Any:
        """What one Sentinel says; None where it does not answer."""
        now = asyncio.get_running_loop().time()
        if now < self._rests.get(host, 0.0):
            return None
        try:
            async with asyncio.timeout(_LOOK_S):
                watch = self._watches.get(host)
                if watch is None or watch.closed:
                    self._drop(host)
                    watch = self._watches[host] = await self._connect(host)
                answer = await watch.ask(self._asked)
        except FAILURES:
            self._drop(host)
            self._rests[host] = now + _REST_S
            return None
        except BaseException:
            self._drop(host)
            raise
        return None if isinstance(answer, ReplyError) else answer

    async def _connect(self, host: Host) -> Connection:
        place = self._place
        logins = [(place.sentinel_username, place.sentinel_password)]
        if place.password is not None and place.sentinel_password is None:
            logins.append((place.username, place.password))
        for user, password in logins[:-1]:
            try:
                return await connect(replace(place, database=0, username=user, password=password), host, _LOOK_S)
            except ReplyError:
                continue
        user, password = logins[-1]
        return await connect(replace(place, database=0, username=user, password=password), host, _LOOK_S)

    def _drop(self, host: Host) -> None:
        watch = self._watches.pop(host, None)
        if watch is not None:
            watch.abort()

    def close(self) -> None:
        """As `Log.close`."""
        super().close()
        for host in list(self._watches):
            self._drop(host)

    def abandon(self, *, forked: bool) -> None:
        """As `Log.abandon`."""
        super().abandon(forked=forked)
        for watch in self._watches.values():
            watch.abandon(forked=forked)
        self._watches = {}
