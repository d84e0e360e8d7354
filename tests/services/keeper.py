"""The keeper of a server that all workers of a test run share: starts it, and stops it when the last of them is gone.

Run as a program: ``keeper.py redis|cluster|postgres FOLDER``. Every worker holds ``FOLDER/workers`` (a FIFO) open, so
that its end is the end of the run, however that came about.
"""

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

from genesis_cache.testing.servers import PostgresServer, RedisCluster, RedisServer, make_database_folder

WORKERS = "workers"
TEMPLATE = "template"


def postgres(folder: Path) -> PostgresServer:
    """A server from the run's own template, which private servers are copied from as well."""
    return PostgresServer(None, "max_connections=300", template=template(folder))


def template(folder: Path) -> Path:
    """The run's database folder, made at the first call."""
    place = folder / TEMPLATE
    if not place.exists():
        make_database_folder(place)
    return place


KINDS: dict[str, Callable[[Path], RedisServer | RedisCluster | PostgresServer]] = {
    "redis": lambda _: RedisServer(),
    "cluster": lambda _: RedisCluster(),
    "postgres": postgres,
}


def keep(kind: str, folder: Path) -> None:
    """Start the server, tell its URL, and wait for the end of the run in a process of its own."""
    told, tell = os.pipe()
    if os.fork():
        os.close(tell)
        answer = b"".join(iter(lambda: os.read(told, 4096), b""))
        sys.stdout.buffer.write(answer)
        sys.exit(0 if answer else 1)
    os.setsid()
    with KINDS[kind](folder) as server:
        null = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(null, stream)
        os.write(tell, json.dumps(server.url).encode())
        os.close(tell)
        workers = os.open(folder / WORKERS, os.O_RDONLY)
        while os.read(workers, 1):
            pass


if __name__ == "__main__":
    keep(sys.argv[1], Path(sys.argv[2]))
