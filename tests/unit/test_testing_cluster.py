"""The fake cluster: a network that loses, delays, repeats and reorders messages, and caches that agree all the same."""

import asyncio
import random
from collections.abc import Sequence
from pathlib import Path

import pytest

from genesis_cache import Cache
from genesis_cache.model.notice import Notice, Position
from genesis_cache.testing.checker import Promise, Violation, check
from genesis_cache.testing.cluster import Cluster
from genesis_cache.testing.cluster_tier import NodeTier
from genesis_cache.testing.history import Change, Get, Recorder, named_value, read_history, read_named

KEYS = [f"k{n}" for n in range(6)]
STEPS = 400


async def test_a_change_is_heard_at_once_and_a_cut_off_process_hears_nothing() -> None:
    """Messages arrive without delay by default; who is cut off serves what it has, says so, and catches up."""
    async with Cluster(3) as cluster:
        one, two, three = cluster.caches
        await one.set("k", 1)
        assert [await cache.get("k") for cache in cluster.caches] == [1, 1, 1]
        cluster.cut_off(three)
        assert await one.set("k", 2)
        assert await two.get("k") == 2
        assert await three.get("k") == 1
        cluster.advance(1.5)
        assert await three.get("k") == 1
        assert not (await three.health()).is_well
        assert not await three.delete("k")
        cluster.heal()
        cluster.advance(0.5)
        await cluster.settle()
        assert await three.get("k") is None
        assert (await three.health()).is_well
        assert [await cache.get("k") for cache in (one, two)] == [None, None]


async def test_bypass_serves_nothing_that_may_be_old() -> None:
    """With bypass a process that hears nothing uses no near copy once the bound is over."""
    async with Cluster(2, cache_on_partition="bypass") as cluster:
        one, two = cluster.caches
        await one.set("k", 1)
        assert await two.get("k") == 1
        cluster.cut_off(two)
        await one.set("k", 2)
        cluster.advance(0.9)
        assert await two.get("k") == 1
        cluster.advance(0.2)
        assert await two.get("k") is None


async def test_lost_messages_are_asked_for() -> None:
    """With every message lost a change is still heard within the bound, because each process asks; order is kept."""
    async with Cluster(2, seed=3) as cluster:
        one, two = cluster.caches
        await one.set("k", 1)
        assert await two.get("k") == 1
        network = cluster.network(two)
        network.loss = 1.0
        await one.set("k", 2)
        assert await two.get("k") == 1
        network.loss = 0.0
        cluster.advance(0.3)
        assert await two.get("k") == 2
        network.delay_s, network.jitter_s, network.duplicates = 0.05, 0.1, 1.0
        for version in range(3, 20):
            await one.set("k", version)
        cluster.advance(1.0)
        assert await two.get("k") == 19
        assert cluster.lost > 0
        assert cluster.told > 20


@pytest.mark.parametrize("what", ["restart_empty", "trim"])
async def test_a_server_that_forgot_ends_all_near_copies(what: str) -> None:
    """A log made anew, or one that no longer reaches back, makes every process forget what it held."""
    async with Cluster(2) as cluster:
        one, two = cluster.caches
        await one.set_many({"a": 1, "b": 2})
        assert await two.get_many(["a", "b"]) == {"a": 1, "b": 2}
        cluster.network(two).loss = 1.0
        await one.delete("a")
        getattr(cluster.server, what)()
        cluster.network(two).heal()
        cluster.advance(0.3)
        assert two.peek("a") is None
        assert two.peek("b") is None


class Course:
    """A random course of events on a cluster, written down."""

    def __init__(self, cluster: Cluster, folder: Path, seed: int) -> None:
        self.cluster = cluster
        self.dice = random.Random(seed)
        self.rows = dict.fromkeys(KEYS, 0)
        self.paths = [folder / f"p{n}.jsonl" for n in range(len(cluster.caches))]
        self.recorders = [cluster.recorder(path, path.stem) for path in self.paths]

    async def run(self) -> list[Violation]:
        """All of it, and what the checker finds."""
        working: set[asyncio.Task[None]] = set()
        for _ in range(STEPS):
            self._hurt()
            number = self.dice.randrange(len(self.recorders))
            task = asyncio.ensure_future(self._act(self.cluster.caches[number], self.recorders[number]))
            working.add(task)
            task.add_done_callback(working.discard)
            for _ in range(self.dice.randrange(4)):
                await asyncio.sleep(0)
            self.cluster.advance(self.dice.choice([0.0, 0.0, 0.01, 0.1, 0.4]))
        self.cluster.heal()
        while working:  # some wait for the lease of who was cut off, which ends by the cluster's clock
            self.cluster.advance(0.1)
            await asyncio.sleep(0.001)
        await self.cluster.settle()
        for recorder in self.recorders:
            recorder.close()
        return check(read_history(self.paths), Promise(max_staleness_s=1.0, bypass=True, one_load=False))

    def _hurt(self) -> None:
        cache = self.dice.choice(self.cluster.caches)
        network = self.cluster.network(cache)
        match self.dice.randrange(30):
            case 0:
                self.cluster.cut_off(cache)
            case 1 | 2:
                self.cluster.heal(cache)
            case 3:
                network.loss = self.dice.random()
            case 4:
                network.delay_s, network.jitter_s = self.dice.random() * 0.2, self.dice.random() * 0.3
            case 5:
                network.duplicates = self.dice.random()
            case 6:
                self.dice.choice([self.cluster.server.trim, self.cluster.server.restart_empty])()

    async def _act(self, cache: Cache, recorder: Recorder) -> None:
        key = self.dice.choice(KEYS)
        if self.dice.random() < 0.3:
            with recorder.commit(key, self.rows[key] + 1) as commit:
                self.rows[key] = commit.version
            with recorder.change(Change("delete", keys=(key,))) as change:
                change.outcome = "ok" if await cache.delete(key) else "degraded"
            return

        async def load() -> dict[str, object]:
            with recorder.load(key) as span:
                span.version = self.rows[key]
                await asyncio.sleep(0)
                return named_value(key, span.version, span.name)

        begin = recorder.now()
        named = read_named(await cache.get_or_set(key, load, tags=["t"]))
        assert named is not None
        recorder.got(Get(key, begin, recorder.now(), named.version, named.maker, named.key, process=recorder.process))


async def course(folder: Path, seed: int) -> list[Violation]:
    """A course on a cluster of three in bypass mode."""
    await asyncio.to_thread(folder.mkdir)
    async with Cluster(3, seed=seed, cache_on_partition="bypass") as cluster:
        return await Course(cluster, folder, seed).run()


async def test_whatever_the_network_does_no_promise_is_broken(tmp_path: Path) -> None:
    """Random courses with every fault of the network: the checker finds nothing."""
    for seed in range(8):
        assert await course(tmp_path / str(seed), seed) == []


async def test_a_broken_protocol_is_found_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that takes a message behind a gap, as if nothing were missing, is caught by the checker."""

    def hear(self: NodeTier, position: Position, notices: Sequence[Notice], asked_at: float | None) -> None:
        log = self._log
        known = log.known
        if known is None or known.epoch != position.epoch or position.seq < known.seq:
            return
        log.heard([notice for notice in notices if notice.seq > known.seq], asked_at or log.heard_at or 0.0)
        self.on_news()

    monkeypatch.setattr(NodeTier, "hear", hear)
    found = [violation for seed in range(8) for violation in await course(tmp_path / str(seed), seed)]
    assert {violation.check for violation in found} & {"staleness", "resurrection", "convergence"}


async def test_the_same_seed_takes_the_same_course(tmp_path: Path) -> None:
    """Two runs with one seed send, lose and deliver the same messages."""
    counts = []
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        async with Cluster(3, seed=5, cache_on_partition="bypass") as cluster:
            await Course(cluster, tmp_path / name, 5).run()
            counts.append((cluster.told, cluster.lost, cluster.server.seq))
    assert counts[0] == counts[1]
    assert counts[0][1] > 0
