"""What a benchmark section hands back, and how all sections become one page."""

import os
import platform
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import msgspec

PEERS = (
    "aiocache",
    "async-lru",
    "asyncpg",
    "cachebox",
    "cachetools",
    "cashews",
    "diskcache",
    "dogpile.cache",
    "fastapi-cache2",
    "moka-py",
    "redis",
    "hiredis",
    "theine",
)


_SMOKE = "**A smoke run: sizes are small and rounds few, so that no figure here means anything.**"
_READING = (
    "Cases of one table take turns in one process, several rounds; figures are medians. Read the ratios: absolute "
    "times move with the machine and with what else runs on it. The peers run with their defaults unless the row says "
    "otherwise."
)


class Table(msgspec.Struct):
    """Figures side by side; the first column is a name."""

    title: str
    columns: list[str]
    rows: list[list[str]]


class Verdict(msgspec.Struct):
    """One row of the contract, what was measured, and whether that reaches it."""

    row: str
    wanted: str
    measured: str
    reached: bool


class Section(msgspec.Struct):
    """One part of the benchmark."""

    title: str
    how: str
    tables: list[Table] = []
    verdicts: list[Verdict] = []


def page(sections: Sequence[Section], command: str, *, quick: bool) -> str:
    """All sections as Markdown, the contract's rows first."""
    verdicts = [_cells(verdict) for section in sections for verdict in section.verdicts]
    parts = [
        "# Benchmark results",
        f"Written by `{command}` on {datetime.now(UTC):%Y-%m-%d %H:%M} UTC.",
        _machine(),
        _SMOKE if quick else _READING,
        "## What was to be reached",
        _markdown(Table("", ["work", "at least", "measured", ""], verdicts)),
    ]
    for section in sections:
        parts += [f"## {section.title}", section.how]
        for table in section.tables:
            parts += [f"**{table.title}**"] if table.title else []
            parts.append(_markdown(table))
    return "\n\n".join(parts) + "\n"


def _cells(verdict: Verdict) -> list[str]:
    return [verdict.row, verdict.wanted, verdict.measured, "reached" if verdict.reached else "**not reached**"]


def _machine() -> str:
    system = f"{os.cpu_count()} cores, {platform.system()} {platform.machine()}"
    python = f"{platform.python_implementation()} {platform.python_version()}"
    load = f"load average {os.getloadavg()[2]:.1f} over the last 15 minutes" if hasattr(os, "getloadavg") else ""
    return f"Machine: {_processor()}, {system}, {python}; {load}. Peers: {_versions()}."


def _markdown(table: Table) -> str:
    rule = ["---", *("---:" for _ in table.columns[1:])]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (table.columns, rule, *table.rows))


def _versions() -> str:
    found = []
    for name in PEERS:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            found.append(f"{name} not installed")
    return ", ".join(found)


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or "unknown processor"
