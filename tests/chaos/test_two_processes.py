"""Two processes on one server: what one changes the other no longer serves, however often their connections are cut."""

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import asyncpg
import pytest

from genesis_cache.testing.servers import PostgresServer, RedisServer

SOURCE = Path(__file__).parents[2] / "src"
PATIENCE_S = 20.0
PATIENT = {"cache_far_budget_ms": 1000 * PATIENCE_S}  # no reader goes on without a busy machine's reply
CHILD = """
import asyncio, json, sys
from genesis_cache import Cache

async def main():
    urls, options = json.loads(sys.argv[1])
    async with Cache.from_url(*urls, **options) as cache:
        print("ready", flush=True)
        while line := await asyncio.to_thread(sys.stdin.readline):
            verb, *words = json.loads(line)
            view = cache.namespace("n") if verb.startswith("n.") else cache
            verb = verb.removeprefix("n.")
            if verb == "set":
                done = bool(await view.set(words[0], words[1], tags=["t"], ttl=600))
            elif verb == "get_or_set":
                done = await view.get_or_set(words[0], lambda: words[1], tags=["t"], ttl=600)
            else:
                done = await getattr(view, verb)(*words)
            print(json.dumps(done if isinstance(done, (str, type(None))) else bool(done)), flush=True)

asyncio.run(main())
"""


class Process:
    """A process with a cache, told what to do line by line."""

    def __init__(self, urls: list[str], options: dict[str, object]) -> None:
        self._process = subprocess.Popen(  # noqa: S603  # our own interpreter and text
            [sys.executable, "-W", "error", "-c", CHILD, json.dumps([urls, options])],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env={**os.environ, "PYTHONPATH": str(SOURCE)},
        )  # fmt: skip

    def do(self, *words: str) -> object:
        """What it answers."""
        self.ask(*words)
        return self.answer()

    def ask(self, *words: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(words) + "\n")
        self._process.stdin.flush()

    def answer(self) -> object:
        assert self._process.stdout is not None
        return json.loads(self._process.stdout.readline() or '"it has ended"')

    def ready(self) -> None:
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "ready\n"

    def close(self) -> int:
        """Let it end; its exit status."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        status = self._process.wait(PATIENCE_S)
        self._process.stdout.close()
        return status


class Place:
    """A server that two processes share, and how its connections are cut."""

    def __init__(self, urls: list[str], cut: Callable[[], object]) -> None:
        self.urls = urls
        self.cut = cut


def _cut_postgres(url: str) -> None:
    async def cut() -> None:
        connection = await asyncpg.connect(url)
        await connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'"
        )
        await connection.close()

    asyncio.run(cut())


@pytest.fixture(params=["memory+redis", "memory+disk+redis", "memory+postgres", "memory+redis+postgres"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """One line-up after the other; the disk is each process's own, as on two hosts."""
    urls, cuts = ["memory://"], []
    if "disk" in request.param:
        urls.append(f"disk://{tmp_path}/PROCESS")
    if "redis" in request.param:
        redis: RedisServer = request.getfixturevalue("own_redis")
        urls.append(redis.url)
        cuts.append(lambda: redis.ask("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"))
    if "postgres" in request.param:
        postgres: PostgresServer = request.getfixturevalue("own_postgres")
        urls.append(postgres.url)
        cuts.append(lambda: _cut_postgres(postgres.url))
    return Place(urls, lambda: [cut() for cut in cuts])


@pytest.fixture
def two(place: Place) -> Iterator[tuple[Process, Process]]:
    """Two processes; both end well."""
    processes = [
        Process([url.replace("PROCESS", name) for url in place.urls], {"cache_name": "two", **PATIENT})
        for name in ("one", "two")
    ]
    for process in processes:
        process.ready()
    yield processes[0], processes[1]
    assert [process.close() for process in processes] == [0, 0]


VERBS = [
    ("delete", "k"),
    ("delete_by_tag", "t"),
    ("delete_by_pattern", "k*"),
    ("clear",),
    ("n.delete", "k"),
    ("n.clear",),
    ("clear", "n"),
    ("expire", "k"),
    ("set", "k", "new"),
]


def sees(process: Process, space: str, *expected: object) -> None:
    """The process serves one of these sooner or later, and nothing else than that and the old value before."""
    end = time.monotonic() + PATIENCE_S
    while (found := process.do(f"{space}get", "k")) not in expected:
        assert found in ("old", "new", None), found
        assert time.monotonic() < end, f"it still serves {found!r}, not {expected!r}"
        time.sleep(0.002)


@pytest.mark.parametrize("cuts", [0, 1, 2], ids=["in peace", "cut before", "cut before and after"])
def test_what_one_changes_the_other_no_longer_serves(two: tuple[Process, Process], place: Place, cuts: int) -> None:
    """By every verb, and with all connections cut in between: the other process forgets, and takes in what is new."""
    one, other = two
    for verb, *words in VERBS:
        space = "n." if verb.startswith("n.") or words == ["n"] else ""
        while one.do(f"{space}set", "k", "old") is not True:
            time.sleep(0.02)
        sees(other, space, "old")
        if cuts:
            place.cut()
        done = one.do(verb, *words)
        if cuts == 2:
            place.cut()
        if verb == "set":  # a value that could not be written is owed as the removal of the old one
            sees(other, space, "new", *([] if done else [None]))
            assert one.do(f"{space}get", "k") in (["new"] if done else ["new", None])
        else:
            sees(other, space, None)
            assert one.do(f"{space}get", "k") is None
        while one.do("clear") is not True:
            time.sleep(0.02)
        sees(other, space, None)


def test_a_cold_key_is_loaded_once_by_both(two: tuple[Process, Process]) -> None:
    """Whichever process comes second gets what the first has loaded."""
    one, other = two
    for number in range(20):
        one.ask("get_or_set", f"cold {number}", "one's")
        other.ask("get_or_set", f"cold {number}", "other's")
        answers = {one.answer(), other.answer()}
        assert len(answers) == 1, answers
