"""`genesis-cache serve` in a process of its own, for tests that look at it from outside."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.shape.source import ROOT

COMMAND = [sys.executable, "-W", "error", "-c", "from genesis_cache.cli import main; main()", "serve"]


class Served:
    """`genesis-cache serve` in a process of its own, on a free port."""

    def __init__(self, folder: Path, *arguments: str, **variables: str) -> None:
        environ = {name: value for name, value in os.environ.items() if not name.startswith(("CACHE_", "REDIS_"))}
        environ |= {"PYTHONPATH": str(ROOT / "src"), "CACHE_TIERS": "memory,disk", **variables}
        self._process = subprocess.Popen(  # noqa: S603  # our own
            [*COMMAND, "--port", "0", "--json", *arguments],
            cwd=folder,
            env=environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        self.document: dict[str, Any] = json.loads(line) if line else {}

    def end(self, number: int = signal.SIGTERM) -> tuple[int, str]:
        """The exit code and what was said on standard error."""
        if self._process.poll() is None:
            self._process.send_signal(number)
        _, errors = self._process.communicate(timeout=30)
        return self._process.returncode, errors
