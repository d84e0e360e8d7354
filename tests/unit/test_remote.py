"""The tier over a server as a whole: opening and closing, event loops, forks, the log, leases, upkeep and figures."""

import asyncio
import gc
import os
import subprocess
import sys
import textwrap
import threading
import warnings
from pathlib import Path

import pytest
from tests.unit.remote_server import HeldStore, Server, envelope, opened, tier_over, until, where

from genesis_cache.model.finding import Severity
from genesis_cache.model.notice import Kind, Notice, Position
from genesis_cache.testing.clock import FakeClock
from genesis_cache.tiers import remote
from genesis_cache.tiers.base import Receipt, Remove
from genesis_cache.tiers.breaker import Circuit
from genesis_cache.tiers.remote import RemoteTier

SOON_S = 0.03
ROOT = Path(__file__).parents[2]


@pytest.fixture
def server() -> Server:
    """A server of its own for each test, with a value for a."""
    server = Server()
    server.values[where("a").digest] = envelope("a")
    return server


async def has(tier: RemoteTier, key: str) -> bool:
    """Whether the tier answers with the key's value."""
    answer = tier.get(where(key))
    return answer is not None and await answer == envelope(key)


# -- opening and closing ----------------------------------------------------------------------------------------------


async def test_an_open_tier_serves_and_a_closed_one_does_not(server: Server) -> None:
    """Before and after, reads are misses, changes are owed, a load is not held up, and the reason is told."""
    tier = tier_over(server)
    for _ in range(2):
        assert tier.down == "the redis tier is not open"
        assert tier.get(where("a")) is None
        assert await tier.get_many([where("a")]) == [None]
        assert await tier.commit([Remove(where("b"))]) is None
        assert tier.lease(where("a")) is True
        tier.release(where("a"))
        assert [await tier.sweep(1.0), await tier.scan(5), tier.position()] == [0, [], None]
        assert [one.severity for one in await tier.diagnose()] == [Severity.FAULT]
        await tier.open()
        assert tier.down is None
        assert tier.circuit is Circuit.CLOSED
        assert await has(tier, "a")
        await tier.close()
        await tier.close()
    assert all(store.is_closed for store in server.stores)


@pytest.mark.parametrize("verb", ["open", "join"])
async def test_a_server_that_is_away_makes_no_error_and_is_found_when_it_comes(server: Server, verb: str) -> None:
    """Opening without a server is down with a reason; without a restart and without traffic it comes up."""
    told: list[str | None] = []
    server.fail("the connection was refused", verb)
    tier = tier_over(server)
    tier.on_down, tier.on_up = told.append, lambda: told.append(None)
    await tier.open()
    assert tier.down == "the connection was refused"
    assert tier.position() is None
    server.mend()
    await until(lambda: tier.down is None)
    assert await has(tier, "a")
    assert tier.position() == Position(7, 0)
    assert told == ["the connection was refused", None]
    await tier.close()


async def test_opening_waits_for_no_longer_than_a_call_may_take(server: Server) -> None:
    """A server that does not answer keeps nobody from starting."""
    server.hold("join")
    async with opened(server, SOON_S, SOON_S) as tier:
        assert tier.down is not None
        assert "did not" in tier.down
        server.let_go()
        await until(lambda: tier.down is None)


async def test_a_tier_that_is_dropped_ends_its_thread(server: Server) -> None:
    """Forgetting to close leaves no thread and no open store."""
    tier = tier_over(server)
    await tier.open()
    name = "genesis-cache-redis-log"
    assert any(thread.name == name for thread in threading.enumerate())
    del tier
    gc.collect()
    await until(lambda: not any(thread.name == name for thread in threading.enumerate()))
    await until(lambda: all(store.is_closed or store.is_forgotten for store in server.stores))


async def test_a_callback_that_fails_is_not_the_tiers_matter(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    """What listeners raise is logged, and the tier goes on."""

    def fail(*_: object) -> None:
        raise ZeroDivisionError

    async with opened(server) as tier:
        tier.on_down = tier.on_up = tier.on_news = fail
        server.fail("refused", "get", "join")
        assert not await has(tier, "a")
        server.mend()
        await until(lambda: tier.down is None)
        server.tell(Notice(Kind.TAG, "", None, "t"))
        await until(lambda: tier.seq() == 1)
        assert await has(tier, "a")
    assert "a callback for" in caplog.text


# -- event loops, threads, forks --------------------------------------------------------------------------------------


def test_event_loops_may_come_and_go(server: Server) -> None:
    """A tier opened on one loop serves the next; the connections of a loop that ended are dropped, not used."""
    tier = tier_over(server)

    async def first() -> None:
        await tier.open()
        assert await has(tier, "a")

    async def second() -> bool:
        return await has(tier, "a")

    asyncio.run(first())
    mine = len(server.stores)
    assert asyncio.run(second())
    assert len(server.stores) == mine + 1
    assert sum(store.is_forgotten for store in server.stores) == 1
    asyncio.run(tier.close())
    assert all(store.is_closed or store.is_forgotten for store in server.stores)


async def test_two_event_loops_at_the_same_time(server: Server) -> None:
    """Two threads with loops of their own read and write through one tier; its close lets go of both."""
    go_on = threading.Event()

    async def elsewhere(tier: RemoteTier, ready: asyncio.Event, home: asyncio.AbstractEventLoop) -> bool:
        found = await has(tier, "a")
        assert await tier.commit([Remove(where("b"))]) is not None
        home.call_soon_threadsafe(ready.set)
        await asyncio.to_thread(go_on.wait)
        return found

    async with opened(server) as tier:
        ready = asyncio.Event()
        other = asyncio.ensure_future(
            asyncio.to_thread(asyncio.run, elsewhere(tier, ready, asyncio.get_running_loop()))
        )
        await ready.wait()
        assert await has(tier, "a")
        assert len(server.stores) == 3
        await tier.close()
        assert all(store.is_closed for store in server.stores)
        go_on.set()
        assert await other


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
def test_a_forked_child_begins_anew(server: Server) -> None:
    """The child says nothing over the parent's connections, has its own, and hears the log again."""
    tier = tier_over(server)

    async def begin() -> None:
        await tier.open()
        assert await asked(tier, "parent's")

    asyncio.run(begin())
    inherited = list(server.stores)

    async def live() -> bool:
        await until(lambda: tier.position() is not None)
        leased = tier.lease(where("k"))
        granted = leased if isinstance(leased, bool) else await leased
        done = await has(tier, "a") and granted and await tier.commit([Remove(where("b"))]) == [Receipt(1)]
        await tier.close()
        return done

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # that a process with threads should not fork
        child = os.fork()
    if child == 0:
        code = 1
        try:
            quiet = not tier._leases._table and all(store.is_forgotten and not store.is_closed for store in inherited)
            code = 0 if quiet and asyncio.run(live()) else 2
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    assert not any(store.is_forgotten for store in inherited)
    asyncio.run(tier.close())


def test_a_program_that_ends_without_closing_ends_quietly(tmp_path: Path) -> None:
    """No thread keeps the interpreter, no warning is written, and what was queued is there."""
    program = tmp_path / "program.py"
    program.write_text(
        textwrap.dedent("""
            import asyncio
            from genesis_cache.tiers.base import Remove
            from tests.unit.remote_server import Server, tier_over, where
            server = Server()
            tier = tier_over(server)
            async def main():
                await tier.open()
                tier.commit([Remove(where("a"))])
            asyncio.run(main())
            import atexit
            atexit._run_exitfuncs()
            print(server.seq)
        """)
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "src")))}
    ended = subprocess.run(  # noqa: S603  # our own words
        [sys.executable, "-X", "dev", "-W", "error", str(program)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=environment,
    )
    assert (ended.stdout, ended.stderr, ended.returncode) == ("1\n", "", 0)


# -- the log ----------------------------------------------------------------------------------------------------------


async def test_changes_of_others_are_heard(server: Server) -> None:
    """A notice of another process is there soon, and whoever wants to be told is told."""
    news = threading.Event()
    async with opened(server) as tier:
        tier.on_news = news.set
        start = tier.position()
        assert start == Position(7, 0)
        server.tell(Notice(Kind.TAG, "shop", None, "t"))
        await until(lambda: tier.position() == Position(7, 1))
        assert tier.notices(start) == tier.floors() == [Notice(Kind.TAG, "shop", None, "t", 1)]
        assert await asyncio.to_thread(news.wait, 10)


async def test_own_changes_count_before_they_are_heard(server: Server) -> None:
    """The sequence of a receipt is known at once, so that a load that begins now is later than it."""
    async with opened(server) as tier:
        server.hold("follow")
        assert await tier.commit([Remove(where("a"))]) == [Receipt(1)]
        assert tier.seq() == 1


async def test_silence_is_proven_again_and_again(server: Server) -> None:
    """While nothing happens the proof grows younger; it is dated by the request, not by the answer."""
    clock = FakeClock()
    async with opened(server, clock=clock) as tier:
        clock.advance(5.0)
        await until(lambda: tier.heard_at == 1005.0)
        proofs: list[float | None] = []
        tier.on_news = lambda: proofs.append(tier.heard_at)
        server.hold("follow")
        asked = server.times("follow")
        await until(lambda: server.times("follow") > asked)
        server.tell(Notice(Kind.KEY, "shop", None, "k"))
        clock.advance(5.0)
        server.let_go()
        await until(lambda: proofs)
        assert proofs == [1005.0]
        await until(lambda: tier.heard_at == 1010.0)


async def test_a_lost_connection_is_made_again_without_a_gap(server: Server) -> None:
    """What was said while the log could not be heard is heard afterwards, and nothing is forgotten for it."""
    async with opened(server) as tier:
        await until(lambda: server.times("follow") > 1)
        start = tier.position()
        assert start is not None
        server.fail("the connection was lost", "follow")
        await until(lambda: tier.position() is None or tier.down)
        server.tell(Notice(Kind.TAG, "shop", None, "t"))
        server.mend()
        await until(lambda: tier.position() == Position(7, 1))
        assert tier.notices(start) == [Notice(Kind.TAG, "shop", None, "t", 1)]


async def test_a_connection_that_is_lost_once_does_not_take_the_tier_down(server: Server) -> None:
    """A follower that can join again at once is no outage."""
    told: list[str] = []
    async with opened(server) as tier:
        tier.on_down = told.append
        await until(lambda: server.times("follow") > 1)
        joins = server.times("join")
        server.hold("join")
        server.fail("the connection was lost", "follow")
        await until(lambda: server.times("join") > joins)
        assert tier.position() == Position(7, 0), "what was heard stays known"
        server.mend()
        server.let_go()
        await until(lambda: server.times("follow") > 2)
        assert told == []


async def test_a_server_that_lets_nobody_follow_is_down(server: Server) -> None:
    """A log that can be joined and not followed is told as what it is, without a busy loop."""
    server.fail("no permission to read the log", "follow")
    async with opened(server) as tier:
        await until(lambda: tier.down == "no permission to read the log")
        server.mend()
        await until(lambda: tier.down is None)


async def test_another_log_is_begun_anew(server: Server) -> None:
    """A server that was emptied or replaced: another epoch, no notices from before."""
    async with opened(server) as tier:
        server.tell(Notice(Kind.TAG, "shop", None, "t"))
        await until(lambda: tier.position() == Position(7, 1))
        server.replace(8)
        await until(lambda: tier.position() == Position(8, 0))
        assert tier.notices(Position(7, 1)) is None
        assert tier.floors() == []
        assert tier.seq() == 0


async def test_a_log_that_was_cut_off_makes_a_gap(server: Server) -> None:
    """Where the log no longer reaches back to us, nothing heard before counts, and we go on from its end."""
    async with opened(server) as tier:
        start = tier.position()
        assert start is not None
        server.hold("follow")
        asked = server.times("follow")
        await until(lambda: server.times("follow") > asked)
        with server.guard:
            for _ in range(5):
                server.tell(Notice(Kind.KEY, "shop", None, "k"))
            server.kept_after = 5
        server.let_go()
        await until(lambda: tier.position() == Position(7, 5))
        assert tier.notices(start) is None


# -- leases -----------------------------------------------------------------------------------------------------------


async def asked(tier: RemoteTier, key: str) -> bool:
    """Whether the tier lets this process load a key."""
    answer = tier.lease(where(key))
    return answer if isinstance(answer, bool) else await answer


async def test_one_process_has_the_lease(server: Server) -> None:
    """Who has it keeps the others out until it is given back."""
    async with opened(server) as one, opened(server) as other:
        assert await asked(one, "k")
        assert not await asked(one, "k")
        assert not await asked(other, "k")
        other.release(where("k"))
        one.release(where("k"))
        await until(lambda: not server.leases)
        assert await asked(other, "k")


async def test_a_lease_is_renewed_while_it_is_held(server: Server) -> None:
    """The thread keeps it alive, until it is given back, or taken by somebody else."""
    async with opened(server, lease_s=SOON_S) as tier:
        assert await asked(tier, "k")
        await until(lambda: server.times("lease") > 3)
        with server.guard:
            server.leases[where("k").digest] = b"somebody else"
        times = server.times("lease")
        await until(lambda: server.times("lease") > times)
        tier.release(where("k"))
        assert await asked(tier, "k") is False
        assert server.leases[where("k").digest] == b"somebody else"


async def test_no_lease_is_renewed_for_ever(server: Server) -> None:
    """A load that was lost blocks its key no longer than the longest load may take."""
    clock = FakeClock()
    async with opened(server, lease_s=SOON_S, longest_load_s=300.0, clock=clock) as tier:
        assert await asked(tier, "k")
        clock.advance(301.0)
        await until(lambda: not tier._leases._table)
        times = server.times("lease")
        await asyncio.sleep(2 * SOON_S)
        assert server.times("lease") <= times + 1


async def test_a_load_is_never_held_up(server: Server) -> None:
    """A server that says nothing any more, or fails, lets everybody load."""
    async with opened(server, SOON_S) as tier:
        server.hold("lease", "follow")
        assert await asked(tier, "k")
        tier.release(where("k"))
        server.let_go()
        await until(lambda: server.times("release"))
        await until(lambda: not server.leases)
        server.fail("refused", "lease")
        assert await asked(tier, "k")
        assert await asked(tier, "k")


async def test_a_slow_server_is_waited_for(server: Server) -> None:
    """Where it still tells the log's news, a late answer does not let two processes load one key."""
    async with opened(server) as one, opened(server, SOON_S, clock=FakeClock()) as other:
        assert await asked(one, "k")
        server.hold("lease")
        waiting = asyncio.ensure_future(asked(other, "k"))
        await asyncio.sleep(3 * SOON_S)
        assert not waiting.done()
        server.let_go()
        assert not await waiting


async def test_a_lease_whose_caller_has_left_is_given_back(server: Server) -> None:
    """Nobody would give it back later."""
    async with opened(server) as tier:
        server.hold("lease")
        waiting = asyncio.ensure_future(asked(tier, "k"))
        await until(lambda: server.times("lease"))
        waiting.cancel()
        server.let_go()
        await until(lambda: server.times("release"))
        await until(lambda: not server.leases)
        assert await asked(tier, "k")


# -- upkeep and figures -----------------------------------------------------------------------------------------------


async def test_sweeps_scans_and_figures_come_from_the_server(server: Server) -> None:
    """What the server says, asked behind the caller's loop; the figures are there at once."""
    async with opened(server) as tier:
        assert await tier.sweep(0.5) == 3
        assert [found.envelope for found in await tier.scan(5)] == [envelope("a")]
        stats = tier.stats()
        assert (stats.entries, stats.size_bytes, stats.capacity_bytes) == (1, len(envelope("a")), 1024)
        assert [finding.severity for finding in await tier.diagnose()] == [Severity.OK]


async def test_a_server_that_fails_while_it_is_swept_is_no_error(server: Server) -> None:
    """Nothing of it reaches the caller; the examination says why."""
    async with opened(server) as tier:
        server.fail("refused", "sweep", "scan", "diagnose", "stats")
        assert await tier.sweep(0.5) == 0
        assert await tier.scan(5) == []
        findings = await tier.diagnose()
        assert [(finding.severity, finding.sentence) for finding in findings] == [(Severity.FAULT, "refused")]
        assert tier.errors >= 2


async def test_a_server_that_does_not_answer_a_sweep_is_left(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Upkeep ends in time too."""
    monkeypatch.setattr(remote, "_SCAN_S", SOON_S)
    async with opened(server, SOON_S, SOON_S) as tier:
        server.hold("sweep", "scan", "diagnose")
        assert await tier.sweep(SOON_S) == 0
        assert await tier.scan(5) == []
        assert "no answer" in (await tier.diagnose())[0].sentence


async def test_a_sweep_goes_on_behind_its_caller_and_is_joined(server: Server) -> None:
    """It does not end with whoever asked for it, no second one is begun beside it, and closing ends it."""
    async with opened(server) as tier:
        server.hold("sweep")
        first = asyncio.ensure_future(tier.sweep(30.0))
        await until(lambda: server.times("sweep") == 1)
        first.cancel()
        second = asyncio.ensure_future(tier.sweep(30.0))
        await asyncio.sleep(SOON_S)
        assert first.cancelled()
        assert server.times("sweep") == 1
        assert sum(store.cancelled for store in server.stores) == 0
        server.let_go()
        assert await second == 3
        assert await tier.sweep(30.0) == 3
        assert server.times("sweep") == 2
        server.hold("sweep")
        third = asyncio.ensure_future(tier.sweep(30.0))
        await until(lambda: server.times("sweep") == 3)
        await tier.close()
        assert await third == 0


def test_the_store_of_these_tests_is_one(server: Server) -> None:
    """The server of these tests is asked as every other is."""
    store: remote.RemoteStore = HeldStore(server)
    assert store is not None
