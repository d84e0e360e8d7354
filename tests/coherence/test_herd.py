"""A herd on a cold key: eight processes with fifty callers each load it once, and once more if the loader is killed."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path

import pytest
from tests.coherence.herd import CALLERS, ORPHAN, Herd
from tests.coherence.run import ENVIRONMENT, ROOT

from genesis_cache.testing.servers import PostgresServer, RedisServer

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

PROCESSES = 8
LOAD_S = 0.5
PATIENCE_S = 120.0
SERVERS: dict[str, Callable[[], RedisServer | PostgresServer]] = {"redis": RedisServer, "postgres": PostgresServer}


class Member:
    """A process of the herd, seen from here."""

    def __init__(self, spec: Path) -> None:
        self._process = subprocess.Popen(  # noqa: S603  # our own script
            [sys.executable, "-m", "tests.coherence.herd", str(spec)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT,
            env=ENVIRONMENT,
        )  # fmt: skip
        self.pid = self._process.pid

    def hear(self) -> str:
        """Its next line; nothing where it was killed."""
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def ask_for(self, key: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{key}\n")
        self._process.stdin.flush()

    def kill(self) -> None:
        self._process.kill()
        self._process.communicate()


@pytest.fixture(params=SERVERS)
def herd(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[list[Member]]:
    """Eight processes that are ready."""
    with ExitStack() as stack:
        server = stack.enter_context(SERVERS[request.param]())
        spec = tmp_path / "herd.json"
        spec.write_text(json.dumps(asdict(Herd(["memory://", server.url], str(tmp_path / "loads"), LOAD_S))))
        members = [Member(spec) for _ in range(PROCESSES)]
        for member in members:
            stack.callback(member.kill)
        assert [member.hear() for member in members] == ["ready"] * PROCESSES
        yield members


def test_a_cold_key_is_loaded_once(herd: list[Member], tmp_path: Path) -> None:
    """However many ask in however many processes, the source is asked once; if who asked it dies, once more."""
    for member in herd:
        member.ask_for("cold")
    assert [member.hear() for member in herd] == [str(CALLERS)] * PROCESSES
    assert len(loads_of(tmp_path, "cold")) == 1

    for member in herd:
        member.ask_for(ORPHAN)
    end = time.monotonic() + PATIENCE_S
    while not (loads := loads_of(tmp_path, ORPHAN)):
        assert time.monotonic() < end
        time.sleep(0.01)
    os.kill(loads[0], signal.SIGKILL)
    left = [member for member in herd if member.pid != loads[0]]
    assert [member.hear() for member in left] == [str(CALLERS)] * (PROCESSES - 1)
    assert len(loads_of(tmp_path, ORPHAN)) == 2


def loads_of(folder: Path, key: str) -> list[int]:
    """Who has loaded a key."""
    path = folder / "loads"
    lines = path.read_text().splitlines() if path.exists() else []
    return [int(pid) for name, pid in (line.split() for line in lines) if name == key]
