"""Four processes on one place, doing what they like: nobody reads another's value, nor a long dead one."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "src"
SECONDS = 2.0
PROCESSES = 4
CHILD = """
import asyncio, mmap, random, struct, sys, time
from genesis_cache import Cache

number, seconds, board_path, urls = int(sys.argv[1]), float(sys.argv[2]), sys.argv[3], sys.argv[4:]
KEYS, OWNERS = 8, [None, "user:a", "user:b"]
SPACE = struct.Struct("<dq")  # monotonic second at which it was acknowledged, and the version that it made old
board_file = open(board_path, "r+b")
board = mmap.mmap(board_file.fileno(), 0); board_file.close()
rng = random.Random(number)
places = [(owner, key) for owner in range(len(OWNERS)) for key in range(KEYS)]
done = wrong = 0

def at(place):
    return (place[0] * KEYS + place[1]) * SPACE.size

def name(place, version):
    return {"owner": OWNERS[place[0]], "key": place[1], "version": version}

async def main():
    global done
    async with Cache.from_url(*urls) as cache:
        views = [cache if owner is None else cache.owned_by(owner) for owner in OWNERS]
        end = time.monotonic() + seconds

        def verify(place, value, began):
            assert value["owner"] == OWNERS[place[0]] and value["key"] == place[1], (place, value)
            told, version = SPACE.unpack_from(board, at(place))
            if told and began - told > 1.0:
                assert value["version"] >= version, ("old", place, value, told, version, began)

        async def load(place):
            version = time.monotonic_ns()
            await asyncio.sleep(rng.random() * 0.003)
            return name(place, version)

        async def work():
            global done
            while time.monotonic() < end:
                place = rng.choice(places)
                view, key = views[place[0]], f"k{place[1]}"
                began, dice = time.monotonic(), rng.random()
                if dice < 0.45:
                    value = await view.get(key)
                    if value is not None:
                        verify(place, value, began)
                elif dice < 0.85:
                    value = await view.get_or_set(key, lambda: load(place), ttl=30, tags=[f"t{place[1]}"])
                    verify(place, value, began)
                elif dice < 0.90:
                    # the one writer of the board for its own share of the places
                    mine = [p for p in places if p[1] % 4 == number]
                    place = rng.choice(mine)
                    version = time.monotonic_ns()
                    key, view = f"k{place[1]}", views[place[0]]
                    if rng.random() < 0.5:
                        outcome = await view.delete(key)
                    else:
                        outcome = await view.delete_by_tag(f"t{place[1]}")
                    if outcome:
                        reached = [place]
                        for p in reached:
                            SPACE.pack_into(board, at(p), time.monotonic(), version)
                else:
                    await view.set(key, name(place, time.monotonic_ns()), ttl=30, tags=[f"t{place[1]}"])
                done += 1
                await asyncio.sleep(0)

        await asyncio.gather(*(work() for _ in range(8)))
        for lane in cache._engine.core.lanes:
            assert not lane.owed
    print(done)

asyncio.run(main())
"""


@pytest.mark.parametrize(
    "lineup", [["memory://?max_mb=5", "disk://{}/disk?max_mb=20"], ["memory://", "sqlite:///{}/c.db"]]
)
def test_four_processes(lineup: list[str], tmp_path: Path) -> None:
    """Values name their key, owner and moment: none is ever read elsewhere, or a second after it was invalidated."""
    board = tmp_path / "board"
    board.write_bytes(bytes(4096))
    urls = [url.format(tmp_path) for url in lineup]
    environment = {**os.environ, "PYTHONPATH": str(SOURCE)}
    processes = [
        subprocess.Popen(  # noqa: S603  # our own interpreter and text
            [sys.executable, "-W", "error", "-c", CHILD, str(n), str(SECONDS), str(board), *urls],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )
        for n in range(PROCESSES)
    ]
    found = [process.communicate(timeout=60) for process in processes]
    assert [errors for _, errors in found] == [""] * PROCESSES
    assert sum(int(printed) for printed, _ in found) > 500
