"""The benchmark runs from end to end at its smallest size; what it measures is never a test."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def quick_page(target: Path, *sections: str, module: str = "bench") -> str:
    """The page that a smoke run of these sections writes, and prints."""
    only = [word for section in sections for word in ("--only", section)]
    ended = subprocess.run(  # noqa: S603  # this interpreter on this repository
        [sys.executable, "-m", module, "--quick", "--out", str(target), *only],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    page = target.read_text(encoding="utf-8")
    assert page == ended.stdout
    return page


@pytest.mark.slow
def test_a_quick_benchmark_measures_servers(tmp_path: Path) -> None:
    """Redis, PostgreSQL and a frozen Redis are measured on servers that the benchmark starts itself."""
    page = quick_page(tmp_path / "RESULTS.md", "redis", "postgres", "frozen")
    for title in ("Redis", "PostgreSQL", "Redis frozen"):
        assert f"## {title}\n" in page
    for row in ("Redis, 256 concurrent gets", "PostgreSQL, 64 concurrent upserts", "Redis frozen, later far calls"):
        assert f"| {row} |" in page


def test_a_quick_benchmark_writes_its_page(tmp_path: Path) -> None:
    """The page names the machine, holds a table for each section asked for, and a verdict for rows of the contract."""
    page = quick_page(tmp_path / "RESULTS.md", "near", "tags", "stampede", "disk", "ratios")
    for title in ("Near hits", "Invalidation by tag", "Stampede", "Disk", "Hit ratio"):
        assert f"## {title}" in page
    assert "| near hit, `await cache.get(k)` | within 3.5 x an empty coroutine |" in page
    assert "Machine: " in page
    assert "A smoke run" in page


@pytest.mark.slow
def test_quick_workloads_write_their_page(tmp_path: Path) -> None:
    """Expiring keys, loads that hang, a service with its client, and a scrape: each with its bound."""
    sections = ("expiring", "hanging", "serving", "scraping")
    page = quick_page(tmp_path / "RESULTS.md", *sections, module="bench.workloads")
    for row in ("expiring keys, origin calls", "1 of 10 loads hangs", "HTTP near hit", "collecting"):
        assert f"| {row} |" in page
    assert "errors, p99" in page
    assert "A smoke run" in page
