"""The log of a cache on a cluster: it lies on one node, and is as good as the memory of all of them.

A node that comes back empty or with old values makes the whole log doubtful. Whoever follows keeps a connection to each
node, whose end is the first sign of that.
"""

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator
from typing import Any

from genesis_cache.model.clock import Clock
from genesis_cache.model.notice import Position
from genesis_cache.tiers.redis.cluster import Cluster, SlotServer, together
from genesis_cache.tiers.redis.cluster_scripts import STAMP
from genesis_cache.tiers.redis.connection import WHO, Connection, pack
from genesis_cache.tiers.redis.known import Who, identity_of, who_of
from genesis_cache.tiers.redis.log import EPOCH_BYTES, Log, joined_of
from genesis_cache.tiers.redis.names import Names, slot_of
from genesis_cache.tiers.redis.outage import ConnectionLost
from genesis_cache.tiers.redis.scripts import JOIN, LEASE, RELEASE
from genesis_cache.tiers.redis.server import Server
from genesis_cache.tiers.remote_base import Joined, Outage
from genesis_cache.tiers.remote_known import Known

_LOCK_MS = 5_000
_LOCK_PAUSE_S = 0.02


class ClusterLog(Log):
    """One event loop's view of a cache's log on a cluster."""

    __slots__ = ("_cluster", "_sentries")

    def __init__(
        self, cluster: Cluster, server: SlotServer, known: Known, names: Names, clock: Clock, timeout_s: float
    ) -> None:
        super().__init__(server, known, names, clock, timeout_s)
        self._cluster = cluster
        self._sentries: list[Connection] = []

    # -- joining ------------------------------------------------------------------------------------------------

    async def _join(self, known: Position | None) -> tuple[Joined, frozenset[Who]]:
        """A new log is made by one at a time, for its epoch has to stand on every shard."""
        try:
            self._cluster.doubt()
            found = await self._look(known)
            if found is None:
                async with self._alone():
                    found = await self._look(known) or await self._renew(known)
        finally:
            self._cluster.rest()
        return found

    async def _look(self, known: Position | None) -> tuple[Joined, frozenset[Who]] | None:
        """The log if it is sound."""
        reply, servers = await self._ask(known, "look")
        if reply is None or {reply[0]} != await self.stamps():
            return None
        return joined_of(reply), servers

    async def _renew(self, known: Position | None) -> tuple[Joined, frozenset[Who]]:
        """A new log: first its epoch goes to every shard, where it refuses what belongs to another, then it begins."""
        epoch = secrets.token_bytes(EPOCH_BYTES)
        size = str(self._names.marks_bytes)
        for marks in self._names.marks:
            await self._cluster.run(STAMP, [marks], [epoch, size], slot_of(marks))
        reply, servers = await self._ask(known, "renew", epoch)
        return joined_of(reply), servers

    async def _ask(self, known: Position | None, mode: str, epoch: bytes | None = None) -> tuple[Any, frozenset[Who]]:
        names = self._names
        nodes = await self._cluster.nodes()
        servers = frozenset(who_of(told) for told in await together([node.batch(WHO) for node in nodes]))
        arguments = self._joining(known, identity_of(servers), mode)
        if epoch is not None:
            arguments[4] = epoch
        return await self._server.run(JOIN, [names.control, names.log, names.floors], arguments), servers

    async def stamps(self) -> set[bytes]:
        """The epochs on the shards; one that is not whole counts as none."""
        asked = [
            (slot_of(marks), request)
            for marks in self._names.marks
            for request in (pack(("STRLEN", marks)), pack(("GETRANGE", marks, "0", str(EPOCH_BYTES - 1))))
        ]
        replies = [self._cluster.checked(reply) for reply in await self._cluster.batch(asked)]
        pairs = zip(replies[::2], replies[1::2], strict=True)
        return {epoch if size == self._names.marks_bytes else b"" for size, epoch in pairs}

    @contextlib.asynccontextmanager
    async def _alone(self) -> AsyncIterator[None]:
        """While nobody else makes a new log."""
        token = secrets.token_bytes(16)
        keys = [self._names.joining]
        try:
            async with asyncio.timeout(_LOCK_MS / 1000 + self._timeout_s):
                while not await self._server.run(LEASE, keys, [token, str(_LOCK_MS)]):  # noqa: ASYNC110  # others are elsewhere
                    await asyncio.sleep(_LOCK_PAUSE_S)
        except TimeoutError:
            raise Outage(f"The Redis cluster at {self._server.shown} is being joined by others all the time") from None
        try:
            yield
        finally:
            await self._server.run(RELEASE, keys, [token])

    # -- following ----------------------------------------------------------------------------------------------

    async def _identity(self, who: Who) -> tuple[bytes, bytes]:
        """Which nodes these are, told over connections that are kept: while these last, the nodes are the same."""
        _ = who  # the log's node is one of them
        self._dismiss()
        self._cluster.doubt()
        await together([self._post(node) for node in await self._cluster.nodes()])
        return identity_of(sentry.who for sentry in self._sentries)

    async def _post(self, node: Server) -> None:
        self._sentries.append(await node.connect())

    async def _still_there(self) -> None:
        if any(sentry.closed for sentry in self._sentries):
            raise ConnectionLost("has lost a node of its cluster")

    def close(self) -> None:
        """As `Log.close`."""
        super().close()
        self._dismiss()

    def abandon(self, *, forked: bool) -> None:
        """As `Log.abandon`."""
        super().abandon(forked=forked)
        for sentry in self._sentries:
            sentry.abandon(forked=forked)
        self._sentries = []

    def _dismiss(self) -> None:
        for sentry in self._sentries:
            sentry.abort()
        self._sentries = []
