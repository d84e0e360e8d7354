"""The tier over an embedded store, with the real SQLite store below it."""

import asyncio
import gc
import json
import math
import sqlite3
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

import pytest

from genesis_cache.model.clock import SystemClock
from genesis_cache.model.keys import Address, address_of, scope_of
from genesis_cache.testing.clock import FakeClock
from genesis_cache.tiers import commit_queue
from genesis_cache.tiers.base import Change, Kill, Kind, Notice, Put, Receipt, Remove
from genesis_cache.tiers.breaker import Circuit
from genesis_cache.tiers.embedded import StoreTier
from genesis_cache.tiers.sqlite import SqliteStore

MB = 1024 * 1024
SCOPE = scope_of("unit", "shop")


class Watched(SqliteStore):
    """The real store, telling how it was asked."""

    def __init__(self, path: Path, max_bytes: int, clock: FakeClock | SystemClock) -> None:
        super().__init__(path, max_bytes, clock)
        self.batches: list[int] = []
        self.threads: set[int] = set()
        self.before_commit: Callable[[], object] = lambda: None

    def commit(self, changes: Sequence[Change]) -> list[Receipt]:
        self.batches.append(len(changes))
        self.threads.add(threading.get_ident())
        self.before_commit()
        return super().commit(changes)


@pytest.fixture
def clock() -> FakeClock:
    """A clock that the test moves."""
    return FakeClock()


@pytest.fixture
def store(tmp_path: Path, clock: FakeClock) -> Watched:
    """A store of its own for each test."""
    return Watched(tmp_path / "cache.db", 16 * MB, clock)


@pytest.fixture
async def tier(store: Watched, clock: FakeClock) -> AsyncIterator[StoreTier]:
    """An open tier, whose books must be right when the test ends."""
    tier = StoreTier(store, kind="disk", capacity_bytes=16 * MB, clock=clock)
    await tier.open()
    assert tier.down is None
    yield tier
    if tier.down is None:
        assert tier.check() == []
    await tier.close()


def where(key: str) -> Address:
    """An address of these tests."""
    return address_of(SCOPE, key)


def put(key: str, envelope: bytes) -> Put:
    """A set that never expires."""
    return Put(where(key), envelope, math.inf)


async def stored(tier: StoreTier, key: str, envelope: bytes) -> None:
    """Have an envelope written."""
    assert await tier.commit([put(key, envelope)]) is not None


def held(tier: StoreTier, key: str) -> bytes | None:
    """What the tier answers at once."""
    found = tier.get(where(key))
    assert not isinstance(found, asyncio.Future)
    return None if found is None else bytes(found)


# -- reading ----------------------------------------------------------------------------------------------------------


async def test_a_small_envelope_is_there_at_once(tier: StoreTier) -> None:
    """A hit and a miss of ordinary size are answered without waiting."""
    await stored(tier, "a", b"1")
    assert tier.get(where("a")) == b"1"
    assert tier.get(where("b")) is None


async def test_a_large_envelope_is_read_behind_the_loop(tier: StoreTier) -> None:
    """Beyond the inline size the loop gets an awaitable, and code without a loop gets the bytes."""
    large = bytes(range(256)) * 1000
    await stored(tier, "a", large)
    found = tier.get(where("a"))
    assert isinstance(found, asyncio.Future)
    assert await found == large
    plainly: list[object] = []
    thread = threading.Thread(target=lambda: plainly.append(tier.get(where("a"))))
    thread.start()
    thread.join()
    assert plainly == [large]


async def test_no_read_is_inline_where_none_may_be(store: Watched, clock: FakeClock) -> None:
    """With ``inline_reads=False`` every read goes to the tier's thread."""
    tier = StoreTier(store, kind="disk", capacity_bytes=16 * MB, clock=clock, inline_reads=False)
    await tier.open()
    await stored(tier, "a", b"1")
    found = tier.get(where("a"))
    assert isinstance(found, asyncio.Future)
    assert await found == b"1"
    await tier.close()


@pytest.mark.parametrize("number", [5, 1000])
async def test_many_are_read_in_the_order_asked(tier: StoreTier, number: int) -> None:
    """Few or many, small or large, envelopes come in the order of their addresses, None for what is missing."""
    large = bytes(100_000)
    await tier.commit([put(f"k{i}", large if i == 3 else b"%d" % i) for i in range(0, number, 2)])
    await tier.commit([put("k3", large)])
    found = await tier.get_many([where(f"k{i}") for i in range(number)])
    expected = [large if i == 3 else b"%d" % i if i % 2 == 0 else None for i in range(number)]
    assert found == expected


# -- writing ----------------------------------------------------------------------------------------------------------


async def test_one_tick_is_one_batch(tier: StoreTier, store: Watched) -> None:
    """64 callers of one loop tick are written as one batch on one other thread, and each gets its own receipts."""
    replies = await asyncio.gather(*(tier.commit([put(f"k{i}", b"1"), Remove(where("x"))]) for i in range(64)))
    assert store.batches == [128]
    assert len(store.threads) == 1
    assert threading.get_ident() not in store.threads
    seqs = [receipt.seq for receipts in replies for receipt in receipts or []]
    assert len(seqs) == 128
    assert seqs == sorted(seqs)


async def test_what_comes_while_a_batch_is_written_makes_the_next(tier: StoreTier, store: Watched) -> None:
    """Group commit: changes of many ticks join while the store is busy."""
    loop = asyncio.get_running_loop()
    busy, go_on = asyncio.Event(), threading.Event()

    def hold() -> None:
        loop.call_soon_threadsafe(busy.set)
        go_on.wait(10)

    store.before_commit = hold
    first = tier.commit([put("a", b"1")])
    await busy.wait()
    store.before_commit = lambda: None
    later = []
    for i in range(20):
        later.append(tier.commit([put(f"k{i}", b"1")]))
        await asyncio.sleep(0)
    go_on.set()
    assert all([await first, *await asyncio.gather(*later)])
    assert store.batches == [1, 20]


async def test_cancelling_a_caller_loses_nothing(tier: StoreTier) -> None:
    """Who stops waiting harms nobody, and what was asked for is written."""

    async def change(key: str) -> list[Receipt] | None:
        return await tier.commit([put(key, b"1")])

    tasks = [asyncio.create_task(change(f"k{i}")) for i in range(10)]
    await asyncio.sleep(0)
    for task in tasks[::2]:
        task.cancel()
    replies = await asyncio.gather(*tasks, return_exceptions=True)
    assert [isinstance(reply, asyncio.CancelledError) for reply in replies] == [True, False] * 5
    await tier.commit([put("end", b"1")])
    assert all(held(tier, f"k{i}") == b"1" for i in range(10))


def test_several_loops_write_at_once(tmp_path: Path) -> None:
    """Loops of four threads and two threads without one share the tier, and everybody hears of his own changes."""
    clock = SystemClock()
    tier = StoreTier(Watched(tmp_path / "c.db", 16 * MB, clock), kind="disk", capacity_bytes=MB, clock=clock)
    asyncio.run(tier.open())
    seqs: list[int] = []

    async def write(name: int) -> None:
        for i in range(20):
            replies = await asyncio.gather(*(tier.commit([put(f"{name}-{i}-{j}", b"1")]) for j in range(5)))
            seqs.extend(receipts[0].seq for receipts in replies if receipts)

    def write_plainly(name: int) -> None:
        for i in range(50):
            receipts = tier.commit_sync([put(f"{name}-{i}", b"1")])
            seqs.extend(receipt.seq for receipt in receipts or [])

    threads = [threading.Thread(target=asyncio.run, args=(write(n),)) for n in range(4)]
    threads += [threading.Thread(target=write_plainly, args=(n,)) for n in (4, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(seqs)) == len(seqs) == 500
    assert tier.stats().entries == 500
    assert tier.check() == []
    asyncio.run(tier.close())


async def test_now_is_never_before_what_is_queued(tier: StoreTier) -> None:
    """A change that would overtake a queued one is not made at once."""
    waiting = tier.commit([put("a", b"1")])
    assert tier.commit_now([put("a", b"2")]) is None
    await waiting
    receipts = tier.commit_now([put("a", b"3")])
    assert receipts is not None
    assert not receipts[0].refused
    assert held(tier, "a") == b"3"


async def test_the_queue_is_bounded(tier: StoreTier, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond its bytes a put is owed at once; an invalidation is still taken."""
    monkeypatch.setattr(commit_queue, "MAX_QUEUED_BYTES", 2000)
    first, second = tier.commit([put("a", bytes(1500))]), tier.commit([put("b", bytes(1500))])
    removal = tier.commit([Remove(where("c"))])
    assert second.done()
    assert await second is None
    assert await first is not None
    assert await removal is not None


async def test_nonsense_of_one_caller_harms_no_other(tier: StoreTier) -> None:
    """A change that no store could understand is owed; those in the same batch are written."""
    nonsense: list[Change] = ["nonsense"]  # type: ignore[list-item]  # that is the point
    good, bad, more = tier.commit([put("a", b"1")]), tier.commit(nonsense), tier.commit([put("b", b"1")])
    assert await bad is None
    assert await good is not None
    assert await more is not None
    assert (held(tier, "a"), held(tier, "b"), tier.errors, tier.down) == (b"1", b"1", 1, None)
    assert await tier.commit(nonsense) is None
    assert tier.errors == 2


# -- going down and coming up -----------------------------------------------------------------------------------------


async def test_a_locked_store_still_reads(tier: StoreTier, store: Watched, clock: FakeClock) -> None:
    """While nothing can be written changes are owed at once and reads go on; then the first attempt brings it back."""
    told: list[str] = []
    tier.on_down = lambda reason: told.append(f"down: {reason}")
    tier.on_up = lambda: told.append("up")
    await stored(tier, "a", b"1")
    store.close()
    store._links.patience_s = 0.01
    store.open()
    blocker = sqlite3.connect(store.path, isolation_level=None)
    blocker.execute("BEGIN IMMEDIATE")
    try:
        assert await tier.commit([put("a", b"2")]) is None
        assert tier.circuit is Circuit.OPEN
        assert "only reads work" in (tier.down or "")
        assert "locked" in (tier.down or "")
        assert held(tier, "a") == b"1"
        asked = len(store.batches)
        assert await tier.commit([put("a", b"3")]) is None
        assert tier.commit_sync([put("a", b"3")]) is None
        assert tier.commit_now([put("a", b"3")]) is None
        assert len(store.batches) == asked
    finally:
        blocker.close()
    clock.advance(60)
    assert await tier.commit([put("a", b"4")]) is not None
    assert tier.down is None
    assert held(tier, "a") == b"4"
    assert [line.split(":")[0] for line in told] == ["down", "up"]


async def test_a_store_that_cannot_be_opened_is_tried_again(tmp_path: Path, clock: FakeClock) -> None:
    """A tier without its folder is down with a reason, holds nobody up, and comes back by itself."""
    obstacle = tmp_path / "here"
    obstacle.write_text("a file where the folder should be")
    tier = StoreTier(SqliteStore(obstacle / "c.db", MB, clock), kind="disk", capacity_bytes=MB, clock=clock)
    told: list[str] = []
    tier.on_down, tier.on_up = told.append, lambda: told.append("up")
    await tier.open()
    assert tier.down is not None
    assert str(obstacle) in tier.down
    assert tier.get(where("a")) is None
    assert await tier.get_many([where("a")]) == [None]
    assert await tier.commit([put("a", b"1")]) is None
    assert tier.lease(where("a"))
    assert tier.position() is None
    assert await tier.scan(10) == []
    assert await tier.sweep(0.1) == 0
    assert tier.stats().capacity_bytes == MB
    obstacle.unlink()
    clock.advance(60)
    await stored(tier, "a", b"1")
    assert held(tier, "a") == b"1"
    assert tier.down is None
    assert told[1:] == ["up"]
    assert tier.check() == []
    await tier.close()


async def test_a_read_alone_brings_it_back(tmp_path: Path, clock: FakeClock) -> None:
    """Where nobody writes, reads open a store that could not be opened before."""
    obstacle = tmp_path / "here"
    obstacle.write_text("")
    tier = StoreTier(SqliteStore(obstacle / "c.db", MB, clock), kind="disk", capacity_bytes=MB, clock=clock)
    await tier.open()
    obstacle.unlink()
    clock.advance(60)
    assert tier.get(where("a")) is None
    await tier.sweep(0.0)  # behind the attempt that the read began
    assert tier.down is None
    await tier.close()


async def test_a_damaged_store_is_unheard(tier: StoreTier, store: Watched, clock: FakeClock) -> None:
    """When its file is damaged the log's end is unknown and the floors kill all; the next change makes a new log."""
    await tier.commit([Kill(Notice(Kind.TAG, "shop", None, "red")), put("a", b"1")])
    before = tier.position()
    assert before is not None
    await tier.sweep(1.0)
    store.path.write_bytes(bytes(store.path.stat().st_size))
    assert tier.position() is None
    assert tier.down is not None
    assert tier.notices(before) is None
    assert [(floor.kind, floor.seq) for floor in tier.floors()] == [(Kind.CLEAR, before.seq)]
    clock.advance(60)
    await stored(tier, "a", b"2")
    after = tier.position()
    assert after is not None
    assert after.epoch != before.epoch
    assert tier.notices(before) is None


# -- life -------------------------------------------------------------------------------------------------------------


async def test_closing_writes_what_is_queued(store: Watched, clock: FakeClock) -> None:
    """Changes that nobody waited for are there after `close`; later ones are owed; `open` goes on."""
    tier = StoreTier(store, kind="disk", capacity_bytes=16 * MB, clock=clock)
    await tier.open()
    waiting = [tier.commit([put(f"k{i}", b"1")]) for i in range(10)]
    await tier.close()
    assert all(await asyncio.gather(*waiting))
    assert await tier.commit([put("late", b"1")]) is None
    assert tier.get(where("k1")) is None
    assert tier.down is not None
    await tier.close()
    await tier.open()
    assert all(held(tier, f"k{i}") == b"1" for i in range(10))
    assert held(tier, "late") is None
    await tier.close()


async def test_a_forgotten_tier_ends_its_threads(store: Watched, clock: FakeClock) -> None:
    """A tier that nobody holds any longer leaves no thread behind."""
    before = set(threading.enumerate())
    tier = StoreTier(store, kind="disk", capacity_bytes=16 * MB, clock=clock)
    await tier.open()
    await stored(tier, "a", b"1")
    started = set(threading.enumerate()) - before
    assert len(started) == 1
    store.close()
    del tier
    gc.collect()
    for thread in started:
        thread.join(10)
    assert not any(thread.is_alive() for thread in started)


PREAMBLE = """
import asyncio, json, math, os, sys
from pathlib import Path
from genesis_cache.model.clock import SystemClock
from genesis_cache.model.keys import address_of, scope_of
from genesis_cache.tiers.base import Put
from genesis_cache.tiers.embedded import StoreTier
from genesis_cache.tiers.sqlite import SqliteStore
MB = 1024 * 1024
where = lambda key: address_of(scope_of("unit", "shop"), key)
put = lambda key, envelope: Put(where(key), envelope, math.inf)
path = Path(sys.argv[1])
tier = StoreTier(SqliteStore(path, 16 * MB, SystemClock()), kind="disk", capacity_bytes=MB, clock=SystemClock())
"""


def run(script: str, path: Path) -> list[object]:
    """The lines of JSON that a script prints in a process of its own, which must not complain."""
    done = subprocess.run(  # noqa: S603  # this interpreter, with a script of this file
        [sys.executable, "-X", "dev", "-W", "error", "-W", "ignore:This process:DeprecationWarning", "-c",
         PREAMBLE + script, str(path)],
        capture_output=True, text=True, timeout=60, check=False,
        env={"PYTHONPATH": ":".join(sys.path), "PATH": "/usr/bin:/bin"},
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_leaving_the_interpreter_writes_what_is_queued(tmp_path: Path, clock: FakeClock) -> None:
    """A program that ends without closing loses nothing that it had asked for, and ends in silence."""
    run(
        """
async def main():
    await tier.open()
    for i in range(100):
        tier.commit([put(f"k{i}", b"1")])
asyncio.run(main())
""",
        tmp_path / "c.db",
    )
    store = SqliteStore(tmp_path / "c.db", 16 * MB, clock)
    store.open()
    assert store.stats().entries == 100
    store.close()


def test_a_forked_child_reopens_by_itself(tmp_path: Path) -> None:
    """Parent and child go on with the same store, each with its own connections, threads and leases."""
    lines = run(
        """
def say(*words): print(json.dumps(words), flush=True)
async def change(key): return await tier.commit([put(key, b"1")]) is not None
asyncio.run(tier.open())
asyncio.run(change("before"))
assert tier.lease(where("mine"))
back, forth = os.pipe()
if (child := os.fork()) == 0:
    found = tier.get(where("before"))
    say("child", found == b"1", tier.lease(where("mine")), tier.lease(where("theirs")), asyncio.run(change("child")))
    say("child", tier.check(), tier.down)
    asyncio.run(tier.close())
    os._exit(0)
os.waitpid(child, 0)
found = tier.get(where("child"))
say("parent", found == b"1", asyncio.run(change("parent")), tier.lease(where("theirs")), tier.check())
""",
        tmp_path / "c.db",
    )
    assert lines == [
        ["child", True, False, True, True],
        ["child", [], None],
        ["parent", True, True, True, []],
    ]


def test_a_full_disk_keeps_serving(tmp_path: Path) -> None:
    """When no file may grow, changes are owed and reads go on; with room again the tier comes back."""
    lines = run(
        """
import resource
from genesis_cache.testing.clock import FakeClock
clock = FakeClock()
tier = StoreTier(SqliteStore(path, 16 * MB, clock), kind="disk", capacity_bytes=MB, clock=clock)
def say(*words): print(json.dumps(words), flush=True)
async def main():
    await tier.open()
    await tier.commit([put("a", b"1")])
    resource.setrlimit(resource.RLIMIT_FSIZE, (MB, resource.RLIM_INFINITY))
    owed = 0
    for i in range(40):
        owed += await tier.commit([put(f"k{i}", os.urandom(200_000))]) is None
    say(owed > 0, "only reads work" in (tier.down or ""), tier.get(where("a")) == b"1")
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    clock.advance(60)
    say(await tier.commit([put("b", b"2")]) is not None, tier.down, tier.get(where("b")) == b"2", tier.check())
    await tier.close()
asyncio.run(main())
""",
        tmp_path / "c.db",
    )
    assert lines == [[True, True, True], [True, None, True, []]]
