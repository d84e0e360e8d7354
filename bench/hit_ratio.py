"""Hit ratios of our policies, of Python's other caches and of a Caffeine-like reference, on traces.

    python bench/hit_ratio.py                          the traces that are shipped, in about a minute
    python bench/hit_ratio.py --traces DIR             all traces in a folder (*.keys.xz, .gz or plain)
    python bench/hit_ratio.py --traces DIR --only ADAPTIVE --only Caffeine-like

The first 1,000,000 requests of each trace, capacities of 1, 3, 10 and 30% of its different keys (at least 16). Our
policies run in the real memory tier. Hash seeds and the chances that some peers take move a mean by about 0.05.
"""

import argparse
import sys
from collections.abc import Callable, Iterator
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from statistics import mean
from typing import Any

from caffeine_like import CaffeineLike
from genesis_cache.policies.eviction.registry import POLICIES
from genesis_cache.simulator.replay import OPT, replay
from genesis_cache.simulator.trace import Trace, read_trace

LIMIT = 1_000_000  # requests
SHARES = (0.01, 0.03, 0.1, 0.3)  # of the different keys
SHIPPED = Path(__file__).resolve().parent / "traces"
REFERENCE = "Caffeine-like"

Player = Callable[[Trace, int], float]
"""Gives the hit ratio on a trace at a capacity in entries."""


def ours(policy: str) -> Player:
    """One of our policies, or Belady's bound."""
    return lambda trace, capacity: replay(trace, policy, capacity, None).hit_ratio


def reference(trace: Trace, capacity: int) -> float:
    """The Caffeine-like cache."""
    cache = CaffeineLike(capacity)
    return sum(map(cache.ask, trace.keys)) / len(trace.keys)


def mapping(make: Callable[[int], Any]) -> Player:
    """A cache with ``get(key)`` and item assignment."""

    def play(trace: Trace, capacity: int) -> float:
        cache = make(capacity)
        get, put, hits = cache.get, cache.__setitem__, 0
        for key in trace.keys:
            if get(key) is not None:
                hits += 1
            else:
                put(key, 1)
        return hits / len(trace.keys)

    return play


def with_set(make: Callable[[int], Any]) -> Player:
    """A cache with ``get(key)`` and ``set(key, value)``; theine's ``get`` tells a pair of value and found."""

    def play(trace: Trace, capacity: int) -> float:
        cache = make(capacity)
        get, put, hits = cache.get, cache.set, 0
        for key in trace.keys:
            if get(key) not in ABSENT:
                hits += 1
            else:
                put(key, 1)
        return hits / len(trace.keys)

    return play


ABSENT = (None, (None, False))
PLAYED_AS = {"theine": with_set, "moka_py": with_set}


def peers() -> Iterator[tuple[str, Player]]:
    """Those that are installed."""
    for name, module, kind in (
        ("theine", "theine", "Cache"),
        ("moka-py", "moka_py", "Moka"),
        ("cachetools LRU", "cachetools", "LRUCache"),
        ("cachetools LFU", "cachetools", "LFUCache"),
        ("cachebox LRU", "cachebox", "LRUCache"),
        ("cachebox LFU", "cachebox", "LFUCache"),
    ):
        if find_spec(module):
            make = getattr(import_module(module), kind)
            yield name, PLAYED_AS.get(module, mapping)(make)


def players(only: list[str]) -> dict[str, Player]:
    """By name; those of ``only``, or all."""
    known = {OPT: ours(OPT), **{name: ours(name) for name in POLICIES}, REFERENCE: reference, **dict(peers())}
    unknown = set(only) - set(known)
    if unknown:
        sys.exit(f"there is no {', '.join(sorted(unknown))}: choose from {', '.join(known)}")
    return {name: player for name, player in known.items() if not only or name in only}


def capacities(trace: Trace) -> list[int]:
    """The sizes at which a trace is played."""
    return sorted({trace.share(share) for share in SHARES})


def traces(folder: Path, wanted: list[str]) -> Iterator[Trace]:
    """Those of a folder, by name; all, or those whose name begins with a wanted one."""
    for path in sorted(folder.iterdir()):
        if ".keys" in path.name and (not wanted or any(path.name.startswith(name) for name in wanted)):
            yield read_trace(path, LIMIT)


def main() -> None:
    """Play, print a row for each trace and the means."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--traces", type=Path, default=SHIPPED, help="folder of traces")
    parser.add_argument("--trace", action="append", default=[], help="only traces whose name begins so; repeatable")
    parser.add_argument("--only", action="append", default=[], help="only this policy or peer; repeatable")
    options = parser.parse_args()
    chosen = players(options.only)
    cells: dict[str, list[float]] = {name: [] for name in chosen}
    print("| trace | sizes |", " | ".join(chosen), "|")
    print("|---|---|" + "---:|" * len(chosen))
    gaps: dict[str, list[tuple[float, str]]] = {name: [] for name in chosen}
    for trace in traces(options.traces, options.trace):
        sizes = capacities(trace)
        row = {name: [100 * player(trace, size) for size in sizes] for name, player in chosen.items()}
        for name, ratios in row.items():
            cells[name] += ratios
            if "LRU" in row:
                gaps[name].append((mean(ratios) - mean(row["LRU"]), trace.name))
        shown = [" / ".join(f"{ratio:.1f}" for ratio in ratios) for ratios in row.values()]
        print(f"| {trace.name} | {' / '.join(map(str, sizes))} |", " | ".join(shown), "|", flush=True)
    means = [f"{mean(ratios):.2f}" for ratios in cells.values()]
    print("| **mean of all cells** | |", " | ".join(means), "|")
    if "LRU" in chosen:
        worst = [f"{min(gap)[0]:+.1f} ({min(gap)[1].split('.')[0]})" for gap in gaps.values()]
        print("| **worst trace against LRU** | |", " | ".join(worst), "|")


if __name__ == "__main__":
    main()
