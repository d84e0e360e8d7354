"""The nemesis: what is done to servers, connections and workers while they work, each fault on record."""

import asyncio
import os
import random
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import asyncpg

from genesis_cache.testing.history import Recorder
from genesis_cache.testing.proxy import Proxy
from genesis_cache.testing.servers import PostgresServer, RedisCluster, RedisError, RedisSentinel, RedisServer

CONTROL_KEYS = ("control", "log", "floors", "marks")
LONGEST_FREEZE_S = 2.5
EVICTED_S = 1.0
LATE_S = 1.0  # so late that an answer is still waited for, and what it proves is over
LONGEST_RAGE_S = 120.0  # beyond its time, for faults that have not been done yet


class Victim(Protocol):
    """A worker as the nemesis sees it."""

    name: str
    pid: int

    def order(self, words: str) -> None: ...


@dataclass
class Target:
    """What there is to be harmed."""

    redis: RedisServer | None = None
    sentinel: RedisSentinel | None = None
    cluster: RedisCluster | None = None
    postgres: PostgresServer | None = None
    proxies: list[Proxy] = field(default_factory=list)
    cut_off: tuple[str, ...] = ()
    """Who comes by the proxies."""
    workers: list[Victim] = field(default_factory=list)
    replace: Callable[[Victim], Awaitable[None]] | None = None
    """Has a new worker begin where one was killed."""

    @property
    def servers(self) -> list[RedisServer]:
        """The servers that may be frozen, killed and restarted one by one: those that no Sentinel watches."""
        return self.cluster.nodes if self.cluster is not None else [] if self.redis is None else [self.redis]

    @property
    def anyone(self) -> list[RedisServer]:
        """The servers that can be asked for something."""
        return self.servers if self.sentinel is None else [self.sentinel.primary]


Deed = Callable[["Nemesis"], Awaitable[None]]
DEEDS: dict[str, Deed] = {}
NEEDS: dict[str, str] = {}


def deed(name: str, needs: str = "") -> Callable[[Deed], Deed]:
    """A fault by name; what it needs of a `Target`; nothing: workers, which are always there."""

    def remember(act: Deed) -> Deed:
        DEEDS[name], NEEDS[name] = act, needs
        return act

    return remember


class Nemesis:
    """Does one harm after the other, by the dice, until told to stop; then everything is whole again."""

    def __init__(self, target: Target, folder: Path, seed: int, names: Sequence[str] | None = None) -> None:
        self.target = target
        self.dice = random.Random(f"{seed}/nemesis")
        self.recorder = Recorder(folder / "nemesis.jsonl", "nemesis")
        self.done: dict[str, int] = {}
        self.is_over = False
        """Set by whoever wants it to do no further harm."""
        possible = [name for name, needs in NEEDS.items() if not needs or getattr(target, needs)]
        self.names = [name for name in possible if names is None or name in names]
        if self.names:  # processes that begin together on a busy machine are not yet as they should be
            with self.recorder.fault("beginning"):
                pass

    async def rage(self, seconds: float, pause_s: float, *, each: bool = False) -> None:
        """Faults, one at a time, with a pause of random length between them; ``each``: none is left out."""
        if not self.names:
            await asyncio.sleep(seconds)
            return
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        bag: list[str] = []
        while True:
            await asyncio.sleep(self.dice.uniform(0.2, 1.8) * pause_s)
            if self.is_over:
                return
            is_complete = not each or len(self.done) == len(self.names)
            if loop.time() >= end + (0 if is_complete else LONGEST_RAGE_S):
                return
            if not bag:
                bag = self.dice.sample(self.names, len(self.names))
            name = bag.pop()
            await DEEDS[name](self)
            self.done[name] = self.done.get(name, 0) + 1

    @asynccontextmanager
    async def fault(self, name: str, processes: Sequence[str] | None = None) -> AsyncIterator[None]:
        with self.recorder.fault(name, processes):
            yield

    def moment_s(self) -> float:
        return self.dice.choice((0.05, 0.3, 0.8, 1.5, LONGEST_FREEZE_S))

    def worker(self) -> Victim:
        return self.dice.choice(self.target.workers)

    @property
    def server(self) -> RedisServer:
        """Another one each time, in a cluster."""
        return self.dice.choice(self.target.servers)

    @property
    def postgres(self) -> PostgresServer:
        assert self.target.postgres is not None
        return self.target.postgres

    def anyone(self) -> RedisServer:
        """A server that can be asked for something."""
        return self.dice.choice(self.target.anyone)


# -- workers -----------------------------------------------------------------------------------------------------------


@deed("stopped worker")
async def _stop(nemesis: Nemesis) -> None:
    worker = nemesis.worker()
    async with nemesis.fault("stopped worker", [worker.name]):
        os.kill(worker.pid, signal.SIGSTOP)
        await asyncio.sleep(nemesis.moment_s())
        os.kill(worker.pid, signal.SIGCONT)


@deed("worker stopped for long")
async def _stop_long(nemesis: Nemesis) -> None:
    """Longer than the bound: what it had heard is too old when it goes on."""
    worker = nemesis.worker()
    async with nemesis.fault("worker stopped for long", [worker.name]):
        os.kill(worker.pid, signal.SIGSTOP)
        await asyncio.sleep(nemesis.dice.uniform(1.3, LONGEST_FREEZE_S))
        os.kill(worker.pid, signal.SIGCONT)


@deed("stalled loop")
async def _stall(nemesis: Nemesis) -> None:
    worker, seconds = nemesis.worker(), nemesis.moment_s()
    async with nemesis.fault("stalled loop", [worker.name]):
        worker.order(f"stall {seconds}")
        await asyncio.sleep(seconds)


@deed("fork")
async def _fork(nemesis: Nemesis) -> None:
    worker = nemesis.worker()
    async with nemesis.fault("fork", [worker.name]):
        worker.order("fork")


@deed("killed worker")
async def _kill(nemesis: Nemesis) -> None:
    worker = nemesis.worker()
    if nemesis.target.replace is not None:
        async with nemesis.fault("killed worker", [worker.name]):
            await nemesis.target.replace(worker)


# -- Redis -------------------------------------------------------------------------------------------------------------


def _ask(server: RedisServer, *words: str | bytes | int) -> object:
    """A command to Redis; an error is an answer too."""
    try:
        return server.ask(*words)
    except (RedisError, OSError, EOFError) as error:
        return error


@deed("Redis frozen", "servers")
async def _freeze_redis(nemesis: Nemesis) -> None:
    server = nemesis.server
    async with nemesis.fault("Redis frozen"):
        server.freeze()
        await asyncio.sleep(nemesis.moment_s())
        server.thaw()


@deed("Redis restarted empty", "servers")
async def _empty_redis(nemesis: Nemesis) -> None:
    server = nemesis.server
    async with nemesis.fault("Redis restarted empty"):
        await asyncio.to_thread(server.kill)
        (server.folder / "dump.rdb").unlink(missing_ok=True)
        await asyncio.sleep(nemesis.dice.choice((0, 0, 0.5, 1.5)))
        await asyncio.to_thread(server.start)


@deed("Redis restarted with an old snapshot", "servers")
async def _old_redis(nemesis: Nemesis) -> None:
    server = nemesis.server
    _ask(server, "SAVE")
    await asyncio.sleep(nemesis.moment_s())
    async with nemesis.fault("Redis restarted with an old snapshot"):
        await asyncio.to_thread(server.kill)
        await asyncio.sleep(nemesis.dice.choice((0, 0, 0.5)))
        await asyncio.to_thread(server.start)
        (server.folder / "dump.rdb").unlink(missing_ok=True)


def keep_to_one(group: RedisSentinel) -> None:
    """A primary without its replica takes no changes: a Sentinel whose connection was killed gives up one that lives.

    Else those who are still connected to it would tell their changes to a server that nobody else listens to.
    """
    for server in (group.primary, group.replica):
        _ask(server, "CONFIG", "SET", "min-replicas-to-write", "1")


@deed("failover", "sentinel")
async def _fail_over(nemesis: Nemesis) -> None:
    """The primary is killed, its replica takes its place, and it comes back as the replica of that."""
    group = nemesis.target.sentinel
    assert group is not None
    async with nemesis.fault("failover"):
        await asyncio.to_thread(group.fail_over)
        await asyncio.to_thread(group.rejoin)
        keep_to_one(group)


@deed("FLUSHALL", "anyone")
async def _flush(nemesis: Nemesis) -> None:
    async with nemesis.fault("FLUSHALL"):
        _ask(nemesis.anyone(), "FLUSHALL")


@deed("control key deleted", "anyone")
async def _delete_control_key(nemesis: Nemesis) -> None:
    name = nemesis.dice.choice(CONTROL_KEYS)
    async with nemesis.fault(f"control key {name} deleted"):
        for server in nemesis.target.anyone:
            found = _ask(server, "KEYS", f"genesis:*:{name}")
            for key in found if isinstance(found, list) else []:
                _ask(server, "DEL", key)


@deed("control keys evicted", "anyone")
async def _evict(nemesis: Nemesis) -> None:
    """The server is told to keep nothing at all, and throws away key after key by chance until that is true."""
    server = nemesis.anyone()
    async with nemesis.fault("control keys evicted"):
        _ask(server, "CONFIG", "SET", "maxmemory-policy", "allkeys-random")
        _ask(server, "CONFIG", "SET", "maxmemory", "1")
        end = time.monotonic() + EVICTED_S
        while _ask(server, "DBSIZE") and time.monotonic() < end:  # each command has it evict some more
            _ask(server, "SET", "room", "none")
            await asyncio.sleep(0)
        _ask(server, "CONFIG", "SET", "maxmemory", "0")
        _ask(server, "CONFIG", "SET", "maxmemory-policy", "noeviction")


@deed("Redis connections killed", "anyone")
async def _kill_clients(nemesis: Nemesis) -> None:
    server = nemesis.anyone()
    async with nemesis.fault("Redis connections killed"):
        for _ in range(nemesis.dice.choice((1, 1, 5))):
            _ask(server, "CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
            await asyncio.sleep(nemesis.dice.choice((0, 0.01, 0.2)))


@deed("log connections killed", "anyone")
async def _kill_followers(nemesis: Nemesis) -> None:
    async with nemesis.fault("log connections killed"):
        for server in nemesis.target.anyone:
            listed = _ask(server, "CLIENT", "LIST")
            for line in listed.decode().splitlines() if isinstance(listed, bytes) else []:
                fields = dict(word.split("=", 1) for word in line.split() if "=" in word)
                if fields.get("cmd") in ("xread", "hmget"):
                    _ask(server, "CLIENT", "KILL", "ID", fields["id"])


# -- PostgreSQL --------------------------------------------------------------------------------------------------------


async def _sql(nemesis: Nemesis, *statements: str) -> list[asyncpg.Record]:
    """What a statement answers, for a server that may not be there."""
    rows: list[asyncpg.Record] = []
    with suppress(OSError, asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError):
        async with asyncio.timeout(3):
            connection = await asyncpg.connect(nemesis.postgres.url)
            try:
                for statement in statements:
                    rows = await connection.fetch(statement)
            finally:
                connection.terminate()
    return rows


@deed("PostgreSQL frozen", "postgres")
async def _freeze_postgres(nemesis: Nemesis) -> None:
    async with nemesis.fault("PostgreSQL frozen"):
        nemesis.postgres.freeze()
        await asyncio.sleep(nemesis.moment_s())
        nemesis.postgres.thaw()


@deed("PostgreSQL killed", "postgres")
async def _kill_postgres(nemesis: Nemesis) -> None:
    async with nemesis.fault("PostgreSQL killed"):
        await asyncio.to_thread(nemesis.postgres.kill)
        await asyncio.sleep(nemesis.dice.choice((0, 0, 0.5)))
        await asyncio.to_thread(nemesis.postgres.start)


@deed("backends terminated", "postgres")
async def _terminate(nemesis: Nemesis) -> None:
    chance = nemesis.dice.choice((1.0, 0.3))
    others = "FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'"
    async with nemesis.fault("backends terminated"):
        await _sql(nemesis, f"SELECT pg_terminate_backend(pid) {others} AND random() < {chance}")  # our own words


@deed("backend killed", "postgres")
async def _kill_backend(nemesis: Nemesis) -> None:
    """SIGKILL to one backend: the server ends them all and recovers, and unlogged tables are empty then."""
    rows = await _sql(nemesis, "SELECT pid FROM pg_stat_activity WHERE backend_type = 'client backend'")
    async with nemesis.fault("backend killed"):
        if rows:
            with suppress(ProcessLookupError):
                os.kill(nemesis.dice.choice(rows)["pid"], signal.SIGKILL)
            await asyncio.sleep(0.5)


@deed("books deleted", "postgres")
async def _delete_books(nemesis: Nemesis) -> None:
    rows = await _sql(nemesis, "SELECT schemaname, tablename FROM pg_tables WHERE tablename ~ '(control|log|floors)$'")
    async with nemesis.fault("books deleted"):
        tables = [f'"{row["schemaname"]}"."{row["tablename"]}"' for row in rows if row["schemaname"] != "pg_catalog"]
        if tables:
            await _sql(nemesis, f"DELETE FROM {nemesis.dice.choice(tables)}")  # noqa: S608  # our own words


# -- the network -------------------------------------------------------------------------------------------------------


@deed("partition", "proxies")
async def _partition(nemesis: Nemesis) -> None:
    """Some workers are cut off: by silence, in one direction, by refusal; or everything takes long."""
    how = nemesis.dice.choice(("silence", "no requests", "no replies", "refused", "slow"))
    async with nemesis.fault(f"partition: {how}", nemesis.target.cut_off):
        for proxy in nemesis.target.proxies:
            proxy.requests.black_hole = how in ("silence", "no requests")
            proxy.replies.black_hole = how in ("silence", "no replies")
            if how == "slow":
                proxy.replies.latency_s, proxy.replies.jitter_s = 0.15, 0.1
            if how == "refused":
                await asyncio.to_thread(proxy.refuse)
                await asyncio.to_thread(proxy.cut)
        await asyncio.sleep(nemesis.moment_s() + nemesis.dice.choice((0, 0, 2)))
        for proxy in nemesis.target.proxies:
            await asyncio.to_thread(proxy.heal)
            if how != "slow":  # bytes were lost in the middle of connections
                await asyncio.to_thread(proxy.cut)


@deed("late replies", "proxies")
async def _delay(nemesis: Nemesis) -> None:
    """What is heard is as old as it may just be."""
    async with nemesis.fault("late replies", nemesis.target.cut_off):
        for proxy in nemesis.target.proxies:
            proxy.replies.latency_s = LATE_S
        await asyncio.sleep(nemesis.dice.uniform(2.0, 3.0))
        for proxy in nemesis.target.proxies:
            await asyncio.to_thread(proxy.heal)


@deed("connections reset", "proxies")
async def _reset(nemesis: Nemesis) -> None:
    async with nemesis.fault("connections reset", nemesis.target.cut_off):
        for proxy in nemesis.target.proxies:
            nemesis.dice.choice((proxy.requests, proxy.replies)).cut_in(nemesis.dice.randrange(400))
        await asyncio.sleep(0.3)
        for proxy in nemesis.target.proxies:
            await asyncio.to_thread(proxy.heal)
