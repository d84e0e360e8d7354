"""Import time: what `import genesis_cache` costs a fresh interpreter, beside asyncio, which every user has already."""

# ruff: noqa: S603  # it starts this interpreter on this benchmark

import subprocess
import sys
from statistics import median

from bench.report import Section, Table

ROUNDS = 9
MODULES = ("asyncio", "genesis_cache", "cashews", "aiocache", "redis.asyncio")
_CODE = "import time; began = time.perf_counter(); import {module}; print(time.perf_counter() - began)"


def section(*, quick: bool) -> Section:
    """A row for each module that is installed."""
    times: dict[str, list[float]] = {module: [] for module in MODULES}
    for _ in range(2 if quick else ROUNDS):
        for module, row in times.items():
            command = [sys.executable, "-c", _CODE.format(module=module)]
            ended = subprocess.run(command, capture_output=True, text=True, check=False)
            if ended.returncode == 0:
                row.append(float(ended.stdout))
    medians = {module: median(row) * 1000 for module, row in times.items() if row}
    rows = [[f"`import {name}`", f"{ms:.1f}", f"{ms / medians['asyncio']:.2f}"] for name, ms in medians.items()]
    return Section(
        "Import time",
        "A fresh interpreter for each import, taking turns, median.",
        [Table("", ["module", "ms", "x asyncio"], rows)],
    )
