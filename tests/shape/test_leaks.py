"""Leaks: a test that leaves something running fails, so that the suite cannot hide a cache that does."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.shape.source import ROOT

LEAKS = {
    "a task": """
        async def test_it():
            global kept
            kept = asyncio.create_task(asyncio.sleep(60))
    """,
    "an exception nobody looked at": """
        async def boom():
            raise RuntimeError("unseen")

        async def test_it():
            task = asyncio.create_task(boom())
            await asyncio.sleep(0)
            del task
    """,
    "a thread": """
        def test_it():
            threading.Thread(target=threading.Event().wait, args=(8,), daemon=True).start()
    """,
    "a coroutine nobody awaited": """
        async def nothing():
            pass

        def test_it():
            nothing()
    """,
}
CLEAN = """
        async def test_it():
            await asyncio.to_thread(len, "abc")
            assert await asyncio.create_task(asyncio.sleep(0, 5)) == 5
            asyncio.get_running_loop().create_future().cancel()
"""


def outcome(folder: Path, body: str) -> tuple[int, str]:
    """What pytest says of one test under our conftest."""
    (folder / "conftest.py").write_text((ROOT / "tests" / "conftest.py").read_text("utf-8"), "utf-8")
    lines = [line.removeprefix("        ") for line in body.splitlines()]
    (folder / "test_leak.py").write_text("\n".join(["import asyncio, threading", *lines]), "utf-8")
    command = [sys.executable, "-m", "pytest", "-c", str(ROOT / "pyproject.toml"), "--rootdir", str(folder)]
    environ = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    ran = subprocess.run(  # noqa: S603  # our own program
        [*command, "-p", "no:cacheprovider", str(folder)], capture_output=True, text=True, check=False, env=environ
    )
    return ran.returncode, ran.stdout


@pytest.mark.parametrize("leak", LEAKS)
def test_what_is_left_running_fails_its_test(leak: str, tmp_path: Path) -> None:
    """A task, a thread, an exception or a coroutine left behind is a failure, not a warning."""
    code, said = outcome(tmp_path, LEAKS[leak])
    assert code == 1, said


def test_a_clean_test_passes(tmp_path: Path) -> None:
    """Work in tasks and in the loop's own threads that has ended is no leak."""
    code, said = outcome(tmp_path, CLEAN)
    assert code == 0, said
