"""Runs a cluster of processes under faults and judges its history: ``python -m tests.coherence.run --seed 7``.

Real processes, each with a cache of its own, over real servers; a source of truth in shared memory; a nemesis. After
the faults everything is healed, the workers pay what is owed and read everything once more; then the checker judges.
"""

import argparse
import asyncio
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tests.coherence.nemesis import Nemesis, Target, keep_to_one
from tests.coherence.universe import Truth
from tests.coherence.worker import STEP, STEP_WORD, Task

from genesis_cache.testing.checker import NS, Promise, Violation, check, line_of
from genesis_cache.testing.history import History, read_history
from genesis_cache.testing.proxy import Proxy
from genesis_cache.testing.servers import PostgresServer, RedisCluster, RedisSentinel, RedisServer

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = {**os.environ, "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}"}
"""Of the processes of a cluster."""
MEMORY = Path("/dev/shm")  # noqa: S108  # where writing histories costs nothing
LINEUPS = {
    "disk": ("memory", "disk"),
    "sqlite": ("memory", "sqlite"),
    "redis": ("memory", "redis"),
    "redis+database": ("memory", "redis", "postgres"),
    "postgres": ("memory", "postgres"),
    "disk+redis": ("memory", "disk", "redis"),
    "redis-only": ("redis",),
    "sentinel": ("memory", "sentinel"),
    "cluster": ("memory", "cluster"),
}
SETTINGS = {
    "redis_socket_timeout": 1.0,
    "redis_connection_timeout": 1.0,
    "cache_max_staleness": 1.0,
    "cache_cleanup_interval": 2.0,
    "l1_cache_max_entries": 40,
}
READY_S = 120.0  # on a machine that is busy with other things
ANSWER_S = 120.0
MAX_STALENESS_S = 1.0
RECOVERY_S = 15.0
CANCELLED = 0.03  # of all calls
SHORT_BUDGET_MS = 50.0
LONG_BUDGET_MS = 1000.0
CONTEXT_NS = 4 * NS
NO_END_S = 1e6
PART_BYTES = 150_000_000  # judged at once; in memory they are twice that


@dataclass(frozen=True)
class Plan:
    """One run."""

    seed: int
    seconds: float = 10.0
    workers: int = 4
    lineup: str = "redis"
    faults: tuple[str, ...] | None = None
    """None: all that the line-up allows; empty: none."""
    partition: str = "serve"
    pause_s: float = 0.7
    pace_ms: float = 2.0
    callers: int = 8
    mutant: str = ""
    operations: int = 0
    """0: as many as come about in the time; else the run lasts until so many are done."""
    burst: int = 0
    """How many plain reads a caller makes after each thing that it does."""
    busy: bool = False
    """The machine has other things to do: that something took long proves nothing."""
    keep: bool = False
    """Keep the folder of the histories."""
    each: bool = False
    """Go on beyond the time until each fault was done at least once."""


@dataclass
class Report:
    """What a run showed."""

    plan: Plan
    operations: int = 0
    violations: list[Violation] = field(default_factory=list)
    trouble: list[str] = field(default_factory=list)
    figures: dict[str, Any] = field(default_factory=dict)
    faults: dict[str, int] = field(default_factory=dict)
    folder: str = ""

    @property
    def wrong(self) -> list[str]:
        """A sentence for each thing that went wrong."""
        return [str(violation) for violation in self.violations] + self.trouble


class Process:
    """A worker's process."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self.name = task.name
        self.words: asyncio.Queue[str] = asyncio.Queue()
        self.operations = 0
        """So many it has done at least."""
        self._process: asyncio.subprocess.Process | None = None
        self._reader: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    async def start(self) -> None:
        spec = Path(self.task.folder) / f"{self.name}.json"
        spec.write_text(json.dumps(asdict(self.task)))
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.coherence.worker", str(spec),
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, cwd=ROOT,
            env=ENVIRONMENT,
        )  # fmt: skip
        self._reader = asyncio.create_task(self._read())

    async def _read(self) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        while line := await self._process.stdout.readline():
            if line == STEP_WORD:
                self.operations += STEP
            else:
                self.words.put_nowait(line.decode().strip())
        self.words.put_nowait("")

    def order(self, words: str) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        if self._process.returncode is None:
            self._process.stdin.write(words.encode() + b"\n")

    async def hear(self, word: str, patience_s: float) -> str:
        """Wait for a word; RuntimeError where the worker has ended, or does not say it in time."""
        try:
            async with asyncio.timeout(patience_s):
                while (said := await self.words.get()) != word:
                    if not said:
                        raise RuntimeError(f"worker {self.name} has ended by itself")
        except TimeoutError:
            raise RuntimeError(f"worker {self.name} did not say {word!r} within {patience_s:g} s") from None
        return said

    async def last_word(self) -> dict[str, Any]:
        """Its figures, as it ends."""
        assert self._process is not None
        async with asyncio.timeout(ANSWER_S):
            while True:
                said = await self.words.get()
                if said.startswith("{"):
                    figures: dict[str, Any] = json.loads(said)
                    await self._process.wait()
                    return figures
                if not said:
                    raise RuntimeError(f"worker {self.name} ended without its figures")

    async def kill(self) -> None:
        assert self._process is not None
        if self._process.returncode is None:
            self._process.send_signal(signal.SIGKILL)
            await self._process.wait()
        if self._reader is not None:
            await self._reader


class Cluster:
    """Servers, workers and the nemesis of one run."""

    def __init__(self, plan: Plan, folder: Path) -> None:
        self.plan = plan
        self.folder = folder
        self.target = Target()
        self.processes: list[Process] = []
        self.born: list[Process] = []
        """All that there ever were."""
        self.report = Report(plan, folder=str(folder))
        self._tiers = LINEUPS[plan.lineup]
        self._births = 0

    # -- what is made ---------------------------------------------------------------------------------------------

    async def run(self) -> Report:
        """The whole run."""
        async with AsyncExitStack() as stack:
            await self._servers(stack)
            Truth.create(self.folder / "truth")
            self.target.replace = self._replace
            try:
                nemesis = Nemesis(self.target, self.folder, self.plan.seed, self.plan.faults)
                await self._workers()
                await self._work(nemesis)
                self.report.faults = nemesis.done
            except (RuntimeError, TimeoutError) as error:
                self.report.trouble.append(f"{type(error).__name__}: {error}")
            finally:
                for process in self.processes:
                    await process.kill()
        return self.report

    async def _servers(self, stack: AsyncExitStack) -> None:
        if "redis" in self._tiers:
            self.target.redis = await asyncio.to_thread(stack.enter_context, RedisServer())
            self.target.proxies.append(stack.enter_context(Proxy(self.target.redis.port)))
        if "sentinel" in self._tiers:
            self.target.sentinel = await asyncio.to_thread(stack.enter_context, RedisSentinel())
            keep_to_one(self.target.sentinel)
        if "cluster" in self._tiers:
            self.target.cluster = await asyncio.to_thread(stack.enter_context, RedisCluster())
        if "postgres" in self._tiers:
            self.target.postgres = await asyncio.to_thread(stack.enter_context, PostgresServer())
            self.target.proxies.append(stack.enter_context(Proxy(self.target.postgres.port)))
        self.target.cut_off = ("w1",) if self.target.proxies else ()

    def _urls(self, *, by_proxy: bool) -> list[str]:
        proxies = iter(self.target.proxies)
        urls = []
        for tier in self._tiers:
            if tier == "memory":
                urls.append("memory://")
            elif tier == "disk":
                urls.append(f"disk://{self.folder}/disk")
            elif tier == "sqlite":
                urls.append(f"sqlite:///{self.folder}/cache.db")
            elif tier in ("sentinel", "cluster"):
                group = self.target.sentinel or self.target.cluster
                assert group is not None
                urls.append(group.url)
            else:
                server = self.target.redis if tier == "redis" else self.target.postgres
                assert server is not None
                proxy = next(proxies)
                urls.append(server.url_at(proxy.port) if by_proxy else server.url)
        return urls

    async def _workers(self) -> None:
        for number in range(self.plan.workers):
            await self._born(f"w{number}", number)
        for process in self.processes:
            await process.hear("ready", READY_S)
        self.target.workers = list(self.processes)

    async def _born(self, name: str, number: int) -> Process:
        plan = self.plan
        settings = {
            **SETTINGS, "cache_on_partition": plan.partition, "cache_name": f"run{plan.seed}",
            "cache_far_budget_ms": LONG_BUDGET_MS if has_long_budget(plan) else SHORT_BUDGET_MS,
        }  # fmt: skip
        if self._tiers[0] != "memory":
            del settings["l1_cache_max_entries"]
        task = Task(
            name, number, plan.workers, plan.seed, str(self.folder), self._urls(by_proxy=name in self.target.cut_off),
            settings, callers=plan.callers, pace_ms=plan.pace_ms, mutant=plan.mutant,
            burst=plan.burst, cancel=0.0 if has_long_budget(plan) else CANCELLED,
        )  # fmt: skip
        process = Process(task)
        await process.start()
        self.processes.append(process)
        self.born.append(process)
        return process

    async def _replace(self, victim: Process) -> None:  # type: ignore[override]  # its own workers
        await victim.kill()
        self.processes.remove(victim)
        self.target.workers.remove(victim)
        self._births += 1
        heir = await self._born(f"h{self._births}", -1)
        await heir.hear("ready", READY_S)
        self.target.workers.append(heir)

    # -- what happens ---------------------------------------------------------------------------------------------

    async def _work(self, nemesis: Nemesis) -> None:
        if self.plan.operations:
            raging = asyncio.create_task(nemesis.rage(NO_END_S, self.plan.pause_s))
            await self._done()
            nemesis.is_over = True
            await raging
        else:
            await nemesis.rage(self.plan.seconds, self.plan.pause_s, each=self.plan.each)
        if self.target.cluster is not None:
            await asyncio.to_thread(self.target.cluster.come_together)
        for process in self.processes:
            process.order("settle")
        for process in self.processes:
            await process.hear("settled", ANSWER_S)
        nemesis.recorder.mark("healed")
        await asyncio.sleep(2 * MAX_STALENESS_S + 0.1)
        for process in self.processes:
            process.order("verify")
        figures = [await process.last_word() for process in self.processes]
        self.processes.clear()
        nemesis.recorder.close()
        for one in figures:
            self.report.trouble += one.pop("trouble")
            for name, figure in one.items():
                known = self.report.figures.get(name, 0)
                self.report.figures[name] = max(known, figure) if name.endswith("ms") else known + figure

    async def _done(self) -> None:
        """Wait until enough was done, by those too that were killed."""
        async with asyncio.timeout(self.plan.seconds):
            while sum(process.operations for process in self.born) < self.plan.operations:  # noqa: ASYNC110  # a sum
                await asyncio.sleep(0.1)


def run(plan: Plan) -> Report:
    """One run, judged."""
    folder = Path(tempfile.mkdtemp(prefix="coherence-", dir=MEMORY if MEMORY.exists() else None))
    try:
        report = asyncio.run(Cluster(plan, folder).run())
        judge(report, sorted(folder.glob("*.jsonl")))
    finally:
        if not plan.keep:
            shutil.rmtree(folder, ignore_errors=True)
    return report


def has_long_budget(plan: Plan) -> bool:
    """Whether nobody gives up waiting, so that one load of a key is certain, on a busy machine too."""
    return plan.seed % 2 == 1


def promise_of(plan: Plan) -> Promise:
    """What is to be held in a run."""
    bypass, one_load = plan.partition == "bypass", has_long_budget(plan)
    recovery_s = NO_END_S if plan.busy else RECOVERY_S
    return Promise(MAX_STALENESS_S, bypass, one_load, recovery_s, ttl_slack_s=4.0, slow_s=5.0)


def judge(report: Report, paths: Sequence[Path]) -> None:
    """Let the checker see the histories, in parts that fit into memory, and count."""
    parts = 1 + sum(path.stat().st_size for path in paths) // PART_BYTES
    figures = dict.fromkeys(("gets", "changes", "loads"), 0)
    found: dict[tuple[str, int], Violation] = {}
    for part in range(parts):
        history = read_history(paths, part, parts)
        for one in check(history, promise_of(report.plan)):
            found[one.sentence, one.at] = one._replace(lines=(*_broken_then(history, one.at), *one.lines))
        figures["gets"] += len(history.gets)
        figures["loads"] += len(history.loads)
        figures["changes"] = len(history.changes)
    report.violations = sorted(found.values(), key=lambda one: one.at)
    report.operations = figures["gets"] + figures["changes"]
    report.figures |= figures


def _broken_then(history: History, at: int) -> tuple[str, ...]:
    """The faults of the last seconds before a moment."""
    near = [fault for fault in history.faults if fault.begin <= at and (fault.end or at) >= at - CONTEXT_NS]
    return tuple(line_of(fault) for fault in sorted(near, key=lambda fault: fault.begin))


def show(report: Report, most: int) -> None:
    """Print what a run showed."""
    kinds = Counter(violation.check for violation in report.violations)
    plan = report.plan
    print(
        f"{plan.lineup} {plan.partition} seed {plan.seed} {plan.mutant}: {report.operations:,} operations, "
        f"{len(report.violations)} violations {dict(kinds) or ''}, {len(report.trouble)} other troubles",
        flush=True,
    )
    print("  " + ", ".join(f"{name} {figure:,.6g}" for name, figure in report.figures.items()))
    print("  faults: " + (", ".join(f"{name} {count}" for name, count in sorted(report.faults.items())) or "none"))
    for sentence in report.wrong[:most]:
        print("  " + sentence.replace("\n", "\n  "))
    if plan.keep:
        print(f"  histories in {report.folder}")


def main(words: Sequence[str] | None = None) -> int:
    """From the command line; 0 where nothing was violated."""
    parser = argparse.ArgumentParser(description="A cluster of caches under faults, judged by the checker.")
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--lineup", choices=sorted(LINEUPS), action="append")
    parser.add_argument("--faults", action="append", help="by name, repeatable; 'none' for none (default: all)")
    parser.add_argument("--partition", choices=("serve", "bypass"), default="serve")
    parser.add_argument("--mutant", default="")
    parser.add_argument("--pause", type=float, default=0.7, help="seconds between faults, on average")
    parser.add_argument("--pace", type=float, default=2.0, help="milliseconds between a caller's calls, on average")
    parser.add_argument("--operations", type=int, default=0)
    parser.add_argument("--burst", type=int, default=0, help="plain reads after each thing that a caller does")
    parser.add_argument("--show", type=int, default=8, help="how many violations to print")
    parser.add_argument("--keep", action="store_true", help="keep the histories")
    said = parser.parse_args(words)
    wrong = 0
    for lineup in said.lineup or ["redis"]:
        seed = random.SystemRandom().randrange(1_000_000) if said.seed is None else said.seed
        plan = Plan(
            seed, said.seconds, said.workers, lineup,
            None if said.faults is None else tuple(name for name in said.faults if name != "none"),
            said.partition, said.pause, said.pace, mutant=said.mutant, operations=said.operations, keep=said.keep,
            burst=said.burst,
        )  # fmt: skip
        started = time.monotonic()
        report = run(plan)
        show(report, said.show)
        print(f"  {time.monotonic() - started:.1f} s in all")
        wrong += len(report.wrong)
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
