"""The Redis store on a cluster: slots that move, nodes that come back, writers that die between two steps."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import pytest_asyncio

from genesis_cache.model.clock import SystemClock
from genesis_cache.model.finding import Severity
from genesis_cache.model.keys import Address
from genesis_cache.model.settings import CacheSettings
from genesis_cache.testing.servers import RedisCluster, RedisServer
from genesis_cache.testing.store_words import MB, address, kill, put
from genesis_cache.tiers.base import Kind, Position, Remove
from genesis_cache.tiers.redis.cluster_store import ClusterStore
from genesis_cache.tiers.redis.names import SHARDS, Names, slot_of
from genesis_cache.tiers.redis.store import redis_store
from genesis_cache.tiers.remote_base import Outage

PATIENCE_S = 20.0
NOTE_MS = 310_000


@pytest.fixture(scope="module")
def cluster() -> Iterator[RedisCluster]:
    """Three nodes of this module's own."""
    with RedisCluster() as nodes:
        yield nodes


class House:
    """A store that is open, the names of its keys, and the cluster under it."""

    def __init__(self, cluster: RedisCluster, cache_name: str) -> None:
        self.cluster = cluster
        self.cache_name = cache_name
        self.names = Names(cache_name, SHARDS)
        self.store = self.another()

    def another(self) -> ClusterStore:
        """One more store of this cache."""
        settings = CacheSettings(redis_url=self.cluster.url, cache_name=self.cache_name, redis_socket_timeout=2)
        made = redis_store(settings, 64 * MB, SystemClock())()
        assert isinstance(made, ClusterStore)
        return made

    async def joined(self) -> Position:
        """The log's end."""
        return (await self.store.join(None)).position

    async def read(self, key: str) -> bytes | None:
        """The value of a key."""
        found = await self.store.get(address(key))
        return None if found is None else bytes(found)

    def node_of(self, key: bytes) -> RedisServer:
        """The node that serves a key."""
        return next(node for node in self.cluster.nodes if self._serves(node, slot_of(key)))

    def _serves(self, node: RedisServer, slot: int) -> bool:
        listed = node.ask("CLUSTER", "SLOTS")
        assert isinstance(listed, list)
        return any(one[0] <= slot <= one[1] and one[2][1] == node.port for one in listed)  # type: ignore[index,operator]  # as the command answers

    def keys_in(self, slot: int, node: RedisServer) -> list[bytes]:
        """The keys that a node has in a slot."""
        keys = node.ask("CLUSTER", "GETKEYSINSLOT", slot, 1000)
        assert isinstance(keys, list)
        return [bytes(key) for key in keys]  # type: ignore[arg-type]  # as the command answers

    def value_of(self, where: Address) -> bytes:
        """The key of a value."""
        return self.names.value_of(where.digest)


@pytest_asyncio.fixture
async def house(cluster: RedisCluster, cache_name: str) -> AsyncIterator[House]:
    """A cache on the cluster."""
    one = House(cluster, cache_name)
    await one.store.open()
    yield one
    await one.store.close()


async def comes_about(act: Any) -> Any:
    """The first true answer of a call that may fail meanwhile."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            try:
                if answer := await act():
                    return answer
            except Outage:
                pass
            await asyncio.sleep(0.05)


async def test_values_lie_on_all_nodes(house: House) -> None:
    """Two hundred values come back from three nodes, and each node has a fair share."""
    known = await house.joined()
    keys = [f"k{i}" for i in range(200)]
    await house.store.commit([put(key, key.encode()) for key in keys], known.epoch)
    assert [bytes(one or b"") for one in await house.store.get_many([address(key) for key in keys])] == [
        key.encode() for key in keys
    ]
    shares = [node.ask("KEYS", "*:v:*") for node in house.cluster.nodes]
    assert all(isinstance(share, list) and len(share) > 20 for share in shares)


async def test_a_slot_that_moved_without_its_keys_is_found(house: House) -> None:
    """A slot given to another node is followed there, for values and for the log; nobody sees an error."""
    known = await house.joined()
    await house.store.commit([put("a", b"1")], known.epoch)
    slot = slot_of(house.value_of(address("a")))
    before = house.node_of(house.value_of(address("a")))
    for key in house.keys_in(slot, before):
        before.ask("DEL", key)
    house.cluster.move_slot(slot, next(node for node in house.cluster.nodes if node is not before))
    assert await house.read("a") is None
    assert await house.store.get_many([address("a"), address("b")]) == [None, None]
    position = await comes_about(house.joined)
    assert position.epoch != known.epoch  # a shard without its marks: its fills cannot be judged
    await house.store.commit([put("a", b"2")], position.epoch)
    assert await house.read("a") == b"2"
    assert await house.store.check() == []


async def test_a_slot_on_its_way_is_asked_for_at_both_ends(house: House) -> None:
    """While a slot is migrated its keys are found at either end; a change of one waits for the end, or is an outage."""
    known = await house.joined()
    await house.store.commit([put("a", b"1")], known.epoch)
    key = house.value_of(address("a"))
    slot, source = slot_of(key), house.node_of(key)
    target = next(node for node in house.cluster.nodes if node is not source)
    ids = [str(bytes(node.ask("CLUSTER", "MYID")), "ascii") for node in (source, target)]  # type: ignore[arg-type]  # it is text
    target.ask("CLUSTER", "SETSLOT", slot, "IMPORTING", ids[0])
    source.ask("CLUSTER", "SETSLOT", slot, "MIGRATING", ids[1])
    assert await house.read("a") == b"1"
    source.ask("MIGRATE", "127.0.0.1", target.port, key, 0, 2000)
    assert await house.read("a") == b"1"
    assert [bytes(one or b"") for one in await house.store.get_many([address("a")])] == [b"1"]
    for left in house.keys_in(slot, source):
        source.ask("MIGRATE", "127.0.0.1", target.port, left, 0, 2000)
    with pytest.raises(Outage, match="moving a slot"):
        await house.store.commit([put("a", b"1")], known.epoch)
    house.cluster.move_slot(slot, target)
    assert not (await house.store.commit([put("a", b"2")], known.epoch)).receipts[0].refused
    assert await house.read("a") == b"2"
    assert (await house.joined()).epoch == known.epoch
    assert await house.store.check() == []


@pytest.mark.parametrize("step", ["_tell", "_finish"])
async def test_a_writer_that_dies_between_two_steps_leaves_a_miss(
    house: House, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """Nobody reads the old value afterwards, no load that began before fills it, and the next change puts it right."""
    known = await house.joined()
    await house.store.commit([put("a", b"old")], known.epoch)
    since = (await house.joined()).seq

    async def die(*_: object, **__: object) -> None:
        raise Outage("the writer died here")

    with monkeypatch.context() as patch:
        patch.setattr(type(house.store._commits), step, die)
        with pytest.raises(Outage, match="died here"):
            await house.store.commit([put("a", b"new"), kill(Kind.TAG, "red")], known.epoch)
    assert await house.read("a") is None
    fill = put("a", b"old", since=since)
    assert (await house.store.commit([fill], known.epoch)).receipts[0].refused
    left = house.node_of(house.value_of(address("a"))).ask("PTTL", house.names.note_of(address("a").digest))
    assert isinstance(left, int)
    assert 0 < left <= NOTE_MS
    assert not (await house.store.commit([put("a", b"new")], known.epoch)).receipts[0].refused
    assert await house.read("a") == b"new"
    now = (await house.joined()).seq
    assert not (await house.store.commit([put("a", b"loaded", since=now)], known.epoch)).receipts[0].refused


async def test_changes_of_one_key_by_many_at_once_leave_the_last_or_nothing(house: House) -> None:
    """Whatever the order in which two writers take their steps, the older value never wins over the newer."""
    other = house.another()
    known = await house.joined()
    try:
        for attempt in range(30):
            values = [f"{attempt}:{i}".encode() for i in range(6)]
            stores = (house.store, other)
            done = await asyncio.gather(
                *(stores[i % 2].commit([put("a", value)], known.epoch) for i, value in enumerate(values))
            )
            last = max(range(6), key=lambda i: done[i].receipts[0].seq)
            assert await house.read("a") in {values[last], None}
    finally:
        await other.close()


async def test_a_node_that_restarts_empty_begins_a_new_log(house: House) -> None:
    """Even one that has only values: what it forgot cannot be told any more, and who follows learns of it."""
    known = await house.joined()
    await house.store.commit([put("a", b"1"), Remove(address("b"))], known.epoch)
    known = await house.joined()
    assert await house.store.follow(known, 0.0) == []
    victim = next(node for node in house.cluster.nodes if node is not house.node_of(house.names.control))
    await asyncio.to_thread(lambda: (victim.kill(), victim.start()))
    assert await comes_about(lambda: _is_gap(house, known))
    position = await comes_about(house.joined)
    assert position.epoch != known.epoch
    assert position.seq >= known.seq
    assert (await house.store.commit([put("c", b"stale", since=known.seq)], known.epoch)).receipts[0].refused
    assert await house.store.check() == []


async def _is_gap(house: House, known: Position) -> bool:
    return await house.store.follow(known, 0.0) is None


async def test_a_shard_without_its_marks_begins_a_new_log(house: House) -> None:
    """Marks that were evicted are noticed by the next change, which is not lost, and by whoever joins."""
    known = await house.joined()
    marks = house.names.marks[house.names.shard_of(address("a").digest)]
    assert house.node_of(marks).ask("DEL", marks) == 1
    committed = await house.store.commit([put("a", b"1"), put("b", b"stale", since=known.seq)], known.epoch)
    assert committed.epoch != known.epoch
    assert [receipt.refused for receipt in committed.receipts] == [False, True]
    assert await house.read("a") == b"1"
    assert (await house.joined()).epoch == committed.epoch
    assert await house.store.check() == []


async def test_a_full_node_still_forgets(house: House) -> None:
    """Where a node has reached its maxmemory a set is an outage, the old value is gone, and removals go on."""
    known = await house.joined()
    await house.store.commit([put("a", b"1"), put("b", b"2")], known.epoch)
    for node in house.cluster.nodes:
        node.ask("CONFIG", "SET", "maxmemory", "1mb")
    try:
        with pytest.raises(Outage, match="maxmemory"):
            await house.store.commit([put("a", b"new")], known.epoch)
        assert (await house.store.commit([Remove(address("b"))], known.epoch)).receipts[0].seq > known.seq
        assert await house.store.get_many([address("a"), address("b")]) == [None, None]
    finally:
        for node in house.cluster.nodes:
            node.ask("CONFIG", "SET", "maxmemory", "0")


async def test_every_node_is_examined(house: House) -> None:
    """The operator is told of each node, and that the cluster is whole."""
    findings = await house.store.diagnose()
    assert len([one for one in findings if one.subject == "redis: cluster"]) == 3
    assert {one.severity for one in findings} <= {Severity.OK, Severity.ADVICE}


async def test_a_server_of_its_own_is_no_cluster(own_redis: RedisServer) -> None:
    """A wrong scheme is told in a sentence that names the right one, both ways."""
    url = own_redis.url.replace("redis://", "redis+cluster://")
    store = redis_store(CacheSettings(redis_url=url), MB, SystemClock())()
    with pytest.raises(Outage, match="use redis://"):
        await store.open()
    await store.close()


async def test_a_node_alone_is_no_server(cluster: RedisCluster) -> None:
    """Whoever names one node of a cluster as if it were a server of its own is told which scheme to use."""
    others = [node for node in cluster.nodes if node is not House(cluster, "alone").node_of(Names("alone").control)]
    store = redis_store(CacheSettings(redis_url=others[0].url, cache_name="alone"), MB, SystemClock())()
    await store.open()
    with pytest.raises(Outage, match="use redis\\+cluster://"):
        await store.join(None)
    await store.close()
