"""The benchmark runs from end to end at its smallest size; what it measures is never a test."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_a_quick_benchmark_writes_its_page(tmp_path: Path) -> None:
    """The page names the machine, holds a table for each section asked for, and a verdict for rows of the contract."""
    target = tmp_path / "RESULTS.md"
    sections = ["--only", "near", "--only", "tags", "--only", "stampede", "--only", "disk", "--only", "ratios"]
    ended = subprocess.run(  # noqa: S603  # this interpreter on this repository
        [sys.executable, "-m", "bench", "--quick", "--out", str(target), *sections],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    page = target.read_text(encoding="utf-8")
    assert page == ended.stdout
    for title in ("Near hits", "Invalidation by tag", "Stampede", "Disk", "Hit ratio"):
        assert f"## {title}" in page
    assert "| near hit, `await cache.get(k)` | within 3.5 x an empty coroutine |" in page
    assert "Machine: " in page
    assert "A smoke run" in page
