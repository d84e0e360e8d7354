"""A disk that fails: get and set never raise, the outcome says what is owed, and the cache recovers by itself."""

import asyncio
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from genesis_cache import Cache

SOURCE = Path(__file__).parents[2] / "src"
LINEUPS = {
    "disk": ["disk://{}/disk?max_mb=20"],
    "memory+disk": ["memory://", "disk://{}/disk?max_mb=20"],
    "memory+database": ["memory://", "sqlite:///{}/cache.db?max_mb=20"],
}
RECOVERY_S = 30.0  # at most: the breaker's delays, and the half second between two attempts to pay


def urls(lineup: str, folder: Path) -> list[str]:
    """The line-up on a folder."""
    return [url.format(folder) for url in LINEUPS[lineup]]


def in_child(code: str) -> str:
    """What a program prints that runs in a process of its own."""
    found = subprocess.run(  # noqa: S603  # our own interpreter and text
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "PYTHONPATH": str(SOURCE)},
        check=False,
    )
    assert found.returncode == 0, found.stderr
    return found.stdout


@pytest.mark.parametrize("lineup", list(LINEUPS))
def test_a_full_disk(lineup: str, tmp_path: Path) -> None:
    """Where files cannot grow any more, values are loaded or served from memory, and writing goes on when they can."""
    code = f"""
import asyncio, resource
from genesis_cache import Cache

async def main():
    async with Cache.from_url(*{urls(lineup, tmp_path)!r}) as cache:
        await cache.set("old", "old value")
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
        outcomes = []
        for n in range(30):
            outcomes.append(await cache.set(f"k{{n}}", bytes([n]) * 200_000))
            assert await cache.get_or_set(f"l{{n}}", lambda n=n: n) == n
            await cache.get(f"k{{n}}")
        assert all(outcome or outcome.degraded for outcome in outcomes)
        failed = [outcome for outcome in outcomes if not outcome]
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        for _ in range(120):
            if await cache.set("new", "new value"):
                break
            await asyncio.sleep(0.05)
        assert await cache.set("new", "new value"), "it did not recover"
        assert await cache.get("new") == "new value"
        print(len(failed), sorted({{tier for outcome in failed for tier in outcome.degraded}}))

asyncio.run(main())
"""
    printed = in_child(code)
    count, _, kinds = printed.strip().partition(" ")
    kind = "database" if "database" in lineup else "disk"
    assert (int(count) == 0 and kinds == "[]") or kinds == f"['{kind}']"


@pytest.mark.parametrize("lineup", list(LINEUPS))
async def test_files_harmed_while_open(lineup: str, tmp_path: Path) -> None:
    """Files overwritten or deleted under an open cache: values or misses, never garbage, and it works again."""
    async with Cache.from_url(*urls(lineup, tmp_path)) as cache:
        for harm in (overwrite, delete):  # a mapped file that is cut ends the process: no program may do that to it
            for n in range(30):
                await cache.set(f"k{n}", f"value {n}" * 50)
            harm(tmp_path)
            if cache._engine.core.memory is not None:
                cache._engine.core.memory.flush("size")
            for n in range(30):
                assert await cache.get(f"k{n}") in (None, f"value {n}" * 50)
                assert await cache.get_or_set(f"l{n}", lambda n=n: n) == n
            end = time.monotonic() + RECOVERY_S
            while not (await cache.set("again", "again") and await cache.get("again") == "again"):
                assert time.monotonic() < end, f"it did not recover from {harm.__name__}"
                await asyncio.sleep(0.05)  # what was written into a store that is then made anew is a miss


@pytest.mark.parametrize("lineup", list(LINEUPS))
async def test_files_harmed_while_closed(lineup: str, tmp_path: Path) -> None:
    """Files cut, overwritten or deleted while nobody looks: the next cache opens, and gives values or misses."""
    for harm in (truncate, overwrite, delete):
        async with Cache.from_url(*urls(lineup, tmp_path)) as cache:
            await cache.set_many({f"k{n}": f"value {n}" * 50 for n in range(30)})
        harm(tmp_path)
        async with Cache.from_url(*urls(lineup, tmp_path)) as cache:
            for n in range(30):
                assert await cache.get(f"k{n}") in (None, f"value {n}" * 50)
            assert await cache.set("again", "again"), harm.__name__
            assert await cache.get("again") == "again"


def test_a_folder_that_is_read_only(tmp_path: Path) -> None:
    """Where nothing may be written the cache says so in the outcome and goes on with what it has."""
    code = f"""
import asyncio, os
from genesis_cache import Cache

cache = Cache.from_url("memory://", "disk://{tmp_path}/locked/disk")
if os.getuid() == 0:
    os.setgid(65534); os.setuid(65534)

async def main():
    async with cache:
        outcome = await cache.set("k", 1)
        assert not outcome and outcome.degraded == ("disk",), outcome
        assert await cache.get("k") == 1
        assert await cache.get_or_set("l", lambda: 2) == 2
        assert not await cache.delete_by_tag("t")
        rows = cache.analytics()["layer_statistics"]
        assert rows["l2"]["up"] is False and rows["l2"]["reason"], rows
        assert (await cache.explain("k")).verdict == "fresh"
    print("fine")

asyncio.run(main())
"""
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o555)
    for parent in (tmp_path, *tmp_path.parents):
        if parent.stat().st_uid == os.getuid() and str(parent).startswith("/tmp/"):  # noqa: S108  # pytest's own folders
            parent.chmod(parent.stat().st_mode | 0o055)
    assert in_child(code) == "fine\n"


async def test_a_tier_that_came_back_forgets_what_it_could_not_be_told(tmp_path: Path) -> None:
    """What was deleted while the disk could not be written stays deleted when it can be again."""
    folder = tmp_path / "disk"
    async with Cache.from_url("memory://", f"disk://{folder}") as cache:
        await cache.set("deleted", "old")
        await cache.set("tagged", "old", tags=["t"])
        store = cache._engine.core.lanes[0].tier.store
        commit, try_commit = store.commit, store.try_commit

        def fail(_: object) -> None:
            raise OSError("no space left")

        store.commit = store.try_commit = fail
        outcome = await cache.delete("deleted")
        assert outcome.degraded == ("disk",)
        assert not outcome
        outcome = await cache.delete_by_tag("t")
        assert outcome.degraded == ("disk",)
        cache._engine.core.memory.flush("size")
        assert await cache.get("deleted") is None
        assert await cache.get("tagged") is None
        store.commit, store.try_commit = commit, try_commit
        end = time.monotonic() + RECOVERY_S
        while cache._engine.core.lanes[0].owed:
            assert time.monotonic() < end, "the debt was never paid"
            await asyncio.sleep(0.02)
        assert await cache.get("deleted") is None
        assert await cache.get("tagged") is None
        assert await cache.set("k", 1)
    async with Cache.from_url("memory://", f"disk://{folder}") as again:
        assert await again.get("deleted") is None
        assert await again.get("tagged") is None
        assert await again.get("k") == 1


def files(folder: Path) -> list[Path]:
    """Every file below, with something in it."""
    return [
        path for path in folder.rglob("*") if path.is_file() and path.stat().st_size > 0 and path.name != ".gitignore"
    ]


def truncate(folder: Path) -> None:
    """Cut each file in half."""
    for path in files(folder):
        os.truncate(path, path.stat().st_size // 2)


def overwrite(folder: Path) -> None:
    """Write noise into the middle of each file."""
    for path in files(folder):
        with path.open("r+b") as file:
            file.seek(path.stat().st_size // 2)
            file.write(os.urandom(min(4096, path.stat().st_size // 2)))


def delete(folder: Path) -> None:
    """Delete every file and folder."""
    for path in folder.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()


async def test_a_tier_that_is_down_does_not_hold_up_the_close(tmp_path: Path) -> None:
    """Closing a cache whose disk cannot be written takes one last attempt, not the patience of a server."""
    cache = Cache.from_url("memory://", f"disk://{tmp_path}/disk")
    await cache.open()
    store = cache._engine.core.lanes[0].tier.store

    def fail(_: object) -> None:
        raise OSError("no space left")

    store.commit = store.try_commit = fail
    assert not await cache.set("k", 1)
    began = time.monotonic()
    await cache.close()
    assert time.monotonic() - began < 2.5
