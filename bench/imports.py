"""Import time: what `import genesis_cache` costs a fresh interpreter, beside asyncio, which every user has already."""

# ruff: noqa: S603  # it starts this interpreter on this benchmark

import subprocess
import sys
from statistics import median

from bench.report import Section, Table

ROUNDS = 9
FLOOR = "import asyncio"
STATEMENTS = (
    FLOOR,
    "import genesis_cache",
    "from genesis_cache import Cache",
    "from cashews import Cache",
    "from aiocache import Cache",
    "from diskcache import Cache",
)
_CODE = "import time; began = time.perf_counter(); {statement}; print(time.perf_counter() - began)"


def section(*, quick: bool) -> Section:
    """A row for each statement whose package is installed."""
    times: dict[str, list[float]] = {statement: [] for statement in STATEMENTS}
    for _ in range(2 if quick else ROUNDS):
        for statement, row in times.items():
            command = [sys.executable, "-c", _CODE.format(statement=statement)]
            ended = subprocess.run(command, capture_output=True, text=True, check=False)
            if ended.returncode == 0:
                row.append(float(ended.stdout))
    medians = {statement: median(row) * 1000 for statement, row in times.items() if row}
    rows = [[f"`{statement}`", f"{ms:.1f}", f"{ms / medians[FLOOR]:.2f}"] for statement, ms in medians.items()]
    return Section(
        "Import time",
        "A fresh interpreter for each, taking turns, median. Importing the package alone makes nothing; the door does.",
        [Table("", ["statement", "ms", "x asyncio"], rows)],
    )
