"""Bytes an entry and the collector's pause, from `bench/memory.py`: the memory tier beside the peers."""

# ruff: noqa: S603  # it starts this interpreter on this benchmark

import json
import subprocess
import sys
from importlib.util import find_spec

from bench import memory
from bench.report import Section, Table, Verdict

ENTRIES = 1_000_000
MOST_BYTES = 250
COLUMNS = ["cache", "bytes an entry", "x dict", "full collection, ms more", "longest put growing, ms", "evicting, ms"]


def section(*, quick: bool) -> Section:
    """A row for each cache, measured in a process of its own."""
    entries = ENTRIES // 50 if quick else ENTRIES
    ours = f"{memory.OURS} ADAPTIVE"
    installed = [name for name, (module, _) in memory.PEERS.items() if find_spec(module) is not None]
    measured = {name: _measured(name, entries) for name in ("dict", ours, *([] if quick else installed))}
    floor = measured["dict"]["bytes"]
    rows = [
        [
            name,
            f"{row['bytes']:.0f}",
            f"{row['bytes'] / floor:.1f}",
            *(f"{row[figure]:.2f}" for figure in ("pause_ms", "grow_ms", "evict_ms")),
        ]
        for name, row in measured.items()
    ]
    used = measured[ours]["bytes"]
    return Section(
        "Memory",
        f"{entries:,} entries whose keys and value existed before, so that the bytes are the cache's own, read from "
        "resident memory. The pause is that of a full collection, less that of the same process before it was filled.",
        [Table("", COLUMNS, rows)],
        [
            Verdict(
                "memory",
                f"{MOST_BYTES} bytes a small entry beyond key and value",
                f"{used:.0f} bytes",
                used <= MOST_BYTES,
            )
        ],
    )


def _measured(name: str, entries: int) -> dict[str, float]:
    command = [sys.executable, str(memory.__file__), "--entries", str(entries), "--case", name]
    row: dict[str, float] = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    return row
