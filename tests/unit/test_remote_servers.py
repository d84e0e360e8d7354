"""The tier over real servers: Redis and PostgreSQL that are frozen, killed, restarted, full, or mix replies up."""

import asyncio
import math
import os
import random
import re
import subprocess
import sys
import textwrap
import time
import warnings
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from tests.unit.remote_server import envelope, until, where

from genesis_cache import Cache
from genesis_cache.model.clock import SystemClock
from genesis_cache.model.finding import Severity
from genesis_cache.model.notice import Kind, Notice, Position
from genesis_cache.model.settings import CacheSettings
from genesis_cache.testing.proxy import Proxy
from genesis_cache.testing.server_process import ServerProcess
from genesis_cache.testing.servers import RedisServer
from genesis_cache.tiers.base import Kill, Late, Put, Remove
from genesis_cache.tiers.postgres.store import postgres_store
from genesis_cache.tiers.redis.store import redis_store
from genesis_cache.tiers.remote import RemoteTier

MB = 1024 * 1024
BUDGET_S = 0.05
_SLOW = re.compile(r"Executing <.* took [\d.]+ seconds$")  # asyncio's debug mode, of a machine that is busy
_END_OTHERS = """
    SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity
    WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'
"""
TIMEOUT_S = 3.0
PATIENT = {"far_budget_ms": 10_000}  # no reader goes on without a busy machine's reply
ROOT = Path(__file__).parents[2]

Make = Callable[..., RemoteTier]


def tier_at(url: str, cache_name: str, budget_s: float = 10.0) -> RemoteTier:
    """A tier over the server at a URL."""
    clock = SystemClock()
    is_redis = url.startswith("redis")
    place = {"redis_url" if is_redis else "database_url": url}
    settings = CacheSettings(cache_name=cache_name, redis_socket_timeout=TIMEOUT_S, **place)
    store = redis_store if is_redis else postgres_store
    return RemoteTier(
        store(settings, 100 * MB, clock),
        kind="redis" if is_redis else "database",
        capacity_bytes=100 * MB,
        clock=clock,
        budget_s=budget_s,
        timeout_s=TIMEOUT_S,
    )


@pytest.fixture(params=["redis", "postgres"])
def server(request: pytest.FixtureRequest) -> Any:
    """A private server that a test may hurt."""
    return request.getfixturevalue(f"own_{request.param}")


@pytest.fixture(params=["redis", "cluster", "postgres"])
def url(request: pytest.FixtureRequest) -> str:
    """A server that is shared."""
    return str(request.getfixturevalue(f"{request.param}_url"))


@pytest.fixture
async def make(cache_name: str) -> AsyncIterator[Make]:
    """Makes open tiers of one cache, which are closed in the end."""
    made: list[RemoteTier] = []

    async def opened(url: str, budget_s: float = 10.0) -> RemoteTier:
        tier = tier_at(url, cache_name, budget_s)
        made.append(tier)
        await tier.open()
        return tier

    yield opened
    for tier in made:
        await tier.close()


def put(key: str, payload: bytes = b"") -> Put:
    """A set that never expires."""
    return Put(where(key), envelope(key, payload), math.inf)


async def read(tier: RemoteTier, key: str) -> bytes | Late | None:
    """What a reader gets."""
    answer = tier.get(where(key))
    reply = None if answer is None else await answer
    return reply if reply is None or isinstance(reply, Late) else bytes(reply)


async def test_two_processes_share_values_and_log(url: str, make: Make) -> None:
    """What one writes the other reads, and hears of."""
    one, other = await make(url), await make(url)
    assert (one.down, other.down) == (None, None)
    start = other.position()
    assert start is not None
    tag = Kill(Notice(Kind.TAG, "shop", None, "t"))
    receipts = await one.commit([put("a", b"1"), Remove(where("b")), tag])
    assert receipts is not None
    last = receipts[-1].seq
    await until(lambda: other.seq() >= last)
    heard = other.notices(start)
    assert heard is not None
    assert [(one.kind, one.name) for one in heard] == [(Kind.KEY, "a"), (Kind.KEY, "b"), (Kind.TAG, "t")]
    assert await asyncio.gather(*(read(other, key) for key in "aab")) == [*[envelope("a", b"1")] * 2, None]
    assert await other.sweep(1.0) == 0
    assert [found.envelope for found in await other.scan(10)] == [envelope("a", b"1")]
    assert other.stats().entries == 1
    assert Severity.FAULT not in {finding.severity for finding in await other.diagnose()}


async def test_one_of_two_processes_loads(url: str, make: Make) -> None:
    """A lease keeps the other process out until it is given back."""
    one, other = await make(url), await make(url)

    async def leases(tier: RemoteTier) -> bool:
        answer = tier.lease(where("k"))
        return answer if isinstance(answer, bool) else await answer

    assert await leases(one)
    assert not await leases(other)
    one.release(where("k"))
    async with asyncio.timeout(10):
        while not await leases(other):  # noqa: ASYNC110  # a lease has no event of its own
            await asyncio.sleep(0.01)  # as a process does that waits for another's load


async def test_a_frozen_server_costs_one_budget(server: ServerProcess, make: Make) -> None:
    """The first reader is told within its budget, the others at once; when it thaws, all is well without a restart."""
    tier = await make(server.url, BUDGET_S)
    assert await tier.commit([put("a")]) is not None
    server.freeze()
    late = await read(tier, "a")
    assert isinstance(late, Late)
    assert [await read(tier, "a") for _ in range(100)] == [None] * 100
    await until(lambda: tier.down)
    assert await tier.commit([Remove(where("b"))]) is None
    server.thaw()
    await late.rest
    await until(lambda: tier.down is None)
    await until(lambda: tier.get(where("a")) is not None)
    assert await tier.commit([Remove(where("b"))]) is not None


async def test_a_killed_server_is_found_again(server: ServerProcess, make: Make) -> None:
    """While it is away reads are misses and changes are owed; it comes back with all it had, or as another log."""
    told: list[str | None] = []
    tier = await make(server.url)
    tier.on_down, tier.on_up = told.append, lambda: told.append(None)
    await tier.commit([put("a")])
    before = tier.position()
    assert before is not None
    server.kill()
    async with asyncio.timeout(10):
        while tier.down is None:
            assert await read(tier, "a") in (None, envelope("a"))
    assert await tier.commit([put("b")]) is None
    assert tier.get(where("a")) is None
    server.start()
    await until(lambda: tier.down is None, 30)
    async with asyncio.timeout(30):
        while await tier.commit([put("b")]) is None:  # noqa: ASYNC110  # what is owed is tried again
            await asyncio.sleep(0.01)
    after = tier.position()  # what comes before it is known which log there is now is not believed
    assert after is not None
    assert await read(tier, "b") == envelope("b")
    forgets = isinstance(server, RedisServer)  # it had not written anything down
    assert (after.epoch != before.epoch) is forgets
    if forgets:  # else it goes on where it was, or begins anew: that depends on whether it saw the server go
        assert tier.notices(before) is None
    assert (await read(tier, "a") is None) is forgets
    assert [bool(one) for one in told[:2]] == [True, False]


async def test_replies_that_were_mixed_up_never_reach_a_caller(own_redis: RedisServer, make: Make) -> None:
    """A network that exchanges the values of two replies is found out at every one of them."""
    with Proxy(own_redis.port, redis=True) as proxy:
        tier = await make(own_redis.url_at(proxy.port))
        keys = [f"k{n}" for n in range(50)]
        assert await tier.commit([put(key, key.encode() * 20) for key in keys]) is not None
        proxy.replies.swap = True
        dice = random.Random(5)
        for _ in range(40):
            asked = dice.sample(keys, dice.randrange(1, 9))
            for key, found in zip(asked, await asyncio.gather(*(read(tier, key) for key in asked)), strict=True):
                assert found in (None, envelope(key, key.encode() * 20))
        assert proxy.replies.swapped
        assert tier.swapped


async def test_a_storm_of_cancellations_mixes_nothing_up(url: str, make: Make) -> None:
    """Half of all readers and writers leave at any moment; the others get their own, and the tier stays up."""
    tier = await make(url)
    keys = [f"k{n}" for n in range(20)]
    assert await tier.commit([put(key, key.encode()) for key in keys]) is not None
    dice = random.Random(11)
    good = 0
    for _ in range(40):
        asked = dice.choices(keys, k=30)
        readers = [asyncio.ensure_future(read(tier, key)) for key in asked]
        writers = [asyncio.ensure_future(tier.commit([put(f"new {key}")])) for key in asked[:5]]
        for _ in range(dice.randrange(4)):
            await asyncio.sleep(0)
        for one in dice.sample(readers, 15) + dice.sample(writers, 2):
            one.cancel()
        await asyncio.gather(*readers, *writers, return_exceptions=True)
        for key, reader in zip(asked, readers, strict=True):
            if not reader.cancelled():
                assert reader.result() == envelope(key, key.encode())
                good += 1
    assert good >= 40 * 15
    assert (tier.down, tier.swapped, tier.damaged) == (None, 0, 0)


async def test_cut_connections_are_no_outage(own_redis: RedisServer, make: Make) -> None:
    """A server that drops all connections goes on serving: at most the reads under way are lost."""
    tier = await make(own_redis.url)
    await tier.commit([put("a")])
    for _ in range(5):
        own_redis.ask("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        assert await read(tier, "a") == envelope("a")
        assert tier.down is None


async def test_a_change_whose_connection_had_ended_is_sent_again(server: ServerProcess, make: Make) -> None:
    """A server that ends all connections between two changes takes the second, and nobody hears of an outage."""
    clock, told = SystemClock(), list[str]()
    tier = await make(server.url)
    tier.on_down = told.append
    assert await tier.commit([put("a", b"0")]) is not None
    for number in range(1, 11):
        await cut_all(server)
        if number % 2:
            await asyncio.sleep(0.02)
        assert await tier.commit([put("a", b"%d" % number)]) is not None
        written_at = clock.now()
        await until(lambda: (tier.heard_at or 0.0) > written_at)  # noqa: B023  # awaited before the next round
    assert await read(tier, "a") == envelope("a", b"10")
    assert (tier.down, told) == (None, [])


async def test_a_connection_cut_in_the_middle_of_a_change_is_no_outage(
    own_redis: RedisServer, cache_name: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The change is degraded, paid at once so that nobody reads what was there before, and nothing is logged."""
    async with (
        Cache.from_url("memory://", own_redis.url, name=cache_name, **PATIENT) as cache,
        Cache.from_url(own_redis.url, name=cache_name, **PATIENT) as other,
    ):
        for number in range(3):
            assert not (await cache.set("k", f"old {number}")).degraded
            assert await other.get("k") == f"old {number}"
            own_redis.ask("CLIENT", "PAUSE", "60000", "WRITE")
            setting = asyncio.ensure_future(cache.set("k", f"new {number}"))
            await until(lambda: writers(own_redis))
            for client in writers(own_redis):
                own_redis.ask("CLIENT", "KILL", "ID", client)
            own_redis.ask("CLIENT", "UNPAUSE")
            assert (await setting).degraded
            async with asyncio.timeout(10):
                while await other.get("k") is not None:  # noqa: ASYNC110  # nobody tells this process when
                    await asyncio.sleep(0.005)
            await until(lambda: not cache.analytics()["layer_statistics"]["l2"]["owed"])
        assert not (await cache.set("k", "newest")).degraded
    assert caplog.messages == []


def writers(server: RedisServer) -> list[str]:
    """The clients whose change waits for the end of a pause."""
    told = server.ask("CLIENT", "LIST")
    assert isinstance(told, bytes)
    clients = [dict(part.split("=", 1) for part in line.split()) for line in told.decode().splitlines()]
    return [client["id"] for client in clients if client["cmd"].startswith("eval") and "b" in client["flags"]]


async def cut_all(server: Any) -> None:
    """End all connections to a server."""
    if isinstance(server, RedisServer):
        server.ask("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        return
    connection = await asyncpg.connect(server.url)
    try:
        await connection.execute(_END_OTHERS)
    finally:
        await connection.close()


async def test_a_full_redis_still_reads_and_forgets(start_redis: Callable[..., RedisServer], make: Make) -> None:
    """Where there is no room for values, what is there is read, and removals reach the server."""
    server = start_redis("--maxmemory", "4mb", "--maxmemory-policy", "noeviction")
    tier = await make(server.url)
    assert await tier.commit([put("a")]) is not None
    number = 0
    while tier.down is None:
        number += 1
        await tier.commit([put(f"k{number}", os.urandom(200_000))])
        assert number < 100
    assert tier.down.startswith("only reads work: ")
    assert await read(tier, "a") == envelope("a")
    assert await tier.commit([put("b")]) is None
    assert await tier.commit([Remove(where("a"))]) is not None
    assert await read(tier, "a") is None
    server.ask("CONFIG", "SET", "maxmemory", "100mb")
    await until(lambda: tier.down is None, 30)
    assert await tier.commit([put("b")]) is not None


def test_a_program_that_ends_without_closing_ends_quietly(url: str, cache_name: str, tmp_path: Path) -> None:
    """No thread keeps the interpreter, no warning is written, and what was queued is there for the next program."""
    program = tmp_path / "program.py"
    program.write_text(
        textwrap.dedent(f"""
            import asyncio
            from tests.unit.test_remote_servers import put, read, tier_at
            tier = tier_at({url!r}, {cache_name!r})
            async def main():
                await tier.open()
                before = await read(tier, "a")
                tier.commit([put("a", b"1")])
                return before
            print(asyncio.run(main()) is not None)
        """)
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "src")))}
    for there in (False, True):
        ended = subprocess.run(  # noqa: S603  # our own words
            [sys.executable, "-X", "dev", "-W", "error", str(program)],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            env=environment,
        )
        said = [line for line in ended.stderr.splitlines() if not _SLOW.match(line)]
        assert (ended.stdout, said, ended.returncode) == (f"{there}\n", [], 0)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
def test_parent_and_child_of_a_fork_share_no_connection(url: str, cache_name: str) -> None:
    """Both go on reading and writing at the same time, each its own replies, the parent hearing both."""
    tier = tier_at(url, cache_name)
    keys = [f"k{n}" for n in range(50)]

    async def begin() -> Position | None:
        await tier.open()
        assert tier.down is None
        start = tier.position()
        await tier.commit([put(key, key.encode()) for key in keys])
        return start

    def hears(name: str) -> bool:
        return name in {notice.name for notice in tier.notices(place) or ()}

    async def hammer(name: str) -> bool:
        for turn in range(30):
            found = await asyncio.gather(*(read(tier, key) for key in keys))
            assert found == [envelope(key, key.encode()) for key in keys]
            assert await tier.commit([put(f"{name}{turn}")]) is not None
        await until(lambda: tier.position() if name == "child" else hears("child29") and hears("parent29"))
        await tier.close()
        return tier.swapped == 0

    begun = asyncio.run(begin())
    assert begun is not None
    place = begun
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # that a process with threads should not fork
        child = os.fork()
    if child == 0:
        code = 1
        try:
            code = 0 if asyncio.run(hammer("child")) else 2
        finally:
            os._exit(code)
    assert asyncio.run(hammer("parent"))
    deadline = time.monotonic() + 30
    while (ended := os.waitpid(child, os.WNOHANG)) == (0, 0) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert os.waitstatus_to_exitcode(ended[1]) == 0
    assert ended[0] == child
