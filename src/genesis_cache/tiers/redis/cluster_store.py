"""The Redis store on a cluster: values over all nodes, the log on one."""

import os
from collections.abc import Sequence

from genesis_cache.model.clock import Clock
from genesis_cache.model.keys import Address
from genesis_cache.tiers.base import Buffer, Change, StoreStats
from genesis_cache.tiers.redis.cluster import Cluster, SlotServer
from genesis_cache.tiers.redis.cluster_commits import ClusterCommits
from genesis_cache.tiers.redis.cluster_log import ClusterLog
from genesis_cache.tiers.redis.commits import Packer
from genesis_cache.tiers.redis.connection import pack
from genesis_cache.tiers.redis.names import SHARDS, Names, slot_of
from genesis_cache.tiers.redis.outage import ReplyError
from genesis_cache.tiers.redis.place import Place
from genesis_cache.tiers.redis.scripts import LEASE, RELEASE
from genesis_cache.tiers.redis.server import Limits, Server
from genesis_cache.tiers.redis.sweeping import Sweeper, note
from genesis_cache.tiers.redis.upkeep import Upkeep, envelope_of
from genesis_cache.tiers.remote_base import Committed
from genesis_cache.tiers.remote_known import Known


class ClusterStore(Upkeep):
    """A `RemoteStore` on a cluster: values lie in 64 shards over all nodes, the log in one slot."""

    def __init__(
        self,
        place: Place,
        limits: Limits,
        known: Known,
        cache_name: str,
        capacity_bytes: int,
        clock: Clock,
        note_s: float,
    ) -> None:
        names = self._names = Names(cache_name, SHARDS)
        self._cluster = Cluster(place, limits, known)
        server = SlotServer(self._cluster, place, slot_of(names.control), names.control)
        self._server = server
        self._pid = os.getpid()
        whoever = self._whoever = Cluster(place, limits, Known())
        log_server = SlotServer(whoever, place, slot_of(names.control), names.control)
        log = ClusterLog(whoever, log_server, known, names, clock, limits.timeout_s)
        self._log = self._shards = log
        packer = Packer(names, capacity_bytes, clock)
        self._commits = ClusterCommits(self._cluster, server, names, packer, log, note_s)
        self._sweeper = Sweeper(server, self._nodes, names, capacity_bytes, clock)
        self._clock = clock
        self._slots = [slot_of(marks) for marks in names.marks]

    async def open(self) -> None:
        """As `RemoteStore.open`."""
        self._pid = os.getpid()
        for node in await self._cluster.nodes():
            await node.open()

    async def close(self) -> None:
        """As `RemoteStore.close`."""
        self._log.close()
        await self._whoever.close()
        await self._cluster.close()

    def forget(self) -> None:
        """As `RemoteStore.forget`."""
        forked = self._pid != os.getpid()
        self._pid = os.getpid()
        self._log.abandon(forked=forked)
        self._whoever.abandon(forked=forked)
        self._cluster.abandon(forked=forked)

    async def _nodes(self) -> Sequence[Server]:
        return await self._cluster.nodes()

    async def get(self, address: Address) -> Buffer | None:
        """As `RemoteStore.get`."""
        digest = address.digest
        request = pack(("GET", self._names.value_of(digest)))
        slot = self._slots[self._names.shard_of(digest)]
        reply = await self._cluster.read(request, slot)
        if isinstance(reply, ReplyError) and reply.code != "WRONGTYPE":
            self._cluster.checked(reply)
        return envelope_of(reply)

    async def get_many(self, addresses: Sequence[Address]) -> list[Buffer | None]:
        """As `RemoteStore.get_many`: one MGET for each shard, those of a node in one go, all nodes at the same time."""
        names = self._names
        by_shard: dict[int, list[int]] = {}
        for number, address in enumerate(addresses):
            by_shard.setdefault(names.shard_of(address.digest), []).append(number)
        requests = [
            (self._slots[shard], pack(("MGET", *[names.value_of(addresses[number].digest) for number in numbers])))
            for shard, numbers in by_shard.items()
        ]
        found: list[Buffer | None] = [None] * len(addresses)
        replies = await self._cluster.batch(requests)
        for numbers, reply in zip(by_shard.values(), replies, strict=True):
            for number, value in zip(numbers, self._cluster.checked(reply), strict=True):
                found[number] = envelope_of(value)
        return found

    async def commit(self, changes: Sequence[Change], epoch: int) -> Committed:
        """As `RemoteStore.commit`."""
        return await self._commits.commit(changes, epoch)

    async def lease(self, address: Address, token: bytes, ttl_s: float) -> bool:
        """As `RemoteStore.lease`."""
        key, slot = self._lease_of(address)
        return bool(await self._cluster.run(LEASE, [key], [token, str(max(1, int(ttl_s * 1000)))], slot))

    async def release(self, address: Address, token: bytes) -> None:
        """As `RemoteStore.release`."""
        key, slot = self._lease_of(address)
        await self._cluster.run(RELEASE, [key], [token], slot)

    def _lease_of(self, address: Address) -> tuple[bytes, int]:
        digest = address.digest
        return self._names.lease_of(digest), self._slots[self._names.shard_of(digest)]

    async def sweep(self, budget_s: float) -> int:
        """As `RemoteStore.sweep`."""
        await self._note_moves()
        return await super().sweep(budget_s)

    async def stats(self) -> StoreStats:
        """As `RemoteStore.stats`."""
        await self._note_moves()
        return await super().stats()

    async def check(self) -> list[str]:
        """As `RemoteStore.check`."""
        faults = await super().check()
        stamps = await self._shards.stamps()
        epoch = self._server.checked(await self._server.read(pack(("HGET", self._names.control, "epoch"))))
        if epoch is not None and stamps != {epoch}:
            faults.append(f"the shards bear {len(stamps)} epochs, not only that of the books")
        return faults

    async def _note_moves(self) -> None:
        """Bring the books of this process's changes to where all can read them."""
        entries, size = self._commits.moves()
        if entries or size:
            await note(self._server, self._names, "HINCRBY", {"entries": entries, "bytes": size})
