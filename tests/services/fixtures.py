"""Real servers for tests: one Redis, one cluster and one PostgreSQL for a whole run, and private ones to be hurt.

``REDIS_URL`` and ``DATABASE_URL`` say where the shared ones are; without them they are started. What a test does to a
shared server stays under a cache name of its own; whoever wants to freeze, fill, empty or kill one asks for a private.
"""

import asyncio
import fcntl
import json
import os
import secrets
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import asyncpg
import pytest
from tests.services import keeper

from genesis_cache.testing.server_process import ServerProcess, new_folder
from genesis_cache.testing.servers import (
    PostgresServer,
    RedisSentinel,
    RedisServer,
    ServerMissing,
    find_postgres,
    find_redis,
)

START_S = 60.0
_FOLDER = "genesis_services"
FOLDER = pytest.StashKey[Path]()
_held: dict[str, int] = {}

Server = TypeVar("Server", bound=ServerProcess)


def pytest_configure(config: pytest.Config) -> None:
    """Make the run's folder, or join that of the controller; being there is what keeps the shared servers alive."""
    folder = getattr(config, "workerinput", {}).get(_FOLDER)
    if folder is None:
        folder = str(new_folder())
        os.mkfifo(Path(folder, keeper.WORKERS))
    config.stash[FOLDER] = Path(folder)
    _held[folder] = os.open(Path(folder, keeper.WORKERS), os.O_RDWR)


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: "_Node") -> None:
    """Tell a worker where the run's folder is."""
    node.workerinput[_FOLDER] = str(node.config.stash[FOLDER])


def pytest_unconfigure(config: pytest.Config) -> None:
    """Let go of the shared servers; the last to do so removes the folder."""
    folder = config.stash[FOLDER]
    os.close(_held.pop(str(folder)))
    if not hasattr(config, "workerinput"):
        shutil.rmtree(folder, ignore_errors=True)


def pytest_report_header() -> list[str]:
    """Which servers are used."""
    return [f"redis: {_whence('REDIS_URL', find_redis)}", f"postgresql: {_whence('DATABASE_URL', find_postgres)}"]


class _Node:
    """What xdist hands over for a worker."""

    workerinput: dict[str, object]
    config: pytest.Config


def _whence(variable: str, find: Callable[[], Path]) -> str:
    if os.environ.get(variable):
        return f"the server that {variable} names"
    try:
        return str(find())
    except ServerMissing as missing:
        return str(missing)


@pytest.fixture(scope="session")
def services(request: pytest.FixtureRequest) -> "Services":
    """The servers of this run."""
    return Services(request.config.stash[FOLDER])


class Services:
    """The shared servers, each started when it is first asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def url(self, kind: str) -> str:
        """Where a shared server is; it is started unless another worker has done so."""
        place = self.folder / f"{kind}.json"
        with self._alone(kind):
            if not place.exists():
                place.write_text(self._start(kind))
        return str(json.loads(place.read_text()))

    def template(self) -> Path:
        """A database folder to copy."""
        with self._alone("postgres"):
            return keeper.template(self.folder)

    def _start(self, kind: str) -> str:
        ran = subprocess.run(  # noqa: S603  # our own program
            [sys.executable, "-c", "from tests.services.keeper import *; keep(sys.argv[1], Path(sys.argv[2]))",
             kind, str(self.folder)],
            capture_output=True, text=True, check=False, timeout=START_S,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )  # fmt: skip
        assert ran.returncode == 0, f"no {kind} for the tests: {ran.stderr.strip().splitlines()[-1:]}"
        return ran.stdout

    def _alone(self, kind: str) -> "_Lock":
        return _Lock(self.folder / f"{kind}.lock")


class _Lock:
    """A file's lock over the workers."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> None:
        self._file = self.path.open("w")
        fcntl.flock(self._file, fcntl.LOCK_EX)

    def __exit__(self, *_: object) -> None:
        self._file.close()


def _worker_number() -> int:
    return int("".join(filter(str.isdigit, os.environ.get("PYTEST_XDIST_WORKER", "0"))) or 0)


@pytest.fixture(scope="session")
def redis_url(services: Services) -> str:
    """The shared Redis: a database number of this worker's own, unless ``REDIS_URL`` says where."""
    given = os.environ.get("REDIS_URL")
    return given or services.url("redis").rpartition("/")[0] + f"/{_worker_number() % 64}"


@pytest.fixture(scope="session")
def cluster_url(services: Services) -> str:
    """The shared cluster of three nodes."""
    return services.url("cluster")


@pytest.fixture(scope="session")
def postgres_url(services: Services) -> str:
    """The shared PostgreSQL: a database of this worker's own, unless ``DATABASE_URL`` says where."""
    given = os.environ.get("DATABASE_URL")
    if given:
        return given
    url, name = services.url("postgres"), f"worker{_worker_number()}"
    asyncio.run(_make_database(url, name))
    return url.rpartition("/")[0] + f"/{name}"


async def _make_database(url: str, name: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(f"CREATE DATABASE {name}")
    except asyncpg.DuplicateDatabaseError:
        pass  # this worker took the place of one that crashed
    finally:
        await connection.close()


@pytest.fixture
def cache_name() -> str:
    """A cache name that nobody else uses."""
    return f"test-{secrets.token_hex(6)}"


@pytest.fixture
def start_redis() -> Iterator[Callable[..., RedisServer]]:
    """Starts private Redis servers: ``start_redis("--maxmemory", "2mb", password=…)``."""
    yield from _starting(RedisServer)


@pytest.fixture(scope="session")
def database_template(services: Services) -> Path:
    """A database folder to copy for a private PostgreSQL."""
    return services.template()


@pytest.fixture
def start_postgres(database_template: Path) -> Iterator[Callable[..., PostgresServer]]:
    """Starts private PostgreSQL servers: ``start_postgres("max_connections=5")``."""
    yield from _starting(lambda *words, **options: PostgresServer(*words, template=database_template, **options))


@pytest.fixture
def own_redis(start_redis: Callable[..., RedisServer]) -> RedisServer:
    """A private Redis that a test may freeze, fill, empty or kill."""
    return start_redis()


@pytest.fixture
def own_postgres(start_postgres: Callable[..., PostgresServer]) -> PostgresServer:
    """A private PostgreSQL that a test may freeze, fill, empty or kill."""
    return start_postgres()


@pytest.fixture
def own_sentinel() -> Iterator[RedisSentinel]:
    """A primary, a replica and a Sentinel."""
    with RedisSentinel() as servers:
        yield servers


def _starting(make: Callable[..., Server]) -> Iterator[Callable[..., Server]]:
    started: list[Server] = []

    def start(*options: str, **more: object) -> Server:
        server = make(None, *options, **more)
        started.append(server)
        server.start()
        return server

    yield start
    for server in started:
        server.kill()  # it has nothing to keep, and a good end takes a tenth of a second
        server.stop()
