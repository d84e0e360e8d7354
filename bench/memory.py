"""What a million entries cost: bytes each, the collector's pause, and the longest that one put holds everything up.

    python bench/memory.py [--entries 1000000]

Each row is measured in a process of its own. Keys and the one value exist before, so that the bytes are the cache's
own; resident memory is read from /proc (Linux). A pause is the median of five full collections, in which what was
there before the cache was filled takes no part. The longest put is shown for growth to that many entries, and for as
many more puts that evict; it is this thread's processor time, the least of three runs.
"""

import argparse
import gc
import json
import subprocess
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from statistics import median
from time import perf_counter, thread_time
from typing import Any

from genesis_cache.model.entry import Entry
from genesis_cache.model.meter import LayerMeter
from genesis_cache.policies.eviction.registry import POLICIES
from genesis_cache.tiers.memory import MemoryTier

OURS = "genesis-cache"
PEERS = {
    "cachetools LRU": ("cachetools", "LRUCache"),
    "cachebox LRU": ("cachebox", "LRUCache"),
    "lru-dict": ("lru", "LRU"),
    "moka-py": ("moka_py", "Moka"),
    "theine": ("theine", "Cache"),
}
TTL_S = 3600.0
VALUE = b"value"
RUNS = 3

Put = Callable[[str], object]


def ours(policy: str, entries: int) -> Put:
    """The memory tier, with entries as the engine makes them: each with a time of its own and a size."""
    tier = MemoryTier(2**40, entries, policy, LayerMeter())
    space, epoch = tier.space(""), object()

    def put(key: str) -> object:
        until = perf_counter() + TTL_S
        return tier.put(Entry(key, VALUE, until, until, TTL_S, epoch, 0, space, 17))

    return put


def peer(name: str, entries: int) -> Put:
    """Another cache, or the plain dict that has no bound."""
    if name == "dict":
        cache: Any = {}
    else:
        module, kind = PEERS[name]
        cache = getattr(import_module(module), kind)(entries)
    put = cache.set if name in {"moka-py", "theine"} else cache.__setitem__
    return lambda key: put(key, VALUE)


def resident_bytes() -> int:
    """Of this process."""
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * 4096


def pause_s() -> float:
    """The median pause of a full collection."""
    pauses = []
    for _ in range(5):
        began = perf_counter()
        gc.collect()
        pauses.append(perf_counter() - began)
    return median(pauses)


def longest_s(put: Put, keys: list[str]) -> float:
    """The longest of so many puts, the collector left out."""
    gc.disable()
    longest = 0.0
    for key in keys:
        began = thread_time()
        put(key)
        longest = max(longest, thread_time() - began)
    gc.enable()
    return longest


def measure(name: str, entries: int) -> dict[str, float]:
    """One cache, in this process."""
    first = [f"user:{number}:profile" for number in range(entries)]
    more = [f"page:{number}:profile" for number in range(entries)]
    gc.collect()
    gc.freeze()
    before = resident_bytes()
    put = ours(name.removeprefix(OURS).strip(), entries) if name.startswith(OURS) else peer(name, entries)
    grown_s = longest_s(put, first)
    gc.collect()
    used = resident_bytes() - before
    held_s = pause_s()
    return {
        "bytes": used / entries,
        "pause_ms": 1e3 * held_s,
        "grow_ms": 1e3 * grown_s,
        "evict_ms": 0.0 if name == "dict" else 1e3 * longest_s(put, more),
    }


def measured(name: str, entries: int) -> dict[str, float]:
    """The least of a few runs, each in its own process."""
    command = [sys.executable, __file__, "--entries", str(entries), "--case", name]
    runs = [json.loads(subprocess.run(command, check=True, capture_output=True).stdout) for _ in range(RUNS)]  # noqa: S603 - our own file
    return {figure: min(run[figure] for run in runs) for figure in runs[0]}


def main() -> None:
    """Print a row for each cache."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--entries", type=int, default=1_000_000)
    parser.add_argument("--only", action="append", default=[], help="only rows whose name has this in it; repeatable")
    parser.add_argument("--case", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.case:
        print(json.dumps(measure(options.case, options.entries)))
        return
    print("| cache | bytes an entry | gc pause, ms | longest put growing, ms | longest put evicting, ms |")
    print("|---|---:|---:|---:|---:|")
    for name in [*(f"{OURS} {policy}" for policy in POLICIES), *PEERS, "dict"]:
        if not options.only or any(part in name for part in options.only):
            row = measured(name, options.entries)
            figures = f"{row['bytes']:.0f} | {row['pause_ms']:.1f} | {row['grow_ms']:.2f} | {row['evict_ms']:.2f}"
            print(f"| {name} | {figures} |", flush=True)


if __name__ == "__main__":
    main()
