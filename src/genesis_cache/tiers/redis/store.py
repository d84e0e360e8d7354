"""The Redis store: what `RemoteStore` asks, said in Redis' words, for one event loop.

On a server of its own everything that a change moves is moved by one script: value, mark, sequence, log and floors.
A fill is refused by its key's mark, which says when that key (or one of the few that share the mark) last changed.
Marks are never deleted, so that no removal can be forgotten, and take the same room however many keys there are.
"""

import os
from collections.abc import Callable, Sequence

from genesis_cache.model.clock import Clock
from genesis_cache.model.errors import SettingsError
from genesis_cache.model.keys import Address
from genesis_cache.model.settings import CacheSettings
from genesis_cache.tiers.base import Buffer, Change
from genesis_cache.tiers.redis.cluster_store import ClusterStore
from genesis_cache.tiers.redis.commits import Commits, Packer
from genesis_cache.tiers.redis.log import Log
from genesis_cache.tiers.redis.names import DIGEST_BYTES, Names
from genesis_cache.tiers.redis.place import Place, place_of
from genesis_cache.tiers.redis.scripts import LEASE, RELEASE
from genesis_cache.tiers.redis.sentinel_log import SentinelLog
from genesis_cache.tiers.redis.server import Limits, Server
from genesis_cache.tiers.redis.sweeping import Sweeper
from genesis_cache.tiers.redis.upkeep import Upkeep, envelope_of
from genesis_cache.tiers.remote_base import Committed, RemoteStore
from genesis_cache.tiers.remote_known import Known

_NOTE_MARGIN_S = 10.0  # a note on a key outlives every load that began before it


class RedisStore(Upkeep):
    """A `RemoteStore` on one Redis server, or the primary that Sentinels name."""

    def __init__(
        self, place: Place, limits: Limits, known: Known, cache_name: str, capacity_bytes: int, clock: Clock
    ) -> None:
        names = self._names = Names(cache_name)
        server = self._own = self._server = Server(place, limits, known)
        self._pid = os.getpid()
        is_named = place.kind == "sentinel"
        self._log = (
            SentinelLog(place, server, known, names, clock, limits.timeout_s)
            if is_named
            else Log(server, known, names, clock, limits.timeout_s)
        )
        self._commits = Commits(server, names, Packer(names, capacity_bytes, clock), self._log)
        self._sweeper = Sweeper(server, self._nodes, names, capacity_bytes, clock)
        self._clock = clock
        length = b"$%d\r\n" % (len(names.value) + DIGEST_BYTES)
        self._get = b"*2\r\n$3\r\nGET\r\n" + length + names.value
        self._between = b"\r\n" + length + names.value

    # -- life ---------------------------------------------------------------------------------------------------

    async def open(self) -> None:
        """As `RemoteStore.open`."""
        self._pid = os.getpid()
        await self._own.open()

    async def close(self) -> None:
        """As `RemoteStore.close`."""
        self._log.close()
        await self._own.close()

    def forget(self) -> None:
        """As `RemoteStore.forget`."""
        forked = self._pid != os.getpid()
        self._pid = os.getpid()
        self._log.abandon(forked=forked)
        self._own.abandon(forked=forked)

    async def _nodes(self) -> Sequence[Server]:
        return [self._own]

    # -- values -------------------------------------------------------------------------------------------------

    async def get(self, address: Address) -> Buffer | None:
        """As `RemoteStore.get`."""
        reply = await self._own.read(self._get + address.digest + b"\r\n")
        if reply is None:
            return None
        if type(reply) is bytes:
            return envelope_of(reply)
        if reply.code != "WRONGTYPE":  # something of another program's under this key is no outage
            self._own.checked(reply)
        return None

    async def get_many(self, addresses: Sequence[Address]) -> list[Buffer | None]:
        """As `RemoteStore.get_many`."""
        if not addresses:
            return []
        keys = self._between.join([b"", *[address.digest for address in addresses]])
        replies = await self._own.read(b"*%d\r\n$4\r\nMGET%b\r\n" % (len(addresses) + 1, keys))
        return [envelope_of(reply) for reply in self._server.checked(replies)]

    async def commit(self, changes: Sequence[Change], epoch: int) -> Committed:
        """As `RemoteStore.commit`."""
        return await self._commits.commit(changes, epoch)

    # -- leases -------------------------------------------------------------------------------------------------

    async def lease(self, address: Address, token: bytes, ttl_s: float) -> bool:
        """As `RemoteStore.lease`."""
        keys = [self._names.lease_of(address.digest)]
        return bool(await self._server.run(LEASE, keys, [token, str(max(1, int(ttl_s * 1000)))]))

    async def release(self, address: Address, token: bytes) -> None:
        """As `RemoteStore.release`."""
        await self._server.run(RELEASE, [self._names.lease_of(address.digest)], [token])


def redis_store(settings: CacheSettings, capacity_bytes: int, clock: Clock) -> Callable[[], RemoteStore]:
    """What makes a store for each event loop; nothing is connected yet.

    `SettingsError`, with the remedy, for a URL that cannot be right.
    """
    if settings.redis_url is None:
        raise SettingsError("REDIS_URL is not set: set it, or leave redis out of CACHE_TIERS")
    place = place_of(settings.redis_url)
    limits = Limits(settings.redis_max_connections, settings.redis_connection_timeout, settings.redis_socket_timeout)
    known = Known()
    if place.kind == "cluster":
        note_s = settings.cache_load_deadline + _NOTE_MARGIN_S
        return lambda: ClusterStore(place, limits, known, settings.cache_name, capacity_bytes, clock, note_s)
    return lambda: RedisStore(place, limits, known, settings.cache_name, capacity_bytes, clock)
