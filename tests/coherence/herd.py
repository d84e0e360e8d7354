"""One process of a herd: fifty callers who want one key at the same moment; each load is a line in a file.

Run by `test_herd.py` with a JSON file that says what to do. Each line on its standard input is a key that everybody
shall ask for at once; it answers with how many values were right.
"""

import asyncio
import os
import sys
from dataclasses import dataclass
from pathlib import Path

import msgspec

from genesis_cache import Cache

CALLERS = 50
ORPHAN = "orphan"
"""The key whose first load takes for ever: somebody has to be killed."""
FOR_EVER_S = 250.0
BUDGET_MS = 20_000  # for a far tier: a busy machine is no dead server


@dataclass
class Herd:
    """What a process of the herd is to do."""

    urls: list[str]
    loads: str
    """The file of the loads: a line ``key pid`` for each, when it begins."""
    load_s: float


async def main(herd: Herd) -> None:
    """Ask for each key that is named, until nothing is."""

    async def load(key: str) -> str:
        loads = os.open(herd.loads, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(loads, f"{key} {os.getpid()}\n".encode())
        os.close(loads)
        is_first = Path(herd.loads).read_text().count(f"{key} ") == 1  # noqa: ASYNC240  # a line or two
        await asyncio.sleep(FOR_EVER_S if is_first and key == ORPHAN else herd.load_s)
        return f"value of {key}"

    async with Cache.from_url(*herd.urls, cache_far_budget_ms=BUDGET_MS) as cache:
        print("ready", flush=True)
        while key := (await asyncio.to_thread(sys.stdin.readline)).strip():
            found = await asyncio.gather(
                *(cache.get_or_set(key, lambda key=key: load(key), ttl="5m") for _ in range(CALLERS))
            )
            print(sum(value == f"value of {key}" for value in found), flush=True)


if __name__ == "__main__":
    asyncio.run(main(msgspec.json.decode(Path(sys.argv[1]).read_bytes(), type=Herd)))
