"""Invalidations from process to process: how long after a delete began in one does no read in another find the value.

Eight processes on one host hold the same keys in memory; together they delete 500 of them a second. Each process looks,
the moment its log has news, whether a read of the key still finds it, and notes the time when it no longer does.
"""

# ruff: noqa: S603  # it starts this interpreter on this benchmark

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
from array import array
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from time import monotonic
from typing import IO, Any

from bench.report import Section, Table, Verdict

from genesis_cache.cache import Cache
from genesis_cache.model.notice import Position
from genesis_cache.testing.servers import PostgresServer, RedisServer

PROCESSES = 8
A_SECOND = 500  # deletes of all processes together
SECONDS = 20.0
QUICK_S = 1.0
WARM_S = 1.0
START_S = 2.0  # for all to be told when it begins
AT_ONCE = 500  # keys
REST_S = 2.0  # for what is still on its way at the end
P99_MS = 5.0
ROOT = Path(__file__).parents[1]
COLUMNS = ["log", "deletes", "seen in others", "p50 ms", "p90 ms", "p99 ms", "p99.9 ms", "longest ms", "never seen"]


def section(*, quick: bool) -> Section:
    """A row for each kind of log."""
    seconds = QUICK_S if quick else SECONDS
    rows, verdicts = [], []
    for name, url in _servers():
        with url as where:
            lags_ms, deletes, never = measure(where, seconds)
        rows.append([name, f"{deletes:,}", f"{len(lags_ms):,}", *_cells(lags_ms), str(never)])
        p99, longest = quantile(lags_ms, 0.99), lags_ms[-1]
        verdicts += [
            Verdict(
                f"invalidated here, gone there, {name}", f"p99 at most {P99_MS:g} ms", f"{p99:.1f} ms", p99 <= P99_MS
            ),
            Verdict(
                f"invalidated here, gone there, {name}, the longest",
                "at most CACHE_MAX_STALENESS (1 s), none lost",
                f"{longest:.0f} ms, {never} lost",
                longest <= 1000 and not never,
            ),
        ]
    return Section(
        "Invalidation",
        f"{PROCESSES} processes on one host, memory + server, {A_SECOND} deletes a second of all together for "
        f"{seconds:g} s; each is timed from the call's beginning to the first moment when a read in another process no "
        f"longer finds the value ({PROCESSES - 1} times). The processes share {os.cpu_count()} cores with the server.",
        [Table("", COLUMNS, rows)],
        verdicts,
    )


def _servers() -> "Iterator[tuple[str, Any]]":
    yield "Redis", _running(RedisServer)
    yield "PostgreSQL", _running(PostgresServer)


@contextmanager
def _running(server: Callable[[], Any]) -> Iterator[str]:
    with server() as here:
        yield here.url


def measure(url: str, seconds: float, processes: int = PROCESSES) -> tuple[list[float], int, int]:
    """The lags in milliseconds in order, how many deletes there were, and how many were not seen somewhere."""
    each = int((seconds + WARM_S) * A_SECOND / processes)
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        spec = {"url": url, "folder": folder, "each": each, "processes": processes}
        workers = [stack.enter_context(_worker(spec, number)) for number in range(processes)]
        for word in ("opened", "stored", "filled"):
            for worker in workers:
                _expect(worker, word)
            for worker in workers:
                _tell(worker, f"{monotonic() + START_S}" if word == "filled" else "on")
        for worker in workers:
            _expect(worker, "done")
        begun = [_read(folder, f"begun-{number}") for number in range(processes)]
        gone = [_read(folder, f"gone-{number}") for number in range(processes)]
    lags, never = [], 0
    skipped = int(WARM_S * A_SECOND / processes)
    for writer, times in enumerate(begun):
        for number in range(skipped, each):
            seen = [gone[reader][writer * each + number] for reader in range(processes) if reader != writer]
            lags += [1000 * (at - times[number]) for at in seen if at]
            never += sum(not at for at in seen)
    return sorted(lags), (each - skipped) * processes, never


@contextmanager
def _worker(spec: dict[str, Any], number: int) -> "Iterator[subprocess.Popen[str]]":
    command = [sys.executable, "-W", "ignore", "-m", "bench.invalidation", json.dumps({**spec, "number": number})]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=os.environ
    ) as worker:
        try:
            yield worker
        finally:
            worker.kill()


def _expect(worker: "subprocess.Popen[str]", word: str) -> None:
    said = "" if worker.stdout is None else worker.stdout.readline().strip()
    if said != word:
        raise RuntimeError(f"a worker said {said!r} in place of {word!r}")


def _tell(worker: "subprocess.Popen[str]", word: str) -> None:
    if worker.stdin is not None:
        worker.stdin.write(f"{word}\n")
        worker.stdin.flush()


def _read(folder: str, name: str) -> "array[float]":
    times = array("d")
    times.frombytes(Path(folder, name).read_bytes())
    return times


def quantile(ordered: Sequence[float], share: float) -> float:
    """The value below which that share of an ordered sequence lies."""
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def _cells(lags_ms: Sequence[float]) -> list[str]:
    return [*(f"{quantile(lags_ms, share):.2f}" for share in (0.5, 0.9, 0.99, 0.999)), f"{lags_ms[-1]:.1f}"]


class Worker:
    """One process: holds all keys, deletes its own at their times, notes when those of others are gone."""

    def __init__(self, spec: dict[str, Any]) -> None:
        self.number, self.processes, self.each = spec["number"], spec["processes"], spec["each"]
        self.folder = spec["folder"]
        self.cache = Cache.from_url("memory://?max_mb=200", spec["url"], name="bench", far_budget_ms=10_000)
        self.begun = array("d", bytes(8 * self.each))
        self.gone = array("d", bytes(8 * self.each * self.processes))
        self._after = 0

    async def run(self) -> None:
        """All of it, step by step as the parent says."""
        async with self.cache:
            await _said("opened")
            mine = {f"{self.number}:{number}": "value" for number in range(self.each)}
            for keys in _pieces(list(mine)):
                await self.cache.set_many({key: mine[key] for key in keys})
            await _said("stored")
            await asyncio.sleep(1.0)  # the notices of these sets are heard
            everything = [f"{writer}:{number}" for writer in range(self.processes) for number in range(self.each)]
            for keys in _pieces(everything):
                await self.cache.get_many(keys)
            missing = sum(self.cache.peek(key) is None for key in everything)
            if missing:
                raise RuntimeError(f"{missing} keys are not in memory")
            self._listen()
            start = float(await _said("filled"))
            await self._delete(start)
            await asyncio.sleep(REST_S)
        self._write()
        sys.stdout.write("done\n")

    def _write(self) -> None:
        for name, times in (("begun", self.begun), ("gone", self.gone)):
            Path(self.folder, f"{name}-{self.number}").write_bytes(times.tobytes())

    def _listen(self) -> None:
        """At each news of the log: which keys it names, and when a read finds them no more."""
        engine = self.cache._engine  # noqa: SLF001  # the moment of the news is not shown to users
        tier = engine.core.authority.tier  # type: ignore[union-attr]  # there is a server
        self._after = engine.hearing.heard_seq
        told = tier.on_news

        def news() -> None:
            told()
            notices = tier.notices(Position(engine.core.log_epoch, self._after)) or []
            for notice in notices:
                writer, _, number = notice.name.partition(":")
                if number.isdigit() and self.cache.peek(notice.name) is None:
                    self.gone[int(writer) * self.each + int(number)] = monotonic()
            if notices:
                self._after = notices[-1].seq

        tier.on_news = news

    async def _delete(self, start: float) -> None:
        tasks = set()
        for number in range(self.each):
            due = start + (number * self.processes + self.number) / A_SECOND
            await asyncio.sleep(max(0.0, due - monotonic()))
            task = asyncio.create_task(self._one(number))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
        await asyncio.gather(*tasks)

    async def _one(self, number: int) -> None:
        self.begun[number] = monotonic()
        await self.cache.delete(f"{self.number}:{number}")


def _pieces(keys: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(keys), AT_ONCE):
        yield keys[start : start + AT_ONCE]


async def _said(word: str) -> str:
    """Tell the parent, and wait for what it says."""
    sys.stdout.write(f"{word}\n")
    sys.stdout.flush()
    stream: IO[str] = sys.stdin
    return (await asyncio.to_thread(stream.readline)).strip()


def main() -> None:
    """A worker's process."""
    parser = argparse.ArgumentParser()
    parser.add_argument("spec", type=json.loads)
    asyncio.run(Worker(parser.parse_args().spec).run())


if __name__ == "__main__":
    main()
