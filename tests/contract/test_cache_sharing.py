"""Sharing: one cache in several threads and loops, one place in several processes, and a fork's child."""

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from genesis_cache import Cache, CacheError

SOURCE = Path(__file__).parents[2] / "src"
FAR = [("disk",), ("memory", "disk"), ("memory", "database")]
CHILD = """
import asyncio, sys
from genesis_cache import Cache

async def main():
    async with Cache.from_url(*sys.argv[1:]) as cache:
        for line in sys.stdin:
            verb, _, rest = line.strip().partition(" ")
            if verb == "get":
                print(await cache.get(rest), flush=True)
            elif verb == "set":
                await cache.set(rest, "child's", tags=["t"]); print("ok", flush=True)
            elif verb == "delete":
                await cache.delete(rest); print("ok", flush=True)
            elif verb == "tag":
                await cache.delete_by_tag(rest); print("ok", flush=True)
            elif verb == "pattern":
                await cache.delete_by_pattern(rest); print("ok", flush=True)
            elif verb == "clear":
                await cache.clear(rest or None); print("ok", flush=True)

asyncio.run(main())
"""


class Child:
    """Another process with a cache on the same place, told what to do line by line."""

    def __init__(self, urls: list[str]) -> None:
        self.process = subprocess.Popen(  # noqa: S603  # our own interpreter and text
            [sys.executable, "-c", CHILD, *urls],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(SOURCE)},
        )

    def do(self, line: str) -> str:
        """Its answer to one line."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        return self.process.stdout.readline().strip()

    def close(self) -> None:
        """Let it end."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        self.process.wait(10)
        self.process.stdout.close()


@pytest.mark.parametrize("tiers", FAR, ids="+".join)
async def test_what_one_process_changes_no_other_serves(house: Any) -> None:
    """What a process deletes or overwrites by any verb, another serves no more within CACHE_MAX_STALENESS."""
    child = Child(house.urls())
    try:
        async with Cache.from_url(*house.urls()) as cache:
            for verb in ("set k", "delete k", "tag t", "pattern k*", "clear"):
                await cache.set("k", "parent's", tags=["t"])
                assert child.do("get k") == "parent's"
                assert await cache.get("k") == "parent's"
                assert child.do(verb) == "ok"
                told, expected = time.monotonic(), "child's" if verb == "set k" else None
                while await cache.get("k") != expected:
                    assert time.monotonic() - told < 1.0, verb
                    await asyncio.sleep(0.001)
            for verb in (cache.delete("k"), cache.delete_by_tag("t"), cache.delete_by_pattern("*"), cache.clear()):
                assert child.do("set k") == "ok"
                assert child.do("get k") == "child's"
                await verb
                told = time.monotonic()
                while child.do("get k") != "None":
                    assert time.monotonic() - told < 1.0
    finally:
        child.close()


@pytest.mark.parametrize("tiers", FAR, ids="+".join)
async def test_a_process_that_was_killed_holds_up_nobody(house: Any) -> None:
    """After kill -9 of a process the others read, write and load on."""
    child = Child(house.urls())
    async with Cache.from_url(*house.urls()) as cache:
        await cache.set("k", 1)
        assert child.do("get k") == "1"
        child.process.send_signal(signal.SIGKILL)
        child.process.wait(5)
        assert await cache.get("k") == 1
        assert await cache.set("k", 2)
        assert await cache.get_or_set("l", lambda: 3) == 3
    assert child.process.stdin is not None
    assert child.process.stdout is not None
    child.process.stdin.close()
    child.process.stdout.close()


@pytest.mark.parametrize("tiers", [("memory",), *FAR], ids="+".join)
def test_a_forked_child_and_its_parent(house_path: Path, tiers: tuple[str, ...]) -> None:
    """A forked child uses the cache as its parent does; where they share a place each sees the other's changes."""
    code = f"""
import asyncio, os, sys
from genesis_cache import Cache

urls = {_urls(tiers, house_path)!r}
cache = Cache.from_url(*urls)
shared = urls != ["memory://"]

async def before():
    await cache.set("k", "before")
    assert await cache.get("k") == "before"

async def child():
    assert await cache.get("k") == "before", await cache.get("k")
    assert await cache.get_or_set("loaded", lambda: "child's") == "child's"
    assert await cache.set("k", "child's")
    assert await cache.get("k") == "child's"
    assert await cache.set("new", "child's")

async def parent():
    await asyncio.sleep(0.05)
    assert await cache.get("k") == ("child's" if shared else "before"), await cache.get("k")
    assert await cache.get("new") == ("child's" if shared else None)
    await cache.set("k", "parent's")
    assert await cache.get("k") == "parent's"
    await cache.close()

asyncio.run(before())
pid = os.fork()
if pid == 0:
    try:
        asyncio.run(child())
    except BaseException:
        import traceback
        traceback.print_exc()
        os._exit(1)
    os._exit(0)
_, status = os.waitpid(pid, 0)
assert status == 0, status
asyncio.run(parent())
print("fine")
"""
    found = subprocess.run(  # noqa: S603  # our own interpreter and text
        [sys.executable, "-W", "error", "-c", code],
        capture_output=True,
        text=True,
        timeout=30,
        env={**os.environ, "PYTHONPATH": str(SOURCE)},
        check=False,
    )
    assert found.stdout == "fine\n", found.stderr


def _urls(tiers: tuple[str, ...], folder: Path) -> list[str]:
    places = {"memory": "memory://", "disk": f"disk://{folder}/disk", "database": f"sqlite:///{folder}/cache.db"}
    return [places[tier] for tier in tiers]


@pytest.fixture
def house_path(tmp_path: Path) -> Path:
    """A folder."""
    return tmp_path


@pytest.mark.parametrize("tiers", [("memory",), ("disk",), ("memory", "disk")], ids="+".join)
def test_threads_and_loops_at_once(tiers: tuple[str, ...], tmp_path: Path) -> None:
    """Several event loops in threads and plain threads use one cache: one load per key, and each the right value."""
    cache = Cache.from_url(*_urls(tiers, tmp_path))
    blocking = cache.blocking()
    loads: list[str] = []
    errors: list[BaseException] = []

    def load(key: str) -> str:
        loads.append(key)
        time.sleep(0.002)
        return f"value of {key}"

    async def in_loop() -> None:
        for n in range(30):
            key = f"k{n}"
            found = await asyncio.gather(*(cache.get_or_set(key, lambda key=key: load(key)) for _ in range(3)))
            assert found == [f"value of {key}"] * 3
            await cache.set(f"mine {n}", key)

    def in_thread() -> None:
        for n in range(30):
            key = f"k{n}"
            assert blocking.get_or_set(key, lambda key=key: load(key)) == f"value of {key}"
            assert blocking.get(key) == f"value of {key}"

    def guarded(work: Any) -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001  # shown by the test
            errors.append(error)

    works = [lambda: asyncio.run(in_loop())] * 3 + [in_thread] * 3
    threads = [threading.Thread(target=guarded, args=(work,), daemon=True) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert not any(thread.is_alive() for thread in threads)
    assert errors == []
    assert sorted(loads) == sorted({f"k{n}" for n in range(30)}), "each key is loaded once"
    blocking.close()


def test_one_loop_after_another(tmp_path: Path) -> None:
    """A cache outlives the event loop that opened it: the next loop uses it, and its clean-up goes on there."""
    cache = Cache.from_url(*_urls(("memory", "disk"), tmp_path))

    async def use(n: int) -> None:
        assert await cache.get("n") == (n - 1 if n else None)
        await cache.set("n", n)
        assert await cache.get_or_set(f"k{n}", lambda: n) == n

    for n in range(3):
        asyncio.run(use(n))
    asyncio.run(cache.close())


def test_blocking_verbs(tmp_path: Path) -> None:
    """blocking() has the verbs of the cache as plain calls, in and out of threads, views too."""
    with Cache.from_url(*_urls(("memory", "disk"), tmp_path)).blocking() as cache:
        assert cache.set("k", 1, tags=["t"])
        assert cache.get("k") == 1
        assert cache.peek("k") == 1
        assert cache.get_many(["k", "l"]) == {"k": 1}
        assert cache.set_many({"l": 2})
        assert cache.touch("k", 50)
        assert cache.explain("k").verdict == "fresh"
        assert cache.get_or_set_many(["k", "m"], lambda keys: dict.fromkeys(keys, 3)) == {"k": 1, "m": 3}
        assert cache.expire("m")
        assert cache.get("m") is None
        assert cache.delete_by_tag("t")
        assert cache.get("k", "gone") == "gone"
        assert cache.delete_by_pattern("l")
        assert cache.get("l") is None
        assert cache.namespace("n").set("k", 5)
        assert cache.namespace("n").get("k") == 5
        assert cache.owned_by("o").get_or_set("k", lambda: 6) == 6
        assert cache.clear()
        assert cache.namespace("n").get("k") is None
        assert cache.optimize_cache_distribution().applied
        with pytest.raises(OSError, match="down"):
            cache.get_or_set("z", _down)


def _down() -> None:
    raise OSError("down")


def test_blocking_inside_its_own_loop() -> None:
    """A blocking call from a loader that runs in the cache's own loop is an error, not a deadlock."""
    with Cache.from_url("memory://").blocking() as cache:

        async def load() -> object:
            return cache.get_or_set("inner", lambda: 1)

        with pytest.raises(CacheError, match="await"):
            cache.get_or_set("outer", load)


async def test_blocking_from_a_running_loop(tmp_path: Path) -> None:
    """A plain decorated function works when a coroutine calls it, from the loop and from a thread."""
    cache = Cache.from_url(*_urls(("memory", "disk"), tmp_path))
    calls: list[int] = []

    @cache.cached("f:{n}")
    def f(n: int) -> int:
        calls.append(n)
        return n * 2

    assert f(2) == 4
    assert f(2) == 4
    assert calls == [2]
    f.invalidate(2)
    assert f(2) == 4
    assert f.refresh(2) == 4
    assert calls == [2, 2, 2]
    cache.blocking().close()


FORKED = """
import asyncio, os, sys, time, traceback
from genesis_cache import Cache, CacheSettings

def child(check):
    hear, say = os.pipe()
    pid = os.fork()
    if pid:
        return pid, say
    status = 1
    try:
        os.read(hear, 1)
        asyncio.run(check())
        status = 0
    except BaseException:
        traceback.print_exc()
    os._exit(status)

def ended(pid, say):
    os.write(say, b"x")
    assert os.waitpid(pid, 0)[1] == 0
"""


def _run(code: str, *arguments: str) -> None:
    found = subprocess.run(  # noqa: S603  # our own interpreter and text
        [sys.executable, "-c", FORKED + code, *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=os.environ | {"PYTHONPATH": str(SOURCE)},
    )
    assert found.returncode == 0, found.stderr


@pytest.mark.parametrize("strategy", ["WRITE_THROUGH", "WRITE_BEHIND"])
def test_a_child_hears_of_a_key_that_its_parent_was_writing(tmp_path: Path, strategy: str) -> None:
    """A child forked while its parent writes a key sees what becomes of the key later, however the write ended."""
    _run(
        """
async def changed():
    until = time.monotonic() + 20
    while (found := await cache.get("k")) != "new":
        assert time.monotonic() < until, found
        await asyncio.sleep(0.01)

async def main():
    lane = cache._engine.core.lanes[0]
    await cache.set("k", "first")
    while lane.queued:
        await asyncio.sleep(0.001)
    writing = asyncio.ensure_future(cache.set("k", "old"))
    while not cache._engine.hearing._expected:
        await asyncio.sleep(0)
    forked = child(changed)
    await writing
    while lane.queued:
        await asyncio.sleep(0.001)
    async with Cache.from_url("memory://", sys.argv[1]) as other:
        assert await other.set("k", "new")
    ended(*forked)
    await cache.close()

cache = Cache.from_url("memory://", sys.argv[1], cache_write_strategy=sys.argv[2])
asyncio.run(main())
""",
        f"disk://{tmp_path}",
        strategy,
    )


def test_a_child_ends_no_fills_of_its_parent(tmp_path: Path) -> None:
    """A child forked while memory had just overflowed counts its own fills, by which it refuses what is outdated."""
    _run(
        """
async def overflown():
    await cache.set("one", 1)
    while cache._engine.background._tasks:
        await asyncio.sleep(0.001)
    assert cache._engine.core.fills._active == 0, cache._engine.core.fills._active

async def main():
    await cache.set_many({str(n): n for n in range(8)})
    while cache._engine.background._tasks:
        await asyncio.sleep(0.001)
    writing = asyncio.ensure_future(cache.set("more", 1))
    while not cache._engine.writing._victims:
        assert not writing.done()
        await asyncio.sleep(0)
    forked = child(overflown)
    await writing
    ended(*forked)
    await cache.close()

cache = Cache(CacheSettings(l1_cache_max_entries=8).with_urls("memory://", sys.argv[1]))
asyncio.run(main())
""",
        f"disk://{tmp_path}",
    )
