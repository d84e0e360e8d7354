"""Faults that caches meet in production, done to this one and its peers by one script: `python -m bench.peer_faults`.

Each drill answers one question, in a process where only the library under test is at work; what a library does not
offer is left out, not counted against it. Peers run with their defaults unless their row says otherwise.
"""

import argparse
import asyncio
import contextlib
import logging
import re
import sys
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from bench.peer_drills import (
    Drill,
    cancelled_leader,
    invalidated_during_load,
    mixed_ttls,
    nothing_found,
    outlasted_lease,
    silent_bus,
    tag_invalidated_during_load,
)

from genesis_cache.testing.proxy import Proxy
from genesis_cache.testing.servers import RedisServer

PAGE = Path(__file__).parents[1] / "docs" / "guide" / "compared.md"
MARKS = ("<!-- figures -->", "<!-- end of figures -->")
PATIENCE_S = 30.0
PACKAGES = ("cashews", "aiocache", "dogpile.cache", "fastapi-cache2", "async-lru", "cachebox", "moka-py", "redis")

Tried = Callable[[], Awaitable[str]]
Rows = Sequence[tuple[str, Tried]]


def main(arguments: list[str] | None = None) -> int:
    """Print the tables; with ``--write`` into the page of the guide as well."""
    parser = argparse.ArgumentParser(prog="python -m bench.peer_faults", description=__doc__)
    parser.add_argument("--write", action="store_true", help=f"put the tables into {PAGE.name}")
    asked = parser.parse_args(arguments)
    logging.disable(logging.CRITICAL)
    with RedisServer() as server, Proxy(server.port, redis=True) as proxy:
        text = "\n\n".join(_table(drill, server, proxy) for drill in DRILLS)
    versions = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    text = f"Run on {datetime.now(UTC):%Y-%m-%d}, Python {sys.version.split()[0]}, {versions}, Redis 7.\n\n{text}\n"
    sys.stdout.write(text)
    if asked.write:
        begin, end = (re.escape(mark) for mark in MARKS)
        middle = f"{MARKS[0]}\n\n{text}\n{MARKS[1]}"
        page = PAGE.read_text("utf-8")
        PAGE.write_text(re.sub(f"{begin}.*?{end}", lambda _: middle, page, flags=re.DOTALL), "utf-8")
    return 0


def _table(drill: Drill, server: RedisServer, proxy: Proxy) -> str:
    lines = [f"## {drill.title}", "", drill.how, "", f"| library | {drill.answer} |", "|---|---|"]
    for name, trial in drill.trials(server, proxy):
        proxy.heal()
        server.ask("FLUSHALL")
        lines.append(f"| {name} | {_tried(trial)} |")
    return "\n".join(lines)


def _tried(trial: Tried) -> str:
    """What came of it; a library that is missing, hangs or raises is told as that."""

    async def limited() -> str:
        async with asyncio.timeout(PATIENCE_S):
            return await trial()

    try:
        with contextlib.redirect_stderr(None):
            return asyncio.run(limited())
    except ImportError as missing:
        return f"not installed ({missing.name})"
    except TimeoutError:
        return f"hung for {PATIENCE_S:g} s"
    except Exception as error:  # noqa: BLE001  # whatever a library raises is its answer
        return f"raised {type(error).__name__}"


DRILLS: tuple[Drill, ...] = (
    invalidated_during_load(),
    tag_invalidated_during_load(),
    mixed_ttls(),
    silent_bus(),
    cancelled_leader(),
    outlasted_lease(),
    nothing_found(),
)


if __name__ == "__main__":
    sys.exit(main())
